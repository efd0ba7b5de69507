// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// TestTranslationSurvivesAnything: packets of all kinds, whole and broken, from both
// sides, in both profiles, and with all that a namespace can do. Whatever leaves is a packet that can be parsed, and the
// table stays in order.
func TestTranslationSurvivesAnything(t *testing.T) {
	for _, profile := range []string{"kernel", "rfc", "all"} {
		t.Run(profile, func(t *testing.T) {
			s := translating(2)
			if s.Connections.Profile = profile; profile == "all" {
				s.Connections.Profile = ""
				withAll(&s)
			}
			l := stillSites(t, s)
			r := rand.New(rand.NewPCG(9, 71))
			seen := [][]byte{pt.UDP4(alice.to(bob)), pt.TCP6(alice.to6(bob)), pt.Ping4(alice.to(bob)), pt.SCTP4(alice.to(bob))}
			for range 20_000 {
				from := []party{alice, bob, {1, 2}}[r.IntN(3)]
				b := seen[r.IntN(len(seen))]
				switch r.IntN(6) {
				case 0:
					b = pt.Mutate(r, b)
				case 1:
					b = pt.Random(r)
				case 2:
					b = hostileError(r, b)
				case 3, 4:
					b = anyFlow(r, from)
				}
				if profile == "all" && r.IntN(3) == 0 {
					b = any64(r, from)
				}
				if len(b) < packet.EthernetLen || len(b) > 1600 {
					continue
				}
				b = bytes.Clone(b)
				dst, src := gate(from.site).mac(), from.mac()
				copy(b, dst[:])
				copy(b[6:], src[:])
				if other := (party{from.site, 3 - from.i}).mac(); profile == "all" && r.IntN(4) == 0 {
					copy(b, other[:])
				}
				l.send(from.port(), b)
				for _, at := range []uint16{11, 12, 21, 22} {
					for f := l.got(at); f != nil; f = l.got(at) {
						if fault := f.View.Parse(f.Bytes()); fault != packet.FaultNone {
							t.Fatalf("port %d got a packet with fault %v: %x", at, fault, f.Bytes())
						}
						if seen = append(seen, answerTo(f)); len(seen) > 200 {
							seen = seen[1:]
						}
					}
				}
			}
			c := l.n.Connections()
			if c.Table().Stats().Insert < 100 {
				t.Errorf("%+v", c.Table().Stats())
			}
			c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
				if _, d := c.Table().Find(e.Zone, e.Original); d != conntrack.Original && e.Original != e.Reply {
					t.Errorf("%v isn't found", e.Original)
				}
				return true
			})
		})
	}
}

// withAll is a namespace that has NAT64, a service, and tracks what is bridged.
func withAll(s *NamespaceSpec) {
	c := &s.Connections
	c.Bridged = true
	c.Rules = append(c.Rules, nat.Rule{
		Name: "nat64", Hook: nat.Prerouting, Kind: nat.NAT64, Prefix: wellKnown(), Target: nat.Target{Addrs: nat.One(gate(2).addr4())},
	}, nat.Rule{
		Name: "service", Hook: nat.Prerouting, Kind: nat.DNAT, Match: nat.Match{DstPorts: []nat.PortRange{{Min: 80, Max: 80}}, Dst: []netip.Prefix{netip.PrefixFrom(bob.addr4(), 32)}},
		Target: nat.Target{Service: 3},
	})
	c.Services = []nat.Service{{ID: 3, Affinity: 9, Backends: []nat.Backend{
		{Bind: conntrack.Bind{ID: 1, Gen: 1}, Addr: alice.addr4()}, {Bind: conntrack.Bind{ID: 2, Gen: 1}, Addr: party{2, 2}.addr4()},
	}}}
}

