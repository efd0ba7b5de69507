// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// translating is the namespace of these tests: site 2 is the outside, by which is
// masqueraded, and port 8080 of the own addresses leads to port 80 of alice.
func translating(containers int) NamespaceSpec {
	s := sites("lab", site(1, containers), site(2, 2))
	s.Connections = ConnectionsSpec{Track: true, Zone: 7, Rules: []nat.Rule{
		publish(8080, alice.addr4(), 80),
		publish(8080, alice.addr6(), 80),
		{Name: "out", Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Out: []uint16{gate(2).port()}}},
		{Name: "hairpin", Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Hairpin: nat.Yes}},
	}}
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			s.Networks[i].Ports[j].Tenure = 1
		}
	}
	return s
}

func publish(port uint16, to netip.Addr, toPort uint16) nat.Rule {
	src := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if to.Is6() {
		src = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return nat.Rule{
		Name: "publish", Hook: nat.Prerouting, Kind: nat.DNAT,
		Match:  nat.Match{Own: nat.Yes, Src: []netip.Prefix{src}, Protos: []uint8{packet.ProtoTCP, packet.ProtoUDP}, DstPorts: []nat.PortRange{{Min: port, Max: port}}},
		Target: nat.Target{Addrs: nat.One(to), Ports: nat.PortRange{Min: toPort, Max: toPort}},
	}
}

// back is what answers a packet that a party got.
func (s party) back(p pt.Packet, to netip.Addr, port uint16) pt.Packet {
	p.SrcMAC, p.DstMAC = s.mac(), gate(s.site).mac()
	p.Src, p.SrcPort, p.Dst, p.DstPort = p.Dst, p.DstPort, to, port
	return p
}

func TestMasquerade(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			l := stillSites(t, translating(2))
			there, udp, ip, gw := alice.to(bob), pt.UDP4, pt.IPv4, gate(2).addr4()
			if v6 {
				there, udp, ip, gw = alice.to6(bob), pt.UDP6, pt.IPv6, gate(2).addr6()
			}
			back := bob.back(there, gw, 1000)
			hits, hitsBack := l.hits(alice), l.hits(bob)
			for range 3 {
				l.send(alice.port(), udp(there))
				l.arrived(bob, ip(pt.Src(gw), pt.Dst(there.Dst), pt.TTL(63)), pt.UDP(pt.SrcPort(1000), pt.DstPort(2000)), pt.Data(there.Payload))
				l.send(bob.port(), udp(back))
				l.arrived(alice, ip(pt.Src(there.Dst), pt.Dst(there.Src), pt.TTL(63)), pt.UDP(pt.SrcPort(2000), pt.DstPort(1000)))
			}
			if a, b := hits(), hitsBack(); a != 2 || b != 2 {
				t.Errorf("%d and %d hits, want 2 and 2", a, b)
			}
			other := there // of another source, the same port: it gets another one
			other.SrcMAC = party{1, 2}.mac()
			if other.Src = (party{1, 2}).addr4(); v6 {
				other.Src = party{1, 2}.addr6()
			}
			l.send(12, udp(other))
			f := l.got(bob.port())
			pt.Check(t, f, ip(pt.Src(gw)), pt.UDP())
			if f.View.SrcPort == 1000 {
				t.Error("two sources have one port")
			}
			l.send(bob.port(), udp(bob.back(there, gw, f.View.SrcPort)))
			l.arrived(party{1, 2}, ip(pt.Dst(other.Src)), pt.UDP(pt.DstPort(1000)))
			l.silent(11, 12, 21, 22)
			c := l.n.Connections()
			if n := c.Table().Len(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
			c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
				if e.Original.SrcPort == 1000 && e.Original.Src == there.Src && e.Packets != [2]uint64{3, 3} {
					t.Errorf("packets %v", e.Packets)
				}
				if e.Zone != 7 || e.Origin != (conntrack.Bind{ID: e.Port, Gen: 1}) || e.Target != (conntrack.Bind{ID: bob.port(), Gen: 1}) || e.OutDevice != gate(2).port() {
					t.Errorf("%+v", e)
				}
				return true
			})
		})
	}
}

