// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sluice/conntrack"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// dialogue is a conversation of two hosts by way of the routers. It makes packets
// that mostly fit, and often don't.
type dialogue struct {
	r     *rand.Rand
	proto uint8
	v6    bool
	local bool   // the router's own stack is the other one
	sides [2]int // of who began, and of who answers
	orig  conntrack.Tuple
	got   [2]conntrack.Tuple // by router: what the first packets look like where they arrive
	seen  bool               // got is known
	last  [2][2][]byte       // by router and direction: the last frame that arrived
	next  [2]uint32          // sequence numbers, or tags
	plain bool               // nothing that a router answers itself
	cut   bool               // fragments were sent: they are counted otherwise
	id    uint16             // of the next packet that is cut
}

// pick is one of some.
func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// newDialogue makes one of few addresses and ports, so that many clash.
func newDialogue(r *rand.Rand) *dialogue {
	x := &dialogue{r: r, v6: r.IntN(4) == 0, next: [2]uint32{r.Uint32(), r.Uint32()}, id: uint16(r.Uint32())}
	x.proto = pick[uint8](r, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoSCTP)
	if x.v6 && x.proto == packet.ProtoICMP {
		x.proto = packet.ProtoICMPv6
	}
	x.orig = conntrack.Tuple{Proto: x.proto, SrcPort: pick[uint16](r, 1000, 1001, 600, 100), DstPort: pick[uint16](r, 53, 1000, 2000)}
	x.place(r.IntN(16))
	switch x.proto {
	case packet.ProtoICMP:
		x.orig.DstPort = 8 << 8
	case packet.ProtoICMPv6:
		x.orig.DstPort = 128 << 8
	}
	return x
}

// place chooses the hosts, each way of which is a rule's, or none's.
func (x *dialogue) place(way int) {
	host := func(n int, of ...int) netip.Addr { return at(x.v6, n, pick(x.r, of...)) }
	own := at(x.v6, far, 1)
	switch {
	case way < 7: // to the far side, its source translated
		x.sides = [2]int{near, far}
		x.orig.Src, x.orig.Dst = host(near, 2, 3, 3, pooled, cramped, cramped), host(far, 2, 3)
	case way < 10: // to a port that is published, or an address
		x.sides = [2]int{far, near}
		x.orig.Src, x.orig.Dst, x.orig.DstPort = host(far, 2, 3), own, pick[uint16](x.r, 8080, 8081, 8090)
		if x.r.IntN(3) == 0 || x.proto == packet.ProtoICMP || x.proto == packet.ProtoICMPv6 {
			x.orig.Dst = at(x.v6, far, oneToOne)
		}
	case way < 12: // the same from its neighbours
		x.sides = [2]int{near, near}
		x.orig.Src, x.orig.Dst, x.orig.DstPort = host(near, 3, 4), own, 8080
	case way < 14: // straight to a host
		x.sides = [2]int{far, near}
		x.orig.Src, x.orig.Dst, x.orig.DstPort = host(far, 2, 3), host(near, 2, 3), pick[uint16](x.r, 1000, 1001)
	case way < 15: // to the router
		x.sides, x.local = [2]int{near, near}, true
		x.orig.Src, x.orig.Dst = host(near, 2, 3), at(x.v6, near, 1)
	default: // to where it is redirected to the router
		x.sides, x.local = [2]int{near, near}, x.proto == packet.ProtoTCP || x.proto == packet.ProtoUDP
		if !x.local {
			x.sides[1] = far
		}
		x.orig.Src, x.orig.Dst, x.orig.DstPort = host(near, 2, 3), host(far, 2), 7777
	}
	x.local = x.local || x.orig.Dst == own && (x.proto == packet.ProtoICMP || x.proto == packet.ProtoICMPv6)
}

