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
	"sluice/routing"
	"sluice/trace"
)

// sixOnly is the namespace of these tests: site 1 has no IPv4, and gets to that of site
// 2, and beyond it, as its gateway's address.
func sixOnly(containers int) NamespaceSpec {
	inside := site(1, containers)
	inside.Addresses = inside.Addresses[1:]
	for i := range inside.Ports {
		inside.Ports[i].Addresses = inside.Ports[i].Addresses[1:]
	}
	s := sites("lab", inside, site(2, 2))
	s.Routing.Routes = []routing.Route{via("198.51.100.0/24", "site2", bob.addr4())}
	s.Connections = ConnectionsSpec{Track: true, Zone: 7, Rules: []nat.Rule{{
		Name: "nat64", Hook: nat.Prerouting, Kind: nat.NAT64, Prefix: wellKnown(), Target: nat.Target{Addrs: nat.One(gate(2).addr4())},
	}}}
	return s
}

func wellKnown() netip.Prefix { return netip.MustParsePrefix("64:ff9b::/96") }

func in64(a netip.Addr) netip.Addr { return nat.Embed(wellKnown(), a) }

// to64 is a packet to an IPv4 address by NAT64.
func (s party) to64(a netip.Addr) pt.Packet {
	p := s.to6(s)
	p.Dst = in64(a)
	return p
}

func TestNAT64(t *testing.T) {
	l := stillSites(t, sixOnly(2))
	there := alice.to64(bob.addr4())
	back := bob.back(alice.to(bob), gate(2).addr4(), 1000)
	hits, hitsBack := l.hits(alice), l.hits(bob)
	for range 3 {
		l.send(alice.port(), pt.UDP6(there))
		l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(bob.addr4()), pt.TTL(63)), pt.UDP(pt.SrcPort(1000), pt.DstPort(2000)), pt.Data(there.Payload))
		l.send(bob.port(), pt.UDP4(back))
		l.arrived(alice, pt.IPv6(pt.Src(there.Dst), pt.Dst(alice.addr6()), pt.TTL(63)), pt.UDP(pt.SrcPort(2000), pt.DstPort(1000)))
	}
	if a, b := hits(), hitsBack(); a != 2 || b != 2 {
		t.Errorf("%d and %d hits, want 2 and 2", a, b)
	}
	other := (party{1, 2}).to64(bob.addr4()) // another source's port is another one
	l.send(12, pt.UDP6(other))
	f := l.got(bob.port())
	pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4())), pt.UDP())
	if f.View.SrcPort == 1000 {
		t.Error("two sources have one port")
	}
	l.send(bob.port(), pt.UDP4(bob.back(alice.to(bob), gate(2).addr4(), f.View.SrcPort)))
	l.arrived(party{1, 2}, pt.IPv6(pt.Src(there.Dst), pt.Dst(party{1, 2}.addr6())), pt.UDP(pt.DstPort(1000)))
	l.silent(11, 12, 21, 22)
	c := l.n.Connections()
	c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
		if !e.Original.Src.Is6() || !e.Reply.Src.Is4() || e.Original.SrcPort == 1000 && e.Original.Src == alice.addr6() && e.Packets != [2]uint64{3, 3} {
			t.Errorf("%+v", e)
		}
		return true
	})
	// What is no connection's must not leave for the prefix.
	p := alice.to64(bob.addr4())
	p.Flags = pt.RST
	l.send(alice.port(), pt.TCP6(p))
	l.silent(21, 22)
}

// TestNAT64Forbidden: what no packet of IPv4 may go to doesn't leave by NAT64 either, and
// nobody hears of a shorter way to what is not on his link.
func TestNAT64Forbidden(t *testing.T) {
	s := sixOnly(1)
	s.Networks[1].Addresses = append(s.Networks[1].Addresses, netip.MustParsePrefix("fd44:9::1/64"))
	s.Routing.Routes = append(s.Routing.Routes, via("169.254.0.0/16", "site2", bob.addr4()), via("0.0.0.0/0", "site2", bob.addr4()))
	l := stillSites(t, s)
	for _, to := range []string{"169.254.169.254", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255"} {
		l.send(alice.port(), pt.UDP6(alice.to64(pt.IP(to))))
	}
	l.silent(21, 22)
	// Within one network, from IPv6 to IPv4 and back.
	carol, dave := party{2, 1}, party{2, 2}
	there := carol.to6(dave)
	there.Dst = in64(dave.addr4())
	for range 2 {
		l.send(carol.port(), pt.UDP6(there))
		f := l.got(dave.port())
		pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4())), pt.UDP())
		l.send(dave.port(), pt.UDP4(dave.back(carol.to(dave), gate(2).addr4(), f.View.SrcPort)))
		l.arrived(carol, pt.IPv6(pt.Src(there.Dst)), pt.UDP())
	}
	l.silent(21, 22)
}