// any64 is a packet for the prefix of NAT64, with anything in its headers.
func any64(r *rand.Rand, from party) []byte {
	to := []netip.Addr{bob.addr4(), alice.addr4(), gate(2).addr4(), pt.IP("127.0.0.1"), pt.IP("203.0.113.1")}[r.IntN(5)]
	layers := []pt.Layer{pt.EtherHdr{}, pt.IPv6Hdr{Src: from.addr6(), Dst: in64(to), HopLimit: uint8(1 + r.IntN(4))}}
	for range r.IntN(3) {
		layers = append(layers, []pt.Layer{
			pt.ExtHdr{Proto: packet.ProtoDestOpts},
			pt.ExtHdr{Proto: packet.ProtoHopByHop},
			pt.ExtHdr{Proto: packet.ProtoAH},
			pt.FragHdr{Offset: uint16(r.IntN(3) * 8), More: r.IntN(2) == 0, ID: uint32(r.IntN(9))},
		}[r.IntN(4)])
	}
	layers = append(layers, []pt.Layer{
		pt.UDPHdr{SrcPort: uint16(1000 + r.IntN(50))},
		pt.TCPHdr{SrcPort: uint16(1000 + r.IntN(50)), Flags: pt.SYN},
		pt.SCTPHdr{},
		pt.ICMPHdr{V6: true, Type: uint8(126 + r.IntN(4)), ID: 5},
		pt.ICMPHdr{Type: 8},
	}[r.IntN(5)], pt.Bytes(r.IntN(1400)))
	b := pt.Build(layers...)
	if r.IntN(3) == 0 {
		b = pt.Mutate(r, b)
	}
	return b
}

// anyFlow is a packet of one of some hundred flows.
func anyFlow(r *rand.Rand, from party) []byte {
	to := []party{alice, bob, {1, 2}, {2, 2}}[r.IntN(4)]
	p := from.to(to)
	p.SrcPort, p.DstPort, p.Flags, p.TTL = uint16(1000+r.IntN(100)), 80, []uint8{pt.SYN, pt.ACK, pt.RST, pt.SYN | pt.ACK}[r.IntN(4)], uint8(1+r.IntN(3))
	if r.IntN(3) == 0 {
		p.Dst, p.DstPort = gate(2).addr4(), []uint16{8080, 1000}[r.IntN(2)]
	}
	return []func(pt.Packet) []byte{pt.UDP4, pt.TCP4, pt.SCTP4, pt.Ping4}[r.IntN(4)](p)
}

// answerTo is a packet with the addresses and ports of f exchanged.
func answerTo(f *packet.Frame) []byte {
	b, v := bytes.Clone(f.Bytes()), &f.View
	swap := func(at, n int) {
		x := bytes.Clone(b[at : at+n])
		copy(b[at:], b[at+n:at+2*n])
		copy(b[at+n:], x)
	}
	switch {
	case v.Is(packet.ViewIPv4):
		swap(v.L3+12, 4)
	case v.Is(packet.ViewIPv6):
		swap(v.L3+8, 16)
	}
	if v.Is(packet.ViewHasL4) && v.Proto != packet.ProtoICMP && v.Proto != packet.ProtoICMPv6 {
		swap(v.L4, 2)
	}
	return b
}

// hostileError is an ICMP error that quotes some of b, or pretends to.
func hostileError(r *rand.Rand, b []byte) []byte {
	f := pt.Frame(b)
	if !f.View.Is(packet.ViewIP) {
		return b
	}
	quote := pt.Payload(f.Bytes()[f.View.L3:min(len(b), f.View.L3+r.IntN(600))])
	src, dst := f.View.DstAddr(b), f.View.SrcAddr(b)
	if src.Is4() {
		return pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: src, Dst: dst}, pt.ICMPHdr{Type: []uint8{3, 4, 5, 11, 12}[r.IntN(5)]}, quote)
	}
	return pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: src, Dst: dst}, pt.ICMPHdr{V6: true, Type: []uint8{1, 2, 3, 4, 137}[r.IntN(5)]}, quote)
}

// TestOneContainerCannotTakeTheTable: a flood of connections of one container leaves
// room for those of others.
func TestOneContainerCannotTakeTheTable(t *testing.T) {
	s := translating(2)
	l := stillSites(t, s)
	l.apply()
	room := l.n.Connections().Table().Cap()
	mallory := party{1, 2}
	w := l.n.workers[0]
	w.round(0)
	flood := func(n int) {
		p := mallory.to(bob)
		p.SrcPort, p.DstPort = uint16(n), uint16(n>>16+1)
		frames := []packet.Frame{*pt.Frame(pt.UDP4(p))}
		w.mu.Lock()
		x, in := &w.turn, w.turn.view.port(mallory.port())
		x.begin(in, frames)
		x.judge(in, 0)
		x.out.touched, x.out.used = x.out.touched[:0], 1
		clear(x.out.lists)
		x.tally.work = 0
		w.mu.Unlock()
	}
	for n := range room + 1000 {
		flood(n)
	}
	for i := range uint16(50) {
		p := alice.to(bob)
		p.SrcPort = 5000 + i
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(bob, pt.IPv4(pt.Src(gate(2).addr4())), pt.UDP())
	}
}