// tuple is what a packet of a direction looks like when it comes to a router.
func (x *dialogue) tuple(who int, d conntrack.Dir) conntrack.Tuple {
	if d == conntrack.Original {
		return x.orig
	}
	t := x.orig
	if x.seen {
		t = x.got[who]
	}
	t, _ = t.Inverse()
	return t
}

// packet makes the next packet, as it comes to each router, and says what it is.
func (x *dialogue) packet(d conntrack.Dir, step int) (frames [2][]byte, what string) {
	build, what := x.content(d, step)
	ttl := uint8(64)
	if x.r.IntN(40) == 0 && !x.plain {
		ttl, what = 1, what+" ttl 1"
	}
	spoil := x.r.IntN(60) == 0
	for who := range frames {
		t := x.tuple(who, d)
		frames[who] = pt.Build(append([]pt.Layer{pt.EtherHdr{}, x.ip(t, ttl)}, build(t)...)...)
		if b := frames[who]; spoil {
			b[len(b)-1] ^= 0x55
		}
	}
	if spoil {
		what += " spoiled"
	}
	return frames, what
}

func (x *dialogue) ip(t conntrack.Tuple, ttl uint8) pt.Layer {
	if x.v6 {
		return pt.IPv6Hdr{Src: t.Src, Dst: t.Dst, HopLimit: ttl}
	}
	return pt.IPv4Hdr{Src: t.Src, Dst: t.Dst, TTL: ttl, ID: x.id}
}

// content chooses what is in a packet, apart from its addresses and ports.
func (x *dialogue) content(d conntrack.Dir, step int) (build func(conntrack.Tuple) []pt.Layer, what string) {
	switch x.proto {
	case packet.ProtoTCP:
		h, data := x.segment(d, step)
		return func(t conntrack.Tuple) []pt.Layer {
			h.SrcPort, h.DstPort = t.SrcPort, t.DstPort
			return []pt.Layer{h, pt.Bytes(data)}
		}, fmt.Sprintf("tcp flags %#x seq %d ack %d win %d opts %x data %d", h.Flags, h.Seq, h.Ack, h.Window, h.Options, data)
	case packet.ProtoSCTP:
		tag, body := x.chunks(d, step)
		return func(t conntrack.Tuple) []pt.Layer {
			return []pt.Layer{pt.SCTPHdr{SrcPort: t.SrcPort, DstPort: t.DstPort, Tag: tag}, pt.Payload(body)}
		}, fmt.Sprintf("sctp tag %x chunks %x", tag, body)
	case packet.ProtoUDP:
		data := x.r.IntN(100)
		return func(t conntrack.Tuple) []pt.Layer {
			return []pt.Layer{pt.UDPHdr{SrcPort: t.SrcPort, DstPort: t.DstPort}, pt.Bytes(data)}
		}, fmt.Sprintf("udp %d", data)
	}
	seq, other := uint16(step), x.r.IntN(10)
	if x.plain {
		other = 1
	}
	return func(t conntrack.Tuple) []pt.Layer {
		h := pt.ICMPHdr{V6: x.v6, Type: uint8(t.DstPort >> 8), Code: uint8(t.DstPort), ID: t.SrcPort, Seq: seq}
		if other == 0 && !x.v6 && !x.local && d == conntrack.Original {
			h.Type = 13 // timestamp, of the same identifier
		}
		return []pt.Layer{h, pt.Bytes(32)}
	}, fmt.Sprintf("icmp seq %d other %v", seq, other == 0)
}