// TestNAT64Trains: an offload frame of datagrams that may be fragmented is cut as one
// datagram after the other, each with fragments of its own.
func TestNAT64Trains(t *testing.T) {
	l := stillSites(t, sixOnly(1))
	l.send(alice.port(), pt.UDP6(alice.to64(bob.addr4())))
	l.arrived(bob, pt.UDP())
	p := bob.back(alice.to(bob), gate(2).addr4(), 1000)
	p.ID, p.Payload = 100, pt.Bytes(3*1400)
	l.sendFrame(bob.port(), pt.GSO(pt.UDP4(p), 1400))
	l.round()
	data := map[uint32]int{}
	for f := l.got(alice.port()); f != nil; f = l.got(alice.port()) {
		fr, ok := f.View.Fragment(f.Bytes())
		if !ok || f.L3Len() > 1280 {
			t.Errorf("%s: %+v", described(f), fr)
		}
		data[fr.ID] += fr.Len
	}
	if len(data) != 3 || data[100] != 1408 || data[101] != 1408 || data[102] != 1408 {
		t.Errorf("bytes of each datagram: %v", data)
	}
}

// TestNAT64Protocols: a ping, SCTP, and what has no translation.
func TestNAT64Protocols(t *testing.T) {
	l := stillSites(t, sixOnly(1))
	there := alice.to64(bob.addr4())
	there.ID, there.Seq = 77, 5
	for range 2 {
		l.send(alice.port(), pt.Ping6(there))
		l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4()), pt.TTL(63)), pt.ICMP(pt.ICMPType(8, 0), pt.EchoID(77)), pt.Data(there.Payload))
		l.send(bob.port(), pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()}, pt.IPv4Hdr{Src: bob.addr4(), Dst: gate(2).addr4()},
			pt.ICMPHdr{ID: 77, Seq: 5}, pt.Payload(there.Payload)))
		l.arrived(alice, pt.IPv6(pt.Src(there.Dst), pt.TTL(63)), pt.ICMPv6(pt.ICMPType(129, 0), pt.EchoID(77)), pt.Data(there.Payload))
	}
	init := there
	init.Seq = 0
	init.Payload = []byte{1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1} // an INIT
	l.send(alice.port(), pt.SCTP6(init))
	l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4())), pt.SCTP(pt.SrcPort(1000)))
	next := uint8(47) // GRE
	l.send(alice.port(), pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}, pt.IPv6Hdr{Src: alice.addr6(), Dst: there.Dst, Next: &next}, pt.Bytes(20)))
	if n := l.stats(alice.port()).Drops[trace.NATUntranslatable.String()]; n != 1 {
		t.Errorf("%d packets not translatable, want 1", n)
	}
	own := alice.to64(gate(2).addr4()) // which its answers would not leave
	l.send(alice.port(), pt.UDP6(own))
	l.arrived(alice, pt.IPv6(pt.Src(gate(1).addr6())), pt.ICMPv6(pt.ICMPType(1, 1)))
	l.silent(11, 21, 22)
}

