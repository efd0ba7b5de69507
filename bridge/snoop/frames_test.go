// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// The messages of these tests come from 10.44.0.10 or fe80::a, but for queries.

// igmp is an IGMP message with a right checksum, from src to dst.
func igmp(src, dst string, body ...byte) *packet.Frame {
	binary.BigEndian.PutUint16(body[2:], ^packet.Sum(body, 0))
	to := pt.IP(dst).As4()
	return pt.Frame(pt.Build(
		pt.EtherHdr{Dst: packet.MAC{1, 0, 0x5e, to[1] & 0x7f, to[2], to[3]}},
		pt.IPv4Hdr{Src: pt.IP(src), Dst: pt.IP(dst), TTL: 1, Proto: new(uint8(protoIGMP)), Options: []byte{0x94, 4, 0, 0}},
		pt.Payload(body)))
}

// mld is an MLD message with what follows the checksum in body.
func mld(src, dst string, typ uint8, body ...byte) *packet.Frame {
	to := pt.IP(dst).As16()
	return pt.Frame(pt.Build(
		pt.EtherHdr{Dst: packet.MAC{0x33, 0x33, to[12], to[13], to[14], to[15]}},
		pt.IPv6Hdr{Src: pt.IP(src), Dst: pt.IP(dst), HopLimit: 1},
		pt.ExtHdr{Proto: packet.ProtoHopByHop, Body: []byte{5, 2, 0, 0, 1, 0}},
		pt.ICMPHdr{V6: true, Type: typ, ID: binary.BigEndian.Uint16(body), Seq: binary.BigEndian.Uint16(body[2:])},
		pt.Payload(body[4:])))
}

// address is the bytes of an address.
func address(s string) []byte { return pt.IP(s).AsSlice() }

// report joins a group in the old manner, done leaves it.
func report(group string) *packet.Frame {
	if pt.IP(group).Is4() {
		return igmp("10.44.0.10", group, append([]byte{igmpReport2, 0, 0, 0}, address(group)...)...)
	}
	return mld("fe80::a", group, mldReport1, append(make([]byte, 4), address(group)...)...)
}

func done(group string) *packet.Frame {
	if pt.IP(group).Is4() {
		return igmp("10.44.0.10", "224.0.0.2", append([]byte{igmpLeave, 0, 0, 0}, address(group)...)...)
	}
	return mld("fe80::a", "ff02::2", mldDone, append(make([]byte, 4), address(group)...)...)
}

// rec is a record of a report of the new manner.
type rec struct {
	typ     uint8
	group   string
	sources int
}

// reports is an IGMPv3 or MLDv2 report.
func reports(all ...rec) *packet.Frame {
	v6 := pt.IP(all[0].group).Is6()
	var body []byte
	for _, r := range all {
		body = append(body, r.typ, 0, byte(r.sources>>8), byte(r.sources))
		body = append(body, address(r.group)...)
		body = append(body, make([]byte, r.sources*len(address(r.group)))...)
	}
	n := byte(len(all))
	if v6 {
		return mld("fe80::a", "ff02::16", mldReport2, append([]byte{0, 0, 0, n}, body...)...)
	}
	return igmp("10.44.0.10", "224.0.0.22", append([]byte{igmpReport3, 0, 0, 0, 0, 0, 0, n}, body...)...)
}

// asked is a query of the old manner from src; without a group a general one.
// Hosts have 10 s.
func asked(src, group string) *packet.Frame {
	if pt.IP(src).Is4() {
		to := group
		if group == "" {
			group, to = "0.0.0.0", "224.0.0.1"
		}
		return igmp(src, to, append([]byte{igmpQuery, 100, 0, 0}, address(group)...)...)
	}
	to := group
	if group == "" {
		group, to = "::", "ff02::1"
	}
	return mld(src, to, mldQuery, append([]byte{0x27, 0x10, 0, 0}, address(group)...)...)
}

// stream is data for a group.
func stream(group string) *packet.Frame {
	p := pt.Packet{Dst: pt.IP(group), DstMAC: packet.MAC{1, 0, 0x5e, 1, 2, 3}}
	if p.Dst.Is4() {
		return pt.Frame(pt.UDP4(p))
	}
	return pt.Frame(pt.UDP6(p))
}

