// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"errors"
	"testing"
)

func TestNeeds(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		ports, tos [2]bool // by family
	}{
		{name: "nothing", text: "add 10.9.0.0/16 via 10.1.0.1"},
		{name: "a rule on addresses", text: "rule add from 10.0.0.0/8 ipproto tcp lookup 5"},
		{name: "a rule on ports", text: "rule add dport 53 lookup 5", ports: [2]bool{true, false}},
		{name: "an IPv6 rule on ports", text: "-6 rule add sport 53 lookup 5", ports: [2]bool{false, true}},
		{name: "a rule on the type of service", text: "rule add tos 0x10 lookup 5", tos: [2]bool{true, false}},
		{name: "several next hops", text: "add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.2.0.1", ports: [2]bool{true, false}},
		{name: "IPv6 gateways that join", text: "add 2001:db8::/32 via fd01::1\nappend 2001:db8::/32 via fd02::1", ports: [2]bool{false, true}},
		{name: "and were taken away", text: "add 2001:db8::/32 via fd01::1\nappend 2001:db8::/32 via fd02::1\ndel 2001:db8::/32 via fd02::1"},
		{name: "or flushed", text: "add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.2.0.1\nflush 10.9.0.0/16"},
		{name: "a rule that went", text: "rule add pref 9 dport 53 lookup 5\nrule del pref 9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := must(t, newWorld(t), tc.text)
			for _, f := range []Family{IPv4, IPv6} {
				if p, q := s.NeedsPorts(f), s.NeedsTOS(f); p != tc.ports[f] || q != tc.tos[f] {
					t.Errorf("%s: ports %v, tos %v", family(f == IPv6), p, q)
				}
			}
		})
	}
	s := must(t, newWorld(t), "add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.2.0.1")
	s, err := s.Apply([]Change{{Op: OpDelete, Device: &Device{Name: "p2"}}})
	if err != nil || s.NeedsPorts(IPv4) {
		t.Error("the route has one next hop left, but needs ports", err)
	}
}

// A container's port is a device to rules, beside the network's, and to nothing else.
func TestPortOfANetwork(t *testing.T) {
	s, err := newWorld(t).Apply([]Change{{Device: &Device{Name: "c1", Index: 77, Port: true}}})
	if err != nil {
		t.Fatal(err)
	}
	s = must(t, s, "add 10.9.0.0/16 via 10.1.0.1 table 5\nrule add iif c1 lookup 5")
	for _, tc := range []struct {
		q    Query
		want Type
	}{
		{Query{Dst: ip("10.9.0.1"), IIF: 1, Port: 77}, Unicast},
		{Query{Dst: ip("10.9.0.1"), IIF: 1, Port: 78}, TypeNone},
		{Query{Dst: ip("10.9.0.1"), IIF: 1}, TypeNone},
		{Query{Dst: ip("10.9.0.1")}, TypeNone},
	} {
		if got := s.Lookup(&tc.q); got.Type != tc.want {
			t.Errorf("%+v: %v", tc.q, got.Type)
		}
	}
	if _, err := s.Apply(changes(t, "add 10.8.0.0/16 dev c1")); !errors.Is(err, ErrDevice) {
		t.Error("a route over a port:", err)
	}
}

// An answer is looked up in the VRF of the question, though nothing came in.
func TestVRFOfAnAnswer(t *testing.T) {
	s, err := newWorld(t).Apply([]Change{{Op: OpReplace, Device: &Device{Name: "p2", Index: 2, Table: 7}}})
	if err != nil {
		t.Fatal(err)
	}
	s = must(t, s, "add 10.9.0.0/16 dev p2 table 7\nrule add l3mdev pref 9")
	for _, tc := range []struct {
		q    Query
		want Type
	}{
		{Query{Dst: ip("10.9.0.1")}, TypeNone},
		{Query{Dst: ip("10.9.0.1"), L3mdev: 2}, Unicast},
		{Query{Dst: ip("10.9.0.1"), IIF: 2}, Unicast},
		{Query{Dst: ip("10.9.0.1"), IIF: 2, L3mdev: 1}, TypeNone},
	} {
		if got := s.Lookup(&tc.q); got.Type != tc.want {
			t.Errorf("%+v: %v", tc.q, got.Type)
		}
	}
	if !s.ReversePath(&Query{Src: ip("10.9.0.1"), Dst: ip("10.9.0.2"), IIF: 2, OIF: 1}, ReverseStrict) {
		t.Error("the way back is not looked up in the VRF")
	}
}

// Only the flows of the hop that is bad move; with all bad, nothing does.
func TestChoose(t *testing.T) {
	s := must(t, newWorld(t), "add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.1.0.3 nexthop via 10.2.0.1")
	bad := s.Lookup(&Query{Dst: ip("10.9.0.1"), Hash: 1}).NextHop
	moved := 0
	for hash := range uint64(1000) {
		q := &Query{Dst: ip("10.9.0.1"), Hash: hash}
		res := s.Lookup(q)
		got := res.Route.Choose(q, func(h *NextHop) bool { return h.Via == bad.Via })
		if got.Via == bad.Via || res.NextHop.Via != bad.Via && got != res.NextHop {
			t.Fatalf("%v instead of %v", got.Via, res.NextHop.Via)
		}
		if got != res.NextHop {
			moved++
		}
		if res.Route.Choose(q, func(*NextHop) bool { return true }) != res.NextHop {
			t.Fatal("all hops are bad, and the flow moved")
		}
	}
	if moved == 0 || moved == 1000 {
		t.Errorf("%d flows moved", moved)
	}
}
