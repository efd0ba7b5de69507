// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Two leaves with 30 and 70 of 100: they get that when both are greedy; one gets
// all when the other is idle, and gives it back within a burst.
func TestBorrowing(t *testing.T) {
	spec := htbSpec(100*mbit,
		HTBClass{Rate: Rate{Bytes: 30 * mbit}, Ceil: Rate{Bytes: 100 * mbit}},
		HTBClass{Rate: Rate{Bytes: 70 * mbit}, Ceil: Rate{Bytes: 100 * mbit}})
	s := newSim(t, spec)
	s.greedy(to(meta(1400, 0), 0), 20)
	b := s.greedy(to(meta(1400, 0), 1), 20)
	s.run(2 * second)
	b.until = s.now
	s.run(4 * second)
	b.until = never
	b.queued = 0
	s.run(4*second + 1)
	s.run(6 * second)
	near(t, "share of 30", float64(s.bytes(0, second, 2*second)), 30*mbit, .01)
	near(t, "share of 70", float64(s.bytes(1, second, 2*second)), 70*mbit, .01)
	near(t, "alone", float64(s.bytes(0, 2100*ms, 4*second)), 1.9*100*mbit, .01)
	near(t, "70 again", float64(s.bytes(1, 4*second, 5*second)), 70*mbit, .01)
	s.envelope(100*mbit, 3*15000, 3*1400)
}

// Four equal leaves get the same.
func TestEqualLeaves(t *testing.T) {
	leaf := HTBClass{Rate: Rate{Bytes: 10 * mbit}, Ceil: Rate{Bytes: 100 * mbit}}
	s := newSim(t, htbSpec(100*mbit, leaf, leaf, leaf, leaf))
	for i := range 4 {
		s.greedy(to(meta(uint32(300+400*i), 0), i), 50)
	}
	s.run(4 * second)
	var shares []float64
	for i := range 4 {
		shares = append(shares, float64(s.bytes(i, 0, s.now)))
	}
	if j := jain(shares); j < .9999 {
		t.Errorf("Jain's index %g of %v", j, shares)
	}
	near(t, "all", shares[0]+shares[1]+shares[2]+shares[3], 4*100*mbit, .001)
}

// What is borrowed is in proportion to the quantum; a lower prio comes first.
func TestQuantumAndPrio(t *testing.T) {
	leaf := func(quantum, prio uint32) HTBClass {
		return HTBClass{Rate: Rate{Bytes: mbit}, Ceil: Rate{Bytes: 100 * mbit}, Quantum: quantum, Prio: prio}
	}
	t.Run("quantum", func(t *testing.T) {
		s := newSim(t, htbSpec(100*mbit, leaf(2000, 0), leaf(6000, 0)))
		s.greedy(to(meta(1000, 0), 0), 50)
		s.greedy(to(meta(1000, 0), 1), 50)
		s.run(4 * second)
		a, b := float64(s.bytes(0, 0, s.now))-4*mbit, float64(s.bytes(1, 0, s.now))-4*mbit
		near(t, "3 to 1", b/a, 3, .01)
	})
	t.Run("prio", func(t *testing.T) {
		s := newSim(t, htbSpec(100*mbit, leaf(0, 1), leaf(0, 0)))
		s.greedy(to(meta(1000, 0), 0), 50)
		s.greedy(to(meta(1000, 0), 1), 50)
		s.run(4 * second)
		near(t, "prio 1 has its rate", float64(s.bytes(0, second, s.now)), 3*mbit, .01)
		near(t, "prio 0 has the rest", float64(s.bytes(1, second, s.now)), 3*99*mbit, .01)
	})
}

