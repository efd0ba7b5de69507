// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/conntrack"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// What one router may choose freely is bound when it first shows: from then on the
// kernel's choice stands for ours.

// freely is what a packet was made by both routers.
type freely struct{ kernel, own conntrack.Tuple }

// viewed is a frame to be looked at, in a buffer that it fills.
func viewed(b []byte) *packet.Frame {
	f := new(packet.Frame)
	f.SetBuf(make([]byte, packet.Headroom+len(b)))
	f.Reset(packet.Headroom, len(b))
	copy(f.Bytes(), b)
	f.View.Parse(f.Bytes())
	return f
}

// choices are those of one case.
type choices struct {
	bound []freely
	fixed map[conntrack.Tuple]bool // what was the same to both, or by both: none was chosen
}

// fix notes what was the same to both routers, or what both have made the same.
func (c *choices) fix(t conntrack.Tuple) {
	if c.fixed == nil {
		c.fixed = map[conntrack.Tuple]bool{}
	}
	c.fixed[untyped(t)] = true
}

// bind notes what a new connection's packets have become; one that had the same before,
// or whose answers looked so, is over. The former leaves its place: who looks for half of
// a tuple takes the first.
func (c *choices) bind(kernel, own conntrack.Tuple) {
	kernel, own = untyped(kernel), untyped(own)
	c.bound = slices.DeleteFunc(c.bound, func(f freely) bool { return turned(f.kernel) == kernel })
	for i := range c.bound {
		if c.bound[i].kernel == kernel {
			c.bound[i].own = own
			return
		}
	}
	c.bound = append(c.bound, freely{kernel, own})
}

// known reports whether a source of ours was chosen before.
func (c choices) known(own conntrack.Tuple) bool {
	for _, f := range c.bound {
		if f.own.Src == own.Src && f.own.SrcPort == own.SrcPort && f.own.Proto == own.Proto {
			return true
		}
	}
	return false
}

// untyped leaves out the type of a query, which its answer has not.
func untyped(t conntrack.Tuple) conntrack.Tuple {
	if isICMP(t.Proto) {
		t.DstPort = 0
	}
	return t
}

func isICMP(proto uint8) bool { return proto == packet.ProtoICMP || proto == packet.ProtoICMPv6 }

// turned is a tuple the other way round.
func turned(t conntrack.Tuple) conntrack.Tuple {
	t.Src, t.Dst = t.Dst, t.Src
	if !isICMP(t.Proto) {
		t.SrcPort, t.DstPort = t.DstPort, t.SrcPort
	}
	return t
}

// tuple is a tuple of the kernel's as it would be ours.
func (c choices) tuple(t conntrack.Tuple) conntrack.Tuple {
	kind := t.DstPort
	own := c.mapped(untyped(t))
	if isICMP(t.Proto) {
		own.DstPort = kind
	}
	return own
}

// of are the choices that a packet of a dialogue meets: it was sent to what each router had
// chosen for that, however many others have chosen the same port at one of the two.
func (c choices) of(e *dialogue) choices {
	first := freely{e.orig, e.orig}
	if e.seen {
		first = freely{e.got[0], e.got[1]}
	}
	first.kernel, first.own = untyped(first.kernel), untyped(first.own)
	c.bound = append([]freely{first}, c.bound...)
	return c
}

func (c choices) mapped(t conntrack.Tuple) conntrack.Tuple {
	for _, f := range c.bound {
		switch t {
		case f.kernel:
			return f.own
		case turned(f.kernel):
			return turned(f.own)
		}
	}
	if c.fixed[t] || c.fixed[turned(t)] {
		return t
	}
	// Around or within an error, with a port that is wrong, or another packet from or to
	// an end that was chosen: each of its ends may be.
	t.Src, t.SrcPort = c.end(t.Proto, t.Src, t.SrcPort)
	t.Dst, t.DstPort = c.end(t.Proto, t.Dst, t.DstPort)
	return t
}

// end is an end of the kernel's as it would be ours. A choice of this very port goes
// before one that has only its address.
func (c choices) end(proto uint8, addr netip.Addr, port uint16) (netip.Addr, uint16) {
	for _, f := range c.bound {
		if k := f.kernel; k.Proto == proto && k.Src == addr && k.SrcPort == port {
			return f.own.Src, f.own.SrcPort
		}
	}
	for _, f := range c.bound {
		if k := f.kernel; k.Src == addr && k.Src != f.own.Src {
			return f.own.Src, port
		}
	}
	return addr, port
}

