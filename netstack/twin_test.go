// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
)

// rivalSites are two namespaces with all that a decision may depend on: several next
// hops, rules, links, small MTUs, limits of the MSS, VLANs, ports that want checksums.
func rivalSites(translates bool) []NamespaceSpec {
	one, two, three := site(1, 3), site(2, 3), site(3, 2)
	two.Ports[1].MTU, two.Ports[2].Offload, one.Ports[2].ClampMSS = 700, false, 1
	two.Device.ClampMSS = 1000
	three.Bridge.MTU = 1300
	one.Ports[1].Device = "c12"
	a := sites("a", one, two)
	a.Links = []LinkSpec{linked(1, 3)}
	a.Links[0].MTU = 1400
	a.Routing.Seed = 7
	if translates {
		a.Connections = ConnectionsSpec{Track: true, Zone: 5, Rules: []nat.Rule{
			{Name: "out", Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Out: []uint16{gate(2).port()}}},
		}}
	}
	a.Routing.Routes = []routing.Route{
		via("10.77.0.0/16", "site2", bob.addr4(), party{2, 2}.addr4()),
		via("fd77::/32", "site2", bob.addr6(), party{2, 2}.addr6()),
		via("10.44.3.0/24", "to3"), via("fd44:3::/64", "to3"),
	}
	for _, prefix := range []string{"10.0.0.0/8", "fd00::/8"} {
		r := via(prefix, "site2", party{2, 3}.addr4())
		if prefix[0] == 'f' {
			r = via(prefix, "site2", party{2, 3}.addr6())
		}
		r.Table = 100
		a.Routing.Routes = append(a.Routing.Routes, r)
	}
	b := sites("b", three)
	b.Links = []LinkSpec{linked(3, 1)}
	b.Routing.Routes = []routing.Route{via("10.44.0.0/16", "to1"), via("fd44::/32", "to1")}
	return []NamespaceSpec{a, b}
}

// rival is a random frame of a random flow from a container of the first site.
func rival(flow, r *rand.Rand) (from party, f *packet.Frame) {
	pick := func(n ...int) int { return n[r.IntN(len(n))] }
	from = party{1, 1 + flow.IntN(3)}
	to := []party{bob, {2, 2}, {2, 3}, {3, 1}, {3, 2}, {1, 1 + flow.IntN(3)}, {2, 9}}[flow.IntN(7)]
	v6, echo, size := flow.IntN(3) == 0, uint8(8), pick(8, 8, 504, 800, 1344, 1400)
	layers := []pt.Layer{pt.EtherHdr{Src: from.mac(), Dst: []packet.MAC{gate(1).mac(), to.mac()}[flow.IntN(4)/3]}}
	if flow.IntN(8) == 0 {
		layers = append(layers, pt.VLANTag{TCI: []uint16{0, 0x2000, 5}[flow.IntN(3)]})
	}
	h4 := pt.IPv4Hdr{
		Src: from.addr4(), Dst: to.addr4(), TTL: uint8(pick(1, 2, 3, 64, 64, 64)), TOS: uint8(pick(0, 0, 0x10, 0xb8)),
		DF: r.IntN(2) == 0, ID: uint16(r.IntN(3)), MF: r.IntN(12) == 0,
	}
	h6 := pt.IPv6Hdr{Src: from.addr6(), Dst: to.addr6(), HopLimit: h4.TTL, TrafficClass: h4.TOS}
	if flow.IntN(5) == 0 {
		h4.Dst = netip.AddrFrom4([4]byte{10, 77, 0, byte(flow.IntN(4))})
		h6.Dst = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 15: byte(flow.IntN(4))})
	}
	proto := flow.IntN(3)
	gso := proto == 0 && r.IntN(2) == 0
	h4.MF = h4.MF && !gso
	if layers = append(layers, h4); v6 {
		echo, layers[len(layers)-1] = 128, h6
	}
	sport, dport := uint16(1000+10*from.i+flow.IntN(3)), uint16(2000+flow.IntN(3))
	tcp := pt.TCPHdr{SrcPort: sport, DstPort: dport, Flags: uint8(pick(0x02, 0x10, 0x12)), Options: []byte{2, 4, 5, 0xb4}}
	switch {
	case gso:
		tcp.Flags = 0x10
		return from, pt.GSO(pt.Build(append(layers, tcp, pt.Bytes(4000))...), pick(500, 1000, 1400))
	case proto == 1:
		layers = append(layers, pt.UDPHdr{SrcPort: sport, DstPort: dport})
	case proto == 0:
		layers = append(layers, tcp)
	default:
		layers = append(layers, pt.ICMPHdr{V6: v6, Type: echo, ID: sport})
	}
	return from, pt.Frame(pt.Build(append(layers, pt.Bytes(size))...))
}

