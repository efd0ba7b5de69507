// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
	"sluice/trace"
)

// chain is so many namespaces in a row, each with one site, and links between
// neighbours: all of them know the way to all sites.
func chain(n int) (all []NamespaceSpec) {
	for k := 1; k <= n; k++ {
		s := sites("ns"+string(rune('0'+k)), site(k, 1))
		for _, peer := range []int{k - 1, k + 1} {
			if peer < 1 || peer > n {
				continue
			}
			s.Links = append(s.Links, linked(k, peer))
			for far := peer; far >= 1 && far <= n; far += peer - k {
				g := gate(far)
				s.Routing.Routes = append(s.Routing.Routes,
					via(netip.PrefixFrom(g.addr4(), 24).Masked().String(), linked(k, peer).Name),
					via(netip.PrefixFrom(g.addr6(), 64).Masked().String(), linked(k, peer).Name))
			}
		}
		all = append(all, s)
	}
	return all
}

func TestRoutesBetweenNamespaces(t *testing.T) {
	for routers := 2; routers <= 5; routers++ {
		l := stillSites(t, chain(routers)...)
		last := party{routers, 1}
		hits := l.hits(alice)
		for n := range 3 {
			l.send(alice.port(), pt.UDP4(alice.to(last)))
			l.arrived(last, pt.IPv4(pt.TTL(uint8(64-routers)), pt.Src(alice.addr4())), pt.UDP(), pt.Data(pt.Bytes(20)))
			l.send(alice.port(), pt.TCP6(alice.to6(last)))
			l.arrived(last, pt.IPv6(pt.TTL(uint8(64-routers))), pt.TCP())
			want := min(n, 1) * 2
			if routers > len(hop{}.epochs) {
				want = 0
			}
			if got := hits(); got != want {
				t.Errorf("%d routers, round %d: %d hits, want %d", routers, n, got, want)
			}
		}
		// Whatever a link carries is counted at both ends.
		for k := 1; k < routers; k++ {
			out, in := l.stats(linkIndex(k, k+1)), l.stats(linkIndex(k+1, k))
			if out.TxPackets != 6 || in.RxPackets != 6 || out.TxBytes != 3*62+3*94 || in.RxBytes != out.TxBytes {
				t.Errorf("%d routers: link %d has %+v, the other end %+v", routers, k, out, in)
			}
		}
	}
}

// TestLinkedFlowFollowsChanges in every namespace of its way.
func TestLinkedFlowFollowsChanges(t *testing.T) {
	for k := range 3 {
		l := stillSites(t, chain(3)...)
		last := party{3, 1}
		for range 2 {
			l.send(alice.port(), pt.UDP4(alice.to(last)))
			l.arrived(last, pt.UDP())
		}
		r := &l.snap.Namespaces[k].Routing
		r.Routes = append(r.Routes, routing.Route{Prefix: netip.PrefixFrom(last.addr4(), 32), Type: routing.Prohibit})
		l.apply()
		l.send(alice.port(), pt.UDP4(alice.to(last)))
		l.silent(last.port())
		l.arrived(alice, pt.ICMP(pt.ICMPType(3, 13)))
	}
}

// TestLinkLimits: its MTU, and hops that end at each router of the way (traceroute).
func TestLinkLimits(t *testing.T) {
	spaces := chain(3)
	spaces[1].Links[1].MTU = 1400
	l := stillSites(t, spaces...)
	last := party{3, 1}
	from4 := []string{"10.44.1.1", "10.99.12.2", "10.99.23.3"}
	from6 := []string{"fd44:1::1", "fd99::c:2", "fd99::17:3"}
	for range 2 {
		for i := range 3 {
			p := alice.to(last)
			p.TTL = uint8(i + 1)
			l.send(alice.port(), pt.UDP4(p))
			l.arrived(alice, pt.IPv4(pt.Src(from4[i])), pt.ICMP(pt.ICMPType(11, 0)))
			p = alice.to6(last)
			p.TTL = uint8(i + 1)
			l.send(alice.port(), pt.UDP6(p))
			l.arrived(alice, pt.IPv6(pt.Src(from6[i])), pt.ICMPv6(pt.ICMPType(3, 0)))
		}
		l.send(alice.port(), pt.UDP4(alice.to(last)))
		l.arrived(last, pt.IPv4(pt.TTL(61)))
		l.send(alice.port(), df(alice.to(last), 1400))
		l.arrived(alice, pt.IPv4(pt.Src(from4[1])), pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(1400)))
		p := alice.to(last)
		p.Payload = pt.Bytes(1400)
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(last, pt.IPv4(pt.TTL(61), pt.Flags(packet.ViewFragFirst)))
		l.arrived(last, pt.IPv4(pt.TTL(61), pt.Flags(packet.ViewFragLater)))
		l.silent(11, 21, 31)
	}
}