// segment is a segment that follows, mostly.
func (x *dialogue) segment(d conntrack.Dir, step int) (h pt.TCPHdr, data int) {
	r := x.r
	h = pt.TCPHdr{Seq: x.next[d], Ack: x.next[d.Other()], Window: pick[uint16](r, 65535, 65535, 5000, 100, 0), Flags: pt.ACK}
	switch {
	case step < 3 && r.IntN(4) != 0: // a handshake
		h.Flags = [...]uint8{pt.SYN, pt.SYN | pt.ACK, pt.ACK}[step]
	case r.IntN(2) == 0:
		h.Flags = pick[uint8](r, pt.ACK|pt.PSH, pt.FIN|pt.ACK, pt.FIN|pt.ACK, pt.SYN, pt.SYN|pt.ACK, pt.RST, pt.RST|pt.ACK)
	case r.IntN(20) == 0:
		h.Flags = uint8(r.IntN(256))
	}
	if r.IntN(8) == 0 {
		h.Seq += pick[uint32](r, 1, 1000, 66001, 1<<20, 1<<30, ^uint32(0), ^uint32(999), ^uint32(69999))
	}
	if r.IntN(10) == 0 {
		h.Ack += pick[uint32](r, 1, 1000, 66001, 1<<20, ^uint32(0), ^uint32(999), ^uint32(69999))
	}
	if h.Flags&(pt.SYN|pt.RST) == 0 && r.IntN(3) == 0 {
		data = pick(r, 1, 20, 700)
	}
	if h.Flags&pt.SYN != 0 {
		h.Options = []byte{2, 4, 5, 0xb4}
		if r.IntN(2) == 0 {
			h.Options = append(h.Options, 1, 3, 3, uint8(r.IntN(18)), 4, 2)
		}
	} else if r.IntN(8) == 0 {
		h.Options = []byte{1, 1, 5, 10}
		h.Options = binary.BigEndian.AppendUint32(h.Options, h.Ack+100)
		h.Options = binary.BigEndian.AppendUint32(h.Options, h.Ack+pick[uint32](r, 200, 5000, 100000))
	}
	if r.IntN(5) != 0 && int32(h.Seq-x.next[d]) <= 0 {
		x.next[d] = h.Seq + uint32(data)
		if h.Flags&(pt.SYN|pt.FIN) != 0 {
			x.next[d]++
		}
	}
	return h, data
}

// chunks are of SCTP: an association that begins, or any.
func (x *dialogue) chunks(d conntrack.Dir, step int) (tag uint32, body []byte) {
	r := x.r
	typ := pick[uint8](r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14)
	if step < 4 && r.IntN(4) != 0 {
		typ = [...]uint8{1, 2, 10, 11}[step]
	}
	tag = x.next[d]
	if typ == 1 && r.IntN(6) != 0 {
		tag = 0
	}
	body = []byte{typ, 0, 0, 4}
	if typ == 1 || typ == 2 {
		body[3] = 20
		body = append(binary.BigEndian.AppendUint32(body, x.next[d.Other()]), make([]byte, 12)...)
	}
	if r.IntN(8) == 0 {
		body = append(body, pick[uint8](r, 0, 3, 4, 9, 11), 0, 0, 4)
	}
	return tag, body
}

// pieces are the fragments of a large datagram, in some order.
func (x *dialogue) pieces(d conntrack.Dir) (frames [][2][]byte, what string) {
	size, at := 1000+x.r.IntN(2000), 8*(20+x.r.IntN(80))
	order := x.r.IntN(3)
	x.cut = true
	x.id++
	for who := range 2 {
		t := x.tuple(who, d)
		build := []pt.Layer{pt.EtherHdr{}, x.ip(t, 64)}
		whole := pt.Build(append(build, pt.UDPHdr{SrcPort: t.SrcPort, DstPort: t.DstPort}, pt.Bytes(size))...)
		v := viewed(whole).View
		for i, p := range x.split(t, whole[v.L4:v.End], at) {
			if len(frames) <= i {
				frames = append(frames, [2][]byte{})
			}
			frames[i][who] = p
		}
	}
	if order == 0 {
		for i, j := 0, len(frames)-1; i < j; i, j = i+1, j-1 {
			frames[i], frames[j] = frames[j], frames[i]
		}
	}
	return frames, fmt.Sprintf("udp %d in fragments of %d, %v", size, at, order)
}