// said is what all containers got since, without ICMP errors, which the rates of the
// router let pass or not.
func (l *lab) said(parties []party) (all []string) {
	for _, at := range parties {
		for f := l.got(at.port()); f != nil; f = l.got(at.port()) {
			v := &f.View
			kind := v.SrcPort >> 8
			if v.Proto == packet.ProtoICMP && kind != 0 && kind != 8 || v.Proto == packet.ProtoICMPv6 && kind != 128 && kind != 129 {
				continue
			}
			all = append(all, fmt.Sprintf("%v %v %x", at, f.Vnet, f.Bytes()))
		}
	}
	return all
}

// TestWhatIsRememberedIsRight: a laboratory whose flow cache is emptied before each
// frame sends the same as one that remembers, also when everything changes.
func TestWhatIsRememberedIsRight(t *testing.T) {
	for name, translates := range map[string]bool{"routes": false, "translates": true} {
		t.Run(name, func(t *testing.T) { compareRivals(t, translates) })
	}
}

func compareRivals(t *testing.T, translates bool) {
	t.Helper()
	quick, slow := stillSites(t, rivalSites(translates)...), stillSites(t, rivalSites(translates)...)
	quick.freeze()
	slow.freeze()
	parties := []party{{1, 1}, {1, 2}, {1, 3}, {2, 1}, {2, 2}, {2, 3}, {3, 1}, {3, 2}}
	r := rand.New(rand.NewPCG(5, 6))
	hits := 0
	for n := range 20_000 {
		if n%500 == 499 {
			k := r.IntN(6)
			for _, l := range []*lab{quick, slow} {
				l.change(k, n)
				l.apply()
				l.pass(1)
				l.said(parties)
			}
		}
		from, f := rival(rand.New(rand.NewPCG(uint64(n/500), uint64(r.IntN(20)))), r)
		w := slow.n.workers[0]
		w.mu.Lock()
		w.turn.flows.cache.Flush()
		w.mu.Unlock()
		quick.sendFrame(from.port(), f)
		slow.sendFrame(from.port(), f)
		got, want := quick.said(parties), slow.said(parties)
		if !slices.Equal(got, want) {
			t.Fatalf("frame %d, %v ttl %d: %s\ngot  %v\nwant %v", n, from, f.HopLimit(), pt.Describe(f.Bytes()), got, want)
		}
	}
	for _, at := range parties {
		hits += int(quick.stats(at.port()).FlowHits)
	}
	if hits < 1000 {
		t.Errorf("%d hits", hits)
	}
}

// change is one of several changes of the laboratory.
func (l *lab) change(k, n int) {
	a := &l.snap.Namespaces[0]
	switch k {
	case 0:
		a.Networks[1].Ports[0].MTU = 600 + n%900
	case 1:
		rules := []routing.Rule{
			{IIF: "c12"},
			{TOS: 0x10},
			{Dport: routing.Ports{From: 2001, To: 2001}},
			{Proto: packet.ProtoTCP},
			{From: netip.PrefixFrom(alice.addr4(), 32)},
		}
		rule := rules[n/500%len(rules)]
		rule.Priority, rule.PrioritySet, rule.Table = 100, true, 100
		a.Routing.Rules = append(usualRules(), rule)
		rule.Family = routing.IPv6
		if !rule.From.IsValid() {
			a.Routing.Rules = append(a.Routing.Rules, rule)
		}
	case 2:
		a.Links[0].MTU = 1280 + n%200
	case 3:
		a.Networks[0].Device.ReversePath = routing.ReverseMode(n / 500 % 3)
	case 4:
		a.Networks[0].Device.ClampMSS = uint16(n % 1400)
	case 5:
		l.n.Namespace("a").FlushNeighbours(0, netip.Addr{})
	}
}