// TestNAT64Errors of the router and of others, in both directions.
func TestNAT64Errors(t *testing.T) {
	l := stillSites(t, sixOnly(1))
	world := pt.IP("198.51.100.7")
	quotes := func(f *packet.Frame, src, dst netip.Addr) {
		t.Helper()
		if q, ok := conntrack.Quoted(f); !ok || q.Tuple.Src != src || q.Tuple.Dst != dst || q.Tuple.SrcPort != 1000 && q.Tuple.DstPort != 1000 {
			t.Errorf("quotes %+v, want %v to %v", q, src, dst)
		}
	}
	there := alice.to64(world)
	// The router's own are of the sender's family.
	there.TTL = 1
	l.send(alice.port(), pt.UDP6(there))
	f := l.got(alice.port())
	pt.Check(t, f, pt.IPv6(pt.Src(gate(1).addr6()), pt.Dst(alice.addr6())), pt.ICMPv6(pt.ICMPType(3, 0)))
	quotes(f, alice.addr6(), there.Dst)
	nowhere := alice.to64(pt.IP("203.0.113.9"))
	l.send(alice.port(), pt.UDP6(nowhere))
	l.arrived(alice, pt.IPv6(pt.Src(gate(1).addr6())), pt.ICMPv6(pt.ICMPType(1, 0)))
	// One of a router behind it seems to come from its address in the prefix.
	there.TTL = 2
	l.send(alice.port(), pt.UDP6(there))
	got := l.got(bob.port())
	quote := pt.Payload(bytes.Clone(got.Bytes()[got.View.L3:got.View.End]))
	for _, e := range []pt.ICMPHdr{{Type: 11}, {Type: 3, Code: 3}, {Type: 3, Code: 4, Seq: 1400}} {
		l.send(bob.port(), pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()}, pt.IPv4Hdr{Src: pt.IP("198.51.100.1"), Dst: gate(2).addr4()}, e, quote))
		want := map[pt.ICMPHdr]pt.Checker{{Type: 11}: pt.ICMPType(3, 0), {Type: 3, Code: 3}: pt.ICMPType(1, 4), {Type: 3, Code: 4, Seq: 1400}: pt.NextMTU(1420)}[e]
		f := l.got(alice.port())
		pt.Check(t, f, pt.IPv6(pt.Src(in64(pt.IP("198.51.100.1"))), pt.Dst(alice.addr6()), pt.TTL(63)), pt.ICMPv6(want))
		quotes(f, alice.addr6(), there.Dst)
	}
	// The router's about an answer, and the container's.
	back := bob.back(alice.to(bob), gate(2).addr4(), 1000)
	back.Src, back.TTL = world, 1
	l.send(bob.port(), pt.UDP4(back))
	f = l.got(bob.port())
	pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(world)), pt.ICMP(pt.ICMPType(11, 0)))
	quotes(f, world, gate(2).addr4())
	back.TTL = 9
	l.send(bob.port(), pt.UDP4(back))
	got = l.got(alice.port())
	quote = pt.Payload(bytes.Clone(got.Bytes()[got.View.L3:got.View.End]))
	l.send(alice.port(), pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}, pt.IPv6Hdr{Src: alice.addr6(), Dst: there.Dst}, pt.ICMPHdr{V6: true, Type: 1, Code: 4}, quote))
	f = l.got(bob.port())
	pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(world), pt.TTL(63)), pt.ICMP(pt.ICMPType(3, 3)))
	quotes(f, world, gate(2).addr4())
	l.silent(11, 21, 22)
}

// TestNAT64MTU: errors tell the sender what fits in its own family, and what it may
// leave to the router, the router fragments.
func TestNAT64MTU(t *testing.T) {
	l := stillSites(t, sixOnly(1))
	l.portOf(bob).MTU = 1400
	l.portOf(alice).MTU = 1350
	l.apply()
	udp6 := func(n int) []byte {
		p := alice.to64(bob.addr4())
		p.Payload = pt.Bytes(n - 48)
		return pt.UDP6(p)
	}
	for range 2 {
		l.send(alice.port(), udp6(1421))
		l.arrived(alice, pt.IPv6(pt.Src(gate(1).addr6())), pt.ICMPv6(pt.ICMPType(2, 0), pt.NextMTU(1420)))
		l.send(alice.port(), udp6(1420))
		l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4())), pt.UDP())
	}
	// Answers: with DF, the sender hears; without, what is larger than 1280 is cut.
	udp4 := func(n int, df bool) []byte {
		p := bob.back(alice.to(bob), gate(2).addr4(), 1000)
		zero := uint16(0)
		h := pt.UDPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort}
		if !df {
			h.Checksum = &zero
		}
		return pt.Build(pt.EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC}, pt.IPv4Hdr{Src: p.Src, Dst: p.Dst, DF: df, ID: 99}, h, pt.Bytes(n-28))
	}
	for range 2 {
		l.send(bob.port(), udp4(1331, true))
		l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4())), pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(1330)))
		l.send(bob.port(), udp4(1330, true))
		l.arrived(alice, pt.IPv6(pt.Src(in64(bob.addr4())), pt.NoFlags(packet.ViewFrag)), pt.UDP())
		l.send(bob.port(), udp4(1260, false))
		l.arrived(alice, pt.IPv6(pt.NoFlags(packet.ViewFrag)), pt.UDP())
		l.send(bob.port(), udp4(1261, false))
		first, last := l.got(alice.port()), l.got(alice.port())
		pt.Check(t, first, pt.IPv6(pt.Src(in64(bob.addr4())), pt.TTL(63), pt.Flags(packet.ViewFragFirst)))
		pt.Check(t, last, pt.IPv6(pt.Flags(packet.ViewFragLater)))
		a, _ := first.View.Fragment(first.Bytes())
		b, _ := last.View.Fragment(last.Bytes())
		if a.ID != 99 || b.ID != 99 || b.Offset != a.Len || a.Len+b.Len != 1241 || first.L3Len() > 1280 {
			t.Errorf("%+v, %+v", a, b)
		}
		whole := append(bytes.Clone(first.Bytes()[first.View.L4:first.View.End]), last.Bytes()[last.View.L4:last.View.End]...)
		pt.Check(t, pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: in64(bob.addr4()), Dst: alice.addr6(), Next: &[]uint8{packet.ProtoUDP}[0]}, pt.Payload(whole)), pt.IPv6(), pt.UDP(), pt.Data(pt.Bytes(1233)))
	}
	l.silent(11, 21, 22)
	// A way of IPv4 that is narrower than IPv6 can be: the router fragments, without DF.
	l.portOf(bob).MTU = 1000
	l.apply()
	l.send(alice.port(), udp6(1300))
	l.arrived(alice, pt.ICMPv6(pt.ICMPType(2, 0), pt.NextMTU(1280)))
	l.send(alice.port(), udp6(1280))
	l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4()), pt.Flags(packet.ViewFragFirst)))
	l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4()), pt.Flags(packet.ViewFragLater)))
	l.silent(11, 21, 22)
}

