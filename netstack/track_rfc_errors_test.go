// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"net/netip"
	"testing"

	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// ofRFC reports whether the profile is that of the RFCs.
func (l *lab) ofRFC() bool { return l.snap.Namespaces[0].Connections.Profile == "rfc" }

// ipOf is the IP packet of a frame.
func ipOf(frame []byte) []byte {
	f := pt.Frame(frame)
	return f.Bytes()[f.View.L3:f.View.End]
}

// quoting checks what an error quotes, as an IP packet.
func quoting(t *testing.T, f *packet.Frame, want []byte) {
	t.Helper()
	if f == nil {
		t.Fatal("no error arrives")
	}
	got := f.Bytes()[f.View.L4+8 : f.View.End]
	// A router takes one from the hop limit before it complains, or not.
	got, want = bytes.Clone(got), bytes.Clone(want[:min(len(want), len(got))])
	for _, b := range [][]byte{got, want} {
		b[8], b[10], b[11] = 0, 0, 0
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the error quotes\n%x\nwant\n%x", got, want)
	}
}

// tooBig: whoever sends more than fits is told, about the packet that it sent, on either
// side of the translation.
func tooBig(t *testing.T, l *lab) {
	t.Helper()
	outward(l)
	l.network(2).Bridge.MTU = 1300
	l.apply()
	large := df(alice.to(bob), 1400)
	l.send(alice.port(), large)
	f := l.got(alice.port())
	quoting(t, f, ipOf(large))
	pt.Check(t, f, pt.IPv4(pt.Src(gate(1).addr4()), pt.Dst(alice.addr4())), pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(1300)))

	l.network(1).Bridge.MTU, l.network(2).Bridge.MTU = 1300, 1500
	l.apply()
	large = df(bob.back(alice.to(bob), gate(2).addr4(), 1000), 1400)
	l.send(bob.port(), large)
	f = l.got(bob.port())
	quoting(t, f, ipOf(large))
	pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(bob.addr4())), pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(1300)))
	l.silent(alice.port())
}

// cutInOrder: what may be fragmented is, and leaves from the first to the last.
func cutInOrder(t *testing.T, l *lab) {
	t.Helper()
	l.network(2).Bridge.MTU = 1300
	l.apply()
	p := alice.to(bob)
	p.Payload = pt.Bytes(1400)
	l.send(alice.port(), pt.UDP4(p))
	var got [][]byte
	for at := uint16(0); ; {
		f := l.got(bob.port())
		if f == nil {
			break
		}
		if offset(f.Bytes()) != at {
			t.Errorf("piece %d is from %d on, want %d", len(got), offset(f.Bytes()), at)
		}
		at += uint16(f.View.End - f.View.L3 - packet.IPv4MinLen)
		got = append(got, bytes.Clone(f.Bytes()))
	}
	if len(got) != 2 {
		t.Errorf("%d pieces", len(got))
	}
	whole := reassembled(got)
	if len(whole) != 1 {
		t.Fatalf("%d packets", len(whole))
	}
	pt.Check(t, whole[0], pt.IPv4(pt.Src(gate(2).addr4())), pt.UDP(pt.SrcPort(1000)), pt.Data(p.Payload))
}

// errorsAboutTCP arrive, and end nothing.
func errorsAboutTCP(t *testing.T, l *lab) {
	t.Helper()
	syn := alice.to(bob)
	syn.Payload, syn.Flags = nil, pt.SYN
	l.send(alice.port(), pt.TCP4(syn))
	quote := ipOf(l.got(bob.port()).Bytes())
	was := l.only()
	l.send(bob.port(), errorFrom("10.44.2.77", quote, nil))
	f := l.got(alice.port())
	quoting(t, f, ipOf(pt.TCP4(syn)))
	if is := l.only(); is.Packets != was.Packets || is.Timeout != was.Timeout || is.State != was.State {
		t.Errorf("an error has changed %+v to %+v", was, is)
	}
}

// ping begins a query, and is what arrived of it.
func ping(l *lab) (query, quote []byte) {
	l.t.Helper()
	p := alice.to(bob)
	p.ID = 7
	query = pt.Ping4(p)
	l.send(alice.port(), query)
	return query, ipOf(l.got(bob.port()).Bytes())
}

