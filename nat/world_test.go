// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"net/netip"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// The devices of the world: two inside, one outside.
const (
	inside  = 1
	inside2 = 2
	outside = 9
)

// world is a NAT with a table of connections, in zone 7, at a time that the test
// sets. Its router sends to 10/8 and fd44::/16 by inside, and all else by outside.
type world struct {
	tb    testing.TB
	n     *nat.NAT
	table *conntrack.Table
	now   uint32
	mark  uint32
	conns map[conntrack.Tuple]conntrack.Conn
}

const zone = 7

func newWorld(tb testing.TB, z nat.ZoneConfig, rules ...nat.Rule) *world {
	tb.Helper()
	w := &world{tb: tb, now: 1000, conns: map[conntrack.Tuple]conntrack.Conn{}}
	w.restart(z, nil, rules...)
	return w
}

// restart makes another NAT for the same table, or one for a new table.
func (w *world) restart(z nat.ZoneConfig, t *conntrack.Table, rules ...nat.Rule) {
	w.tb.Helper()
	compiled, err := nat.Compile(rules)
	if err != nil {
		w.tb.Fatal(err)
	}
	z.Rules = compiled
	w.n = nat.New(nat.Config{Seed: [32]byte{1, 2, 3}})
	w.n.SetZone(zone, z)
	if t == nil {
		t, err = conntrack.NewTable(conntrack.Config{
			Entries:   1 << 16,
			Confirmed: func(e *conntrack.Entry) { w.n.Confirmed(e) },
			Removed:   func(e *conntrack.Entry) { w.n.Removed(e) },
			Heed:      nat.Heeds,
		})
		if err != nil {
			w.tb.Fatal(err)
		}
	}
	w.table = t
	w.n.Attach(t, w.now)
}

// ends is "10.0.0.1:5 > 192.0.2.1:80", of an ICMP query with the identifier twice.
func tuple(proto uint8, src, dst string) conntrack.Tuple {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	t := conntrack.Tuple{Src: s.Addr(), Dst: d.Addr(), SrcPort: s.Port(), DstPort: d.Port(), Proto: proto}
	switch proto {
	case packet.ProtoICMP:
		t.DstPort = 8 << 8
	case packet.ProtoICMPv6:
		t.DstPort = 128 << 8
	}
	return t
}

func isInside(a netip.Addr) bool {
	return netip.MustParsePrefix("10.0.0.0/8").Contains(a) || netip.MustParsePrefix("fd44::/16").Contains(a)
}

func device(a netip.Addr) uint16 {
	switch {
	case netip.MustParsePrefix("10.2.0.0/16").Contains(a):
		return inside2
	case isInside(a):
		return inside
	}
	return outside
}

// own are the first addresses of the devices.
func own(dev uint16, v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(map[uint16]string{inside: "fd44::1", inside2: "fd44:2::1", outside: "2001:db8::1"}[dev])
	}
	return netip.MustParseAddr(map[uint16]string{inside: "10.1.0.1", inside2: "10.2.0.1", outside: "203.0.113.1"}[dev])
}

// firstPacket begins a connection.
func firstPacket(t conntrack.Tuple) *packet.Frame {
	p := pt.Packet{Src: t.Src, Dst: t.Dst, SrcPort: t.SrcPort, DstPort: t.DstPort, Flags: pt.SYN, ID: t.SrcPort}
	four, six := pt.UDP4, pt.UDP6
	switch t.Proto {
	case packet.ProtoTCP:
		four, six = pt.TCP4, pt.TCP6
	case packet.ProtoICMP, packet.ProtoICMPv6:
		four, six = pt.Ping4, pt.Ping6
	case packet.ProtoSCTP:
		four = func(p pt.Packet) []byte {
			init := pt.Payload{1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1}
			zero := pt.SCTPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort}
			return pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: p.Src, Dst: p.Dst}, zero, init)
		}
	}
	if t.Src.Is4() {
		return pt.Frame(four(p))
	}
	return pt.Frame(six(p))
}

