// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"errors"
	"math"

	"sluice/trace"
)

// Defaults of RFC 8289 §4.2 and §4.3.
const (
	codelTarget   = 5_000_000
	codelInterval = 100_000_000
	codelLimit    = 1000
	defaultMTU    = 1514 // with the Ethernet header
)

// aqm is the parameters of CoDel, RFC 8289.
type aqm struct {
	target, interval int64
	mtu              int64 // a backlog of no more isn't a standing queue
	ecn              bool
	ceThreshold      int64 // 0: off
	ceSelector       uint8
	ceMask           uint8
	// law is controlLaw. Tests beside a kernel, which has the root only roughly, have
	// another one.
	law func(a *aqm, c *control, t int64) int64
}

// control is CoDel's state for one queue. The words are RFC 8289 §5.3's.
type control struct {
	count, lastCount uint32
	dropping         bool
	firstAbove       int64 // 0: the sojourn time isn't above the target
	dropNext         int64
	delay            int64 // of the packet that left last
}

// source is the queue that CoDel takes from.
type source interface {
	// pull takes the head out; 0 if there is none.
	pull() Ref
	// backlog is the bytes that wait, with those of a packet that was taken out and
	// has neither left nor been discarded.
	backlog() int64
	// discard drops a packet that was taken out.
	discard(r Ref)
}

// codelStats is what CoDel did.
type codelStats struct {
	drops, marks, ceMarks uint64
	maxPacket             uint32
}

// controlLaw is the time of the next drop after t: RFC 8289 §5.3, control_law.
func controlLaw(a *aqm, c *control, t int64) int64 {
	return t + int64(math.Round(float64(a.interval)/math.Sqrt(float64(c.count))))
}

// above reports whether the sojourn times were above the target for an interval.
func (c *control) above(p *Pool, a *aqm, r Ref, left int64, st *codelStats, now int64) bool {
	if r == 0 {
		c.firstAbove = 0
		return false
	}
	it := p.at(r)
	c.delay = now - it.at
	st.maxPacket = max(st.maxPacket, it.Wire)
	if c.delay < a.target || left-int64(it.Wire) <= a.mtu {
		c.firstAbove = 0
		return false
	}
	if c.firstAbove == 0 {
		c.firstAbove = now + a.interval
		return false
	}
	return now >= c.firstAbove
}

// release is the deque of RFC 8289 §5.5: the packet that leaves, after those that
// were to be dropped. With ECN a packet is marked instead.
func (c *control) release(p *Pool, a *aqm, q source, st *codelStats, now int64) Ref {
	r := q.pull()
	drop := c.above(p, a, r, q.backlog(), st, now)
	if r == 0 {
		c.dropping = false
		return 0
	}
	switch {
	case c.dropping && !drop:
		c.dropping = false
	case c.dropping:
		r = c.carryOn(p, a, q, r, st, now)
	case drop:
		r = c.begin(p, a, q, r, st, now)
	}
	if r != 0 && a.ceThreshold > 0 && c.delay > a.ceThreshold && a.selects(p, r) && p.markCE(r) {
		st.ceMarks++
	}
	return r
}

// selects reports whether the threshold is for this packet.
func (a *aqm) selects(p *Pool, r Ref) bool {
	if a.ceMask == 0 {
		return true
	}
	b, v := p.bytes(r)
	if b == nil {
		return false
	}
	tos, ok := tosOf(b, v)
	return ok && tos&a.ceMask == a.ceSelector
}

// carryOn drops or marks as long as the time for it has come.
func (c *control) carryOn(p *Pool, a *aqm, q source, r Ref, st *codelStats, now int64) Ref {
	for c.dropping && now >= c.dropNext {
		c.count++
		if a.ecn && p.markCE(r) {
			st.marks++
			c.dropNext = a.law(a, c, c.dropNext)
			return r
		}
		q.discard(r)
		st.drops++
		r = q.pull()
		if !c.above(p, a, r, q.backlog(), st, now) {
			c.dropping = false
		} else {
			c.dropNext = a.law(a, c, c.dropNext)
		}
	}
	return r
}

// begin drops or marks the first one. If dropping had ended lately, it goes on at
// about the rate that it had.
func (c *control) begin(p *Pool, a *aqm, q source, r Ref, st *codelStats, now int64) Ref {
	if a.ecn && p.markCE(r) {
		st.marks++
	} else {
		q.discard(r)
		st.drops++
		r = q.pull()
		c.above(p, a, r, q.backlog(), st, now)
	}
	c.dropping = true
	delta := c.count - c.lastCount
	c.count = 1
	if delta > 1 && now-c.dropNext < 16*a.interval {
		c.count = delta
	}
	c.lastCount = c.count
	c.dropNext = a.law(a, c, now)
	return r
}

func (a *aqm) set(target, interval, threshold int64, ecn bool) error {
	if target < 0 || interval < 0 || threshold < 0 {
		return errors.New("target, interval, ce_threshold: want no negative time")
	}
	a.target, a.interval, a.mtu = codelTarget, codelInterval, defaultMTU
	if target > 0 {
		a.target = target
	}
	if interval > 0 {
		a.interval = interval
	}
	a.ceThreshold, a.ecn = threshold, ecn
	if a.law == nil {
		a.law = controlLaw
	}
	return nil
}

// codel is the discipline with one queue.
type codel struct {
	node
	aqm
	control
	st    codelStats
	q     list
	limit int
	over  uint64
}

func (c *codel) enqueue(r Ref, now int64) bool {
	if c.qlen >= c.limit {
		c.over++
		return c.refuse(r, trace.QdiscFull)
	}
	c.t.pool.at(r).at = now
	c.t.pool.push(&c.q, r)
	c.added(r)
	return true
}

func (c *codel) pull() Ref { return c.t.pool.pop(&c.q) }

func (c *codel) backlog() int64 { return c.bytes }

func (c *codel) discard(r Ref) { c.lose(r, trace.QdiscAQM) }

func (c *codel) dequeue(now int64) Ref {
	r := c.release(c.t.pool, &c.aqm, c, &c.st, now)
	if r != 0 {
		c.sent(r)
	}
	return r
}

func (c *codel) next(now int64) int64 { return now }

func (c *codel) drain(out *list) { c.t.pool.move(&c.q, out) }

func (c *codel) change(q *Qdisc, _ int64) error {
	p := q.Codel
	if p == nil {
		p = &Codel{}
	}
	c.limit = codelLimit
	if p.Limit > 0 {
		c.limit = p.Limit
	}
	for c.qlen > c.limit {
		c.lose(c.pull(), trace.QdiscFull)
	}
	return c.set(p.Target, p.Interval, p.CEThreshold, p.ECN)
}

func (c *codel) xstats(rep *Report, now int64) {
	rep.Codel = &CodelReport{
		Count: c.count, LastCount: c.lastCount, LDelay: c.delay, DropNext: c.dropNext - now, Dropping: c.dropping,
		MaxPacket: c.st.maxPacket, ECNMark: c.st.marks, CEMark: c.st.ceMarks, DropOverlimit: c.over, Drops: c.st.drops,
	}
}
