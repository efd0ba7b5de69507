// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// crandom is chances that depend on each other: with probability rho a number is
// the one before it again. So numbers are as even as without, and the next one has
// correlation rho. The kernel's netem takes a weighted mean instead, which is
// never far from the middle: there "loss 10% 50%" loses 0.13 %.
type crandom struct {
	rho  Percent
	last uint32
}

// hits reports whether an event of probability p occurs.
func (c *crandom) hits(p Percent, prng *rand.PCG) bool {
	if c.rho == 0 || uint32(prng.Uint64()>>32) >= uint32(c.rho) {
		c.last = uint32(prng.Uint64() >> 32)
	}
	return uint32(p) >= c.last
}

// blend is numbers for delays, where each is near the one before it: the kernel's
// weighted mean.
type blend struct {
	rho  Percent
	last uint32
}

func (b *blend) next(prng *rand.PCG) uint32 {
	v := uint32(prng.Uint64() >> 32)
	if b.rho == 0 {
		return v
	}
	rho := uint64(b.rho) + 1
	b.last = uint32((uint64(v)*(1<<32-rho) + uint64(b.last)*rho) >> 32)
	return b.last
}

// lossModel is the state of a Markov chain.
type lossModel struct {
	bad bool // gilbert
	at  uint8
}

// The states of the four-state model. Received and lost of good times and of bursts.
const (
	gapReceived = iota
	burstReceived
	burstLost
	gapLost
)

// state is one step of the four-state model: S. Salsano et al., "Definition of a
// general and intuitive loss model for packet networks", 2012.
func (l *lossModel) state(s *State4, prng *rand.PCG) bool {
	x := prng.Uint64() >> 32
	switch l.at {
	case gapReceived:
		switch {
		case x < uint64(s.P14):
			l.at = gapLost
		case x < uint64(s.P13)+uint64(s.P14):
			l.at = burstLost
		}
	case burstReceived:
		if x < uint64(s.P23) {
			l.at = burstLost
		}
	case burstLost:
		switch {
		case x < uint64(s.P32):
			l.at = burstReceived
		case x < uint64(s.P31)+uint64(s.P32):
			l.at = gapReceived
		}
	case gapLost:
		l.at = gapReceived
	}
	return l.at == burstLost || l.at == gapLost
}

// gilbert is one step of the Gilbert-Elliot model.
func (l *lossModel) gilbert(g *Gemodel, prng *rand.PCG) bool {
	x := prng.Uint64()
	move, lost := uint32(x>>32), uint32(x)
	if !l.bad {
		l.bad = move < uint32(g.P)
		return lost < uint32(g.K1)
	}
	l.bad = move >= uint32(g.R)
	return lost > uint32(g.H)
}

// distScale is the value of one sigma in the tables, NETEM_DIST_SCALE.
const distScale = 8192

// jittered is a delay of mu and sigma for the random number rnd.
func jittered(mu, sigma int64, rnd uint32, table []int16) int64 {
	if sigma == 0 {
		return mu
	}
	if table == nil {
		return int64(rnd)%(2*sigma) + mu - sigma
	}
	t := int64(table[rnd%uint32(len(table))])
	x := sigma % distScale * t
	if x >= 0 {
		x += distScale / 2
	} else {
		x -= distScale / 2
	}
	return x/distScale + sigma/distScale*t + mu
}

const (
	distEntries = 4096
	maxEntries  = 16384
)

// distribution is the table of a name: that of iproute2, computed; nil is uniform.
func distribution(name string, table []int16) ([]int16, error) {
	var value func(i int) float64
	switch name {
	case "", "uniform":
		return nil, nil
	case "table":
		if len(table) == 0 || len(table) > maxEntries {
			return nil, fmt.Errorf("distribution: a table of %d entries, want 1 to %d", len(table), maxEntries)
		}
		return table, nil
	case "normal":
		value = normalValue
	case "pareto":
		value = func(i int) float64 { return paretoValue(distEntries - i) }
	case "paretonormal":
		value = func(i int) float64 {
			return math.Trunc((math.RoundToEven(normalValue(i)) + 3*paretoNormalValue(i)) / 4)
		}
	default:
		return nil, fmt.Errorf("distribution: %q, want uniform, normal, pareto or paretonormal", name)
	}
	t := make([]int16, distEntries)
	for i := range t {
		t[i] = int16(math.RoundToEven(min(max(value(i), math.MinInt16), math.MaxInt16)))
	}
	return t, nil
}

// normalValue is the i-th of 4096 points of the normal law, on the grid on which
// iproute2 looks for it.
func normalValue(i int) float64 {
	const grid = .00005
	share := (4*float64(i) + .5) / (4 * distEntries)
	x := math.Sqrt2 * math.Erfinv(2*share-1)
	return (math.Floor((x+10)/grid)*grid - 10) * distScale
}

// paretoValue is of the law with exponent 3, with its mean, 1.5, taken off.
func paretoValue(i int) float64 {
	return pareto(float64(i) / distEntries)
}

func paretoNormalValue(i int) float64 {
	return math.RoundToEven(pareto(1 - float64(4*i)/(4*distEntries)))
}

func pareto(share float64) float64 {
	return min((math.Pow(share, -1./3)-1.5)*(4./3)*distScale, math.MaxInt16)
}

// slotFor begins a slot if the last one's time is before the packet is due: from now, as
// the kernel has it, which is when the packet came or another one did.
func (n *netem) slotFor(due, now int64) {
	if n.slotAt != 0 && n.slotAt < due {
		n.nextSlot(now)
	}
}

// slotSpent counts a packet that left in the slot.
func (n *netem) slotSpent(r Ref, now int64) {
	if n.slotAt == 0 {
		return
	}
	n.slotPackets--
	n.slotBytes -= int(n.t.pool.at(r).Wire)
	if n.slotPackets <= 0 || n.slotBytes <= 0 {
		n.nextSlot(now)
	}
}

// nextSlot says when packets may leave again, and how many.
func (n *netem) nextSlot(now int64) {
	s := n.p.Slot
	var wait int64
	if s.Distribution != "" {
		wait = jittered(s.Delay, s.Jitter, uint32(n.prng.Uint64()>>32), n.slots)
	} else {
		wait = s.Min + int64(float64(n.prng.Uint64()>>32)*float64(s.Max-s.Min)/(1<<32))
	}
	n.slotAt = max(now+wait, 1)
	n.slotPackets, n.slotBytes = either(s.Packets, math.MaxInt), either(s.Bytes, math.MaxInt)
}
