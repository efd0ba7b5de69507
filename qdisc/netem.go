// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"sluice/trace"
)

const (
	netemLimit = 1000
	maxNetem   = 1 << 20 // frames
)

// netem makes a link bad: S. Hemminger, "Network Emulation with NetEm", 2005. For
// each packet it decides, in this order, about a duplicate, loss, corruption and
// delay. A super-frame is cut first where its segments may have different fates:
// a share of lost packets is one of packets on the wire.
type netem struct {
	node
	p       Netem
	prng    rand.PCG
	child   discipline // nil: packets leave when their delay is over
	limit   int
	table   []int16 // of the delays; nil: uniform
	slots   []int16
	loss    lossModel
	dup     crandom
	corr    crandom
	reor    crandom
	lossCor crandom
	delay   blend
	bps     pace

	front   list  // was reordered: before all others
	line    list  // in the order of due
	odd     []odd // heap of those due before the end of the line
	held    int   // in the three of them
	latest  int64 // due of the one that leaves last
	counter uint32
	order   uint64
	copying bool // a duplicate isn't duplicated again
	until   int64

	slotAt      int64
	slotPackets int
	slotBytes   int
	st          NetemReport
}

// odd is a packet that is due before one that came before it.
type odd struct {
	due   int64
	order uint64
	r     Ref
}

func (n *netem) enqueue(r Ref, now int64) bool {
	if n.t.pool.at(r).Segs > 1 && (n.long(r, 0, &n.bps) || n.picky()) {
		return n.eachSegment(r, now, n.put)
	}
	return n.put(r, now)
}

// picky reports whether single packets have fates of their own.
func (n *netem) picky() bool {
	p := &n.p
	return p.Loss|p.Duplicate|p.Corrupt|p.Reorder != 0 || p.State != nil || p.Gemodel != nil
}

func (n *netem) put(r Ref, now int64) bool {
	count := 1
	if n.p.Duplicate != 0 && !n.copying && n.dup.hits(n.p.Duplicate, &n.prng) {
		count++
	}
	if n.lose1() {
		if n.p.ECN && n.t.pool.markCE(r) {
			n.st.ECNMarked++
		} else {
			count--
		}
	}
	if count == 0 {
		n.st.Dropped++
		return n.refuse(r, trace.QdiscLoss)
	}
	if count > 1 {
		n.duplicate(r, now)
	}
	if n.p.Corrupt != 0 && n.corr.hits(n.p.Corrupt, &n.prng) {
		n.corrupt(r)
	}
	if n.qlen >= n.limit {
		return n.refuse(r, trace.QdiscFull)
	}
	n.added(r)
	n.hold(r, now)
	return true
}

// lose1 reports whether the loss model takes the packet.
func (n *netem) lose1() bool {
	switch {
	case n.p.State != nil:
		return n.loss.state(n.p.State, &n.prng)
	case n.p.Gemodel != nil:
		return n.loss.gilbert(n.p.Gemodel, &n.prng)
	}
	return n.p.Loss != 0 && n.lossCor.hits(n.p.Loss, &n.prng)
}

// duplicate puts a copy in at the root, once.
func (n *netem) duplicate(r Ref, now int64) {
	c := n.t.copy(r)
	if c == 0 {
		return
	}
	n.st.Duplicated++
	n.copying = true
	n.t.root.enqueue(c, now)
	n.copying = false
}

// corrupt turns one bit of the packet.
func (n *netem) corrupt(r Ref) {
	n.st.Corrupted++
	if !n.t.pool.own(r) {
		return
	}
	if b, _ := n.t.pool.bytes(r); len(b) > 0 {
		x := n.prng.Uint64()
		b[x>>3%uint64(len(b))] ^= 1 << (x & 7)
	}
}

// hold says when a packet may leave, or puts it before all others.
func (n *netem) hold(r Ref, now int64) {
	it := n.t.pool.at(r)
	it.at = now
	n.held++
	if n.p.Gap != 0 && n.counter+1 >= n.p.Gap && n.reor.hits(n.p.Reorder, &n.prng) {
		n.counter = 0
		it.due = now
		n.t.pool.pushHead(&n.front, r)
		n.stats.Requeues++
		n.st.Reordered++
		return
	}
	n.counter++
	delay := jittered(n.p.Delay, n.p.Jitter, n.delay.next(&n.prng), n.table)
	from := now
	if n.bps.on() {
		if n.held > 1 { // it follows the last one: its time counts for the delay
			delay = max(delay-(n.latest-now), 0)
			from = n.latest
		}
		delay += ceilNS(span(n.cost(it.Wire), n.bps.Bytes))
	}
	it.due = from + delay
	if delay > 0 {
		n.st.Delayed++
	}
	n.insert(r, it.due)
}

// cost is the bytes of a packet with netem's overheads.
func (n *netem) cost(wire uint32) uint64 {
	c := max(int64(wire)+int64(n.p.Overhead), 0)
	if s := int64(n.p.CellSize); s > 0 {
		c = (c + s - 1) / s * max(s+int64(n.p.CellOverhead), 0)
	}
	return uint64(c)
}

func (n *netem) insert(r Ref, due int64) {
	if n.held == 1 || due > n.latest {
		n.latest = due
	}
	if n.line.head == 0 || n.t.pool.at(n.line.tail).due <= due {
		n.t.pool.push(&n.line, r)
		return
	}
	n.order++
	n.odd = append(n.odd, odd{due, n.order, r})
	for k := len(n.odd) - 1; k > 0 && n.odd[k].before(&n.odd[(k-1)/2]); k = (k - 1) / 2 {
		n.odd[k], n.odd[(k-1)/2] = n.odd[(k-1)/2], n.odd[k]
	}
}

