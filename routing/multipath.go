// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// Theory of operation.
//
// Which of several next hops a flow takes is decided by weighted rendezvous
// hashing (Thaler and Ravishankar, RFC 2991 §3 calls it highest random weight):
// each hop and the flow's hash give a number u in (0,1), and the hop with the
// lowest -ln(u)/weight is taken. Hops are compared by who they are and not by
// where they stand, so
//
//   - a hop takes its weight's share of the flows;
//   - when a hop goes, its flows spread over the others and no other flow moves;
//   - when it comes back, the same flows return;
//   - two workers, two versions or two runs decide alike, and there is no state.
//
// Linux' hash threshold (RFC 2992) moves up to half of the flows. The price is
// work for each hop of the route, a few nanoseconds, or some ten if the weights
// differ, paid by the first packet of a flow only and bounded by maxNextHops.

// FlowHash is the hash of the packet's flow that Query.Hash wants: addresses,
// protocol and ports, as fib_multipath_hash_policy 1 of Linux. The seed keeps
// others from choosing their way; it should outlive a restart, or flows move.
//
// The ports of a fragment must be zero, in all fragments of the packet.
func (q *Query) FlowHash(seed uint64) uint64 {
	h := mixAddr(seed, q.Src)
	h = mixAddr(h, q.Dst)
	return mix(h, uint64(q.Proto)<<32|uint64(q.Sport)<<16|uint64(q.Dport))
}

// nextHop returns the hop for the query's flow; nil if none is usable.
func (r *Route) nextHop(q *Query) *NextHop {
	var best *NextHop
	for i := range r.NextHops {
		h := &r.NextHops[i]
		if h.usable(q) && (best == nil || h.beats(best, q.Hash)) {
			best = h
		}
	}
	return best
}

// Choose returns the next hop that a flow takes instead of those that its user
// knows to be bad just now, in the same resilient way. With all of them bad it is
// as if none was: the flow's own one.
func (r *Route) Choose(q *Query, bad func(*NextHop) bool) *NextHop {
	var best *NextHop
	for i := range r.NextHops {
		h := &r.NextHops[i]
		if h.usable(q) && !bad(h) && (best == nil || h.beats(best, q.Hash)) {
			best = h
		}
	}
	if best == nil {
		return r.nextHop(q)
	}
	return best
}

// beats reports whether the flow takes the hop rather than another.
func (h *NextHop) beats(o *NextHop, flow uint64) bool {
	a, b := mix(flow, h.seed), mix(flow, o.seed)
	if h.Weight == o.Weight { // the same order without logarithms
		return a > b
	}
	return h.cost(a) < o.cost(b)
}

// cost is exponentially distributed over the flows, with the weight as its rate:
// the least of several is each one's with a probability of its share.
func (h *NextHop) cost(score uint64) float64 {
	u := (float64(score>>11) + 0.5) / (1 << 53) // never 0 or 1
	return -math.Log(u) / float64(h.Weight)
}

// newSeed is what tells the hop from others in the hash.
func (h *NextHop) newSeed() uint64 { return mix(mixAddr(0, h.Via), uint64(h.Index)) }

// mixAddr adds an address to a hash.
func mixAddr(h uint64, a netip.Addr) uint64 {
	b := a.As16()
	h = mix(h, binary.BigEndian.Uint64(b[:8]))
	return mix(h, binary.BigEndian.Uint64(b[8:]))
}

// mix adds a word to a hash: the 128-bit product of the two, folded, as wyhash
// does it. The constants are odd, and keep a factor from being zero.
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^0x9e3779b97f4a7c15, v^0xd1342543de82ef95)
	return hi ^ lo
}
