// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"math"
	"time"

	"sluice/qdisc"
)

// Theory of operation.
//
// A change is to keep the order of each flow, and to lose nothing of it. That is easy as
// long as all that leaves by a port takes the same way; but other workers send by themselves
// where there is no discipline, and so would overtake what waits in one that was taken away,
// or is under way to it. Therefore:
//
//   - Workers stand while snapshots are swapped, and what is in the rings between them is
//     put into the queues that it is for. So a ring holds frames of one view only, and where
//     a queue is from now on, all that came before is in it.
//   - A port that stays while its discipline goes has in the next view one that lets
//     everything go at once, in order; it is "released". All still go through its worker,
//     which lets out at first what has waited. Then workers stand once more: what few frames
//     came meanwhile leave, and the queue ends, with a view of its own, so that no flow
//     remembers that it was there.
//
// Apply waits for that, but not for long: if workers get no processor, what waits leaves
// while they stand. The worker could ask for the end, and Apply return at once; but who has
// removed a discipline is to find it gone, and the next change would have to expect one that
// is half done. That nobody need stand, every sender would have to know of each frame
// whether those before it have left. With one worker it is the same, since a frame may go
// from one queue that ends to another.
//
// What a container sends needs nothing of this: its queue's worker alone reads its socket,
// lets out what waits before it reads more, and gives the queue away with the socket.

// Of the end of released queues.
const (
	releaseLooks = 100 // before it is done without the workers,
	releaseLook  = 200 * time.Microsecond
	releaseRest  = budget // or no more frames than these are left
	// releaseHops bounds how often a frame may come into another released queue: what goes
	// in circles does it for as long as its hop limit allows, and all workers stand.
	releaseHops = 4 * maxCrossings
)

// everything is a discipline that lets everything go at once.
func everything() *qdisc.Spec {
	return &qdisc.Spec{Memory: math.MaxInt64, Qdiscs: []qdisc.Qdisc{{
		Kind: "pfifo", Handle: qdisc.MakeHandle(1, 0), Parent: qdisc.Root, FIFO: &qdisc.FIFO{Limit: math.MaxInt32},
	}}}
}

// release notes in the next view which of its ports had a discipline for what leaves, and
// have none any more. Preconditions: nobody has the view yet.
func (c *change) release() {
	for _, was := range c.old.ports {
		if was == nil || was.queues[egress] == nil {
			continue
		}
		if p := c.next.port(was.index); p != nil && p.queues[egress] == nil && p.follows(was) {
			p.queues[egress], p.released = everything(), true
			c.released = append(c.released, p)
		}
	}
	c.queued = c.next.queued
	c.next.queued = c.queued || len(c.released) > 0
}

// follows reports whether what waits to leave by the port of an older view may leave by p.
func (p *port) follows(was *port) bool {
	if p.sock != nil && was.sock != nil {
		return p.sock.line == was.sock.line
	}
	return p.link == was.link
}

// settle ends the queues of ports that were released.
//
// +checklocksignore: as land.
func (c *change) settle() {
	if len(c.released) == 0 {
		return
	}
	for range releaseLooks {
		if c.ebbed() {
			break
		}
		time.Sleep(releaseLook)
	}
	c.net.halt()
	for n := 0; n < releaseHops && c.ebb(); n++ {
		continue
	}
	for _, p := range c.released {
		p.queues[egress], p.released = nil, false
	}
	next := *c.next
	next.gen, next.queued = c.next.gen+1, c.queued
	for _, w := range c.net.workers {
		w.turn.endReleased(c.released, next.gen)
	}
	c.net.view.Store(&next)
	c.net.proceed(true)
}

// ebbed reports whether released queues are as good as empty, and what is on its way to
// them, too.
func (c *change) ebbed() bool {
	waiting := 0
	for _, w := range c.net.workers {
		w.mu.Lock()
		n, ready := w.turn.ebbing(c.released, c.next.gen)
		w.mu.Unlock()
		if waiting += n; !ready || waiting > releaseRest {
			w.mail.poke()
			return false
		}
	}
	return true
}

// ebbing is the number of frames that wait for ports, or are on their way to this worker;
// not ready: its queues are not yet those of the view.
func (t *turn) ebbing(released []*port, gen uint64) (n int, ready bool) {
	s := t.out.queues
	if s == nil || s.gen < gen {
		return 0, false
	}
	for _, p := range released {
		if q := s.all[queueID(p.index, egress)]; q != nil {
			n += q.tree.Len()
		}
	}
	return n + s.handed(), true
}

// handed is the number of frames that others have handed over.
func (s *queues) handed() (n int) {
	for _, ring := range s.rings {
		if ring != nil {
			n += ring.Len()
		}
	}
	return n
}

// land puts what is on its way between workers into queues. That hands nobody anything.
// Preconditions: all workers stand, and this is their view.
//
// +checklocksignore: the analysis does not know a loop that locks.
func (n *Netstack) land(v *view) {
	for _, w := range n.workers {
		t := &w.turn
		t.start(v)
		t.keepUp() // by which others may be handed something
		t.unpin()
	}
	for _, w := range n.workers {
		w.turn.takeAll()
	}
}

// takeAll empties the rings to this worker.
func (t *turn) takeAll() {
	for _, ring := range t.out.queues.rings {
		for ring != nil && ring.Len() > 0 {
			t.takeOver(ring)
		}
	}
}

// ebb lets out what waits in released queues, and reports whether anything did.
// Preconditions: as for land.
//
// +checklocksignore: as land.
func (c *change) ebb() (busy bool) {
	c.net.land(c.next)
	for _, p := range c.released {
		t := &p.worker().turn
		if q := t.out.queues.all[queueID(p.index, egress)]; q != nil && q.tree.Len() > 0 {
			t.serve(q)
			t.unpin()
			busy = true
		}
	}
	return busy
}

// endReleased ends the queues of ports that were released; the others are those of the view
// that comes then.
func (t *turn) endReleased(released []*port, gen uint64) {
	t.out.queues.gen = gen
	for _, p := range released {
		if q := t.out.queues.all[queueID(p.index, egress)]; q != nil && q.of(p) {
			t.dissolve(q)
		}
	}
}

// freeUp lets out at once what waits in a queue.
func (t *turn) freeUp(q *queue) {
	q.leave()
	if q.tree.Apply(everything(), t.out.now()) == nil {
		t.serve(q)
	}
}

// dissolve ends a queue, with what waits in it.
func (t *turn) dissolve(q *queue) {
	s := t.out.queues
	q.leave()
	q.tree.Close()
	s.count(q)
	s.wheel.Clear(q.id())
	delete(s.all, q.id())
}

// yieldQueues gives the queues of a port to the worker that has its socket from now on,
// with what waits in them. Preconditions: the turn locks of both are held.
//
// +checklocksignore: the analysis does not know a loop that locks.
func (t *turn) yieldQueues(was, is *socket) {
	s := t.out.queues
	if s == nil {
		return
	}
	to := &is.worker.turn.out
	for _, dir := range []int{egress, ingress} {
		q := s.all[queueID(was.index, dir)]
		if q == nil || q.sock != was {
			continue
		}
		q.leave()
		s.count(q)
		s.wheel.Clear(q.id())
		delete(s.all, q.id())
		if to.queues == nil {
			to.queues = newQueues(t.net, is.worker)
		}
		q.tree.MoveTo(to.queues.pool)
		q.sock = is
		to.queues.all[q.id()] = q
		to.queues.wheel.Set(q.id(), 0)
	}
}