func TestParse(t *testing.T) {
	bad := func(f *packet.Frame) *packet.Frame {
		f.Bytes()[f.View.L4+2] ^= 1
		return f
	}
	cut := func(f *packet.Frame, n int) *packet.Frame { // n bytes less, checksum right
		b := f.Bytes()[f.View.L4 : f.View.End-n]
		return igmp("10.44.0.10", "224.0.0.1", append([]byte{b[0], b[1], 0, 0}, b[4:]...)...)
	}
	tests := []struct {
		name    string
		f       *packet.Frame
		want    meaning
		group   string
		maxResp uint32
		bad     bool
	}{
		{name: "data", f: stream("239.1.1.1")},
		{name: "data over IPv6", f: stream("ff05::1")},
		{name: "IGMPv1 report", f: igmp("10.0.0.1", "239.1.1.1", 0x12, 0, 0, 0, 239, 1, 1, 1), want: join, group: "239.1.1.1"},
		{name: "IGMPv2 report", f: report("239.1.1.1"), want: join, group: "239.1.1.1"},
		{name: "IGMPv2 leave", f: done("239.1.1.1"), want: leave, group: "239.1.1.1"},
		{name: "IGMPv1 query", f: igmp("10.0.0.1", "224.0.0.1", 0x11, 0, 0, 0, 0, 0, 0, 0), want: query, maxResp: 10},
		{name: "IGMPv2 query", f: asked("10.0.0.1", ""), want: query, maxResp: 10},
		{name: "IGMPv2 query for a group", f: asked("10.0.0.1", "239.1.1.1"), want: query, group: "239.1.1.1", maxResp: 10},
		{name: "IGMPv3 query", f: igmp("10.0.0.1", "224.0.0.1", 0x11, 0x89, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0), want: query, maxResp: 20},
		{name: "IGMPv3 query for a source", f: igmp("10.0.0.1", "239.1.1.1", 0x11, 10, 0, 0, 239, 1, 1, 1, 2, 125, 0, 1, 1, 2, 3, 4)},
		{name: "MLDv1 report", f: report("ff05::1"), want: join, group: "ff05::1"},
		{name: "MLDv1 done", f: done("ff05::1"), want: leave, group: "ff05::1"},
		{name: "MLDv1 query", f: asked("fe80::1", ""), want: query, maxResp: 10},
		{name: "MLDv2 query", f: mld("fe80::1", "ff02::1", mldQuery, append([]byte{0x83, 0xe8, 0, 0}, append(address("::"), 2, 125, 0, 0)...)...), want: query, maxResp: 41},
		{name: "DVMRP", f: igmp("10.0.0.1", "224.0.0.4", 0x13, 1, 0, 0, 0, 0, 0, 0)},
		{name: "PIM hello", f: pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Dst: pt.IP("224.0.0.13"), Proto: new(uint8(protoPIM))}, pt.Payload("\x20\x00\x00\x00"))), want: router},
		{name: "PIM join", f: pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Dst: pt.IP("224.0.0.13"), Proto: new(uint8(protoPIM))}, pt.Payload("\x23\x00\x00\x00")))},
		{name: "router's advertisement", f: igmp("10.0.0.1", "224.0.0.106", 0x30, 20, 0, 0, 0, 0, 0, 0), want: router},
		{name: "router's advertisement over IPv6", f: mld("fe80::1", "ff02::6a", mldMRDAdvert, 0, 0, 0, 0), want: router},
		{name: "MLD without hop-by-hop header", f: pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ICMPHdr{V6: true, Type: mldReport1}, pt.Payload(address("ff05::1"))))},
		{name: "fragment", f: pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true, Proto: new(uint8(protoIGMP))}, pt.Payload("\x16\x00\x00\x00abcd")))},
		{name: "no body", f: pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Proto: new(uint8(protoIGMP))}, pt.Payload("")))},

		{name: "wrong checksum", f: bad(report("239.1.1.1")), bad: true},
		{name: "wrong checksum over IPv6", f: bad(report("ff05::1")), bad: true},
		{name: "report of no group", f: igmp("10.0.0.1", "10.1.1.1", 0x16, 0, 0, 0, 10, 1, 1, 1), bad: true},
		{name: "general query to a group", f: igmp("10.0.0.1", "239.1.1.1", 0x11, 100, 0, 0, 0, 0, 0, 0), bad: true},
		{name: "query of 10 bytes", f: cut(igmp("10.0.0.1", "224.0.0.1", 0x11, 100, 0, 0, 0, 0, 0, 0, 0, 0), 0), bad: true},
		{name: "query from a global address", f: asked("fd44::1", ""), bad: true},
		{name: "record cut short", f: cut(reports(rec{toExclude, "239.1.1.1", 2}), 4), bad: true},
		{name: "record missing", f: cut(reports(rec{toExclude, "239.1.1.1", 0}, rec{toExclude, "239.1.1.2", 0}), 8), bad: true},
		{name: "record of no group", f: reports(rec{toExclude, "10.1.1.1", 0}), bad: true},
		{name: "IGMP of 7 bytes", f: cut(report("239.1.1.1"), 1), bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, ok := parse(tt.f)
			if ok == tt.bad {
				t.Fatalf("ok %v", ok)
			}
			if tt.bad {
				return
			}
			var group netip.Addr
			if tt.group != "" {
				group = pt.IP(tt.group)
			}
			if m.meaning != tt.want || tt.want != data && (m.group != group && tt.want != router || m.maxResp != tt.maxResp) {
				t.Errorf("got %+v", m)
			}
		})
	}
}