// TestPublishedPort from outside, from the inside (hairpin), and the answers.
func TestPublishedPort(t *testing.T) {
	l := stillSites(t, translating(2))
	inside := party{1, 2}
	for _, from := range []party{bob, inside} {
		there := from.to(alice)
		there.Dst, there.DstPort, there.Flags = gate(2).addr4(), 8080, pt.SYN
		l.send(from.port(), pt.TCP4(there))
		src, port := from.addr4(), uint16(1000)
		if from == inside {
			src = gate(1).addr4()
		}
		l.arrived(alice, pt.IPv4(pt.Src(src), pt.Dst(alice.addr4()), pt.TTL(63)), pt.TCP(pt.SrcPort(port), pt.DstPort(80), pt.TCPFlags(pt.SYN)))
		back := alice.back(alice.to(alice), src, port)
		back.Src, back.SrcPort, back.Flags, back.Ack = alice.addr4(), 80, pt.SYN|pt.ACK, 21
		l.send(alice.port(), pt.TCP4(back))
		l.arrived(from, pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(from.addr4()), pt.TTL(63)), pt.TCP(pt.SrcPort(8080), pt.DstPort(1000)))
	}
	l.silent(11, 12, 21, 22)
	if n := l.stats(inside.port()).Dropped(); n != 0 {
		t.Errorf("%d drops", n)
	}
}

// TestErrorsQuoteWhatWasSent: those of the router and those of the other end, about
// packets in both directions.
func TestErrorsQuoteWhatWasSent(t *testing.T) {
	l := stillSites(t, translating(2))
	quoted := func(at party, wantSrc netip.Addr, src, dst netip.AddrPort, kind, code uint8) {
		t.Helper()
		f := l.got(at.port())
		pt.Check(t, f, pt.IPv4(pt.Src(wantSrc), pt.Dst(at.addr4())), pt.ICMP(pt.ICMPType(kind, code)))
		if q, ok := conntrack.Quoted(f); !ok || q.Tuple.Src != src.Addr() || q.Tuple.Dst != dst.Addr() || q.Tuple.SrcPort != src.Port() || q.Tuple.DstPort != dst.Port() ||
			packet.Sum(f.Bytes()[q.L3:q.L4], 0) != 0xffff {
			t.Errorf("quotes %+v, want %v to %v", q, src, dst)
		}
	}
	at := netip.AddrPortFrom
	// The router's about what is on its way to the published port.
	there := bob.to(alice)
	there.Dst, there.DstPort, there.TTL = gate(2).addr4(), 8080, 1
	l.send(bob.port(), pt.UDP4(there))
	quoted(bob, gate(2).addr4(), at(bob.addr4(), 1000), at(gate(2).addr4(), 8080), 11, 0)
	// It is no connection: no packet of it has left.
	if n := l.n.Connections().Table().Len(); n != 0 {
		t.Errorf("%d connections", n)
	}
	// The other end's about what was masqueraded, and a router's behind it.
	out := alice.to(bob)
	l.send(alice.port(), pt.UDP4(out))
	got := l.got(bob.port())
	quote := bytes.Clone(got.Bytes()[got.View.L3:got.View.End])
	for _, from := range []netip.Addr{bob.addr4(), pt.IP("10.44.2.99")} {
		l.send(bob.port(), pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()}, pt.IPv4Hdr{Src: from, Dst: gate(2).addr4()}, pt.ICMPHdr{Type: 3, Code: 3}, pt.Payload(quote)))
		quoted(alice, from, at(alice.addr4(), 1000), at(bob.addr4(), 2000), 3, 3)
	}
	// The router's about an answer.
	back := bob.back(out, gate(2).addr4(), 1000)
	back.TTL = 1
	l.send(bob.port(), pt.UDP4(back))
	quoted(bob, gate(2).addr4(), at(bob.addr4(), 2000), at(gate(2).addr4(), 1000), 11, 0)
	// An error about nothing is not translated: it is for the host stack.
	quote[9] = packet.ProtoTCP
	l.send(bob.port(), pt.Build(pt.EtherHdr{Src: bob.mac(), Dst: gate(2).mac()}, pt.IPv4Hdr{Src: bob.addr4(), Dst: gate(2).addr4()}, pt.ICMPHdr{Type: 3, Code: 3}, pt.Payload(quote)))
	l.silent(11, 12, 21, 22)
}

