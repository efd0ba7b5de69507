// SPDX-License-Identifier: Apache-2.0

package qdisc

import "testing"

// threeLevels is a node of 100 Mbit/s, tenants of 30 up to 80 and of 70 up to 90, and
// containers below each, 1:10 and so on and 1:20 and so on, to which nothing is promised.
func threeLevels(containers int) *Spec {
	class := func(h, parent Handle, rate, ceil uint64) Class {
		burst := func(r uint64) uint64 { return max(r/250, 1600) }
		return Class{Kind: "htb", Handle: h, Parent: parent, HTB: &HTBClass{
			Rate: Rate{Bytes: rate}, Ceil: Rate{Bytes: ceil}, Burst: burst(rate), CBurst: burst(ceil), Quantum: 12500,
		}}
	}
	s := &Spec{Qdiscs: []Qdisc{{Kind: "htb", Handle: h1, Parent: Root, HTB: &HTB{}}}}
	s.Classes = append(s.Classes, class(h1+1, Root, 100*mbit, 100*mbit), class(h1+2, h1+1, 30*mbit, 80*mbit), class(h1+3, h1+1, 70*mbit, 90*mbit))
	for i := range containers {
		s.Classes = append(s.Classes, class(h1+0x10+Handle(i), h1+2, 1000, 80*mbit), class(h1+0x20+Handle(i), h1+3, 1000, 90*mbit))
	}
	return s
}

// Two tenants have what they were promised when both are greedy, and alone as much as
// their ceilings; containers of one have the same.
func TestThreeLevels(t *testing.T) {
	const n = 5
	s := newSim(t, threeLevels(n))
	var large []*flowSource
	for i := range n {
		m := meta(uint32(200+300*i), 0)
		m.Priority, m.Mark = uint32(h1)+0x10+uint32(i), uint32(i)
		s.greedy(m, 100)
		m.Priority, m.Mark = uint32(h1)+0x20+uint32(i), uint32(n+i)
		large = append(large, s.greedy(m, 100))
	}
	sum := func(first int, from, to int64) (all float64) {
		var each []float64
		for i := range n {
			each = append(each, float64(s.bytes(first+i, from, to)))
			all += each[i]
		}
		if j := jain(each); all > 0 && j < .999 {
			t.Errorf("Jain's index %g of %v", j, each)
		}
		return all
	}
	s.run(2 * second)
	near(t, "30 of 100", sum(0, second, 2*second), 30*mbit, .01)
	near(t, "70 of 100", sum(n, second, 2*second), 70*mbit, .01)
	for _, f := range large {
		f.until = s.now
	}
	s.run(4 * second)
	near(t, "alone", sum(0, 3*second, 4*second), 80*mbit, .01)
}