// TestAddressesOfLinksAnswer from both sides, and from both namespaces' containers.
func TestAddressesOfLinksAnswer(t *testing.T) {
	l := stillSites(t, chain(2)...)
	for _, from := range []party{alice, bob} {
		for _, a := range []string{"10.99.12.1", "10.99.12.2", "10.44.1.1", "10.44.2.1"} {
			p := from.to(from)
			p.Dst = pt.IP(a)
			l.send(from.port(), pt.Ping4(p))
			l.arrived(from, pt.IPv4(pt.Src(a)), pt.ICMP(pt.ICMPType(0, 0)))
		}
		for _, a := range []string{"fd99::c:1", "fd99::c:2", "fd44:1::1", "fd44:2::1"} {
			p := from.to6(from)
			p.Dst = pt.IP(a)
			l.send(from.port(), pt.Ping6(p))
			l.arrived(from, pt.IPv6(pt.Src(a)), pt.ICMPv6(pt.ICMPType(129, 0)))
		}
	}
	l.silent(11, 21)
}

// TestLoopOfLinksEnds after so many links, whatever the hop limit says.
func TestLoopOfLinksEnds(t *testing.T) {
	spaces := chain(2)
	spaces[0].Routing.Routes = append(spaces[0].Routing.Routes, via("10.77.0.0/16", "to2"))
	spaces[1].Routing.Routes = append(spaces[1].Routing.Routes, via("10.77.0.0/16", "to1"))
	l := stillSites(t, spaces...)
	p := alice.to(bob)
	p.Dst = pt.IP("10.77.0.1")
	for range 3 {
		l.send(alice.port(), pt.UDP4(p))
		l.silent(11, 21)
	}
	if got := l.drops(alice.port(), trace.LinkLoop); got != 3 {
		t.Errorf("%d frames in a loop, want 3", got)
	}
	p.TTL = 4
	l.send(alice.port(), pt.UDP4(p))
	l.arrived(alice, pt.ICMP(pt.ICMPType(11, 0)))
}

// TestLinkedNeighbourIsAskedFor: a packet that came over a link waits as others do.
func TestLinkedNeighbourIsAskedFor(t *testing.T) {
	l := stillSites(t, chain(2)...)
	guest := party{2, 9}
	l.send(alice.port(), pt.UDP4(alice.to(guest)))
	l.arrivedAll(bob, pt.ARP(pt.Dst(guest.addr4())))
	l.send(bob.port(), bob.answer(guest.mac(), guest.addr4()))
	l.arrivedAll(bob, pt.EtherDst(guest.mac()), pt.IPv4(pt.TTL(62)))
	other := party{2, 8}
	l.send(alice.port(), pt.UDP4(alice.to(other)))
	l.got(bob.port())
	l.pass(4)
	for l.got(bob.port()) != nil {
	}
	l.arrived(alice, pt.IPv4(pt.Src("10.99.12.2")), pt.ICMP(pt.ICMPType(3, 1)))
	if got := l.drops(linkIndex(2, 1), trace.NeighFailed); got != 1 {
		t.Errorf("%d packets lost at the link, want 1", got)
	}
}

// TestOverlappingNamespaces have the same addresses and MACs, and share nothing.
func TestOverlappingNamespaces(t *testing.T) {
	one, two := twoSites(), twoSites()
	two.Name = "other"
	for i := range two.Networks {
		n := &two.Networks[i]
		n.Bridge.Index += 100
		for j := range n.Ports {
			n.Ports[j].Index += 100
		}
	}
	l := stillSites(t, one, two)
	for range 2 {
		l.send(alice.port(), pt.UDP4(alice.to(bob)))
		l.arrived(bob)
		l.send(alice.port()+100, pt.UDP4(alice.to(bob)))
		pt.Check(t, l.got(bob.port()+100), pt.EtherDst(bob.mac()), pt.IPv4(pt.TTL(63)))
		l.silent(11, 12, 21, 22, 111, 112, 121, 122)
	}
}

// TestLinkThatLeavesIsForgotten with what its router keeps on its account: its index may
// come back as another's.
func TestLinkThatLeavesIsForgotten(t *testing.T) {
	spaces := chain(2)
	spaces[0].Routing.Routes = append(spaces[0].Routing.Routes, via("10.77.0.0/16", "to2"))
	spaces[1].Routing.Routes = append(spaces[1].Routing.Routes, via("10.77.0.0/16", "site2", bob.addr4(), party{2, 2}.addr4()))
	l := stillSites(t, spaces...)
	h := pt.IPv4Hdr{Src: alice.addr4(), Dst: pt.IP("10.77.0.1"), Offset: 800, Proto: new(uint8(17))}
	l.send(alice.port(), pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}, h, pt.Bytes(80)))
	for i := range l.snap.Namespaces {
		l.snap.Namespaces[i].Links, l.snap.Namespaces[i].Routing.Routes = nil, nil
	}
	l.apply()
	if got := l.drops(linkIndex(2, 1), trace.PortRemoved); got != 1 {
		t.Errorf("%d fragments given up, want the one that waited", got)
	}
}