// TestFragmentsOfAConnection in order and not, each translated.
func TestFragmentsOfAConnection(t *testing.T) {
	for name, order := range map[string][]int{"in order": {0, 1, 2}, "first one last": {2, 1, 0}} {
		t.Run(name, func(t *testing.T) {
			l := stillSites(t, translating(1))
			p := alice.to(bob)
			p.Payload = pt.Bytes(3000)
			var whole, piece packet.Frame
			whole.SetBuf(make([]byte, packet.BufLen))
			piece.SetBuf(make([]byte, packet.BufLen))
			b := pt.UDP4(p)
			whole.Reset(packet.Headroom, len(b))
			copy(whole.Bytes(), b)
			whole.View.Parse(whole.Bytes())
			var cut packet.Fragmenter
			if !cut.Init(&whole, 1200) {
				t.Fatal("not to be fragmented")
			}
			var pieces [][]byte
			for cut.Next(&piece) {
				pieces = append(pieces, bytes.Clone(piece.Bytes()))
			}
			for _, i := range order {
				l.send(alice.port(), pieces[i])
			}
			l.round()
			n := 0
			for f := l.got(bob.port()); f != nil; f = l.got(bob.port()) {
				pt.Check(t, f, pt.EtherDst(bob.mac()), pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(bob.addr4()), pt.TTL(63)))
				n++
			}
			if n != len(order) {
				t.Errorf("%d fragments arrived", n)
			}
			if c := l.n.Connections().Table(); c.Len() != 1 {
				t.Errorf("%d connections", c.Len())
			}
		})
	}
}

// TestOffloadFramesAreTranslatedWhole, with partial sums that fit.
func TestOffloadFramesAreTranslatedWhole(t *testing.T) {
	l := stillSites(t, translating(1))
	p := alice.to(bob)
	p.Flags = pt.SYN
	l.send(alice.port(), pt.TCP4(p))
	l.arrived(bob, pt.TCP())
	r := bob.back(alice.to(bob), gate(2).addr4(), 1000)
	r.Flags, r.Ack, r.Seq, r.Payload = pt.SYN|pt.ACK, 21, 500, nil
	l.send(bob.port(), pt.TCP4(r))
	l.arrived(alice, pt.TCP())
	p.Flags, p.Seq, p.Ack, p.Payload = pt.ACK, 21, 501, pt.Bytes(30_000)
	for range 2 {
		f := pt.GSO(pt.TCP4(p), 1400)
		l.sendFrame(alice.port(), f)
		got := l.got(bob.port())
		if got == nil || got.Vnet != f.Vnet || !got.CheckVnet() || !packet.PartialOK(got) {
			t.Fatalf("got %s", described(got))
		}
		pt.Check(t, got, pt.IPv4(pt.Src(gate(2).addr4())), pt.Data(p.Payload))
	}
}

// TestFirstPacketWaitsTranslated for a neighbour that is not known yet.
func TestFirstPacketWaitsTranslated(t *testing.T) {
	l := stillSites(t, translating(1))
	guest := party{2, 9}
	l.send(alice.port(), pt.UDP4(alice.to(guest)))
	l.arrivedAll(bob, pt.ARP(pt.Dst(guest.addr4())))
	l.send(bob.port(), bob.answer(guest.mac(), guest.addr4()))
	l.arrivedAll(bob, pt.EtherDst(guest.mac()), pt.IPv4(pt.Src(gate(2).addr4()), pt.TTL(63)), pt.UDP(pt.SrcPort(1000)))
	l.send(bob.port(), pt.UDP4(bob.back(alice.to(guest), gate(2).addr4(), 1000)))
	l.arrived(alice, pt.IPv4(pt.Src(guest.addr4())))
}

