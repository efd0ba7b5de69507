// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"testing"

	"sluice/conntrack"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// TestRequirementsOfARouter are those of RFC 4787, 5382, 5508 and 7857 that only a packet on
// its whole way shows. Both profiles fulfil them, unless the name says who does.
func TestRequirementsOfARouter(t *testing.T) {
	for _, profile := range []string{"kernel", "rfc"} {
		for name, holds := range map[string]func(*testing.T, *lab){
			"RFC 4787 REQ-6: outbound packets refresh":                                      refreshed,
			"RFC 4787 REQ-6a: inbound packets do, too":                                      answersRefresh,
			"RFC 4787 REQ-10, RFC 5382 REQ-6: nothing is read in the payload":               payloadIsLeftAlone,
			"RFC 4787 REQ-12, 12a, 12b, RFC 5508 REQ-4, 6: errors end nothing":              errorsEndNothing,
			"RFC 4787 REQ-13: who sends more than fits is told":                             tooBig,
			"RFC 4787 REQ-13a: or it is cut, in order":                                      cutInOrder,
			"RFC 4787 REQ-14: fragments in order and not":                                   fragmentsPass,
			"RFC 5382 REQ-2: a handshake, and the simultaneous open of both":                bothOpen,
			"RFC 5382 REQ-9, 10: errors about TCP end nothing":                              errorsAboutTCP,
			"RFC 5508 REQ-1: queries and their answers":                                     queriesPass,
			"RFC 5508 REQ-3: an error with a wrong checksum goes to nobody":                 wrongErrorsDropped,
			"RFC 5508 REQ-3a: nor one that quotes a wrong header checksum (rfc)":            quotedHeaderSum,
			"RFC 5508 REQ-3b: quoted options are passed over":                               quotedOptions,
			"RFC 5508 REQ-3c: quoted checksums of transport are not looked at":              quotedSums,
			"RFC 5508 REQ-4: errors about no mapping go to nobody":                          errorsAboutNothing,
			"RFC 5508 REQ-5, RFC 7857 section 7: errors from inside, which refresh nothing": errorsFromInside,
			"RFC 5508 REQ-6: errors about queries change no timer":                          errorsAboutQueries,
			"RFC 5508 REQ-10: unreachable, time exceeded, parameter problem":                kindsOfErrors,
			"RFC 7857 section 10: the identification is not made unique (neither)":          identificationStays,
		} {
			t.Run(profile+"/"+name, func(t *testing.T) {
				s := translating(1)
				s.Connections.Profile = profile
				holds(t, stillSites(t, s))
			})
		}
	}
}

// only is the one connection that there is.
func (l *lab) only() (e conntrack.Entry) {
	l.t.Helper()
	n := 0
	c := l.n.Connections()
	c.Table().Entries(nil, c.Now(), func(x *conntrack.Entry) bool { e, n = *x, n+1; return true })
	if n != 1 {
		l.t.Fatalf("%d connections", n)
	}
	return e
}

func refreshed(t *testing.T, l *lab) {
	t.Helper()
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.arrived(bob, pt.UDP())
	c := l.n.Connections()
	full := l.only().Timeout
	c.now.Store(c.Now() + full - 1)
	if e := l.only(); e.Timeout != 1 {
		t.Fatalf("%d seconds left", e.Timeout)
	}
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.arrived(bob, pt.UDP(pt.SrcPort(1000)))
	if e := l.only(); e.Timeout != full {
		t.Errorf("%d seconds left behind another packet, want %d", e.Timeout, full)
	}
}

// outward sends a first datagram, and is what arrived of it.
func outward(l *lab) []byte {
	l.t.Helper()
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	f := l.got(bob.port())
	pt.Check(l.t, f, pt.UDP())
	return bytes.Clone(f.Bytes()[f.View.L3:f.View.End])
}

func errorFrom(from string, quote []byte, sum *uint16) []byte {
	return pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()}, pt.IPv4Hdr{Src: pt.IP(from), Dst: gate(2).addr4()},
		pt.ICMPHdr{Type: 3, Code: 1, Checksum: sum}, pt.Payload(quote))
}

func errorsEndNothing(t *testing.T, l *lab) {
	t.Helper()
	quote := outward(l)
	was := l.only()
	l.send(bob.port(), errorFrom("10.44.2.77", quote, nil)) // from anybody
	l.arrived(alice, pt.IPv4(pt.Src("10.44.2.77"), pt.Dst(alice.addr4())), pt.ICMP(pt.ICMPType(3, 1)))
	if is := l.only(); is.Packets != was.Packets || is.Timeout != was.Timeout {
		t.Errorf("an error has changed %+v to %+v", was, is)
	}
	l.send(bob.port(), pt.UDP4(bob.back(alice.to(bob), gate(2).addr4(), 1000)))
	l.arrived(alice, pt.UDP(pt.DstPort(1000)))
}

func wrongErrorsDropped(_ *testing.T, l *lab) {
	sum := uint16(0x1234)
	l.send(bob.port(), errorFrom("10.44.2.77", outward(l), &sum))
	l.silent(alice.port())
}