// Two tenants with ten containers each: guarantees of 30 and 70, one tenant's
// containers share its part evenly, and what one leaves the other gets.
func TestTenants(t *testing.T) {
	s := newSim(t, tenants(100*mbit, 10))
	for i := range 20 {
		s.greedy(leafOf(i, meta(1000, 0)), 20)
	}
	s.run(3 * second)
	share := func(from, to int, a, b int64) (all []float64, sum float64) {
		for i := from; i < to; i++ {
			x := float64(s.bytes(i, a, b))
			all = append(all, x)
			sum += x
		}
		return all, sum
	}
	a, sumA := share(0, 10, second, 3*second)
	b, sumB := share(10, 20, second, 3*second)
	near(t, "tenant A", sumA, 2*30*mbit, .01)
	near(t, "tenant B", sumB, 2*70*mbit, .01)
	if jain(a) < .999 || jain(b) < .999 {
		t.Errorf("uneven: %v %v", a, b)
	}
	for i := 10; i < 20; i++ {
		s.sources[i].until = s.now
	}
	s.run(5 * second)
	_, sumA = share(0, 10, 3500*ms, 5*second)
	near(t, "A alone", sumA, 1.5*90*mbit, .01) // its ceiling
}

// tenants is a root class, two tenants with 30 and 70 % and a ceiling of 90 %, and n
// leaves below each.
func tenants(rate uint64, n int) *Spec {
	s := htbSpec(rate)
	for i, part := range []uint64{30, 70} {
		tenant := h1 + 2 + Handle(i)
		s.Classes = append(s.Classes, Class{Kind: "htb", Handle: tenant, Parent: h1 + 1, HTB: &HTBClass{
			Rate: Rate{Bytes: rate * part / 100}, Ceil: Rate{Bytes: rate * 90 / 100}, Burst: 15000, CBurst: 15000,
		}})
		for k := range n {
			s.Classes = append(s.Classes, Class{Kind: "htb", Handle: h1 + 0x100 + Handle(i*n+k), Parent: tenant, HTB: &HTBClass{
				Rate: Rate{Bytes: rate * part / 100 / uint64(n)}, Ceil: Rate{Bytes: rate}, Burst: 5000, CBurst: 15000, Quantum: 2000,
			}})
		}
	}
	return s
}

func leafOf(i int, m Meta) Meta {
	m.Priority, m.Mark = uint32(h1)+0x100+uint32(i), uint32(i)
	return m
}

// Classes come, change and go while packets wait: none is lost, none is left.
func TestClassesComeAndGo(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := newSim(t, htbSpec(100*mbit, HTBClass{Rate: Rate{Bytes: mbit}}))
	offered := 0
	for step := range 300 {
		spec := htbSpec(100 * mbit)
		spec.Qdiscs[0].HTB.Default = 10
		for i := range 8 {
			if i > 0 && rng.IntN(2) == 0 {
				continue
			}
			parent := h1 + 1
			if i > 2 && rng.IntN(2) == 0 && len(spec.Classes) > 2 {
				parent = spec.Classes[1+rng.IntN(len(spec.Classes)-1)].Handle
			}
			spec.Classes = append(spec.Classes, Class{Kind: "htb", Handle: h1 + 10 + Handle(i), Parent: parent, HTB: &HTBClass{
				Rate: Rate{Bytes: uint64(1+rng.IntN(20)) * mbit}, Ceil: Rate{Bytes: 100 * mbit}, Burst: 5000, CBurst: 5000, Prio: uint32(rng.IntN(3)),
			}})
		}
		if err := s.tree.Apply(spec, s.now); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		for range rng.IntN(40) {
			if s.tree.Offer(to(meta(uint32(64+rng.IntN(1400)), 0), rng.IntN(8)), s.now) {
				offered++
			}
		}
		s.run(s.now + int64(rng.IntN(3*ms)))
	}
	s.run(s.now + 10*second)
	if len(s.out) != offered {
		t.Errorf("%d packets left, %d came in", len(s.out), offered)
	}
	s.drained()
}

