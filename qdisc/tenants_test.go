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

// Trees of ports below the classes of a group keep their own disciplines, and the
// group's rates hold for all of them.
func TestGroup(t *testing.T) {
	group := newSim(t, tenants(100*mbit, 2))
	ports := make([]*Tree, 4)
	for i := range ports {
		ports[i] = NewTree(group.tree.pool, uint64(i))
		spec := root("fq_codel")
		if i == 0 {
			spec = tbfSpec(5*mbit, 5000, 1<<20)
		}
		if err := ports[i].Apply(spec, 0); err != nil {
			t.Fatal(err)
		}
		ports[i].Offer(meta(1000, uint32(i)), 0)
		if err := ports[i].Under(group.tree, h1+0x100+Handle(i), 0); err != nil {
			t.Fatal(err)
		}
	}
	fill := func(until int64) {
		for now := group.now; now < until; now += 100_000 {
			for i, p := range ports {
				for p.Len() < 40 && p.Grouped() {
					p.Offer(meta(1000, uint32(i)), now)
				}
			}
			group.run(now)
		}
	}
	fill(3 * second)
	near(t, "by its tbf", float64(group.bytes(0, second, 3*second)), 2*5*mbit, .01)
	near(t, "the tenant's other", float64(group.bytes(1, second, 3*second)), 2*25*mbit, .01)
	near(t, "the other tenant", float64(group.bytes(2, second, 3*second)+group.bytes(3, second, 3*second)), 2*70*mbit, .01)

	// One takes another discipline, one leaves, one loses its class.
	if err := ports[0].Apply(root("pfifo"), group.now); err != nil {
		t.Fatal(err)
	}
	ports[2].Leave(group.now)
	for r := ports[2].Dequeue(group.now); r != 0; r = ports[2].Dequeue(group.now) {
		ports[2].Done(r)
	}
	spec := *group.tree.spec
	spec.Classes = spec.Classes[:len(spec.Classes)-1]
	if err := group.tree.Apply(&spec, group.now); err != nil {
		t.Fatal(err)
	}
	if ports[3].Grouped() {
		t.Error("a tree hangs below a class that is gone")
	}
	for r := ports[3].Dequeue(group.now); r != 0; r = ports[3].Dequeue(group.now) {
		ports[3].Done(r)
	}
	fill(4 * second)
	for _, p := range ports {
		p.Close()
	}
	group.run(10 * second)
	group.drained()
	for i, p := range ports {
		if p.mem != 0 || p.Len() != 0 {
			t.Errorf("port %d: %d bytes, %d frames are left", i, p.mem, p.Len())
		}
	}
}