// begin translates a first packet at all hooks.
func (w *world) begin(t conntrack.Tuple) (*nat.Flow, nat.Verdict) {
	w.tb.Helper()
	f := &nat.Flow{Pending: new(conntrack.Pending), In: device(t.Src), Now: w.now}
	first := firstPacket(t)
	if v := w.table.Look(&conntrack.Packet{Frame: first, Zone: zone, Now: w.now}, f.Pending); v.State != conntrack.New || v.Conn.Valid() {
		w.tb.Fatalf("%s is %v", pt.Describe(first.Bytes()), v.State)
	}
	if f.Pending.Original != t {
		w.tb.Fatalf("%s is %+v", pt.Describe(first.Bytes()), f.Pending.Original)
	}
	f.Pending.Mark = w.mark
	f.InAddr = own(f.In, t.Src.Is6())
	f.Own = t.Dst == own(inside, t.Dst.Is6()) || t.Dst == own(inside2, t.Dst.Is6()) || t.Dst == own(outside, t.Dst.Is6())
	if v := w.n.Translate(nat.Prerouting, f); v.Reason != trace.None {
		return f, v
	}
	out := f.Pending.Out()
	f.Out = device(out.Dst)
	f.OutAddr = own(f.Out, out.Dst.Is6())
	return f, w.n.Translate(nat.Postrouting, f)
}

// connect is what a connection's first packet looks like when it leaves.
func (w *world) connect(t conntrack.Tuple) (conntrack.Tuple, nat.Verdict) {
	w.tb.Helper()
	f, v := w.begin(t)
	if v.Reason != trace.None {
		return conntrack.Tuple{}, v
	}
	c, v := w.n.Confirm(f)
	if v.Reason != trace.None {
		return conntrack.Tuple{}, v
	}
	w.conns[t] = c
	return c.Out(conntrack.Original), v
}

// udp, tcp and ping connect, and fail the test if they can't.
func (w *world) udp(src, dst string) (toSrc, toDst string) {
	return w.must(packet.ProtoUDP, src, dst)
}

func (w *world) tcp(src, dst string) (toSrc, toDst string) {
	return w.must(packet.ProtoTCP, src, dst)
}

func (w *world) must(proto uint8, src, dst string) (toSrc, toDst string) {
	w.tb.Helper()
	out, v := w.connect(tuple(proto, src, dst))
	if v.Reason != trace.None {
		w.tb.Fatalf("%s > %s: dropped: %v", src, dst, v.Reason)
	}
	return netip.AddrPortFrom(out.Src, out.SrcPort).String(), netip.AddrPortFrom(out.Dst, out.DstPort).String()
}

// ping is the identifier and the source that an echo request leaves with.
func (w *world) ping(src, dst string) (toSrc string) {
	w.tb.Helper()
	toSrc, _ = w.must(packet.ProtoICMP, src, dst)
	return toSrc
}

// end removes a connection.
func (w *world) end(proto uint8, src, dst string) {
	w.tb.Helper()
	if c, ok := w.conns[tuple(proto, src, dst)]; !ok || !c.Delete(w.now) {
		w.tb.Fatalf("no connection %s > %s", src, dst)
	}
}

// pass lets time go by.
func (w *world) pass(seconds uint32) {
	for range seconds {
		w.now++
		w.n.Expire(w.now)
	}
}

func masquerade() nat.Rule {
	return nat.Rule{Name: "masquerade", Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Out: []uint16{outside}}}
}

func snat(from, to string, p nat.PortRange) nat.Rule {
	return nat.Rule{
		Name: "snat", Hook: nat.Postrouting, Kind: nat.SNAT, Match: nat.Match{Out: []uint16{outside}},
		Target: nat.Target{Addrs: nat.AddrRange{Min: netip.MustParseAddr(from), Max: netip.MustParseAddr(to)}, Ports: p},
	}
}

func port(s string) uint16 { return netip.MustParseAddrPort(s).Port() }

func host(s string) string { return netip.MustParseAddrPort(s).Addr().String() }