// errorsAboutQueries arrive, and neither refresh nor end them.
func errorsAboutQueries(t *testing.T, l *lab) {
	t.Helper()
	query, quote := ping(l)
	c := l.n.Connections()
	c.now.Store(c.Now() + 5)
	was := l.only()
	l.send(bob.port(), errorFrom("10.44.2.77", quote, nil))
	f := l.got(alice.port())
	quoting(t, f, ipOf(query))
	pt.Check(t, f, pt.IPv4(pt.Src("10.44.2.77"), pt.Dst(alice.addr4())), pt.ICMP(pt.ICMPType(3, 1)))
	if is := l.only(); is.Timeout != was.Timeout || is.Packets != was.Packets {
		t.Errorf("an error has changed %+v to %+v", was, is)
	}
}

// kindsOfErrors: unreachable, time exceeded and parameter problem arrive, of both families.
func kindsOfErrors(t *testing.T, l *lab) {
	t.Helper()
	quote := outward(l)
	for _, h := range []pt.ICMPHdr{{Type: 3, Code: 3}, {Type: 3, Code: 13}, {Type: 11}, {Type: 11, Code: 1}, {Type: 12}} {
		l.send(bob.port(), pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()}, pt.IPv4Hdr{Src: bob.addr4(), Dst: gate(2).addr4()}, h, pt.Payload(quote)))
		l.arrived(alice, pt.IPv4(pt.Dst(alice.addr4())), pt.ICMP(pt.ICMPType(h.Type, h.Code)))
	}
	l.send(alice.port(), pt.UDP6(alice.to6(bob)))
	quote = ipOf(l.got(bob.port()).Bytes())
	for _, h := range []pt.ICMPHdr{{Type: 1, Code: 4}, {Type: 3}, {Type: 4}} {
		h.V6 = true
		l.send(bob.port(), pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()}, pt.IPv6Hdr{Src: bob.addr6(), Dst: gate(2).addr6()}, h, pt.Payload(quote)))
		l.arrived(alice, pt.IPv6(pt.Dst(alice.addr6())), pt.ICMPv6(pt.ICMPType(h.Type, h.Code)))
	}
}

// quotedAs is an error from outside about a packet that is like the one that left, but
// for its header and what its own checksum says.
func quotedAs(h pt.IPv4Hdr, sum *uint16) []byte {
	h.Src, h.Dst = gate(2).addr4(), bob.addr4()
	p := alice.to(bob)
	b := pt.Build(pt.EtherHdr{}, h, pt.UDPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort, Checksum: sum}, pt.Payload(p.Payload))
	return errorFrom("10.44.2.77", b[packet.EthernetLen:], nil)
}

// quotedOptions are passed over.
func quotedOptions(t *testing.T, l *lab) {
	t.Helper()
	outward(l)
	l.send(bob.port(), quotedAs(pt.IPv4Hdr{Options: []byte{7, 7, 4, 0, 0, 0, 0}}, nil)) // record route
	f := l.got(alice.port())
	if f == nil {
		t.Fatal("no error arrives")
	}
	pt.Check(t, f, pt.IPv4(pt.Dst(alice.addr4())), pt.ICMP(pt.ICMPType(3, 1)))
	q := f.Bytes()[f.View.L4+8:]
	if src := netip.AddrFrom4([4]byte(q[12:16])); src != alice.addr4() || q[28] != 1000>>8 || q[29] != 1000&0xff {
		t.Errorf("it quotes %x", q)
	}
}

// quotedSums of what is in the quoted packet are nobody's business.
func quotedSums(t *testing.T, l *lab) {
	t.Helper()
	outward(l)
	wrong := uint16(0x1234)
	l.send(bob.port(), quotedAs(pt.IPv4Hdr{}, &wrong))
	l.arrived(alice, pt.IPv4(pt.Dst(alice.addr4())), pt.ICMP(pt.ICMPType(3, 1)))
}

// quotedHeaderSum: an error that quotes a wrong one is dropped by the profile rfc.
func quotedHeaderSum(t *testing.T, l *lab) {
	t.Helper()
	outward(l)
	wrong := uint16(0x1234)
	l.send(bob.port(), quotedAs(pt.IPv4Hdr{Checksum: &wrong}, nil))
	if l.ofRFC() {
		l.silent(alice.port())
		return
	}
	l.arrived(alice, pt.IPv4(pt.Dst(alice.addr4())), pt.ICMP(pt.ICMPType(3, 1)))
}

