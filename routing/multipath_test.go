// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"math"
	"net/netip"
	"testing"
)

const flows = 20000

// ways are the gateways that so many flows take.
func ways(s *Set, dst string) []string {
	all := make([]string, flows)
	for i := range all {
		q := Query{Src: ip("10.1.0.9"), Dst: ip(dst), Proto: 6, Sport: uint16(i), Dport: 80}
		q.Hash = q.FlowHash(11)
		if h := s.Lookup(&q).NextHop; h != nil {
			all[i] = h.Via.String()
		}
	}
	return all
}

// Each next hop gets the share of its weight, within five standard deviations.
func TestShares(t *testing.T) {
	s := must(t, newWorld(t), "add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.1.0.3 weight 2 nexthop via 10.2.0.1 weight 5")
	counts := map[string]int{}
	for _, via := range ways(s, "10.9.0.1") {
		counts[via]++
	}
	for via, weight := range map[string]float64{"10.1.0.1": 1, "10.1.0.3": 2, "10.2.0.1": 5} {
		p := weight / 8
		if off := math.Abs(float64(counts[via])-flows*p) / math.Sqrt(flows*p*(1-p)); off > 5 {
			t.Errorf("%s: %d of %d flows, want %.0f", via, counts[via], flows, flows*p)
		}
	}
}

// When a next hop goes, only its flows move; when it comes back, they return.
// The same when it is dead, in another order, or when one is added.
func TestOnlyTheFlowsOfALostNextHopMove(t *testing.T) {
	four := must(t, newWorld(t), "add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.1.0.3 nexthop via 10.1.0.4 weight 3 nexthop via 10.2.0.1")
	before := ways(four, "10.9.0.1")
	dead, err := four.Apply([]Change{{Hop: &HopState{Dev: "p1", Via: ip("10.1.0.3"), Dead: true}}})
	if err != nil {
		t.Fatal(err)
	}
	back, err := dead.Apply([]Change{{Hop: &HopState{Dev: "p1", Via: ip("10.1.0.3")}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Set{
		"dead":    dead,
		"removed": must(t, four, "replace 10.9.0.0/16 nexthop via 10.2.0.1 nexthop via 10.1.0.4 weight 3 nexthop via 10.1.0.1"),
	} {
		for i, via := range ways(s, "10.9.0.1") {
			if via == "10.1.0.3" || before[i] != "10.1.0.3" && via != before[i] {
				t.Fatalf("%s: flow %d moved from %s to %s", name, i, before[i], via)
			}
		}
	}
	for i, via := range ways(back, "10.9.0.1") {
		if via != before[i] {
			t.Fatalf("flow %d is at %s, was at %s", i, via, before[i])
		}
	}
}

func TestFlowHash(t *testing.T) {
	q := Query{Src: ip("10.1.0.9"), Dst: ip("10.9.0.1"), Proto: 6, Sport: 1, Dport: 2}
	same := q
	same.IIF, same.Mark, same.TOS = 3, 4, 5
	if q.FlowHash(1) != same.FlowHash(1) {
		t.Error("what is not of the flow counts")
	}
	seen := map[uint64]bool{q.FlowHash(1): true, q.FlowHash(2): true}
	for _, change := range []func(*Query){
		func(q *Query) { q.Src = ip("10.1.0.8") }, func(q *Query) { q.Dst = ip("10.9.0.2") }, func(q *Query) { q.Proto = 17 },
		func(q *Query) { q.Sport = 2 }, func(q *Query) { q.Sport, q.Dport = q.Dport, q.Sport }, func(q *Query) { q.Src = netip.Addr{} },
	} {
		other := q
		change(&other)
		seen[other.FlowHash(1)] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d hashes of 8 flows and seeds", len(seen))
	}
}