// TestNAT64Fragments, in any order, each of them translated.
func TestNAT64Fragments(t *testing.T) {
	l := stillSites(t, sixOnly(1))
	udp := uint8(packet.ProtoUDP)
	whole := pt.UDP6(func() pt.Packet { p := alice.to64(bob.addr4()); p.Payload = pt.Bytes(2000); return p }())[54:]
	piece := func(from, to int) []byte {
		return pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}, pt.IPv6Hdr{Src: alice.addr6(), Dst: in64(bob.addr4())},
			pt.FragHdr{Offset: uint16(from), More: to < len(whole), ID: 0x1234_5678, Next: &udp}, pt.Payload(whole[from:to]))
	}
	l.send(alice.port(), piece(1200, len(whole)))
	l.send(alice.port(), piece(0, 1200))
	l.round()
	var data [2008]byte
	for range 2 {
		f := l.got(bob.port())
		pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4()), pt.TTL(63), pt.ID(0x5678)))
		fr, ok := f.View.Fragment(f.Bytes())
		if !ok {
			t.Fatalf("%s is no fragment", described(f))
		}
		copy(data[fr.Offset:], f.Bytes()[f.View.L4:f.View.End])
	}
	pt.Check(t, pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: gate(2).addr4(), Dst: bob.addr4(), Proto: &udp}, pt.Payload(data[:])), pt.IPv4(), pt.UDP(), pt.Data(pt.Bytes(2000)))
	// And back: a fragment that is larger than fits is cut once more.
	answer := pt.UDP4(func() pt.Packet {
		p := bob.back(alice.to(bob), gate(2).addr4(), 1000)
		p.Payload = pt.Bytes(3000)
		return p
	}())[34:]
	for _, at := range [][2]int{{0, 1480}, {1480, 2960}, {2960, len(answer)}} {
		l.send(bob.port(), pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()},
			pt.IPv4Hdr{Src: bob.addr4(), Dst: gate(2).addr4(), ID: 7, Offset: uint16(at[0]), MF: at[1] < len(answer), Proto: &udp}, pt.Payload(answer[at[0]:at[1]])))
	}
	l.round()
	var all [3008]byte
	n := 0
	for f := l.got(alice.port()); f != nil; f = l.got(alice.port()) {
		fr, ok := f.View.Fragment(f.Bytes())
		if !ok || f.L3Len() > 1280 || fr.ID != 7 {
			t.Errorf("%s, %d bytes, %+v", described(f), f.L3Len(), fr)
		}
		n += copy(all[fr.Offset:], f.Bytes()[f.View.L4:f.View.End])
	}
	if n != len(all) {
		t.Errorf("%d bytes of %d", n, len(all))
	}
	pt.Check(t, pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: in64(bob.addr4()), Dst: alice.addr6(), Next: &udp}, pt.Payload(all[:])), pt.IPv6(), pt.UDP(), pt.Data(pt.Bytes(3000)))
}