// errorsAboutNothing go to nobody.
func errorsAboutNothing(t *testing.T, l *lab) {
	t.Helper()
	quote := outward(l)
	quote[packet.IPv4MinLen+1]++ // another port, which is nobody's
	l.send(bob.port(), errorFrom("10.44.2.77", quote, nil))
	l.silent(alice.port())
}

// errorsFromInside are translated as what they are about, and refresh nothing.
func errorsFromInside(t *testing.T, l *lab) {
	t.Helper()
	outward(l)
	answer := pt.UDP4(bob.back(alice.to(bob), gate(2).addr4(), 1000))
	l.send(bob.port(), answer)
	quote := ipOf(l.got(alice.port()).Bytes())
	c := l.n.Connections()
	c.now.Store(c.Now() + 5)
	was := l.only()
	l.send(alice.port(), pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}, pt.IPv4Hdr{Src: alice.addr4(), Dst: bob.addr4()},
		pt.ICMPHdr{Type: 3, Code: 3}, pt.Payload(quote)))
	f := l.got(bob.port())
	quoting(t, f, ipOf(answer))
	pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(bob.addr4())), pt.ICMP(pt.ICMPType(3, 3)))
	if is := l.only(); is.Timeout != was.Timeout {
		t.Errorf("an error has changed %+v to %+v", was, is)
	}
}

// answersRefresh, too, as RFC 4787 REQ-6a allows.
func answersRefresh(t *testing.T, l *lab) {
	t.Helper()
	answer := pt.UDP4(bob.back(alice.to(bob), gate(2).addr4(), 1000))
	outward(l)
	l.send(bob.port(), answer)
	l.arrived(alice, pt.UDP())
	c := l.n.Connections()
	c.now.Store(c.Now() + 10)
	was := l.only()
	l.send(bob.port(), answer)
	l.arrived(alice, pt.UDP())
	if is := l.only(); is.Timeout < was.Timeout+10 {
		t.Errorf("%d seconds left behind an answer, %d before", is.Timeout, was.Timeout)
	}
}

// identificationStays what its sender chose.
func identificationStays(_ *testing.T, l *lab) {
	p := alice.to(bob)
	l.send(alice.port(), pt.Build(pt.EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC}, pt.IPv4Hdr{Src: p.Src, Dst: p.Dst, ID: 4711},
		pt.UDPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort}, pt.Payload(p.Payload)))
	l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4()), pt.ID(4711)))
}

// TestNoPortIsTold: RFC 5508 REQ-8. Who finds no port is told by the profile rfc; the
// kernel's drops.
func TestNoPortIsTold(t *testing.T) {
	for profile, told := range map[string]bool{"kernel": false, "rfc": true} {
		t.Run(profile, func(t *testing.T) {
			s := translating(2)
			s.Connections.Profile = profile
			s.Connections.Rules = []nat.Rule{{
				Name: "one", Hook: nat.Postrouting, Kind: nat.SNAT, Match: nat.Match{Out: []uint16{gate(2).port()}},
				Target: nat.Target{Addrs: nat.One(gate(2).addr4()), Ports: nat.PortRange{Min: 5000, Max: 5000}},
			}}
			l := stillSites(t, s)
			l.send(alice.port(), pt.UDP4(alice.to(bob)))
			l.arrived(bob, pt.UDP(pt.SrcPort(5000)))
			late := party{1, 2}
			p := late.to(bob)
			l.send(late.port(), pt.UDP4(p))
			if l.drops(late.port(), trace.NATExhausted) != 1 {
				t.Errorf("drops %+v", l.stats(late.port()).Drops)
			}
			if l.silent(bob.port()); !told {
				l.silent(late.port())
				return
			}
			f := l.got(late.port())
			quoting(t, f, ipOf(pt.UDP4(p)))
			pt.Check(t, f, pt.IPv4(pt.Src(gate(1).addr4()), pt.Dst(late.addr4())), pt.ICMP(pt.ICMPType(3, 13)))
		})
	}
}
