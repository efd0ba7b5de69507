// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"math"

	"sluice/trace"
)

// never is the time of what isn't going to happen by itself.
const never = math.MaxInt64

// Stats is what tc -s prints of each discipline and class. Bytes are as on the
// wire, packets are segments; queue lengths and drops count frames, as the kernel
// counts them.
type Stats struct {
	Bytes, Packets uint64 // sent
	Drops          uint64
	Overlimits     uint64 // times that a packet had to wait
	Requeues       uint64
	Backlog        int64 // bytes that wait
	Qlen           int   // frames that wait
}

// discipline is a queue with a rule for who leaves when. What a packet is and
// how it is dropped, node has for all of them.
//
//nolint:interfacebloat // these are what a discipline is: fewer would hide one of them in another
type discipline interface {
	base() *node
	// enqueue takes a packet; false if it was dropped instead, and freed.
	enqueue(r Ref, now int64) bool
	// dequeue gives the next packet; 0 if there is none at this time.
	dequeue(now int64) Ref
	// look is the packet that dequeue would give, left where it is, so that one which
	// comes later may still go first; ok is false if that can't be known without taking it.
	look(now int64) (r Ref, ok bool)
	// next is when dequeue may have a packet, after it had none though the queue
	// isn't empty; never if it doesn't know.
	next(now int64) int64
	// drain moves all packets to out, about in the order of their departure.
	drain(out *list)
	// change takes other parameters of the same kind. What then is too much is
	// dropped.
	change(q *Qdisc, now int64) error
	// xstats adds the discipline's own figures to a report.
	xstats(rep *Report, now int64)
}

// node is what all disciplines have. Its counts include those of its children.
type node struct {
	t      *Tree
	up     *node // nil at the root
	handle Handle
	parent Handle // a class, or Root
	qlen   int
	bytes  int64
	stats  Stats // but for Backlog and Qlen
	ahead  Ref   // was asked for, and has not left yet
	spec   Qdisc
}

func (n *node) base() *node { return n }

// look is that of disciplines which decide when they are asked.
func (n *node) look(int64) (Ref, bool) { return 0, false }

// added counts a packet that was queued.
func (n *node) added(r Ref) {
	n.qlen++
	n.bytes += int64(n.t.pool.at(r).Wire)
}

// removed counts a packet that is no longer in the queue.
func (n *node) removed(r Ref) {
	n.qlen--
	n.bytes -= int64(n.t.pool.at(r).Wire)
}

// sent counts a packet that leaves.
func (n *node) sent(r Ref) {
	it := n.t.pool.at(r)
	n.qlen--
	n.bytes -= int64(it.Wire)
	n.stats.Bytes += uint64(it.Wire)
	n.stats.Packets += uint64(it.Segs)
}

// refuse drops a packet that was not queued. The disciplines above learn of it by
// what enqueue returns.
func (n *node) refuse(r Ref, why trace.Reason) bool {
	n.stats.Drops++
	n.t.drop(r, why)
	return false
}

// lose drops a packet that was queued here, and taken out of the list.
func (n *node) lose(r Ref, why trace.Reason) {
	wire := int64(n.t.pool.at(r).Wire)
	for m := n; m != nil; m = m.up {
		m.qlen--
		m.bytes -= wire
		m.stats.Drops++
	}
	n.t.drop(r, why)
}

// offer gives a packet to a child; n and the child count it.
func (n *node) offer(child discipline, r Ref, now int64) bool {
	it := n.t.pool.at(r)
	wire := int64(it.Wire)
	if !child.enqueue(r, now) {
		n.stats.Drops++
		return false
	}
	n.qlen++
	n.bytes += wire
	return true
}

// eachSegment gives the segments of a super-frame to put one by one, and reports
// whether any was taken. The disciplines above counted on one frame, and count the
// others here.
func (n *node) eachSegment(r Ref, now int64, put func(Ref, int64) bool) bool {
	whole := int64(n.t.pool.at(r).Wire)
	segs, lost := n.t.split(r)
	n.stats.Drops += uint64(lost)
	n.t.dropped(trace.QdiscMemory, lost)
	taken, bytes := 0, int64(0)
	for s := n.t.pool.pop(&segs); s != 0; {
		following := n.t.pool.pop(&segs)
		wire := int64(n.t.pool.at(s).Wire)
		if !n.t.charge(s) {
			n.refuse(s, trace.QdiscMemory)
		} else if put(s, now) {
			taken++
			bytes += wire
		}
		s = following
	}
	if taken == 0 {
		return false
	}
	for m := n.up; m != nil; m = m.up {
		m.qlen += taken - 1
		m.bytes += bytes - whole
	}
	return true
}

// long reports whether the packet is a super-frame that has to be cut: beyond the
// burst (0: any is fine), or too slow at the rate.
func (n *node) long(r Ref, burst uint64, rate *pace) bool {
	it := n.t.pool.at(r)
	if it.Segs < 2 {
		return false
	}
	return burst > 0 && uint64(it.Wire) > burst || rate.on() && rate.ticks(it.Wire) > wholeTime<<tickShift
}

// peek is the packet that take gives next; 0 if there is none at this time.
func peek(d discipline, now int64) Ref {
	n := d.base()
	if n.ahead == 0 {
		if r, ok := d.look(now); ok {
			return r
		}
		if n.ahead = d.dequeue(now); n.ahead != 0 {
			n.added(n.ahead)
		}
	}
	return n.ahead
}

// take is dequeue after peek.
func take(d discipline, now int64) Ref {
	n := d.base()
	r := n.ahead
	if r == 0 {
		return d.dequeue(now)
	}
	n.ahead = 0
	n.removed(r)
	return r
}

// due is when take may have a packet.
func due(d discipline, now int64) int64 {
	n := d.base()
	switch {
	case n.ahead != 0:
		return now
	case n.qlen == 0:
		return never
	}
	return d.next(now)
}

// drain empties d into out, and counts that in d only.
func drain(d discipline, out *list) {
	n := d.base()
	if n.ahead != 0 {
		n.t.pool.push(out, n.ahead)
		n.ahead = 0
	}
	d.drain(out)
	n.qlen, n.bytes = 0, 0
}

// requeue takes all packets out of from, which is n or a child, and puts them back.
func (n *node) requeue(now int64, from discipline, put func(Ref, int64) bool) {
	var waiting list
	count, bytes := from.base().qlen, from.base().bytes
	drain(from, &waiting)
	for m := from.base().up; m != nil; m = m.up {
		m.qlen -= count
		m.bytes -= bytes
	}
	for r := n.t.pool.pop(&waiting); r != 0; {
		following := n.t.pool.pop(&waiting)
		wire := int64(n.t.pool.at(r).Wire)
		if put(r, now) {
			n.up.received(wire)
		}
		r = following
	}
}

// received counts a packet at n and above it.
func (n *node) received(wire int64) {
	for m := n; m != nil; m = m.up {
		m.qlen++
		m.bytes += wire
	}
}

// report is the statistics with what waits.
func (n *node) report() Stats {
	s := n.stats
	s.Qlen, s.Backlog = n.qlen, n.bytes
	return s
}

// move appends all of from to out.
func (p *Pool) move(from, out *list) {
	for r := p.pop(from); r != 0; r = p.pop(from) {
		p.push(out, r)
	}
}