func TestTranslatedHitAllocatesNothing(t *testing.T) {
	for name, frame := range map[string]*packet.Frame{
		"UDP":     pt.Frame(pt.UDP4(alice.to(bob))),
		"IPv6":    pt.Frame(pt.UDP6(alice.to6(bob))),
		"offload": big(alice.to(bob), 64_000, 1448),
	} {
		t.Run(name, func(t *testing.T) {
			l := stillSites(t, translating(1))
			w := l.n.workers[0]
			w.round(0)
			in, head := l.n.view.Load().port(alice.port()), *(*[62]byte)(frame.Bytes())
			frames := []packet.Frame{*frame}
			w.mu.Lock()
			w.turn.begin(in, frames)
			w.mu.Unlock()
			turn := func() {
				w.mu.Lock()
				x := &w.turn
				*(*[62]byte)(x.frames[0].Bytes()) = head
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
			if x.tally.misses != 1 || x.tally.hits < 200 || in.counters.Snapshot().Dropped() != 0 {
				t.Errorf("%d hits, %d misses, %+v", x.tally.hits, x.tally.misses, in.counters.Snapshot())
			}
		})
	}
}

// TestConnectionsOutliveTheProcess: another Netstack on the same file goes on, with
// the same translation in both directions.
func TestConnectionsOutliveTheProcess(t *testing.T) {
	f, err := conntrack.CreateFile(filepath.Join(t.TempDir(), "connections"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	standBy := func() *Netstack {
		n, err := build(Options{Workers: 1, Connections: f})
		if err == nil {
			err = n.StandBy()
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	start := func(n *Netstack) *lab {
		l := open(t, n, nil)
		l.snap.Namespaces = []NamespaceSpec{translating(2)}
		l.apply()
		return l
	}
	first, waits := start(standBy()), standBy()
	waits.follow()
	there := alice.to(bob)
	first.send(12, pt.UDP4(party{1, 2}.to(bob))) // takes the port
	first.arrived(bob)
	first.send(alice.port(), pt.UDP4(there))
	got := first.got(bob.port())
	pt.Check(t, got, pt.IPv4(pt.Src(gate(2).addr4())))
	port := got.View.SrcPort
	if port == 1000 {
		t.Fatal("the port should be another's")
	}
	waits.follow()
	late := party{1, 2}.to(bob)
	late.SrcPort = 1001
	first.send(12, pt.UDP4(late)) // that one was not seen
	first.arrived(bob)
	// No Close: it is as if it was killed.
	second := start(waits)
	if r := second.n.Connections().report; r.Kept != 3 || r.Bad != 0 {
		t.Errorf("%+v", r)
	}
	second.send(bob.port(), pt.UDP4(bob.back(there, gate(2).addr4(), port)))
	second.arrived(alice, pt.IPv4(pt.Src(bob.addr4())), pt.UDP(pt.DstPort(1000)))
	second.send(alice.port(), pt.UDP4(there))
	second.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4())), pt.UDP(pt.SrcPort(port)))
}

// TestConnectionsEnd with a container, an address, a zone.
func TestConnectionsEnd(t *testing.T) {
	for name, how := range map[string]func(*lab){
		"tenure":    func(l *lab) { l.portOf(bob).Tenure = 2 },
		"address":   func(l *lab) { l.network(2).Addresses[0] = netip.MustParsePrefix("10.44.2.2/24") },
		"untracked": func(l *lab) { l.snap.Namespaces[0].Connections = ConnectionsSpec{} },
	} {
		t.Run(name, func(t *testing.T) {
			l := stillSites(t, translating(1))
			l.send(alice.port(), pt.UDP4(alice.to(bob)))
			l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4())))
			back := pt.UDP4(bob.back(alice.to(bob), gate(2).addr4(), 1000))
			how(l)
			l.apply()
			l.send(bob.port(), back)
			l.silent(alice.port())
		})
	}
}

// TestQuotaOfAPort: what a container may begin is bounded, and others go on.
func TestQuotaOfAPort(t *testing.T) {
	s := translating(2)
	s.Networks[0].Ports[0].Connections = conntrack.PortLimits{Quota: 3}
	l := stillSites(t, s)
	for i := range 5 {
		p := alice.to(bob)
		p.SrcPort, p.Flags = uint16(3000+i), pt.SYN
		l.send(alice.port(), pt.TCP4(p))
	}
	if n := l.n.Connections().Table().PortUse(alice.port()); n > 3 {
		t.Errorf("%d connections of a port that may have 3", n)
	}
	l.send(12, pt.UDP4(party{1, 2}.to(bob)))
	for f := l.got(bob.port()); f != nil; f = l.got(bob.port()) {
		if f.View.Proto == packet.ProtoUDP {
			return
		}
	}
	t.Error("another port has no connection")
}

