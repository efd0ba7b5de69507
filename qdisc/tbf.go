// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"errors"
	"fmt"

	"sluice/trace"
)

// tbf is a token bucket: in any time t there leave at most rate·t + burst bytes,
// and if there is a peak rate, at most peak·t + mtu. A packet that is larger than
// a bucket never could leave, and is dropped; a super-frame is cut first.
type tbf struct {
	node
	child   discipline
	limit   int64
	rate    pace
	peak    pace
	depth   int64 // of the bucket, ticks
	pdepth  int64
	tokens  int64
	ptoken  int64
	seen    int64  // when tokens were counted, ns
	biggest uint64 // bytes
	until   int64  // when the head may leave
}

func (b *tbf) enqueue(r Ref, now int64) bool {
	if b.long(r, b.biggest, &b.rate) {
		return b.eachSegment(r, now, b.put)
	}
	return b.put(r, now)
}

func (b *tbf) put(r Ref, now int64) bool {
	if uint64(b.t.pool.at(r).Wire) > b.biggest {
		return b.refuse(r, trace.QdiscTooBig)
	}
	return b.offer(b.child, r, now)
}

func (b *tbf) dequeue(now int64) Ref {
	r := peek(b.child, now)
	for r != 0 && uint64(b.t.pool.at(r).Wire) > b.biggest { // the burst became smaller
		b.lose(take(b.child, now), trace.QdiscTooBig)
		r = peek(b.child, now)
	}
	if r == 0 {
		b.until = due(b.child, now)
		return 0
	}
	wire := b.t.pool.at(r).Wire
	passed := min(elapsed(now, b.seen), b.depth)
	ptoken := int64(0)
	if b.peak.on() {
		ptoken = min(passed+b.ptoken, b.pdepth) - b.peak.ticks(wire)
	}
	tokens := min(passed+b.tokens, b.depth) - b.rate.ticks(wire)
	if tokens|ptoken < 0 {
		b.until = now + ceilNS(max(-tokens, -ptoken))
		b.stats.Overlimits++
		return 0
	}
	take(b.child, now)
	b.seen, b.tokens, b.ptoken = now, tokens, ptoken
	b.sent(r)
	return r
}

func (b *tbf) next(int64) int64 { return b.until }

func (b *tbf) drain(out *list) { drain(b.child, out) }

// change keeps the tokens that there are, as far as they fit: a new rate is in
// force with the next packet.
func (b *tbf) change(q *Qdisc, now int64) error {
	p := q.TBF
	if p == nil || p.Rate.Bytes == 0 {
		return errors.New("rate: missing")
	}
	if p.Burst == 0 {
		return errors.New("burst: missing")
	}
	if p.Peak.Bytes != 0 && p.MTU == 0 {
		return errors.New("mtu: missing beside a peakrate")
	}
	if p.Peak.Bytes != 0 && p.Peak.Bytes <= p.Rate.Bytes {
		return fmt.Errorf("peakrate: %d bytes/s is not above the rate of %d", p.Peak.Bytes, p.Rate.Bytes)
	}
	first, was := b.child == nil, b.biggest
	b.rate, b.peak = pace{p.Rate}, pace{p.Peak}
	b.depth, b.biggest = b.rate.ticks(uint32(min(p.Burst, 1<<32-1))), p.Burst
	if b.peak.on() {
		b.pdepth = b.peak.ticks(uint32(min(p.MTU, 1<<32-1)))
		b.biggest = min(b.biggest, p.MTU)
	}
	b.limit = p.Limit
	b.refill(first, now)
	b.until = now
	if f, ok := b.child.(*fifo); ok && f.handle == 0 {
		f.limit = p.Limit
	}
	if b.biggest < was {
		b.requeue(now, b.child, b.enqueue) // super-frames that are too large now
	}
	return nil
}

func (b *tbf) refill(first bool, now int64) {
	if first {
		b.tokens, b.ptoken, b.seen = b.depth, b.pdepth, now
		b.child = b.adopt(newBFIFO(b.limit), 0)
		return
	}
	b.tokens, b.ptoken = min(b.tokens, b.depth), min(b.ptoken, b.pdepth)
}

func (b *tbf) slot(Handle) *discipline { return &b.child }

func (b *tbf) grafted(Handle) {}

func (b *tbf) xstats(rep *Report, _ int64) {
	c := ClassReport{Kind: "tbf", Handle: MakeHandle(b.handle.Major(), 1), Parent: b.handle, Leaf: b.child.base().handle}
	rep.Classes = append(rep.Classes, c)
}