// plain are frames of the routers as they are compared: what the kernel chose is replaced,
// and if that was something else the sums that follow from it are left out of both, as they
// are if they are known to differ.
func (c choices) plain(kernel, own []byte, spoiled, differ bool) (a, b []byte, err error) {
	if a, err = right(kernel, spoiled); err != nil {
		return a, b, fmt.Errorf("kernel: %w", err)
	}
	if b, err = right(own, spoiled); err != nil {
		return a, b, fmt.Errorf("own: %w", err)
	}
	all := packets(a)
	for _, p := range all {
		differ = c.replace(p) || differ
	}
	if differ {
		clearSums(append(all, packets(b)...))
	}
	return a, b, nil
}

// right is a copy of a frame whose checksums were found right, or are not meant to be, without
// the identification of an error, which its router makes.
func right(b []byte, spoiled bool) ([]byte, error) {
	b = bytes.Clone(b)
	v := &viewed(b).View
	if !v.Is(packet.ViewIP) {
		return b, nil
	}
	if v.Is(packet.ViewIPv4) && packet.Sum(b[v.L3:v.L3+packet.IPv4MinLen], 0) != 0xffff {
		return nil, fmt.Errorf("wrong header checksum: %x", b)
	}
	if !spoiled && v.Is(packet.ViewHasL4) && !v.Is(packet.ViewFrag) && !packet.VerifyL4(b, v) {
		return nil, fmt.Errorf("wrong checksum: %x", b)
	}
	if isICMP(v.Proto) && v.Is(packet.ViewIPv4) && !isQuery(v) {
		clear(b[v.L3+4 : v.L3+6])
		clear(b[v.L3+10 : v.L3+12])
	}
	return b, nil
}

// packets are that of a frame, and the one that it quotes.
func packets(b []byte) (all [][]byte) {
	f := viewed(b)
	if f.View.Is(packet.ViewIP) {
		all = append(all, b[f.View.L3:f.View.End])
	}
	if q, ok := conntrack.Quoted(f); ok {
		all = append(all, b[q.L3:f.View.End])
	}
	return all
}

// mended reports whether the kernel has made the CRC of a packet that is quoted right, which
// we have left wrong.
func mended(kernel, own []byte) bool {
	sound := [2]bool{true, true}
	for who, b := range [][]byte{kernel, own} {
		all := packets(b)
		if len(all) != 2 {
			return false
		}
		_, ports, l4, proto := placesOf(all[1])
		if ports[0] == nil || proto != packet.ProtoSCTP || len(all[1]) < l4+packet.SCTPLen {
			return false
		}
		p := all[1][l4:]
		sound[who] = binary.LittleEndian.Uint32(p[8:]) == packet.SCTPSum(p)
	}
	return sound[0] && !sound[1]
}

// isQuery reports whether an ICMP packet is no error.
func isQuery(v *packet.View) bool {
	switch typ := v.SrcPort >> 8; v.Proto {
	case packet.ProtoICMP:
		return typ == 8 || typ == 0 || typ == 13 || typ == 14
	case packet.ProtoICMPv6:
		return typ == 128 || typ == 129
	}
	return false
}

// placesOf are where the addresses and ports are in a packet that may be cut short: source and
// destination; none if it has no ports.
func placesOf(p []byte) (addrs, ports [2][]byte, l4 int, proto uint8) {
	addrs, l4, proto = [2][]byte{p[12:16], p[16:20]}, int(p[0]&15)*4, p[9]
	v6 := p[0]>>4 == 6
	if v6 {
		addrs, l4, proto = [2][]byte{p[8:24], p[24:40]}, 40, p[6]
	}
	if proto == packet.ProtoFragment || !v6 && binary.BigEndian.Uint16(p[6:])&0x1fff != 0 || len(p) < l4+8 {
		return addrs, ports, l4, proto
	}
	ports = [2][]byte{p[l4 : l4+2], p[l4+2 : l4+4]}
	if isICMP(proto) {
		ports[0], ports[1] = p[l4+4:l4+6], p[l4+4:l4+6]
	}
	return addrs, ports, l4, proto
}

