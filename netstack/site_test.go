// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
)

// The laboratory of the tests of routing: the networks of a lab are sites.
//
//	party{1, 1} ── port 11 ┐
//	party{1, 2} ── port 12 ┴ "site1" ── port 10 ── 10.44.1.1/24 fd44:1::1/64 ┐
//	party{2, 1} ── port 21 ┐                                                 ├ router
//	party{2, 2} ── port 22 ┴ "site2" ── port 20 ── 10.44.2.1/24 fd44:2::1/64 ┘
//
// Station {k, i} has the addresses 10.44.k.(10+i) and fd44:k::(10+i). Link {a, b} has
// the index 200+10*a+b in the namespace of a.

// party is container i of site k.
type party struct{ site, i int }

func (s party) port() uint16    { return uint16(10*s.site + s.i) }
func (s party) mac() packet.MAC { return packet.MAC{2, 0, 0, byte(s.site), 1, byte(s.i)} }
func (s party) addr4() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 44, byte(s.site), byte(10 + s.i)})
}

func (s party) addr6() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x44, 3: byte(s.site), 15: byte(10 + s.i)})
}

// gate is the gateway of a site.
type gate int

func (g gate) port() uint16      { return uint16(10 * g) }
func (g gate) mac() packet.MAC   { return packet.MAC{2, 0, 0, byte(g), 0, 1} }
func (g gate) addr4() netip.Addr { return netip.AddrFrom4([4]byte{10, 44, byte(g), 1}) }
func (g gate) addr6() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x44, 3: byte(g), 15: 1})
}

func (g gate) name() string { return "site" + string(rune('0'+g)) }

// site is a network of so many containers.
func site(k, containers int) NetworkSpec {
	g := gate(k)
	s := NetworkSpec{
		Name:      g.name(),
		Bridge:    BridgeSpec{Index: g.port(), MAC: g.mac(), MTU: 1500},
		Addresses: []netip.Prefix{netip.PrefixFrom(g.addr4(), 24), netip.PrefixFrom(g.addr6(), 64)},
	}
	for i := 1; i <= containers; i++ {
		c := party{k, i}
		s.Ports = append(s.Ports, PortSpec{
			Index: c.port(), MAC: c.mac(), MTU: 1500, Offload: true,
			Addresses: []netip.Addr{c.addr4(), c.addr6()},
		})
	}
	return s
}

// sites is a namespace of these networks.
func sites(name string, networks ...NetworkSpec) NamespaceSpec {
	return NamespaceSpec{Name: name, Networks: networks}
}

// network returns the spec of a site in the snapshot of the laboratory.
func (l *lab) network(k int) *NetworkSpec {
	for i := range l.snap.Namespaces {
		for j := range l.snap.Namespaces[i].Networks {
			if n := &l.snap.Namespaces[i].Networks[j]; n.Bridge.Index == gate(k).port() {
				return n
			}
		}
	}
	panic("no such site")
}

func (l *lab) portOf(s party) *PortSpec { return &l.network(s.site).Ports[s.i-1] }

// linkIndex is that of the end in the namespace of a of the link between a and b.
func linkIndex(a, b int) uint16 { return uint16(200 + 10*a + b) }

// linked is the end of a link, with addresses that say whose it is.
func linked(a, b int) LinkSpec {
	return LinkSpec{
		Name: "to" + string(rune('0'+b)), Index: linkIndex(a, b), Peer: linkIndex(b, a), MTU: 1500,
		Addresses: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(min(a, b)*10 + max(a, b)), byte(a)}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 13: byte(min(a, b)*10 + max(a, b)), 15: byte(a)}), 112),
		},
	}
}

// via is a route to a site by a device, and by a gateway if that is valid.
func via(prefix, dev string, gateways ...netip.Addr) routing.Route {
	r := routing.Route{Prefix: netip.MustParsePrefix(prefix)}
	if len(gateways) == 0 {
		r.NextHops = []routing.NextHop{{Dev: dev}}
	}
	for _, a := range gateways {
		r.NextHops = append(r.NextHops, routing.NextHop{Dev: dev, Via: a})
	}
	return r
}

// stillSites is stillLab for whole namespaces.
func stillSites(t testing.TB, spaces ...NamespaceSpec) *lab {
	t.Helper()
	l := stillLab(t)
	l.snap.Namespaces = spaces
	l.apply()
	return l
}

// to is a packet from one station to another by way of the gateway.
func (s party) to(d party) pt.Packet {
	return pt.Packet{
		SrcMAC: s.mac(), DstMAC: gate(s.site).mac(), Src: s.addr4(), Dst: d.addr4(),
		SrcPort: 1000, DstPort: 2000, Payload: pt.Bytes(20),
	}
}

func (s party) to6(d party) pt.Packet {
	p := s.to(d)
	p.Src, p.Dst = s.addr6(), d.addr6()
	return p
}

// arrived checks a packet that a party got from its gateway.
func (l *lab) arrived(at party, more ...pt.Checker) {
	l.t.Helper()
	f := l.got(at.port())
	if f == nil {
		l.t.Errorf("%v got nothing", at)
		return
	}
	pt.Check(l.t, f, append([]pt.Checker{pt.EtherSrc(gate(at.site).mac()), pt.EtherDst(at.mac())}, more...)...)
}

// df is a UDP datagram of n bytes that must not be fragmented.
func df(p pt.Packet, n int) []byte {
	return pt.Build(
		pt.EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC}, pt.IPv4Hdr{Src: p.Src, Dst: p.Dst, TTL: p.TTL, DF: true},
		pt.UDPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort}, pt.Bytes(n))
}

// pass lets time go by for the still laboratory: housekeeping is done each second.
func (l *lab) pass(seconds int) {
	for range seconds {
		l.n.start = l.n.start.Add(-time.Second)
		w := l.n.workers[0]
		w.mu.Lock()
		w.turn.out.clock.start = l.n.start
		w.mu.Unlock()
		l.n.everySecond()
		l.round()
	}
}

// freeze stops the time of a still laboratory: it goes on with pass alone.
func (l *lab) freeze() {
	now := time.Now()
	l.n.since = now.Sub
	w := l.n.workers[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn.out.clock.since = now.Sub
}

// hits is how many frames of a port were replayed since this was last asked.
func (l *lab) hits(at party) func() int {
	last := l.stats(at.port()).FlowHits
	return func() int {
		now := l.stats(at.port()).FlowHits
		n := int(now - last)
		last = now
		return n
	}
}
