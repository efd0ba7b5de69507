// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

// IPv4Hdr is an IPv4 header. Zero addresses stand for 10.44.0.10 to .11, TTL 0
// for 64.
type IPv4Hdr struct {
	Src, Dst netip.Addr
	TTL, TOS uint8
	ID       uint16
	DF, MF   bool
	Offset   uint16 // of a fragment, in bytes, a multiple of 8
	Options  []byte // padded to a multiple of 4 with zeros, at most 40
	Proto    *uint8 // nil: what the next layer is
	Version  *uint8
	IHL      *uint8 // in units of 4 bytes
	TotalLen *uint16
	Checksum *uint16
}

func (IPv4Hdr) id() (uint16, uint8) { return packet.EtherTypeIPv4, 4 }

func (h IPv4Hdr) wrap(_ ipLayer, next Layer, body []byte) []byte {
	b := make([]byte, packet.IPv4MinLen+(len(h.Options)+3)&^3)
	copy(b[packet.IPv4MinLen:], h.Options)
	b[0] = orElse(h.Version, 4)<<4 | orElse(h.IHL, uint8(len(b)/4))&0xf
	b[1] = h.TOS
	binary.BigEndian.PutUint16(b[2:], orElse(h.TotalLen, uint16(len(b)+len(body))))
	binary.BigEndian.PutUint16(b[4:], h.ID)
	binary.BigEndian.PutUint16(b[6:], h.fragment())
	b[8], b[9] = or(h.TTL, 64), nextProto(h.Proto, next)
	src, dst := h.addrs()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], orElse(h.Checksum, ^slowSum(b, 0)))
	return append(b, body...)
}

func (h IPv4Hdr) fragment() uint16 {
	f := h.Offset / 8
	if h.MF {
		f |= 0x2000
	}
	if h.DF {
		f |= 0x4000
	}
	return f
}

func (h IPv4Hdr) addrs() (src, dst [4]byte) {
	return or(h.Src, defaultSrc4()).As4(), or(h.Dst, defaultDst4()).As4()
}

func (h IPv4Hdr) pseudo(proto uint8, n int) uint16 {
	src, dst := h.addrs()
	return slowSum(append(src[:], dst[:]...), slowSum([]byte{0, proto, byte(n >> 8), byte(n)}, 0))
}

// nextProto is the protocol number of the next layer; 59, no next header, if
// there is none, and 253 (RFC 3692, for experiments) for a Payload.
func nextProto(knob *uint8, next Layer) uint8 {
	if next == nil {
		return orElse(knob, packet.ProtoNoNext)
	}
	if _, isData := next.(Payload); isData {
		return orElse(knob, 253)
	}
	_, proto := next.id()
	return orElse(knob, proto)
}

// IPv6Hdr is an IPv6 header. Zero addresses stand for fd44::a to fd44::b,
// HopLimit 0 for 64.
type IPv6Hdr struct {
	Src, Dst     netip.Addr
	HopLimit     uint8
	TrafficClass uint8
	FlowLabel    uint32
	Next         *uint8 // nil: what the next layer is
	Version      *uint8
	PayloadLen   *uint16
}

func (IPv6Hdr) id() (uint16, uint8) { return packet.EtherTypeIPv6, 41 }

func (h IPv6Hdr) wrap(_ ipLayer, next Layer, body []byte) []byte {
	b := make([]byte, packet.IPv6Len)
	first := uint32(orElse(h.Version, 6))<<28 | uint32(h.TrafficClass)<<20 | h.FlowLabel&0xfffff
	binary.BigEndian.PutUint32(b, first)
	binary.BigEndian.PutUint16(b[4:], orElse(h.PayloadLen, uint16(len(body))))
	b[6], b[7] = nextProto(h.Next, next), or(h.HopLimit, 64)
	src, dst := h.addrs()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return append(b, body...)
}

func (h IPv6Hdr) addrs() (src, dst [16]byte) {
	return or(h.Src, defaultSrc6()).As16(), or(h.Dst, defaultDst6()).As16()
}

func (h IPv6Hdr) pseudo(proto uint8, n int) uint16 {
	src, dst := h.addrs()
	return slowSum(append(src[:], dst[:]...), slowSum([]byte{0, proto, byte(n >> 8), byte(n)}, 0))
}

// ExtHdr is an IPv6 extension header: hop-by-hop (Proto 0), routing (43),
// destination options (60) or AH (51). Body follows the first two bytes and is
// padded with zeros (Pad1) to the header's unit; nil gives the shortest.
type ExtHdr struct {
	Proto uint8
	Body  []byte
	Next  *uint8 // nil: what the next layer is
	Len   *uint8 // in the header's unit
}

func (e ExtHdr) id() (uint16, uint8) { return 0, e.Proto }

func (e ExtHdr) wrap(_ ipLayer, next Layer, body []byte) []byte {
	n := max(8, (2+len(e.Body)+7)&^7)
	units := n/8 - 1
	if e.Proto == packet.ProtoAH {
		n = max(12, (2+len(e.Body)+3)&^3)
		units = n/4 - 2
	}
	b := make([]byte, n)
	b[0], b[1] = nextProto(e.Next, next), orElse(e.Len, uint8(units))
	copy(b[2:], e.Body)
	return append(b, body...)
}

// FragHdr is an IPv6 fragment header. Zero is an atomic fragment.
type FragHdr struct {
	Offset uint16 // in bytes, a multiple of 8
	More   bool
	ID     uint32
	Next   *uint8 // nil: what the next layer is
}

func (FragHdr) id() (uint16, uint8) { return 0, packet.ProtoFragment }

func (f FragHdr) wrap(_ ipLayer, next Layer, body []byte) []byte {
	b := make([]byte, 8)
	b[0] = nextProto(f.Next, next)
	field := f.Offset &^ 7
	if f.More {
		field |= 1
	}
	binary.BigEndian.PutUint16(b[2:], field)
	binary.BigEndian.PutUint32(b[4:], f.ID)
	return append(b, body...)
}