// split cuts what is behind the IP header, and then once more.
func (x *dialogue) split(t conntrack.Tuple, b []byte, at int) (frames [][]byte) {
	proto := x.proto
	for off := 0; off < len(b); {
		n := min(at, len(b)-off)
		if off > 0 {
			n = min(1440, len(b)-off)
		}
		more := off+n < len(b)
		if x.v6 {
			frames = append(frames, pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: t.Src, Dst: t.Dst, HopLimit: 64},
				pt.FragHdr{Offset: uint16(off), More: more, ID: uint32(x.id), Next: &proto}, pt.Payload(b[off:off+n])))
		} else {
			frames = append(frames, pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: t.Src, Dst: t.Dst, TTL: 64, ID: x.id, MF: more, Offset: uint16(off), Proto: &proto}, pt.Payload(b[off:off+n])))
		}
		off += n
	}
	return frames
}

// complaint is an ICMP error about the last packet that arrived at an end, from that
// end or from a router behind it; false if none has.
func (x *dialogue) complaint(d conntrack.Dir) (frames [2][]byte, what string, ok bool) {
	typ, code := pick[uint8](x.r, 3, 3, 3, 11, 12, 4), uint8(x.r.IntN(4))
	if x.v6 {
		typ = pick[uint8](x.r, 1, 1, 2, 3, 4)
	}
	whole, other, harm := x.r.IntN(2) == 0, x.r.IntN(4) == 0, x.r.IntN(8)
	if x.proto == packet.ProtoSCTP && harm == 0 { // the kernel makes a CRC right that was wrong
		harm = 7
	}
	for who := range frames {
		b := x.last[who][d]
		if b == nil {
			return frames, "", false
		}
		v := viewed(b).View
		quote := append([]byte(nil), b[v.L3:v.End]...)
		if !whole {
			quote = quote[:min(len(quote), v.L4-v.L3+8)]
		}
		quote = quote[:min(len(quote), 1200)]
		from, to := v.DstAddr(b), v.SrcAddr(b)
		if other {
			from = at2(x.v6, from)
		}
		switch harm {
		case 0:
			quote[len(quote)-1] ^= 1
		case 1:
			to = at2(x.v6, from)
		case 2:
			copy(quote[v.L4-v.L3:], x.another(d))
		}
		h := pt.ICMPHdr{V6: x.v6, Type: typ, Code: code, Seq: 1500} // nobody learns a smaller MTU
		frames[who] = pt.Build(pt.EtherHdr{}, x.ip(conntrack.Tuple{Src: from, Dst: to}, 64), h, pt.Payload(quote))
	}
	return frames, fmt.Sprintf("error %d/%d whole %v other %v harm %d", typ, code, whole, other, harm), true
}

// another is a source port that the last packet which arrived has at neither router, be it
// chosen by chance.
func (x *dialogue) another(d conntrack.Dir) []byte {
	for port := byte(9); ; port++ {
		is := []byte{0, port}
		if !slices.ContainsFunc(x.last[:], func(last [2][]byte) bool {
			return last[d] != nil && bytes.HasPrefix(last[d][viewed(last[d]).View.L4:], is)
		}) {
			return is
		}
	}
}

// at2 is another host of the subnet of a.
func at2(v6 bool, a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] = 8
	a, _ = netip.AddrFromSlice(b)
	return a
}

// TestAnotherPort: what a quote's port is spoiled with is the port of no router.
func TestAnotherPort(t *testing.T) {
	from := func(port uint16) []byte {
		return pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: at(false, far, 2), Dst: at(false, near, 3)}, pt.UDPHdr{SrcPort: port, DstPort: 1001})
	}
	x := &dialogue{last: [2][2][]byte{{from(10), from(9)}, {from(53), from(10)}}}
	for d, want := range []byte{9, 11} {
		if got := x.another(conntrack.Dir(d)); !bytes.Equal(got, []byte{0, want}) {
			t.Errorf("%v: %x, want %d", conntrack.Dir(d), got, want)
		}
	}
}