// TestInvalidPassesUntranslated, as Linux has it.
func TestInvalidPassesUntranslated(t *testing.T) {
	l := stillSites(t, translating(1))
	p := alice.to(bob)
	p.Flags = pt.RST
	for range 2 {
		l.send(alice.port(), pt.TCP4(p))
		l.arrived(bob, pt.IPv4(pt.Src(alice.addr4())), pt.TCP(pt.TCPFlags(pt.RST)))
	}
	if s := l.n.Connections().Table().Stats(); s.Invalid == 0 || s.Entries != 0 {
		t.Errorf("%+v", s)
	}
}

// TestTrackedInEachNamespace of the way, and never remembered then.
func TestTrackedInEachNamespace(t *testing.T) {
	spaces := chain(2)
	for i := range spaces {
		spaces[i].Connections = ConnectionsSpec{Track: true, Zone: uint16(1 + i)}
	}
	spaces[0].Connections.Rules = []nat.Rule{{Name: "out", Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Out: []uint16{linkIndex(1, 2)}}}}
	l := stillSites(t, spaces...)
	for range 3 {
		l.send(alice.port(), pt.UDP4(alice.to(bob)))
		l.arrived(bob, pt.IPv4(pt.Src("10.99.12.1"), pt.TTL(62)))
		l.send(bob.port(), pt.UDP4(bob.back(alice.to(bob), pt.IP("10.99.12.1"), 1000)))
		l.arrived(alice, pt.IPv4(pt.Src(bob.addr4())))
	}
	c := l.n.Connections()
	for zone := range uint16(2) {
		n := 0
		c.Table().Entries(&conntrack.Filter{HasZone: true, Zone: zone + 1}, c.Now(), func(e *conntrack.Entry) bool {
			if n++; e.Packets != [2]uint64{3, 3} {
				t.Errorf("zone %d: packets %v", zone+1, e.Packets)
			}
			return true
		})
		if n != 1 {
			t.Errorf("zone %d has %d connections", zone+1, n)
		}
	}
}

// TestNobodyTracksUnasked: no table, no cost.
func TestNobodyTracksUnasked(t *testing.T) {
	l := stillSites(t, twoSites())
	if l.n.Connections() != nil {
		t.Error("there is a table")
	}
}

// TestTCPOverTranslation carries bytes by real stacks: masqueraded, to a published
// port from outside and inside, from and to the namespace's own stack.
func TestTCPOverTranslation(t *testing.T) {
	const size = 4 << 20
	s := translating(2)
	s.Networks[1].Ports[0].Offload = false
	s.Connections.Rules = append(s.Connections.Rules,
		nat.Rule{
			Name: "own port", Hook: nat.Prerouting, Kind: nat.Redirect,
			Match:  nat.Match{Own: nat.Yes, Protos: []uint8{packet.ProtoTCP}, DstPorts: []nat.PortRange{{Min: 8081, Max: 8081}}},
			Target: nat.Target{Ports: nat.PortRange{Min: 81, Max: 81}},
		},
		nat.Rule{
			Name: "from the own stack", Hook: nat.Output, Kind: nat.DNAT,
			Match:  nat.Match{Dst: []netip.Prefix{netip.MustParsePrefix("10.44.1.99/32")}},
			Target: nat.Target{Addrs: nat.One(alice.addr4())},
		})
	w := newWorld(t, s)
	host := w.outside.Namespace("lab")
	for name, tc := range map[string]struct {
		from    dialler
		to      server
		address string // where it is dialled
		at      string // where it listens
	}{
		"masqueraded":           {w.inside[alice], w.inside[bob], "10.44.2.11:80", ""},
		"masqueraded, IPv6":     {w.inside[alice], w.inside[bob], "[fd44:2::b]:80", ""},
		"published":             {w.inside[bob], w.inside[alice], "10.44.2.1:8080", "10.44.1.11:80"},
		"published, IPv6":       {w.inside[bob], w.inside[alice], "[fd44:2::1]:8080", "[fd44:1::b]:80"},
		"hairpin":               {w.inside[party{1, 2}], w.inside[alice], "10.44.2.1:8080", "10.44.1.11:80"},
		"hairpin to itself":     {w.inside[alice], w.inside[alice], "10.44.2.1:8080", "10.44.1.11:80"},
		"redirected":            {w.inside[alice], host, "10.44.2.1:8081", "10.44.1.1:81"},
		"to the own stack":      {w.inside[bob], host, "10.44.1.1:82", ""},
		"from the own stack":    {host, w.inside[bob], "10.44.2.11:83", ""},
		"own stack, translated": {host, w.inside[alice], "10.44.1.99:84", "10.44.1.11:84"},
	} {
		t.Run(name, func(t *testing.T) {
			at := tc.at
			if at == "" {
				at = tc.address
			}
			transferTo(t, tc.from, tc.to, tc.address, at, size)
		})
	}
}