func fragmentsPass(t *testing.T, l *lab) {
	t.Helper()
	p := alice.to(bob)
	p.Payload = pt.Bytes(3000)
	whole, piece := pt.Frame(pt.UDP4(p)), pt.NewFrame()
	for _, order := range [][]int{{0, 1, 2}, {2, 0, 1}} {
		var cut packet.Fragmenter
		if !cut.Init(whole, 1200) {
			t.Fatal("not to be fragmented")
		}
		var pieces [][]byte
		for cut.Next(piece) {
			pieces = append(pieces, bytes.Clone(piece.Bytes()))
		}
		for _, i := range order {
			l.send(alice.port(), pieces[i])
		}
		l.round()
		var got [][]byte
		for f := l.got(bob.port()); f != nil; f = l.got(bob.port()) {
			got = append(got, bytes.Clone(f.Bytes()))
		}
		if got = reassembled(got); len(got) != 1 {
			t.Fatalf("order %v: %d pieces arrive", order, len(got))
		}
		pt.Check(t, got[0], pt.IPv4(pt.Src(gate(2).addr4())), pt.UDP(pt.SrcPort(1000)), pt.Data(p.Payload))
	}
}

func bothOpen(t *testing.T, l *lab) {
	t.Helper()
	there := alice.to(bob)
	there.Payload, there.Seq, there.Flags = nil, 100, pt.SYN
	back := bob.back(there, gate(2).addr4(), 1000)
	back.Payload, back.Seq = nil, 500
	cross := func(from, to party, p pt.Packet, flags uint8, ack uint32) {
		t.Helper()
		p.Flags, p.Ack = flags, ack
		l.send(from.port(), pt.TCP4(p))
		l.arrived(to, pt.TCP(pt.TCPFlags(flags)))
	}
	cross(alice, bob, there, pt.SYN, 0)
	cross(bob, alice, back, pt.SYN, 0)
	cross(alice, bob, there, pt.SYN|pt.ACK, 501)
	cross(bob, alice, back, pt.SYN|pt.ACK, 101)
	there.Seq, back.Seq = 101, 501
	cross(alice, bob, there, pt.ACK, 501)
	cross(bob, alice, back, pt.ACK, 101)
	if e := l.only(); e.State != "ESTABLISHED" {
		t.Errorf("state %s", e.State)
	}
}

func queriesPass(t *testing.T, l *lab) {
	t.Helper()
	ping := alice.to(bob)
	ping.ID = 7
	l.send(alice.port(), pt.Ping4(ping))
	f := l.got(bob.port())
	pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4())), pt.ICMP(pt.ICMPType(8, 0)))
	b := f.Bytes()
	id := uint16(b[f.View.L4+4])<<8 | uint16(b[f.View.L4+5])
	l.send(bob.port(), pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()}, pt.IPv4Hdr{Src: bob.addr4(), Dst: gate(2).addr4()}, pt.ICMPHdr{ID: id}))
	l.arrived(alice, pt.IPv4(pt.Dst(alice.addr4())), pt.ICMP(pt.ICMPType(0, 0), pt.EchoID(7)))
}

func payloadIsLeftAlone(_ *testing.T, l *lab) {
	p := alice.to(bob)
	p.DstPort, p.Payload = 21, []byte("PORT 10,44,1,1,4,1\r\n")
	l.send(alice.port(), pt.UDP4(p))
	l.arrived(bob, pt.UDP(), pt.Data(p.Payload))
}

// TestUnsolicitedSYN: RFC 5382 REQ-4 in the profile rfc. Nobody waits for it, but a
// container may be about to call the same way: no answer for six seconds, and then an
// unreachable port. A service of the namespace answers, and so does the kernel's profile.
func TestUnsolicitedSYN(t *testing.T) {
	for profile, want := range map[string]uint8{"rfc": 0, "kernel": pt.RST | pt.ACK} {
		t.Run(profile, func(t *testing.T) {
			s := translating(1)
			s.Connections.Profile = profile
			s.Networks[1].Echo = true
			l := stillSites(t, s)
			out := alice.to(bob)
			out.Flags = pt.SYN
			l.send(alice.port(), pt.TCP4(out))
			l.arrived(bob, pt.TCP(pt.TCPFlags(pt.SYN)))
			in := pt.Packet{
				SrcMAC: bob.mac(), DstMAC: gate(2).mac(), Src: bob.addr4(), Dst: gate(2).addr4(), SrcPort: 999, DstPort: 5555, Flags: pt.SYN, Seq: 1,
			}
			l.send(bob.port(), pt.TCP4(in))
			if want != 0 {
				l.arrived(bob, pt.TCP(pt.TCPFlags(want)))
				return
			}
			l.silent(bob.port())
			echo := in
			echo.DstPort = 7
			l.send(bob.port(), pt.TCP4(echo))
			var f *packet.Frame
			eventually(t, "an answer", func() bool {
				l.round()
				f = l.got(bob.port())
				return f != nil
			})
			pt.Check(t, f, pt.TCP(pt.TCPFlags(pt.SYN|pt.ACK)))
			c := l.n.Connections()
			at := c.Now()
			for _, wait := range []uint32{5, 6} {
				c.now.Store(at + wait)
				l.n.view.Load().unanswered(c, 0, 1)
				l.round()
				if wait == 5 {
					l.silent(bob.port())
				}
			}
			l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(bob.addr4())), pt.ICMP(pt.ICMPType(3, 3)))
			l.silent(bob.port(), alice.port())
		})
	}
}
