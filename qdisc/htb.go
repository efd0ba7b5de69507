// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"fmt"
	"math/bits"

	"sluice/trace"
)

// Theory of operation.
//
// This is HTB 3 of M. Devera, as the kernel's sch_htb. Each class has two buckets:
// one filled at its rate, one at its ceiling. By them it
//
//	canSend    has tokens of both: it sends on its own account
//	mayBorrow  has none of its rate: its parent may lend
//	cantSend   is at its ceiling: it waits
//
// A class whose packets wait is active. An active class that can send stands in
// the row of its level (leaves are level 0), by priority; one that may borrow stands
// in the feed of its parent, which is then active itself. Dequeue looks at the
// lowest level that has a row, at the lowest priority in it, and goes down the feeds
// to a leaf: in each, classes take turns by deficit round robin, a quantum each.
// What the leaf sends is charged to it and to all classes above: to the rate of
// those from the lender upwards, to the ceiling of all. Whoever is not canSend
// stands in an agenda, by the time at which that changes.
//
//	level 2   root class        row[2][prio] -> classes that can send, one after the other
//	level 1   inner classes     feed[prio]   -> children that borrow
//	level 0   leaves            discipline
const (
	htbLevels = 8
	htbPrios  = 8

	// mostIdle bounds the tokens that a class saves by doing nothing, and its debts.
	mostIdle = 60 * tickSecond

	minQuantum = 1000
	maxQuantum = 200_000
)

type htbMode uint8

const (
	cantSend htbMode = iota
	mayBorrow
	canSend
)

// ring is classes of one priority that take turns. It begins at the head again
// after the tail; turn is whose it is, nil at the end of a round. A class that
// leaves keeps its place until the turn comes to it: classes come and go with each
// change of their mode, and must lose no turn by that, nor gain one.
type ring struct {
	head, tail, turn *htbClass
	kind             int // which of a class's places is in it
	here             int // classes that have not left
}

// The kinds of rings.
const (
	inRow = iota
	inFeed
)

// place is a class's in a ring: one at most of each kind, for each priority.
type place struct {
	next, prev *htbClass
	in         bool // it has a place
	here       bool // and has not left
}

type htbClass struct {
	h              *htb
	handle         Handle
	above          *htbClass // nil for a top one
	children       int
	level          int
	spec           Class
	rate, ceil     pace
	burst, cburst  int64 // ticks
	quantum        uint32
	prio           int
	leaf           discipline // nil for an inner class
	tokens, ctoken int64
	seen           int64
	mode           htbMode
	active         uint8 // the priorities in which it, or what is below, has packets
	places         [2][htbPrios]place
	feed           [htbPrios]ring
	deficit        [htbLevels]int64
	at             [2]int64 // its times in the agendas
	pos            [2]int   // its place there; -1: none
	stats          Stats
	lends, borrows uint64
}

// htb is the discipline.
type htb struct {
	node
	classes   map[Handle]*htbClass
	order     []*htbClass // for reports, and to walk in the order of their handles
	row       [htbLevels][htbPrios]ring
	rows      [htbLevels]uint8 // priorities whose ring is not empty
	waits     agenda           // of classes that can't send
	rests     agenda           // of leaves whose discipline holds back
	direct    list             // packets of no class
	directs   int
	directed  uint64
	maxDirect int
	fallback  uint32
	r2q       uint32
	until     int64
}

func (h *htb) enqueue(r Ref, now int64) bool {
	c, v := h.find(r, now)
	if v != accepted {
		return h.judge(r, v)
	}
	if c == nil {
		return h.putDirect(r)
	}
	if h.long(r, 0, &c.ceil) {
		return h.eachSegment(r, now, func(s Ref, now int64) bool { return h.put(c, s, now) })
	}
	return h.put(c, r, now)
}

func (h *htb) put(c *htbClass, r Ref, now int64) bool {
	ok := h.offer(c.leaf, r, now)
	if !ok {
		c.stats.Drops++
	}
	if c.active == 0 && c.leaf.base().qlen > 0 {
		c.activate()
	}
	return ok
}

func (h *htb) putDirect(r Ref) bool {
	if h.directs >= h.maxDirect {
		return h.refuse(r, trace.QdiscFull)
	}
	h.t.pool.push(&h.direct, r)
	h.directs++
	h.directed++
	h.added(r)
	return true
}

// find is the leaf of a packet: by its priority, the filters, or the default. Nil
// is the direct queue. A filter of an inner class may lead on.
func (h *htb) find(r Ref, now int64) (*htbClass, verdict) {
	priority := Handle(h.t.pool.at(r).Priority)
	if priority == h.handle {
		return nil, accepted
	}
	c := h.classes[priority]
	for range htbLevels {
		if c != nil && c.level == 0 {
			return c, accepted
		}
		at := h.handle
		if c != nil {
			at = c.handle
		}
		to, v := h.t.ask(at, r, now)
		if v != accepted {
			return nil, v
		}
		if to == h.handle {
			return nil, accepted
		}
		if to == 0 || h.classes[to] == nil {
			break
		}
		c = h.classes[to]
	}
	return h.heir(), accepted
}