func (a *odd) before(b *odd) bool { return a.due < b.due || a.due == b.due && a.order < b.order }

// head is the packet that is due first; 0 if there is none.
func (n *netem) head() (r Ref, due int64) {
	switch {
	case n.front.head != 0:
		return n.front.head, n.t.pool.at(n.front.head).due
	case n.line.head == 0 && len(n.odd) == 0:
		return 0, never
	case n.line.head == 0 || len(n.odd) > 0 && n.odd[0].due < n.t.pool.at(n.line.head).due:
		return n.odd[0].r, n.odd[0].due
	}
	return n.line.head, n.t.pool.at(n.line.head).due
}

// behead takes out what head gave.
func (n *netem) behead(r Ref) {
	n.held--
	switch r {
	case n.front.head:
		n.t.pool.pop(&n.front)
	case n.line.head:
		n.t.pool.pop(&n.line)
	default:
		n.popOdd()
	}
}

func (n *netem) popOdd() {
	last := len(n.odd) - 1
	n.odd[0] = n.odd[last]
	n.odd = n.odd[:last]
	for k := 0; ; {
		c := 2*k + 1
		if c+1 < last && n.odd[c+1].before(&n.odd[c]) {
			c++
		}
		if c >= last || !n.odd[c].before(&n.odd[k]) {
			return
		}
		n.odd[k], n.odd[c] = n.odd[c], n.odd[k]
		k = c
	}
}

func (n *netem) dequeue(now int64) Ref {
	for {
		r, due := n.head()
		if r == 0 {
			return n.fromChild(now, never)
		}
		n.slotFor(due, now)
		if due > now || n.slotAt > now {
			return n.fromChild(now, max(due, n.slotAt))
		}
		n.behead(r)
		n.slotSpent(r, now)
		if n.child == nil {
			n.sent(r)
			return r
		}
		n.removed(r)
		n.offer(n.child, r, now)
	}
}

// fromChild is what the child has, or nothing before a time.
func (n *netem) fromChild(now, at int64) Ref {
	n.until = at
	if n.child == nil || n.child.base().qlen == 0 {
		return 0
	}
	r := take(n.child, now)
	if r != 0 {
		n.sent(r)
		return r
	}
	n.until = min(at, due(n.child, now))
	return 0
}

func (n *netem) next(int64) int64 { return n.until }

func (n *netem) drain(out *list) {
	for r, _ := n.head(); r != 0; r, _ = n.head() {
		n.behead(r)
		n.t.pool.push(out, r)
	}
	if n.child != nil {
		drain(n.child, out)
	}
}

func (n *netem) slot(Handle) *discipline { return &n.child }

func (n *netem) grafted(Handle) {}

func (n *netem) change(q *Qdisc, now int64) error {
	p := q.Netem
	if p == nil {
		p = &Netem{}
	}
	if err := p.check(); err != nil {
		return err
	}
	table, err := distribution(p.Distribution, p.Table)
	if err != nil {
		return err
	}
	slots := []int16(nil)
	if p.Slot != nil {
		if slots, err = distribution(p.Slot.Distribution, p.Slot.Table); err != nil {
			return fmt.Errorf("slot: %w", err)
		}
	}
	if n.limit == 0 || p.Seed != 0 && p.Seed != n.p.Seed {
		seed := p.Seed
		if seed == 0 {
			seed = n.t.random()
		}
		n.prng.Seed(seed, seed)
		n.loss = lossModel{}
	}
	n.p, n.table, n.slots = *p, table, slots
	n.limit = either(p.Limit, netemLimit)
	n.dup.rho, n.corr.rho, n.reor.rho = p.DupCor, p.CorrCor, p.ReorCor
	n.lossCor.rho, n.delay.rho = p.LossCor, p.DelayCor
	n.bps = pace{Rate{Bytes: p.Rate}}
	n.slotAt = 0
	if p.Slot != nil {
		n.nextSlot(now)
		n.slotAt = max(now, 1)
	}
	return nil
}

func (p *Netem) check() error {
	switch {
	case p.Limit < 0 || p.Limit > maxNetem:
		return fmt.Errorf("limit: %d, want 1 to %d", p.Limit, maxNetem)
	case p.Delay < 0 || p.Jitter < 0:
		return errors.New("delay: want no negative time")
	case p.Jitter > 1<<31-1 && p.Distribution == "":
		return fmt.Errorf("delay: a jitter of %d ns, want at most 2.1 s", p.Jitter)
	case p.Reorder != 0 && p.Delay == 0 && p.Rate == 0:
		return errors.New("reorder: not possible without specifying some delay")
	case p.Slot != nil && p.Slot.Distribution == "" && p.Slot.Max < p.Slot.Min:
		return errors.New("slot: the maximum is below the minimum")
	}
	return nil
}

func (n *netem) xstats(rep *Report, _ int64) {
	st := n.st
	rep.Netem = &st
	c := ClassReport{Kind: "netem", Handle: MakeHandle(n.handle.Major(), 1), Parent: n.handle}
	if n.child != nil {
		c.Leaf = n.child.base().handle
		rep.Classes = append(rep.Classes, c)
	}
}
