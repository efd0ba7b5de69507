// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/bridge"
	"sluice/packet"
)

// question lets the bridge's worker send the queries of snooping that are due.
func (n *network) question() {
	if n.bridge.Snooping() != nil {
		n.link.ask()
	}
}

// ask tells the worker of a link to poll its bridge for queries. Any goroutine may
// call it.
func (l *hostLink) ask() {
	l.asking.Store(true)
	l.mu.Lock()
	post := !l.posted && !l.closed
	l.posted = l.posted || post
	l.mu.Unlock()
	if post {
		l.post()
	}
}

// queries sends what snooping asks for, if somebody told it to.
//
// Preconditions: the send list is empty, and so the buffers for segments are free.
func (t *turn) queries(l *hostLink) {
	if !l.asking.Load() {
		return
	}
	l.asking.Store(false)
	if l.proxy != nil {
		l.proxy.Run()
		if l.proxy.Owes() {
			t.out.worker.debt.take(l.proxy)
		}
		return
	}
	p := t.view.port(l.index)
	if p == nil || p.link != l {
		return
	}
	p.bridge.Poll(t.now, t.query)
}

// query sends one query by one port.
func (t *turn) query(index uint16, frame []byte) {
	p := t.view.port(index)
	if p == nil || p.sock == nil {
		return
	}
	s := &t.out.cut.Frames[0]
	fillWith(s, append(free(s), frame...))
	t.out.lone(p, s, bridge.Tag{})
}

// free is the buffer of a frame, empty, to append the bytes of another to.
func free(f *packet.Frame) []byte { return f.Buf()[packet.Headroom:packet.Headroom] }

// fillWith makes the bytes that were appended to free the frame.
func fillWith(f *packet.Frame, b []byte) { f.Reset(packet.Headroom, len(b)) }