// TestTranslatedPacketThatIsTooLong is fragmented behind the translation, or its
// sender hears of it, with what it sent in the quote.
func TestTranslatedPacketThatIsTooLong(t *testing.T) {
	l := stillSites(t, translating(1))
	l.portOf(bob).MTU = 1300
	l.portOf(alice).MTU = 1300
	l.apply()
	large := alice.to(bob)
	large.Payload = pt.Bytes(1400)
	for range 2 {
		l.send(alice.port(), pt.UDP4(large))
		l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4()), pt.Flags(packet.ViewFragFirst)))
		l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4()), pt.Flags(packet.ViewFragLater)))
	}
	p := bob.to(alice)
	p.Dst, p.DstPort = gate(2).addr4(), 8080
	l.send(bob.port(), df(p, 1400))
	f := l.got(bob.port())
	pt.Check(t, f, pt.IPv4(pt.Src(gate(2).addr4())), pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(1300)))
	if q, ok := conntrack.Quoted(f); !ok || q.Tuple.Dst != p.Dst || q.Tuple.DstPort != 8080 || q.Tuple.Src != p.Src {
		t.Errorf("quotes %+v", q)
	}
	l.silent(11, 21)
}

// TestService spreads connections over backends, and keeps each where it is; one whose
// backend goes ends.
func TestService(t *testing.T) {
	s := translating(2)
	backends := []party{{1, 1}, {1, 2}}
	service := nat.Service{ID: 3}
	for i, b := range backends {
		service.Backends = append(service.Backends, nat.Backend{Bind: conntrack.Bind{ID: uint16(1 + i), Gen: 1}, Addr: b.addr4(), Port: 80})
	}
	s.Connections.Services = []nat.Service{service}
	s.Connections.Rules = []nat.Rule{{
		Name: "service", Hook: nat.Prerouting, Kind: nat.DNAT, Match: nat.Match{Own: nat.Yes, Protos: []uint8{packet.ProtoUDP}, DstPorts: []nat.PortRange{{Min: 53, Max: 53}}},
		Target: nat.Target{Service: 3},
	}}
	l := stillSites(t, s)
	where := func(port uint16) (at party) {
		t.Helper()
		p := bob.to(alice)
		p.Dst, p.SrcPort, p.DstPort = gate(2).addr4(), port, 53
		l.send(bob.port(), pt.UDP4(p))
		for _, b := range backends {
			if f := l.got(b.port()); f != nil {
				pt.Check(t, f, pt.IPv4(pt.Dst(b.addr4())), pt.UDP(pt.DstPort(80)))
				at = b
			}
		}
		return at
	}
	count := map[party]int{}
	first := map[uint16]party{}
	for i := range uint16(50) {
		first[i] = where(3000 + i)
		count[first[i]]++
		if again := where(3000 + i); again != first[i] {
			t.Errorf("connection %d moved from %v to %v", i, first[i], again)
		}
	}
	if count[backends[0]] < 10 || count[backends[1]] < 10 {
		t.Errorf("spread %v", count)
	}
	l.snap.Namespaces[0].Connections.Services = []nat.Service{{ID: 3, Backends: service.Backends[:1]}}
	l.apply()
	for i := range uint16(50) {
		if at := where(3000 + i); at != backends[0] {
			t.Errorf("connection %d goes to %v", i, at)
		}
	}
	l.snap.Namespaces[0].Connections.Services = []nat.Service{{ID: 3}}
	l.apply()
	if at := where(4000); at != (party{}) {
		t.Errorf("without a backend it went to %v", at)
	}
	l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4())), pt.ICMP(pt.ICMPType(3, 3)))
}