// TestNAT64OffloadFrames stay whole, with partial sums that fit.
func TestNAT64OffloadFrames(t *testing.T) {
	l := stillSites(t, sixOnly(1))
	p := alice.to64(bob.addr4())
	p.Flags = pt.SYN
	l.send(alice.port(), pt.TCP6(p))
	l.arrived(bob, pt.TCP())
	r := bob.back(alice.to(bob), gate(2).addr4(), 1000)
	r.Flags, r.Ack, r.Seq, r.Payload = pt.SYN|pt.ACK, 21, 500, nil
	l.send(bob.port(), pt.TCP4(r))
	l.arrived(alice, pt.TCP())
	p.Flags, p.Seq, p.Ack, p.Payload = pt.ACK, 21, 501, pt.Bytes(30_000)
	r.Flags, r.Seq, r.Ack, r.Payload = pt.ACK, 501, 21+30_000, pt.Bytes(30_000)
	for range 2 {
		l.sendFrame(alice.port(), pt.GSO(pt.TCP6(p), 1400))
		got := l.got(bob.port())
		if got == nil || got.Vnet.GSOType != packet.GSOTCP4 || got.Vnet.GSOSize != 1400 || !got.CheckVnet() || !packet.PartialOK(got) {
			t.Fatalf("got %s", described(got))
		}
		pt.Check(t, got, pt.IPv4(pt.Src(gate(2).addr4())), pt.Data(p.Payload))
		f := pt.GSO(pt.TCP4(r), 1400)
		f.Bytes()[f.View.L3+6] |= 0x40 // DF
		f.Bytes()[f.View.L3+10], f.Bytes()[f.View.L3+11] = 0, 0
		sum := ^packet.Sum(f.Bytes()[f.View.L3:f.View.L4], 0)
		f.Bytes()[f.View.L3+10], f.Bytes()[f.View.L3+11] = byte(sum>>8), byte(sum)
		l.sendFrame(bob.port(), f)
		got = l.got(alice.port())
		if got == nil || got.Vnet.GSOType != packet.GSOTCP6 || got.Vnet.GSOSize != 1400 || !got.CheckVnet() || !packet.PartialOK(got) {
			t.Fatalf("got %s", described(got))
		}
		pt.Check(t, got, pt.IPv6(pt.Src(in64(bob.addr4()))), pt.Data(r.Payload))
	}
}

// TestNAT64First packet waits for a neighbour that is not known yet, as what it will be.
func TestNAT64FirstPacketWaits(t *testing.T) {
	l := stillSites(t, sixOnly(1))
	guest := party{2, 9}
	l.send(alice.port(), pt.UDP6(alice.to64(guest.addr4())))
	l.arrivedAll(bob, pt.ARP(pt.Dst(guest.addr4())))
	l.send(bob.port(), bob.answer(guest.mac(), guest.addr4()))
	l.arrivedAll(bob, pt.EtherDst(guest.mac()), pt.IPv4(pt.Src(gate(2).addr4()), pt.TTL(63)), pt.UDP(pt.SrcPort(1000)))
	l.send(bob.port(), pt.UDP4(bob.back(alice.to(guest), gate(2).addr4(), 1000)))
	l.arrived(alice, pt.IPv6(pt.Src(in64(guest.addr4()))))
}

// TestNAT64ClampsMSS to what fits in both families.
func TestNAT64ClampsMSS(t *testing.T) {
	s := sixOnly(1)
	for i := range s.Networks {
		s.Networks[i].Device.ClampMSS = 1
	}
	l := stillSites(t, s)
	p := alice.to64(bob.addr4())
	syn := pt.Build(pt.EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC}, pt.IPv6Hdr{Src: p.Src, Dst: p.Dst},
		pt.TCPHdr{SrcPort: 1000, DstPort: 80, Flags: pt.SYN, Options: []byte{2, 4, 0xff, 0}})
	l.send(alice.port(), syn)
	f := l.got(bob.port())
	pt.Check(t, f, pt.IPv4(), pt.TCP(pt.TCPFlags(pt.SYN)))
	if mss := int(f.Bytes()[f.View.L4+22])<<8 | int(f.Bytes()[f.View.L4+23]); mss != 1440 {
		t.Errorf("MSS %d, want 1440", mss)
	}
}