// heir is the class of what has none; nil if there is none.
func (h *htb) heir() *htbClass {
	c := h.classes[MakeHandle(h.handle.Major(), uint16(h.fallback))]
	if h.fallback == 0 || c == nil || c.level > 0 {
		return nil
	}
	return c
}

func (h *htb) dequeue(now int64) Ref {
	if r := h.t.pool.pop(&h.direct); r != 0 {
		h.directs--
		h.sent(r)
		return r
	}
	if h.qlen == 0 {
		return 0
	}
	h.wake(now)
	for level := range h.rows {
		for m := h.rows[level]; m != 0; m &= m - 1 {
			if r := h.from(level, bits.TrailingZeros8(m), now); r != 0 {
				h.sent(r)
				return r
			}
		}
	}
	h.until = max(min(h.waits.first(), h.rests.first()), now+1)
	return 0
}

func (h *htb) next(int64) int64 { return h.until }

// from takes a packet of the ring of a level and priority.
func (h *htb) from(level, prio int, now int64) Ref {
	for h.rows[level]&(1<<prio) != 0 {
		c := h.row[level][prio].leafOf(prio)
		if c.leaf.base().qlen == 0 {
			c.deactivate()
			continue
		}
		r := take(c.leaf, now)
		if r == 0 { // its discipline holds back, or has dropped what it had
			c.rest(now)
			continue
		}
		it := h.t.pool.at(r)
		wire, segs := it.Wire, it.Segs
		c.stats.Bytes += uint64(wire)
		c.stats.Packets += uint64(segs)
		if c.deficit[level] -= int64(wire); c.deficit[level] < 0 {
			c.deficit[level] += int64(c.quantum)
			h.turn(c, level, prio)
		}
		if c.leaf.base().qlen == 0 {
			c.deactivate()
		}
		c.charge(level, wire, segs, now)
		return r
	}
	return 0
}

// turn gives the next class its turn, in the ring where c stands as it lends from
// level.
func (h *htb) turn(c *htbClass, level, prio int) {
	if level == 0 {
		h.row[0][prio].pass(prio)
	} else {
		c.above.feed[prio].pass(prio)
	}
}

// leafOf goes down to the leaf whose turn it is. The end of a round in one ring
// is a turn in the ring above. Preconditions: the ring isn't empty, and no ring in
// which an active class is lower down is.
func (g *ring) leafOf(prio int) *htbClass {
	var way [htbLevels]*ring
	way[0] = g
	for depth := 0; ; {
		top := way[depth]
		c := top.turn
		switch {
		case c == nil:
			top.turn = top.head
			if depth > 0 {
				depth--
				way[depth].pass(prio)
			}
		case !c.places[top.kind][prio].here:
			top.remove(c, prio)
		case c.level == 0:
			return c
		default:
			depth++
			way[depth] = &c.feed[prio]
		}
	}
}

// pass gives the turn to the next.
func (g *ring) pass(prio int) {
	if g.turn != nil {
		g.turn = g.turn.places[g.kind][prio].next
	}
}

func (g *ring) empty() bool { return g.here == 0 }

// add puts c at the end, or where it was.
func (g *ring) add(c *htbClass, prio int) {
	p := &c.places[g.kind][prio]
	g.here++
	p.here = true
	if p.in {
		return
	}
	p.in, p.prev, p.next = true, g.tail, nil
	if g.head == nil {
		g.head, g.turn = c, c
	} else {
		g.tail.places[g.kind][prio].next = c
	}
	g.tail = c
}

// leave is for a class that may come back.
func (g *ring) leave(c *htbClass, prio int) {
	c.places[g.kind][prio].here = false
	g.here--
}

// remove takes c out; a turn of c's passes on.
func (g *ring) remove(c *htbClass, prio int) {
	p := &c.places[g.kind][prio]
	if !p.in {
		return
	}
	if g.turn == c {
		g.turn = p.next
	}
	if p.prev == nil {
		g.head = p.next
	} else {
		p.prev.places[g.kind][prio].next = p.next
	}
	if p.next == nil {
		g.tail = p.prev
	} else {
		p.next.places[g.kind][prio].prev = p.prev
	}
	*p = place{}
}

func (h *htb) drain(out *list) {
	h.t.pool.move(&h.direct, out)
	h.directs = 0
	for _, c := range h.order {
		if c.leaf != nil {
			h.rests.forget(c)
			if c.active != 0 {
				c.deactivate()
			}
			drain(c.leaf, out)
		}
	}
}

func (h *htb) change(q *Qdisc, _ int64) error {
	p := q.HTB
	if p == nil {
		p = &HTB{}
	}
	h.rests.kind = 1
	if p.Default > 0xffff {
		return fmt.Errorf("default: %x, want a minor number up to ffff", p.Default)
	}
	h.fallback, h.r2q, h.maxDirect = p.Default, p.R2Q, p.DirectFrames
	if h.r2q == 0 {
		h.r2q = 10
	}
	if h.maxDirect == 0 {
		h.maxDirect = defaultFrames
	}
	if h.classes == nil {
		h.classes = map[Handle]*htbClass{}
	}
	return nil
}
