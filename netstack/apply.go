// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"slices"

	"sluice/trace"
)

// Apply makes s the configuration, all of it or none. A namespace keeps its FDB,
// its host stack with all connections, and each port that stays keeps its fd.
//
// fds has the packet socket (or socket pair) of every port that is new; for a
// port that exists it replaces the old fd. If Apply succeeds it has taken
// ownership of them, and the fds of ports that are gone are closed. If it fails,
// nothing has changed and the fds are the caller's.
//
// A frame is judged by the old configuration or by the new one: workers stand
// between two rounds while they are swapped, for microseconds. What is in a
// container's socket stays there meanwhile. What waits in a queueing discipline that
// is gone leaves first, for some milliseconds before Apply returns.
//
// A network whose bridge changes its index or its MAC is another network: its
// FDB starts anew. Errors wrap ErrInvalid if s itself is wrong.
func (n *Netstack) Apply(s *Snapshot, fds map[uint16]int) error {
	if err := s.Validate(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	c := &change{net: n, old: n.view.Load(), fresh: make(map[uint16]*socket)}
	if err := c.prepare(s, fds); err != nil {
		c.undo()
		return err
	}
	c.commit()
	c.retire()
	c.settle()
	n.opts.Log.Info("snapshot applied", "generation", s.Generation,
		"namespaces", len(s.Namespaces), "ports", len(c.next.sockets()), "new", len(c.fresh))
	return nil
}

// change is one transaction: prepare does all that can fail, or takes long, and
// notes how to undo it; commit swaps; retire brings the host stacks up to date and
// drops what only the old view used. A host stack does not judge frames: that it
// follows a moment later mixes no two snapshots.
// Netstack.mu is held for its whole life.
type change struct {
	net       *Netstack
	old, next *view
	fresh     map[uint16]*socket // new ones, by index
	owner     map[uint16]uint16  // of ports of trees, see Snapshot.owners
	moved     [][2]*socket       // ports' that change their worker: before, after
	released  []*port            // of the next view, see release.go
	queued    bool               // as the next view is without these
	undos     []func()
	swaps     []func() // under all turn locks: nothing that takes long
	retired   []func()
}

func (c *change) undo() {
	for _, f := range slices.Backward(c.undos) {
		f()
	}
}

func (c *change) retire() {
	for _, f := range c.retired {
		f()
	}
}

// prepare builds the next view beside the old one.
func (c *change) prepare(s *Snapshot, fds map[uint16]int) error {
	trees := s.sharings()
	c.owner = s.owners(trees)
	if err := c.openSockets(s, fds); err != nil {
		return err
	}
	c.next = &view{
		gen: c.old.gen + 1, generation: s.Generation,
		spaces: make(map[string]*space, len(s.Namespaces)),
	}
	for i := range s.Namespaces {
		sp, err := c.space(&s.Namespaces[i])
		if err != nil {
			return fmt.Errorf("namespace %q: %w", s.Namespaces[i].Name, err)
		}
		c.next.compile(sp, c.net.opts.Counters, c.socket)
	}
	c.next.share(trees)
	c.release()
	if c.next.queued && c.net.rings == nil {
		r := newRings(len(c.net.workers))
		c.swaps = append(c.swaps, func() { c.net.rings = r })
	}
	return c.connections()
}

// socket is what a port of the next view sends and receives by.
func (c *change) socket(index uint16) *socket {
	if s := c.fresh[index]; s != nil {
		return s
	}
	return c.old.socket(index)
}

// openSockets checks that every port has a socket, and puts the new ones into
// their workers' epoll sets.
func (c *change) openSockets(s *Snapshot, fds map[uint16]int) error {
	wanted := make(map[uint16]bool)
	for p := range s.Ports() {
		wanted[p.Index] = true
		if _, given := fds[p.Index]; !given && c.old.socket(p.Index) == nil {
			return fmt.Errorf("port %d is new and has no fd", p.Index)
		}
	}
	inUse := make(map[int]uint16)
	for _, k := range c.old.sockets() {
		inUse[k.fd] = k.index
	}
	for index, fd := range fds {
		if !wanted[index] {
			return fmt.Errorf("fd %d is for port %d, which the snapshot does not have", fd, index)
		}
		if other, used := inUse[fd]; used {
			return fmt.Errorf("fd %d of port %d is that of port %d", fd, index, other)
		}
		inUse[fd] = index
		if err := c.openSocket(index, fd, nil); err != nil {
			return err
		}
	}
	return c.moveSockets(wanted)
}

// moveSockets gives ports to other workers that are in another tree now.
func (c *change) moveSockets(wanted map[uint16]bool) error {
	for _, k := range c.old.sockets() {
		if !wanted[k.index] || c.fresh[k.index] != nil || c.worker(k.index) == k.worker {
			continue
		}
		if err := c.openSocket(k.index, k.fd, k); err != nil {
			return err
		}
	}
	return nil
}

// worker is whose a port is.
func (c *change) worker(index uint16) *worker {
	if root, shares := c.owner[index]; shares {
		index = root
	}
	return c.net.worker(index)
}

// openSocket watches a new socket, or at another worker the one that was there.
func (c *change) openSocket(index uint16, fd int, was *socket) error {
	n := c.net
	k := &socket{
		fd: fd, index: index, serial: n.serial.Add(1),
		worker: c.worker(index), counters: n.opts.Counters.Port(index),
		local: bucket{tokens: localBurst},
	}
	if k.line = k.serial; was != nil {
		k.line, k.noStats = was.line, was.noStats
		c.moved = append(c.moved, [2]*socket{was, k})
	}
	if err := k.watch(); err != nil {
		return err
	}
	c.undos = append(c.undos, k.unwatch)
	c.fresh[index] = k
	return nil
}

// commit makes the next view the view. Every worker's turn lock is held, so no
// frame is on its way, and nothing in here can fail.
func (c *change) commit() {
	c.leave()
	c.swap()
	for _, k := range c.fresh {
		k.listen()
	}
}

// leave notes what only the old view uses.
func (c *change) leave() {
	for _, k := range c.old.sockets() {
		c.leaveSocket(k)
	}
	for name, was := range c.old.spaces {
		next := c.next.spaces[name]
		if next == nil {
			c.retireSpace(was)
		}
		for _, o := range was.outsides {
			if stays := next.outsideOf(o.spec.Index); stays == nil || stays.link != o.link {
				c.forget(o.port)
			}
		}
		for _, l := range was.links {
			if stays := next.linkOf(l.spec.Index); stays == nil || stays.link != l.link {
				c.forget(l.port)
			}
		}
	}
}

// leaveSocket notes that a socket is closed, or another worker's from now on.
func (c *change) leaveSocket(k *socket) {
	next := c.next.socket(k.index)
	if next == k {
		return
	}
	c.retired = append(c.retired, k.unwatch)
	if next == nil || next.line != k.line {
		c.retired = append(c.retired, k.close)
		c.forget(c.old.ports[k.index])
	}
}

// retireSpace notes that a namespace goes.
func (c *change) retireSpace(was *space) {
	c.retired = append(c.retired, was.ns.close)
	if was.rules != nil {
		c.retired = append(c.retired, was.rules.close)
	}
	for _, r := range was.own {
		c.retired = append(c.retired, r.close)
	}
	c.withdraw(nil, was)
}

// forget notes that the router is to keep nothing on account of a port that leaves:
// whoever has its index next begins anew.
func (c *change) forget(p *port) {
	c.swaps = append(c.swaps, func() {
		drop(p, trace.PortRemoved, p.space.router.RemovePort(p.index))
	})
}

// swap is the moment between two snapshots.
//
// +checklocksignore: as halt.
func (c *change) swap() {
	c.net.halt()
	if c.old.queued {
		c.net.land(c.old)
	}
	for _, f := range c.swaps {
		f()
	}
	for _, m := range c.moved {
		m[0].worker.turn.yieldQueues(m[0], m[1])
	}
	c.net.view.Store(c.next)
	c.net.proceed(c.next.queued || c.old.queued)
}

// halt waits until all workers stand between two rounds, where they stay.
//
// +checklocksignore: the analysis does not know a loop that locks.
func (n *Netstack) halt() {
	for _, w := range n.workers {
		w.mu.Lock()
	}
}

// proceed lets them go on, with a look at their queues if there are some.
//
// +checklocksignore: as halt.
func (n *Netstack) proceed(queued bool) {
	for _, w := range n.workers {
		w.mu.Unlock()
		if queued {
			w.mail.poke()
		}
	}
}