// A class that owes tokens of a slow rate has the new one at once when it becomes fast, and
// one that has saved tokens of a fast one no more bytes of a slow one.
func TestChangeOfAClassInDebt(t *testing.T) {
	const slow, fast = 500, 10 * mbit
	leaf := func(rate uint64) HTBClass { return HTBClass{Rate: Rate{Bytes: rate}, Burst: 2000, CBurst: 2000} }
	s := newSim(t, htbSpec(slow, leaf(slow)))
	s.greedy(to(meta(1000, 0), 0), 50)
	s.run(second)
	if n := s.bytes(0, 0, second); n > 4000 {
		t.Fatalf("%d bytes in a second", n)
	}
	if err := s.tree.Apply(htbSpec(fast, leaf(fast)), s.now); err != nil {
		t.Fatal(err)
	}
	s.run(2 * second)
	near(t, "fast", float64(s.bytes(0, second+10*ms, 2*second)), fast*.99, .01)
	if err := s.tree.Apply(htbSpec(slow, leaf(slow)), s.now); err != nil {
		t.Fatal(err)
	}
	s.run(4 * second)
	if n := s.bytes(0, 2*second+1, 4*second); n > 2*slow+3000 {
		t.Errorf("%d bytes in two slow seconds", n)
	}
}

// Leaves of htb may hold back by themselves, and are asked again in time.
func TestLeafThatHoldsBack(t *testing.T) {
	spec := htbSpec(100*mbit,
		HTBClass{Rate: Rate{Bytes: 50 * mbit}, Ceil: Rate{Bytes: 100 * mbit}},
		HTBClass{Rate: Rate{Bytes: 50 * mbit}, Ceil: Rate{Bytes: 100 * mbit}})
	spec.Qdiscs = append(spec.Qdiscs,
		Qdisc{Kind: "tbf", Handle: 2 << 16, Parent: h1 + 10, TBF: &TBF{Rate: Rate{Bytes: 5 * mbit}, Burst: 5000, Limit: 1 << 20}},
		Qdisc{Kind: "netem", Handle: 3 << 16, Parent: h1 + 11, Netem: &Netem{Delay: 10 * ms}})
	s := newSim(t, spec)
	s.greedy(to(meta(1000, 0), 0), 50)
	s.cbr(to(meta(1000, 0), 1), ms, 0, second)
	s.run(2 * second)
	near(t, "tbf below htb", float64(s.bytes(0, second/2, second)), 2.5*mbit, .01)
	n := 0
	for _, d := range s.out {
		if d.meta.Mark == 1 {
			if want := int64(n)*ms + 10*ms; d.at != want {
				t.Fatalf("packet %d left at %d, want %d", n, d.at, want)
			}
			n++
		}
	}
	if n != 1000 {
		t.Errorf("%d packets left netem", n)
	}
}

// Random trees of classes keep to their ceilings, use the line, and leave nothing.
func TestRandomTrees(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomTree(t, seed) })
	}
}

func randomTree(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	spec := htbSpec(100 * mbit)
	inner := []Handle{h1 + 1}
	leaves := 0
	for i := range 3 + rng.IntN(12) {
		h := h1 + 0x100 + Handle(i)
		parent := inner[rng.IntN(len(inner))]
		c := &HTBClass{Rate: Rate{Bytes: uint64(1+rng.IntN(10)) * mbit}, Ceil: Rate{Bytes: uint64(10+rng.IntN(91)) * mbit}, Burst: 5000, CBurst: 5000, Prio: uint32(rng.IntN(4))}
		spec.Classes = append(spec.Classes, Class{Kind: "htb", Handle: h, Parent: parent, HTB: c})
		if rng.IntN(3) == 0 && len(inner) < 6 {
			inner = append(inner, h)
		}
		leaves++
	}
	s := newSim(t, spec)
	for i := range leaves {
		s.cbr(leafOf(i, meta(uint32(64+rng.IntN(1400)), 0)), int64(20_000+rng.IntN(400_000)), 0, second)
	}
	s.run(60 * second)
	for i, c := range spec.Classes[1:] {
		if slices.Contains(inner, c.Handle) {
			continue // it has no queue: what is sent to it isn't limited
		}
		one := &sim{t: t}
		for _, d := range s.out {
			if d.meta.Mark == uint32(i) {
				one.out = append(one.out, d)
			}
		}
		one.envelope(c.HTB.Ceil.Bytes, c.HTB.CBurst, 1500)
	}
	s.drained()
}
