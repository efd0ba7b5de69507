// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice/packet"
)

// Border is what a translated ICMP error has to know of the border between the
// families. Zero fields are not known.
type Border struct {
	Prefix     netip.Prefix // of NAT64, for the address of whoever reports an error in IPv4
	MTU4, MTU6 int          // of the devices that the two sides of the connection leave by
}

// TranslateError makes an ICMP error about a packet of the connection's other
// direction one of the other family: RFC 7915 §4.2, §4.3, §5.2, §5.3. What stands
// behind the quoted packet is left out, and of a long quote its end.
//
// False, and nothing is changed, where ApplyError says false, and for what RFC 7915
// has silently dropped. It is to be dropped then.
// Preconditions: as for Apply.
func (r *Rewrite) TranslateError(f *packet.Frame, border Border, id uint16) bool {
	v, b := &f.View, f.Bytes()
	q, ok := quoteOf(f)
	if !ok || !r.family || q.v6 == r.v6 || v.Is(packet.ViewRouted) || !packet.VerifyL4(b, v) {
		return false
	}
	e := errorMessage{v6: r.v6, code: b[v.L4+1], info: binary.BigEndian.Uint32(b[v.L4+4:])}
	inner := r.quoted()
	inner.family = true
	outer := parcel{b: b[v.L3:v.End], l4: v.L4 - v.L3, proto: v.Proto, v6: !r.v6}
	h, okOuter := outer.header()
	quoted, okQuoted := q.header()
	if !okOuter || !okQuoted || !e.translate(b[v.L4], &quoted, border) {
		return false
	}
	l3, l4, n := v.L3, packet.IPv4MinLen, quoted.len(r.v6)
	if r.v6 {
		l4 = packet.IPv6Len
	}
	end := v.L4 + packet.ICMPLen + q.l4 // of the quoted IP header
	grow := l4 + packet.ICMPLen + n - (end - l3)
	if grow > f.Headroom() || !inner.upperLayer(&q, &quoted) {
		return false
	}
	src := r.reporter(v.SrcAddr(b), border)
	room := leastMTU6 - l4 - packet.ICMPLen - n
	rest := min(len(q.b)-q.l4, room)
	f.Truncate(end + rest)
	f.Regrow(l3, end, l4+packet.ICMPLen+n)
	p := f.Bytes()[l3:]
	quoted.put(p[l4+packet.ICMPLen:l4+packet.ICMPLen+n], &inner, 0)
	h.proto, h.length = icmpOf(r.v6), packet.ICMPLen+n+rest
	h.put(p[:l4], &src, id)
	e.put(p[l4:])
	r.finish(f, l3)
	sumError(f)
	return true
}

// reporter is r with the source that an error has: whoever reports it in IPv4 has
// an address in the prefix; in IPv6, where it has none in IPv4, the other end of the
// connection stands for it.
func (r *Rewrite) reporter(from netip.Addr, border Border) Rewrite {
	src := *r
	if r.v6 && border.Prefix.IsValid() {
		src.src = bytesOf(Embed(border.Prefix, from))
	}
	return src
}

// sumError gives the message its checksum.
func sumError(f *packet.Frame) {
	v, b := &f.View, f.Bytes()
	m := b[v.L4:v.End]
	seed := uint16(0)
	if v.Is(packet.ViewIPv6) {
		seed = packet.PseudoHeader(b, v, len(m))
	}
	binary.BigEndian.PutUint16(m[2:], 0)
	binary.BigEndian.PutUint16(m[2:], ^packet.Sum(m, seed))
}

// errorMessage is an ICMP header.
type errorMessage struct {
	v6   bool // the family that it becomes one of
	kind uint8
	code uint8
	info uint32 // what type and code have there
}

func (e *errorMessage) put(m []byte) {
	m[0], m[1] = e.kind, e.code
	binary.BigEndian.PutUint32(m[4:], e.info)
}

// translate makes type, code and what is in the header those of the other family;
// false: it has none. quoted is the quoted packet's header as it came.
func (e *errorMessage) translate(kind uint8, quoted *header, border Border) bool {
	if e.v6 {
		return e.to6(kind, quoted, border)
	}
	return e.to4(kind, border)
}

// The types of ICMP and ICMPv6 errors.
const (
	icmpUnreach  = 3
	icmpExceeded = 11
	icmpParam    = 12

	icmp6Unreach  = 1
	icmp6TooBig   = 2
	icmp6Exceeded = 3
	icmp6Param    = 4
)

