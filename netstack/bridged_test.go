// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"net/netip"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// bridgedSites is a namespace that tracks what stays in a network, too.
func bridgedSites(containers int) NamespaceSpec {
	s := sites("lab", site(1, containers), site(2, 2))
	s.Connections = ConnectionsSpec{Track: true, Zone: 7, Bridged: true}
	return s
}

// beside is a packet straight to another station of the network.
func (s party) beside(d party) pt.Packet {
	p := s.to(d)
	p.DstMAC = d.mac()
	return p
}

func TestBridgedIsTracked(t *testing.T) {
	l := stillSites(t, bridgedSites(2))
	carol := party{1, 2}
	hits := l.hits(alice)
	for range 3 {
		l.send(alice.port(), pt.UDP4(alice.beside(carol)))
		pt.Check(t, l.got(carol.port()), pt.EtherSrc(alice.mac()), pt.IPv4(pt.Src(alice.addr4()), pt.TTL(64)), pt.UDP())
		back := carol.beside(alice)
		back.SrcPort, back.DstPort = 2000, 1000
		l.send(carol.port(), pt.UDP4(back))
		pt.Check(t, l.got(alice.port()), pt.EtherSrc(carol.mac()), pt.IPv4(pt.TTL(64)), pt.UDP())
	}
	if n := hits(); n != 2 {
		t.Errorf("%d hits, want 2", n)
	}
	c, n := l.n.Connections(), 0
	c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
		if n++; e.Packets != [2]uint64{3, 3} || e.Port != alice.port() {
			t.Errorf("%+v", e)
		}
		return true
	})
	if n != 1 {
		t.Errorf("%d connections", n)
	}
	l.snap.Namespaces[0].Connections.Bridged = false
	l.apply()
	p := alice.beside(carol)
	p.SrcPort = 1001
	l.send(alice.port(), pt.UDP4(p))
	pt.Check(t, l.got(carol.port()), pt.UDP())
	if n := c.Table().Len(); n != 1 {
		t.Errorf("%d connections, when it is off", n)
	}
}

// TestBridgedDestination: what gets another one is routed there, within the network too,
// and its answers come by the bridge.
func TestBridgedDestination(t *testing.T) {
	s := bridgedSites(3)
	carol, dave := party{1, 2}, party{1, 3}
	rule := publish(8080, dave.addr4(), 80)
	rule.Match.Own, rule.Match.Dst = nat.Either, []netip.Prefix{netip.PrefixFrom(carol.addr4(), 32)}
	s.Connections.Rules = []nat.Rule{rule}
	l := stillSites(t, s)
	p := alice.beside(carol)
	p.DstPort = 8080
	for range 2 {
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(dave, pt.IPv4(pt.Src(alice.addr4()), pt.Dst(dave.addr4()), pt.TTL(63)), pt.UDP(pt.DstPort(80)))
		back := dave.beside(alice)
		back.SrcPort, back.DstPort = 80, 1000
		l.send(dave.port(), pt.UDP4(back))
		pt.Check(t, l.got(alice.port()), pt.EtherSrc(dave.mac()), pt.IPv4(pt.Src(carol.addr4()), pt.TTL(64)), pt.UDP(pt.SrcPort(8080), pt.DstPort(1000)))
	}
	l.silent(11, 12, 13)
}

// TestBridgedFragments are tracked with their flow, whichever comes first, and stay on
// the bridge.
func TestBridgedFragments(t *testing.T) {
	l := stillSites(t, bridgedSites(2))
	carol, udp := party{1, 2}, uint8(packet.ProtoUDP)
	whole := pt.UDP4(func() pt.Packet { p := alice.beside(carol); p.Payload = pt.Bytes(2000); return p }())[34:]
	piece := func(from, to int) []byte {
		return pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: carol.mac()},
			pt.IPv4Hdr{Src: alice.addr4(), Dst: carol.addr4(), ID: 7, Offset: uint16(from), MF: to < len(whole), Proto: &udp}, pt.Payload(whole[from:to]))
	}
	l.send(alice.port(), piece(1200, len(whole)))
	l.send(alice.port(), piece(0, 1200))
	l.round()
	var all [2008]byte
	for range 2 {
		f := l.got(carol.port())
		pt.Check(t, f, pt.EtherSrc(alice.mac()), pt.EtherDst(carol.mac()), pt.IPv4(pt.TTL(64)))
		fr, _ := f.View.Fragment(f.Bytes())
		copy(all[fr.Offset:], f.Bytes()[f.View.L4:f.View.End])
	}
	if !bytes.Equal(all[:], whole) || l.n.Connections().Table().Len() != 1 {
		t.Errorf("%d connections", l.n.Connections().Table().Len())
	}
}

func TestBridgedHitAllocatesNothing(t *testing.T) {
	l := stillSites(t, bridgedSites(2))
	l.hitsAllocateNothing(t, alice, pt.Frame(pt.UDP4(alice.beside(party{1, 2}))))
}