func TestNAT64HitAllocatesNothing(t *testing.T) {
	l := stillSites(t, sixOnly(1))
	l.send(alice.port(), pt.UDP6(alice.to64(bob.addr4())))
	l.arrived(bob, pt.IPv4())
	answer := bob.back(alice.to(bob), gate(2).addr4(), 1000)
	for name, tc := range map[string]struct {
		in    party
		frame *packet.Frame
	}{
		"to IPv4": {alice, pt.Frame(pt.UDP6(alice.to64(bob.addr4())))},
		"to IPv6": {bob, pt.Frame(pt.UDP4(answer))},
	} {
		t.Run(name, func(t *testing.T) { l.hitsAllocateNothing(t, tc.in, tc.frame) })
	}
}

// TestServiceHitAllocatesNothing in both directions.
func TestServiceHitAllocatesNothing(t *testing.T) {
	s := translating(1)
	s.Connections.Services = []nat.Service{{ID: 3, Backends: []nat.Backend{{Bind: conntrack.Bind{ID: 1, Gen: 1}, Addr: alice.addr4(), Port: 80}}}}
	s.Connections.Rules = []nat.Rule{{
		Name: "service", Hook: nat.Prerouting, Kind: nat.DNAT, Map: &nat.Map{By: nat.ByDstAddr | nat.ByDstPort | nat.ByProto, Elements: map[nat.MapKey]nat.Target{
			{Addr: pt.IP("10.96.0.10"), Port: 53, Proto: packet.ProtoUDP}: {Service: 3},
		}},
	}}
	l := stillSites(t, s)
	p := bob.to(alice)
	p.Dst, p.DstPort = pt.IP("10.96.0.10"), 53
	l.send(bob.port(), pt.UDP4(p))
	l.arrived(alice, pt.UDP(pt.DstPort(80)))
	back := alice.to(bob)
	back.SrcPort, back.DstPort = 80, 1000
	for name, tc := range map[string]struct {
		in    party
		frame *packet.Frame
	}{"to it": {bob, pt.Frame(pt.UDP4(p))}, "back": {alice, pt.Frame(pt.UDP4(back))}} {
		t.Run(name, func(t *testing.T) { l.hitsAllocateNothing(t, tc.in, tc.frame) })
	}
	c := l.n.Connections()
	if b := c.NAT().Backends(c.Now()); len(b) != 1 || b[0].Conns != 1 || b[0].Active != 1 || b[0].Packets[0] < 200 || b[0].Packets[1] < 200 {
		t.Errorf("%+v", b)
	}
}

// hitsAllocateNothing judges one frame of a port again and again.
func (l *lab) hitsAllocateNothing(t *testing.T, from party, frame *packet.Frame) {
	t.Helper()
	w := l.n.workers[0]
	w.round(0)
	in, whole := l.n.view.Load().port(from.port()), bytes.Clone(frame.Bytes())
	frames, vnet := []packet.Frame{*frame}, frame.Vnet
	w.mu.Lock()
	w.turn.begin(in, frames)
	hits, misses := w.turn.tally.hits, w.turn.tally.misses
	w.mu.Unlock()
	turn := func() {
		w.mu.Lock()
		x := &w.turn
		x.frames[0].Reset(packet.Headroom, len(whole))
		x.frames[0].Vnet = vnet
		copy(x.frames[0].Bytes(), whole)
		x.tally.work = 0
		x.judge(in, 0)
		if x.out.full() {
			x.out.touched, x.out.used = x.out.touched[:0], 1
			clear(x.out.lists)
		}
		w.mu.Unlock()
	}
	turn()
	if got := testing.AllocsPerRun(200, turn); got != 0 && !raceEnabled {
		t.Errorf("%v allocations for a hit, want 0", got)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	x := &w.turn
	if x.tally.misses-misses > 1 || x.tally.hits-hits < 200 {
		t.Errorf("%d hits, %d misses, %+v", x.tally.hits-hits, x.tally.misses-misses, in.counters.Snapshot())
	}
}

// TestTCPOverNAT64 carries bytes by real stacks, with and without offloads.
func TestTCPOverNAT64(t *testing.T) {
	s := sixOnly(2)
	s.Networks[0].Ports[1].Offload = false
	w := newWorld(t, s)
	for _, from := range []party{alice, {1, 2}} {
		transferTo(t, w.inside[from], w.inside[bob], "[64:ff9b::10.44.2.11]:80", "10.44.2.11:80", 4<<20)
	}
}