// TestWrongConnectionsAreRefused when a snapshot is checked.
func TestWrongConnectionsAreRefused(t *testing.T) {
	for name, wrong := range map[string]func(*Snapshot){
		"rules without tracking": func(s *Snapshot) { s.Namespaces[0].Connections.Track = false },
		"no zone":                func(s *Snapshot) { s.Namespaces[0].Connections.Zone = 0 },
		"zone of another":        func(s *Snapshot) { s.Namespaces[1].Connections = ConnectionsSpec{Track: true, Zone: 7} },
		"profile":                func(s *Snapshot) { s.Namespaces[0].Connections.Profile = "bsd" },
		"filtering":              func(s *Snapshot) { s.Namespaces[0].Connections.Filtering = "none" },
		"rule":                   func(s *Snapshot) { s.Namespaces[0].Connections.Rules[0].Hook = nat.Postrouting },
		"nat64": func(s *Snapshot) {
			s.Namespaces[0].Connections.Rules = []nat.Rule{{
				Hook: nat.Prerouting, Kind: nat.NAT64, Prefix: netip.MustParsePrefix("64:ff9b::/95"),
				Target: nat.Target{Addrs: nat.One(gate(2).addr4())},
			}}
		},
		"service twice": func(s *Snapshot) { s.Namespaces[0].Connections.Services = []nat.Service{{ID: 1}, {ID: 1}} },
	} {
		t.Run(name, func(t *testing.T) {
			s := Snapshot{Namespaces: []NamespaceSpec{translating(1), {Name: "other"}}}
			if err := s.Validate(); err != nil {
				t.Fatal(err)
			}
			wrong(&s)
			if err := s.Validate(); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestRulesTravelAsJSON, maps among them.
func TestRulesTravelAsJSON(t *testing.T) {
	s := translating(1)
	s.Connections.Rules = append(s.Connections.Rules, nat.Rule{
		Name: "map", Hook: nat.Prerouting, Kind: nat.DNAT,
		Map: &nat.Map{By: nat.ByDstAddr | nat.ByDstPort, Elements: map[nat.MapKey]nat.Target{
			{Addr: gate(2).addr4(), Port: 80}: {Addrs: nat.One(alice.addr4())},
			{Port: 81}:                        {Addrs: nat.One(alice.addr6())},
		}},
	})
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back NamespaceSpec
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back.Connections, s.Connections) {
		t.Errorf("%v: %s", err, b)
	}
}

// TestTranslationWhileEverythingChanges is for the race detector: connections begin,
// go on and are listed, while snapshots are applied and time passes.
func TestTranslationWhileEverythingChanges(t *testing.T) {
	s := translating(2)
	w := newWorld(t, s)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, from := range []party{alice, {1, 2}} {
		for _, to := range []string{"10.44.2.11:9", "10.44.2.12:9", "10.44.2.1:8080"} {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					c, err := w.inside[from].DialContext(within(t), "udp", to)
					if err != nil {
						t.Error(err)
						return
					}
					for range 20 {
						_, _ = c.Write(make([]byte, 100))
					}
					_ = c.Close()
				}
			})
		}
	}
	for i := range 40 {
		s.Networks[0].Ports[0].MTU = 1400 + i
		s.Networks[1].Ports[1].Tenure = uint32(1 + i/4)
		s.Connections.Linger = uint32(i / 10)
		if err := w.outside.Apply(&Snapshot{Namespaces: []NamespaceSpec{s}}, nil); err != nil {
			t.Fatal(err)
		}
		w.outside.everySecond()
		c := w.outside.Connections()
		c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
			if i%8 == 0 {
				e.Conn.Delete(c.Now())
			}
			return true
		})
		c.NAT().Bindings()
		time.Sleep(2 * time.Millisecond)
	}
	eventually(t, "some connections", func() bool { return w.outside.Connections().Table().Stats().Insert >= 10 })
	close(stop)
	wg.Wait()
}
