// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"sluice/packet"
)

// maxQuotedExtHdrs bounds the extension headers of a quoted packet, as the parse
// of a whole one does.
const maxQuotedExtHdrs = 8

// IsError reports whether an ICMP or ICMPv6 message is an error that quotes a
// packet, and is translated. Redirects are not: they are about a next hop of
// the link that they come from.
func IsError(proto, icmpType uint8) bool {
	if proto == packet.ProtoICMPv6 {
		return icmpType >= 1 && icmpType <= 4
	}
	switch icmpType {
	case 3, 4, 11, 12:
		return true
	}
	return false
}

// ApplyError rewrites an ICMP error that quotes a packet of the connection's
// other direction: the quoted packet is made what its sender sent, the addresses
// around it what they are in this direction, as Linux does (RFC 5508 REQ-4 and
// REQ-5). With named, which says that sources of this direction are translated, be it in
// their port or identifier only, the error has the connection's, whichever router
// behind it has sent it. Type, code and what follows the quoted headers stay. The
// quoted packet's own checksums follow as far as it is quoted, and nobody checks them
// (REQ-3c).
//
// False, and nothing is changed: it is no error, its own checksum is wrong
// (REQ-3), it quotes no packet of the family, or it is a fragment. It is to be
// dropped then.
// Preconditions: as for Apply.
func (r *Rewrite) ApplyError(f *packet.Frame, named bool) bool {
	v, b := &f.View, f.Bytes()
	q, ok := quoteOf(f)
	if !ok || r.family || q.v6 != r.v6 || !packet.VerifyL4(b, v) {
		return false
	}
	inner := r.quoted()
	touched := q.b[:min(len(q.b), q.l4+packet.TCPMinLen)]
	change := diff(^packet.Sum(touched, 0))
	if !q.rewrite(&inner) {
		return false
	}
	change += diff(packet.Sum(touched, 0))
	outer := parcel{b: b[v.L3:v.End], l4: v.L4 - v.L3, proto: v.Proto, v6: r.v6, routed: v.Is(packet.ViewRouted), whole: true}
	around := *r
	around.parts.set(SrcAddr, named)
	outer.sum(outer.addresses(&around), change)
	return true
}

// EmbeddedOK reports whether the quoted packet of an ICMP error has a right
// IPv4 header checksum: what doesn't is dropped in the RFC profile (RFC 5508
// REQ-3a), and passed by Linux. True for IPv6.
func EmbeddedOK(f *packet.Frame) bool {
	q, ok := quoteOf(f)
	return ok && (q.v6 || packet.Sum(q.b[:q.l4], 0) == 0xffff)
}

// quoteOf finds the packet that an ICMP error quotes.
func quoteOf(f *packet.Frame) (q parcel, ok bool) {
	v, b := &f.View, f.Bytes()
	if !v.Is(packet.ViewHasL4) || v.Is(packet.ViewFrag) || f.Vnet.NeedsCsum() {
		return q, false
	}
	if v.Proto != packet.ProtoICMP && v.Proto != packet.ProtoICMPv6 || !IsError(v.Proto, uint8(v.SrcPort>>8)) {
		return q, false
	}
	q.b, q.quote = b[v.L4+packet.ICMPLen:v.End], true
	if v.Is(packet.ViewIPv4) {
		return q, q.parse4()
	}
	return q, q.parse6()
}

// parse4 reads the header of a quoted packet, of which at least the eight bytes of
// RFC 792 have to be there behind the options.
func (p *parcel) parse4() bool {
	h := p.b
	if len(h) < packet.IPv4MinLen || h[0]>>4 != 4 {
		return false
	}
	p.l4, p.proto = int(h[0]&0xf)*4, h[9]
	total := int(binary.BigEndian.Uint16(h[2:]))
	if p.l4 < packet.IPv4MinLen || total < p.l4 || !p.cut(total) {
		return false
	}
	frag := binary.BigEndian.Uint16(h[6:])
	p.later = frag&0x1fff != 0
	p.whole = p.whole && frag&0x3fff == 0
	return true
}

// cut leaves out what is behind the packet (RFC 4884 extensions) and notes whether
// all of the packet is there.
func (p *parcel) cut(total int) bool {
	p.whole = total <= len(p.b)
	p.b = p.b[:min(total, len(p.b))]
	return len(p.b) >= min(total, p.l4+8)
}

// parse6 reads the headers of a quoted packet.
func (p *parcel) parse6() bool {
	h := p.b
	if len(h) < packet.IPv6Len || h[0]>>4 != 6 {
		return false
	}
	p.v6, p.l4, p.proto = true, packet.IPv6Len, h[6]
	frag := false
	for n := 0; !p.later && isExtHdr(p.proto); n++ {
		if n == maxQuotedExtHdrs || len(h) < p.l4+8 {
			return false
		}
		frag = p.skip(h[p.l4:]) || frag
	}
	total := packet.IPv6Len + int(binary.BigEndian.Uint16(h[4:]))
	if p.l4 > len(h) || total < p.l4 || !p.cut(total) {
		return false
	}
	p.whole = p.whole && !frag
	return true
}

// skip moves p.l4 behind the extension header e; true if it makes a fragment of the
// packet.
func (p *parcel) skip(e []byte) (frag bool) {
	switch p.proto {
	case packet.ProtoFragment:
		field := binary.BigEndian.Uint16(e[2:])
		p.later, frag = field&^7 != 0, field&^6 != 0
	case packet.ProtoRouting:
		p.routed = p.routed || e[3] != 0
	}
	p.proto, p.l4 = e[0], p.l4+extHdrLen(p.proto, e[1])
	return frag
}

// isExtHdr reports whether an IPv6 next header is one to skip.
func isExtHdr(proto uint8) bool {
	switch proto {
	case packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoFragment, packet.ProtoAH, packet.ProtoDestOpts:
		return true
	}
	return false
}

// extHdrLen is the length of an extension header in bytes.
func extHdrLen(proto, n uint8) int {
	switch proto {
	case packet.ProtoFragment:
		return 8
	case packet.ProtoAH:
		return (int(n) + 2) * 4
	}
	return (int(n) + 1) * 8
}
