// SPDX-License-Identifier: Apache-2.0

package netstack

import "time"

// drainPoll is how often Drain looks whether something waits yet.
const drainPoll = time.Millisecond

// Drain is for a process that another one has taken over from, with the same sockets: it
// takes no more frames from them, and lets what waits in queueing disciplines out as they
// say, for at most so long. It returns how many packets are left then. Afterwards nothing
// but Close makes sense.
func (n *Netstack) Drain(limit time.Duration) (left int) {
	n.mu.Lock()
	for _, k := range n.view.Load().sockets() {
		k.unwatch()
	}
	n.mu.Unlock()
	for end := n.since(n.start) + limit; ; time.Sleep(drainPoll) {
		if left = n.waiting(); left == 0 || n.since(n.start) >= end {
			return left
		}
	}
}

// waiting is the number of packets in all disciplines, and on the way to them.
func (n *Netstack) waiting() (all int) {
	for _, w := range n.workers {
		w.mu.Lock()
		if s := w.turn.out.queues; s != nil {
			all += s.pool.Waiting()
			for _, ring := range s.rings {
				if ring != nil {
					all += ring.Len()
				}
			}
		}
		w.mu.Unlock()
	}
	return all
}