func TestRecords(t *testing.T) {
	for _, group := range []string{"239.1.1.1", "ff05::1"} {
		tests := map[meaning][]rec{
			join:  {{isExclude, group, 0}, {isExclude, group, 2}, {toExclude, group, 0}, {isInclude, group, 1}, {toInclude, group, 1}, {allowNew, group, 1}},
			leave: {{isInclude, group, 0}, {toInclude, group, 0}},
			query: {{blockOld, group, 1}},
			data:  {{allowNew, group, 0}, {blockOld, group, 0}, {9, group, 0}},
		}
		for want, list := range tests {
			m, ok := parse(reports(list...))
			if !ok || m.meaning != records {
				t.Fatalf("%v: %+v, %v", list, m, ok)
			}
			for _, r := range list {
				if got, g, ok := m.next(); got != want || g != pt.IP(group) || !ok {
					t.Errorf("%+v: %v, %v, %v; want %v", r, got, g, ok, want)
				}
			}
			if _, _, ok := m.next(); ok {
				t.Error("more than was in it")
			}
		}
	}
}

func TestCodes(t *testing.T) {
	for _, mantissa := range []uint{4, 12} {
		last := uint32(0)
		for c := range uint32(1 << (mantissa + 4)) {
			v := float(c, mantissa)
			if v < last || code(v, mantissa) != c {
				t.Fatalf("%d bits: code %d is %d, whose code is %d", mantissa, c, v, code(v, mantissa))
			}
			last = v
		}
		if got := float(code(1<<30, mantissa), mantissa); got != last {
			t.Errorf("more than can be said is %d, want %d", got, last)
		}
	}
}

// What we send, we understand, and it is right by the checks of all layers.
func TestQueryFrames(t *testing.T) {
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	for _, versions := range [][2]uint8{{2, 1}, {3, 2}} {
		c := Config{MAC: mac, Addr4: pt.IP("10.44.0.1"), Version4: versions[0], Version6: versions[1]}.withDefaults()
		for _, group := range []string{"", "239.1.2.3", "ff05::1:2"} {
			for _, v6 := range []bool{false, true} {
				a := ask{vlan: 5, port: 6, v6: v6}
				if group != "" {
					a.group = pt.IP(group)
					a.v6 = a.group.Is6()
				}
				q := c.build(a)
				f := pt.Frame(q.Frame)
				m, ok := parse(f)
				want := uint32(10)
				if group != "" {
					want = 1
				}
				if !ok || m.meaning != query || m.group != a.group || m.maxResp != want || q.VLAN != 5 || q.Port != 6 {
					t.Errorf("%+v: %+v, %v", a, m, ok)
				}
				if a.v6 {
					pt.Check(t, q.Frame, pt.EtherSrc(mac), pt.IPv6(pt.TTL(1), pt.Src("fe80::ff:fe00:1")), pt.ICMPv6(pt.ICMPType(130, 0)))
				} else {
					pt.Check(t, q.Frame, pt.EtherSrc(mac), pt.IPv4(pt.TTL(1), pt.Src("10.44.0.1"), pt.TOS(0xc0)))
				}
				if to := f.DstMAC(); !to.IsMulticast() {
					t.Errorf("to %v", to)
				}
			}
		}
	}
}

// Whatever the bytes are, reading them ends and stays within them.
func FuzzInput(f *testing.F) {
	for _, fr := range []*packet.Frame{
		report("239.1.1.1"), done("ff05::1"), asked("10.0.0.1", ""), asked("fe80::1", "ff05::1"),
		reports(rec{toExclude, "239.1.1.1", 2}, rec{blockOld, "239.1.1.2", 1}), reports(rec{isInclude, "ff05::1", 1}),
	} {
		f.Add(fr.Bytes())
	}
	t := New(Config{MaxGroups: 8, MaxPerPort: 4, Querier: true})
	t.SetPorts([]Port{{Index: 1}, {Index: 2, FastLeave: true}, {Index: 3, Router: RouterNever}}, []uint16{0})
	now := uint32(0)
	f.Fuzz(func(tt *testing.T, b []byte) {
		if len(b) > packet.MaxFrame {
			return
		}
		now++
		fr := pt.Frame(b)
		for port := range uint16(5) {
			t.Input(port, fr.View.VID(), fr, now)
		}
		t.Poll(now, func(q Query) {
			if _, ok := parse(pt.Frame(q.Frame)); !ok {
				tt.Errorf("query %x", q.Frame)
			}
		})
		if s := t.Stats(); s.Groups > 8 || s.Groups < 0 {
			tt.Errorf("%d groups", s.Groups)
		}
	})
}
