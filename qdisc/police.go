// SPDX-License-Identifier: Apache-2.0

package qdisc

// Police is a policer's parameters: what exceeds its bucket is not held back but
// dropped, or whatever Exceed says. A frame on the wire that is longer than MTU
// exceeds always; 0 is 2047 bytes, as in the kernel.
type Police struct {
	Rate    Rate   `json:"rate,omitzero"`
	Burst   uint64 `json:"burst,omitempty"` // bytes
	Peak    Rate   `json:"peak,omitzero"`
	MTU     uint64 `json:"mtu,omitempty"`
	Conform Action `json:"conform,omitempty"` // default ok
	Exceed  Action `json:"exceed,omitempty"`  // default drop (tc: reclassify)
}

// policer is a Police at work: a bucket as tbf's, without a queue.
type policer struct {
	Police
	rate, peak     pace
	depth, pdepth  int64
	tokens, ptoken int64
	seen           int64
	over           uint64
}

// defaultPoliceMTU is the kernel's default when no MTU is given.
const defaultPoliceMTU = 2047

func newPolicer(p Police, now int64) *policer {
	if p.MTU == 0 {
		p.MTU = defaultPoliceMTU
	}
	q := &policer{Police: p, rate: pace{p.Rate}, peak: pace{p.Peak}, seen: now}
	if q.rate.on() {
		q.depth = q.rate.ticks(uint32(min(p.Burst, 1<<32-1)))
	}
	if q.peak.on() {
		q.pdepth = q.peak.ticks(uint32(min(p.MTU, 1<<32-1)))
	}
	q.tokens, q.ptoken = q.depth, q.pdepth
	return q
}

// judge takes tokens for a packet, and says what becomes of it.
func (q *policer) judge(m *Meta, now int64) Action {
	if uint64(m.Wire)/uint64(m.Segs) <= q.MTU && q.take(m.Wire, now) {
		return q.Conform
	}
	q.over++
	if q.Exceed == ActDefault {
		return ActDrop
	}
	return q.Exceed
}

func (q *policer) take(wire uint32, now int64) bool {
	if !q.rate.on() {
		return true
	}
	passed := min(elapsed(now, q.seen), q.depth)
	ptoken := int64(0)
	if q.peak.on() {
		ptoken = min(passed+q.ptoken, q.pdepth) - q.peak.ticks(wire)
	}
	tokens := min(passed+q.tokens, q.depth) - q.rate.ticks(wire)
	if tokens|ptoken < 0 {
		return false
	}
	q.seen, q.tokens, q.ptoken = now, tokens, ptoken
	return true
}

// ingress has no queue: what its filters let pass leaves at once, in order.
type ingress struct {
	node
	q     list
	burst uint64 // the smallest of its policers'; 0: none
}

func (g *ingress) enqueue(r Ref, now int64) bool {
	if g.burst > 0 && g.t.pool.at(r).Segs > 1 && uint64(g.t.pool.at(r).Wire) > g.burst {
		return g.eachSegment(r, now, g.put)
	}
	return g.put(r, now)
}

func (g *ingress) put(r Ref, now int64) bool {
	if _, v := g.classify(r, now); v != accepted {
		return g.judge(r, v)
	}
	g.t.pool.push(&g.q, r)
	g.added(r)
	return true
}

func (g *ingress) dequeue(int64) Ref {
	r := g.t.pool.pop(&g.q)
	if r != 0 {
		g.sent(r)
	}
	return r
}

func (g *ingress) next(now int64) int64 { return now }

func (g *ingress) drain(out *list) { g.t.pool.move(&g.q, out) }

func (g *ingress) change(*Qdisc, int64) error { return nil }

func (*ingress) xstats(*Report, int64) {}
