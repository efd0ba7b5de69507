// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// benchSet has that many routes of a family to one of two gateways, and some
// destinations that have one.
func benchSet(b testing.TB, v6 bool, routes int) (*Set, []netip.Addr) {
	b.Helper()
	rnd := rand.New(rand.NewPCG(41, uint64(routes)))
	s := newWorld(b)
	var list []Change
	var dsts []netip.Addr
	seen := map[netip.Prefix]bool{}
	for len(list) < routes {
		p, via := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(16 + rnd.IntN(64)), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}), 12+rnd.IntN(21)).Masked(), ip("10.1.0.1")
		if v6 {
			a := [16]byte{0x20, 1, 0xd, 0xb8, byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}
			p, via = netip.PrefixFrom(netip.AddrFrom16(a), 40+rnd.IntN(25)).Masked(), ip("fd01::1")
		}
		if seen[p] {
			continue
		}
		seen[p] = true
		dsts = append(dsts, p.Addr())
		list = append(list, Change{Route: &Route{Prefix: p, NextHops: []NextHop{{Via: via}}}})
	}
	s, err := s.Apply(list)
	if err != nil {
		b.Fatal(err)
	}
	rnd.Shuffle(len(dsts), func(i, j int) { dsts[i], dsts[j] = dsts[j], dsts[i] })
	return s, dsts[:min(len(dsts), 1024)]
}

// BenchmarkLookup is the whole decision, rules and all: flat from 10 to 100,000
// routes, but for what the caches of the CPU make of 1024 destinations.
func BenchmarkLookup(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		for _, routes := range []int{10, 1000, 100000} {
			b.Run(fmt.Sprintf("%s/%d", family(v6), routes), func(b *testing.B) {
				s, dsts := benchSet(b, v6, routes)
				q := Query{Src: ip("10.1.0.9"), IIF: 1}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					q.Dst = dsts[i%len(dsts)]
					if s.Lookup(&q).Type != Unicast {
						b.Fatal("no route")
					}
				}
			})
		}
	}
}

// BenchmarkRules is what each rule costs that doesn't select the packet.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{0, 10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, dsts := benchSet(b, false, 1000)
			var list []Change
			for i := range n {
				list = append(list, Change{Rule: &Rule{Priority: uint32(100 + i), PrioritySet: true, From: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 32), Table: TableID(1000 + i)}})
			}
			s, err := s.Apply(list)
			if err != nil {
				b.Fatal(err)
			}
			q := Query{Src: ip("10.1.0.9"), Dst: dsts[0], IIF: 1}
			for b.Loop() {
				s.Lookup(&q)
			}
		})
	}
}

func BenchmarkNextHops(b *testing.B) {
	for _, n := range []int{2, 8, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := &Route{Prefix: mustPrefix("10.9.0.0/16")}
			for i := range n {
				r.NextHops = append(r.NextHops, NextHop{Via: netip.AddrFrom4([4]byte{10, 1, 0, byte(3 + i)}), Weight: uint16(1 + i%3)})
			}
			s, err := newWorld(b).Apply([]Change{{Route: r}})
			if err != nil {
				b.Fatal(err)
			}
			q := Query{Src: ip("10.1.0.9"), Dst: ip("10.9.0.1"), IIF: 1}
			b.ReportAllocs()
			for b.Loop() {
				q.Hash++
				s.Lookup(&q)
			}
		})
	}
}

// BenchmarkApply is one route more in a table of so many.
func BenchmarkApply(b *testing.B) {
	for _, routes := range []int{10, 1000, 100000} {
		b.Run(fmt.Sprint(routes), func(b *testing.B) {
			s, _ := benchSet(b, false, routes)
			add := changes(b, "add 203.0.113.0/24 via 10.1.0.1")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Apply(add); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLoad is a whole table of 100,000 routes in one transaction.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		benchSet(b, false, 100000)
	}
}

func BenchmarkFlowHash(b *testing.B) {
	q := Query{Src: ip("fd01::9"), Dst: ip("fd09::1"), Proto: 6, Sport: 1000, Dport: 80}
	for b.Loop() {
		q.Hash = q.FlowHash(q.Hash)
	}
}
