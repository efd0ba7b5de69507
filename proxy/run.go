// SPDX-License-Identifier: Apache-2.0

package proxy

import "sync"

// Theory of operation.
//
// Nothing here has a goroutine once it is established. Whoever embeds the package
// watches the sockets, tells of their events (Ready), and calls Run when it is asked to
// (Config.Wake): the worker that carries the stack's packets, so that what a socket
// brings leaves in the same round, and no other thread has to be woken for it.
//
// What the stack wants is told from its own goroutines, with its locks held: it enters a
// queue and waits for Run.

// watched is what has a socket.
type watched interface{ ready(events uint32) }

// runnable is what Run can find in the queue.
type runnable interface{ run() }

// runs is the queue of what waits for Run, and the table of sockets. The lock is a leaf.
type runs struct {
	mu sync.Mutex
	// +checklocks:mu
	queue []runnable
	// +checklocks:mu
	spare []runnable
	// +checklocks:mu
	socks map[int32]watched
	// +checklocks:mu
	last int32
}

// watch lets a socket's events come to w.
func (p *Proxy) watch(port uint16, fd int, w watched) (key int32, err error) {
	r := &p.runs
	r.mu.Lock()
	for r.last++; r.socks[r.last] != nil || r.last <= 0; {
		if r.last++; r.last < 0 {
			r.last = 0
		}
	}
	key = r.last
	r.socks[key] = w
	r.mu.Unlock()
	if err := p.Watch(port, fd, key); err != nil {
		p.unwatch(key)
		return 0, err
	}
	return key, nil
}

// unwatch forgets a socket, whose descriptor is then closed.
func (p *Proxy) unwatch(key int32) {
	p.runs.mu.Lock()
	defer p.runs.mu.Unlock()
	delete(p.runs.socks, key)
}

// Ready is told of an event of a socket, as epoll_wait(2) has it.
func (p *Proxy) Ready(key int32, events uint32) {
	p.runs.mu.Lock()
	w := p.runs.socks[key]
	p.runs.mu.Unlock()
	if w != nil {
		w.ready(events)
	}
}

// enqueue lets a connection have a step. It may be called with any lock.
func (p *Proxy) enqueue(c *conn) {
	if c.queued.Swap(true) {
		return
	}
	p.push(c)
}

func (p *Proxy) push(r runnable) {
	p.runs.mu.Lock()
	p.runs.queue = append(p.runs.queue, r)
	p.runs.mu.Unlock()
	p.Wake()
}

// Run does what waits. What comes meanwhile waits for the next call.
func (p *Proxy) Run() {
	r := &p.runs
	r.mu.Lock()
	all := r.queue
	r.queue, r.spare = r.spare[:0], nil
	r.mu.Unlock()
	for i, c := range all {
		c.run()
		all[i] = nil
	}
	r.mu.Lock()
	r.spare = all[:0]
	r.mu.Unlock()
}