// to6 is RFC 7915 §4.2.
func (e *errorMessage) to6(kind uint8, quoted *header, border Border) bool {
	info := e.info
	e.info = 0
	switch kind {
	case icmpUnreach:
		return e.unreach6(uint16(info), quoted, border)
	case icmpExceeded:
		e.kind = icmp6Exceeded
		return true
	case icmpParam:
		if e.code != 0 && e.code != 2 {
			return false
		}
		pointers := []uint8{0, 1, 4, 4, none, none, none, none, 7, 6, none, none, 8, 8, 8, 8, 24, 24, 24, 24}
		e.kind, e.code = icmp6Param, 0
		return e.pointer(info>>24, pointers)
	}
	return false // source quench
}

// none is a field that the other family doesn't have.
const none = 0xff

// pointer is where the other family has the field at a place of the header.
func (e *errorMessage) pointer(at uint32, places []uint8) bool {
	if at >= uint32(len(places)) || places[at] == none {
		return false
	}
	e.info = uint32(places[at])
	if !e.v6 {
		e.info <<= 24
	}
	return true
}

func (e *errorMessage) unreach6(mtu uint16, quoted *header, border Border) bool {
	const noRoute, prohibited, noPort = 0, 1, 4
	e.kind = icmp6Unreach
	switch e.code {
	case 0, 1, 5, 6, 7, 8, 11, 12:
		e.code = noRoute
	case 9, 10, 13, 15:
		e.code = prohibited
	case 3:
		e.code = noPort
	case 2: // no such protocol: the field of the next header
		e.kind, e.code, e.info = icmp6Param, 1, 6
	case 4:
		e.kind, e.code, e.info = icmp6TooBig, 0, uint32(mtu6(int(mtu), quoted, border))
	default:
		return false
	}
	return true
}

// mtu6 is the MTU that a sender in IPv6 is told. A router that tells none has one
// of RFC 1191 §7.1 below what it refused.
func mtu6(mtu int, quoted *header, border Border) int {
	const grow = packet.IPv6Len - packet.IPv4MinLen
	if mtu == 0 {
		plateaus := []int{65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296}
		i := slices.IndexFunc(plateaus, func(p int) bool { return p < quoted.length+packet.IPv4MinLen })
		if mtu = 68; i >= 0 {
			mtu = plateaus[i]
		}
	}
	mtu += grow
	if border.MTU6 > 0 {
		mtu = min(mtu, border.MTU6)
	}
	if border.MTU4 > 0 {
		mtu = min(mtu, border.MTU4+grow)
	}
	return max(mtu, leastMTU6)
}

// to4 is RFC 7915 §5.2.
func (e *errorMessage) to4(kind uint8, border Border) bool {
	info := e.info
	e.info = 0
	switch kind {
	case icmp6Unreach:
		codes := []uint8{1, 10, 1, 1, 3}
		if int(e.code) >= len(codes) {
			return false
		}
		e.kind, e.code = icmpUnreach, codes[e.code]
	case icmp6TooBig:
		e.kind, e.code, e.info = icmpUnreach, 4, uint32(mtu4(info, border))
	case icmp6Exceeded:
		e.kind = icmpExceeded
	case icmp6Param:
		return e.param4(info)
	default:
		return false
	}
	return true
}

func (e *errorMessage) param4(at uint32) bool {
	switch e.code {
	case 0:
		places := slices.Concat([]uint8{0, 1, none, none, 2, 2, 9, 8}, repeat(12, 16), repeat(16, 16))
		e.kind = icmpParam
		return e.pointer(at, places)
	case 1:
		e.kind, e.code = icmpUnreach, 2
		return true
	}
	return false
}

func repeat(x uint8, n int) []uint8 { return slices.Repeat([]uint8{x}, n) }

// mtu4 is the MTU that a sender in IPv4 is told.
func mtu4(mtu uint32, border Border) int {
	const shrink = packet.IPv6Len - packet.IPv4MinLen
	m := int(min(mtu, 0xffff)) - shrink
	if border.MTU4 > 0 {
		m = min(m, border.MTU4)
	}
	if border.MTU6 > 0 {
		m = min(m, border.MTU6-shrink)
	}
	return max(m, 68)
}