// replace replaces what the kernel chose in a packet; false if that is what we chose, or
// nothing was.
func (c choices) replace(p []byte) bool {
	addrs, ports, _, proto := placesOf(p)
	if ports[0] == nil {
		return false
	}
	t := conntrack.Tuple{Proto: proto, SrcPort: binary.BigEndian.Uint16(ports[0]), DstPort: binary.BigEndian.Uint16(ports[1])}
	t.Src, _ = netip.AddrFromSlice(addrs[0])
	t.Dst, _ = netip.AddrFromSlice(addrs[1])
	t = untyped(t)
	to := c.mapped(t)
	copy(addrs[0], to.Src.AsSlice())
	copy(addrs[1], to.Dst.AsSlice())
	if !isICMP(proto) {
		binary.BigEndian.PutUint16(ports[1], to.DstPort)
	}
	binary.BigEndian.PutUint16(ports[0], to.SrcPort)
	return to != t
}

// clearSums clears what is of the addresses and ports of packets.
func clearSums(packets [][]byte) {
	for _, p := range packets {
		_, ports, l4, proto := placesOf(p)
		if p[0]>>4 == 4 {
			clear(p[10:12])
		}
		if ports[0] != nil {
			clearSum(p[l4:], proto)
		}
	}
}

func clearSum(p []byte, proto uint8) {
	off, n := 2, 2
	switch proto {
	case packet.ProtoTCP:
		off = 16
	case packet.ProtoUDP:
		off = 6
	case packet.ProtoSCTP:
		off, n = 8, 4
	}
	if len(p) >= off+n {
		clear(p[off : off+n])
	}
}

// reassembled are frames with the fragments among them put together, where all are there.
func reassembled(frames [][]byte) (out [][]byte) {
	var pieces [][]byte
	for _, b := range frames {
		if viewed(b).View.Is(packet.ViewFrag) {
			pieces = append(pieces, b)
		} else {
			out = append(out, b)
		}
	}
	if len(pieces) == 0 {
		return out
	}
	slices.SortFunc(pieces, func(a, b []byte) int { return int(offset(a)) - int(offset(b)) })
	var data []byte
	for _, b := range pieces {
		if int(offset(b)) != len(data) {
			return append(out, pieces...)
		}
		data = append(data, fragmentData(b)...)
	}
	return append(out, wholeOf(pieces[0], data))
}

// offset of a fragment, in bytes.
func offset(b []byte) uint16 {
	v := viewed(b).View
	if v.Is(packet.ViewIPv4) {
		return binary.BigEndian.Uint16(b[v.L3+6:]) << 3
	}
	return binary.BigEndian.Uint16(b[v.L3+42:]) &^ 7
}

func fragmentData(b []byte) []byte {
	v := viewed(b).View
	if v.Is(packet.ViewIPv4) {
		return b[v.L3+int(b[v.L3]&15)*4 : v.End]
	}
	return b[v.L3+48 : v.End]
}

// wholeOf is the datagram whose first fragment is b.
func wholeOf(b, data []byte) []byte {
	v := viewed(b).View
	if v.Is(packet.ViewIPv4) {
		proto := b[v.L3+9]
		return pt.Build(pt.EtherHdr{Dst: packet.MAC(b), Src: packet.MAC(b[6:])},
			pt.IPv4Hdr{Src: v.SrcAddr(b), Dst: v.DstAddr(b), TTL: b[v.L3+8], ID: binary.BigEndian.Uint16(b[v.L3+4:]), Proto: &proto}, pt.Payload(data))
	}
	next := b[v.L3+40]
	return pt.Build(pt.EtherHdr{Dst: packet.MAC(b), Src: packet.MAC(b[6:])},
		pt.IPv6Hdr{Src: v.SrcAddr(b), Dst: v.DstAddr(b), HopLimit: b[v.L3+7], Next: &next}, pt.Payload(data))
}

// words are frames for a message.
func words(frames [][]byte) string {
	out := ""
	for _, b := range frames {
		out += fmt.Sprintf("\n    %s %x", pt.Describe(b), b)
	}
	if out == "" {
		return " nothing"
	}
	return out
}

// TestChoicesAreOfTheirConnection is what a packet of the kernel's router would be of ours
// when several choices have one of its ends, or its address.
func TestChoicesAreOfTheirConnection(t *testing.T) {
	tcp := func(s string) conntrack.Tuple {
		src, dst, _ := strings.Cut(s, " > ")
		a, b := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		return conntrack.Tuple{Src: a.Addr(), SrcPort: a.Port(), Dst: b.Addr(), DstPort: b.Port(), Proto: packet.ProtoTCP}
	}
	var c choices
	for _, f := range [][2]string{
		{"10.71.2.1:1000 > 10.71.2.3:53", "10.71.2.1:1000 > 10.71.2.3:53"}, // an end that another one's packets have, too
		{"10.71.2.21:600 > 10.71.2.2:1000", "10.71.2.20:600 > 10.71.2.2:1000"},
		{"10.71.2.21:777 > 10.71.2.2:1000", "10.71.2.20:901 > 10.71.2.2:1000"},
		{"10.71.2.30:5010 > 10.71.2.2:1000", "10.71.2.30:5059 > 10.71.2.2:1000"},
		{"10.71.2.30:5058 > 10.71.2.2:1000", "10.71.2.30:5017 > 10.71.2.2:1000"},
		{"10.71.2.30:5058 > 10.71.2.3:1000", "10.71.2.30:5030 > 10.71.2.3:1000"}, // the kernel has the same for two
	} {
		c.bind(tcp(f[0]), tcp(f[1]))
	}
	c.fix(tcp("10.71.2.30:5058 > 10.71.2.5:1000")) // by chance
	none := &dialogue{}
	late := &dialogue{seen: true, got: [2]conntrack.Tuple{tcp("10.71.2.30:5058 > 10.71.2.3:1000"), tcp("10.71.2.30:5030 > 10.71.2.3:1000")}}
	for _, x := range []struct {
		of            *dialogue
		kernel, would string
	}{
		{none, "10.71.2.2:1000 > 10.71.2.21:777", "10.71.2.2:1000 > 10.71.2.20:901"},
		{none, "10.71.2.4:1000 > 10.71.2.21:777", "10.71.2.4:1000 > 10.71.2.20:901"},
		{none, "10.71.2.4:1000 > 10.71.2.21:9", "10.71.2.4:1000 > 10.71.2.20:9"},
		{none, "10.71.2.1:1000 > 10.71.2.21:777", "10.71.2.1:1000 > 10.71.2.20:901"},
		{none, "10.71.2.21:777 > 10.71.2.1:1000", "10.71.2.20:901 > 10.71.2.1:1000"},
		{none, "10.71.2.1:1000 > 10.71.2.30:5010", "10.71.2.1:1000 > 10.71.2.30:5059"},
		{none, "10.71.2.21:777 > 10.71.2.30:5010", "10.71.2.20:901 > 10.71.2.30:5059"},
		{none, "10.71.2.1:1000 > 10.71.2.30:5011", "10.71.2.1:1000 > 10.71.2.30:5011"},
		{none, "10.71.2.5:1000 > 10.71.2.30:5058", "10.71.2.5:1000 > 10.71.2.30:5058"},
		{late, "10.71.2.1:1000 > 10.71.2.30:5058", "10.71.2.1:1000 > 10.71.2.30:5030"},
		{late, "10.71.2.1:1000 > 10.71.2.30:5010", "10.71.2.1:1000 > 10.71.2.30:5059"},
	} {
		if got := c.of(x.of).tuple(tcp(x.kernel)); got != tcp(x.would) {
			t.Errorf("%s would be %v, want %s", x.kernel, got, x.would)
		}
	}
}

// TestSumsDifferOnlyByChoice: where nothing was chosen, all bytes have to be the same, a
// spoiled sum and that of a packet which is quoted, too.
func TestSumsDifferOnlyByChoice(t *testing.T) {
	with := func(host int, flip byte) []byte {
		quoted := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: at(false, far, host), Dst: at(false, far, 2)}, pt.UDPHdr{SrcPort: 600, DstPort: 53}, pt.Bytes(8))
		v := viewed(quoted).View
		quoted[v.L4+6] ^= flip
		return pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: at(false, far, 2), Dst: at(false, far, host)}, pt.ICMPHdr{Type: 3, Code: 3}, pt.Payload(quoted[v.L3:]))
	}
	var c choices
	udp := func(host int) conntrack.Tuple {
		return conntrack.Tuple{Src: at(false, far, host), Dst: at(false, far, 2), SrcPort: 600, DstPort: 53, Proto: packet.ProtoUDP}
	}
	c.bind(udp(20), udp(21))
	for _, x := range []struct {
		kernel, own []byte
		same        bool
	}{
		{with(20, 0), with(21, 0), true},
		{with(20, 0), with(20, 0), false}, // we have chosen 21
		{with(3, 0), with(3, 0), true},
		{with(3, 1), with(3, 0), false},
		{with(3, 0), with(4, 0), false},
	} {
		a, b, err := c.plain(x.kernel, x.own, false, false)
		if err != nil || bytes.Equal(a, b) != x.same {
			t.Errorf("%x\n%x: the same is %v, want %v: %v", x.kernel, x.own, !x.same, x.same, err)
		}
	}
}
