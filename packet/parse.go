// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

// The bounds of the parse.
const (
	maxTags    = 2
	maxExtHdrs = 8 // the kernel's flow dissector stops at 15; real packets have 0 to 2
)

// Fault is why a frame was refused by the parse. Zero is no fault.
type Fault uint8

// The faults, each named after the header that is wrong.
const (
	FaultNone     Fault = iota
	FaultEthernet       // shorter than an Ethernet header
	FaultVLAN           // tag cut off, or more than two
	FaultARP            // cut off, or not IPv4 on Ethernet
	FaultIPv4           // version, header length or total length, or fragment beyond 65535
	FaultIPv6           // version or payload length
	FaultExtHdr         // extension header cut off, misplaced, or more than eight
	FaultL4             // TCP, UDP, SCTP or ICMP header cut off; TCP data offset wrong
)

// String is the fault in one word.
func (f Fault) String() string {
	names := [...]string{"none", "ethernet", "vlan", "arp", "ipv4", "ipv6", "ext_hdr", "l4"}
	if int(f) < len(names) {
		return names[f]
	}
	return "unknown"
}

// Parse reads the headers of the frame b into v. It is total on any bytes: it
// never panics, reads only b, takes at most 2 tags and 8 extension headers, and
// trusts no length that it hasn't compared with the frame. It holds on to
// nothing of b. Checksums are not looked at.
//
// The functions below stand in the order in which a frame's headers do.
func (v *View) Parse(b []byte) Fault {
	*v = View{End: len(b)}
	if len(b) < EthernetLen {
		return FaultEthernet
	}
	v.EtherType = binary.BigEndian.Uint16(b[macsLen:])
	v.L3 = EthernetLen
	if isVLAN(v.EtherType) && !v.parseTags(b) {
		return FaultVLAN
	}
	v.L4 = v.L3
	switch v.EtherType {
	case EtherTypeIPv4:
		return v.parseIPv4(b)
	case EtherTypeIPv6:
		return v.parseIPv6(b)
	case EtherTypeARP:
		return v.parseARP(b)
	}
	if v.EtherType < EtherTypeMin {
		v.Flags = ViewLLC
	}
	return FaultNone
}

// isVLAN reports whether an EtherType announces a tag, as the kernel's
// eth_type_vlan does.
func isVLAN(etherType uint16) bool {
	return etherType == EtherTypeVLAN || etherType == EtherTypeQinQ
}

// parseTags reads the tags. A third one is refused and not left opaque: what
// stands behind it would pass without any policy having seen it.
func (v *View) parseTags(b []byte) bool {
	for isVLAN(v.EtherType) {
		if v.Tags == maxTags || len(b) < v.L3+VLANLen {
			return false
		}
		v.TPID[v.Tags] = v.EtherType
		v.TCI[v.Tags] = binary.BigEndian.Uint16(b[v.L3:])
		v.EtherType = binary.BigEndian.Uint16(b[v.L3+2:])
		v.Tags++
		v.L3 += VLANLen
	}
	return true
}

// parseARP accepts what RFC 826 gives for IPv4 on Ethernet, nothing else.
func (v *View) parseARP(b []byte) Fault {
	const ethernetIPv4 = 0x0001_0800_06_04 // hardware, protocol, their lengths
	a := b[v.L3:]
	if len(a) < ARPLen || binary.BigEndian.Uint64(a)>>16 != ethernetIPv4 {
		return FaultARP
	}
	v.Flags = ViewARP
	v.setEnd(b, v.L3+ARPLen)
	return FaultNone
}

// setEnd ends the packet at end, which is within b.
func (v *View) setEnd(b []byte, end int) {
	v.End = end
	if end < len(b) {
		v.Flags |= ViewTrailer
	}
}

// parseIPv4 reads the header of RFC 791 §3.1. Zero as total length, as BIG TCP
// has it, is a fault: no port is configured to receive such frames.
func (v *View) parseIPv4(b []byte) Fault {
	h := b[v.L3:]
	if len(h) < IPv4MinLen || h[0]>>4 != 4 {
		return FaultIPv4
	}
	hlen, total := int(h[0]&0xf)*4, int(binary.BigEndian.Uint16(h[2:]))
	if hlen < IPv4MinLen || total < hlen || total > len(h) {
		return FaultIPv4
	}
	v.Flags = ViewIPv4
	if hlen > IPv4MinLen {
		v.Flags |= ViewIPOptions
	}
	v.Proto = h[9]
	v.L4 = v.L3 + hlen
	v.setEnd(b, v.L3+total)
	frag := binary.BigEndian.Uint16(h[6:])
	if frag&0x1fff != 0 {
		return v.laterFragment(int(frag&0x1fff)*8, FaultIPv4)
	}
	if frag&0x2000 != 0 { // more fragments
		v.Flags |= ViewFragFirst
	}
	return v.parseL4(b)
}

// laterFragment ends the parse of a fragment without L4 header. One that would
// end beyond 65535 bytes is refused (the "ping of death").
func (v *View) laterFragment(offset int, tooLong Fault) Fault {
	v.Flags |= ViewFragLater
	if offset+v.End-v.L4 > 0xffff {
		return tooLong
	}
	return FaultNone
}

// parseIPv6 reads the header of RFC 8200 §3.
func (v *View) parseIPv6(b []byte) Fault {
	h := b[v.L3:]
	if len(h) < IPv6Len || h[0]>>4 != 6 {
		return FaultIPv6
	}
	total := IPv6Len + int(binary.BigEndian.Uint16(h[4:]))
	if total > len(h) {
		return FaultIPv6
	}
	v.Flags = ViewIPv6
	v.Proto = h[6]
	v.L4 = v.L3 + IPv6Len
	v.setEnd(b, v.L3+total)
	switch v.Proto {
	case ProtoTCP, ProtoUDP, ProtoICMPv6: // nearly every packet
		return v.parseL4(b)
	}
	return v.parseExtHdrs(b)
}

// parseExtHdrs walks the chain of RFC 8200 §4 with v.Proto and v.L4 as cursor.
// ESP, mobility and unknown headers end the chain as upper-layer protocols do.
// An atomic fragment (RFC 6946) is a whole packet and goes on like any other.
func (v *View) parseExtHdrs(b []byte) Fault {
	fragmented := false
	for n := 0; isExtHdr(v.Proto); n++ {
		proto, h := v.Proto, b[v.L4:v.End]
		if n == maxExtHdrs || !v.skipExtHdr(h, n) {
			return FaultExtHdr
		}
		switch proto {
		case ProtoRouting:
			if h[3] != 0 {
				v.Flags |= ViewRouted
			}
		case ProtoFragment:
			frag := binary.BigEndian.Uint16(h[2:])
			if fragmented {
				return FaultExtHdr
			}
			if frag&^7 != 0 {
				return v.laterFragment(int(frag&^7), FaultIPv6)
			}
			if frag&1 != 0 { // more fragments
				v.Flags |= ViewFragFirst
			}
			fragmented = true
		}
	}
	return v.parseL4(b)
}

// skipExtHdr moves the cursor behind the n-th extension header, with which h
// begins. Hop-by-hop options stand first or not at all (RFC 8200 §4.1). A
// jumbogram (RFC 2675) fails here: its payload length is 0, so that h is empty.
func (v *View) skipExtHdr(h []byte, n int) bool {
	if len(h) < 8 || (v.Proto == ProtoHopByHop && n > 0) {
		return false
	}
	size := extHdrLen(v.Proto, h[1])
	if size > len(h) {
		return false
	}
	v.Flags |= ViewExtHdrs
	v.Proto = h[0]
	v.L4 += size
	return true
}

// isExtHdr reports whether a protocol number is an extension header to skip.
func isExtHdr(proto uint8) bool {
	switch proto {
	case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoAH, ProtoDestOpts:
		return true
	}
	return false
}

// extHdrLen is the length in bytes that an extension header claims. AH counts in
// units of 4 (RFC 4302 §2.2), the others in units of 8.
func extHdrLen(proto, n uint8) int {
	switch proto {
	case ProtoFragment:
		return 8 // n is reserved
	case ProtoAH:
		return (int(n) + 2) * 4
	}
	return (int(n) + 1) * 8
}

// parseL4 reads the upper-layer header, which must lie whole between L4 and End.
// A protocol that isn't known, also ICMP of the other family, has none.
func (v *View) parseL4(b []byte) Fault {
	h := b[v.L4:v.End]
	switch v.Proto {
	case ProtoTCP:
		if len(h) < TCPMinLen {
			return FaultL4
		}
		if n := int(h[12]>>4) * 4; n < TCPMinLen || n > len(h) {
			return FaultL4
		}
		return v.setPorts(h)
	case ProtoUDP: // its length field is not trusted and not needed
		if len(h) < UDPLen {
			return FaultL4
		}
		return v.setPorts(h)
	case ProtoSCTP:
		if len(h) < SCTPLen {
			return FaultL4
		}
		return v.setPorts(h)
	case ProtoICMP, ProtoICMPv6:
		if v.Is(ViewIPv4) == (v.Proto == ProtoICMP) {
			return v.parseICMP(h)
		}
	}
	return FaultNone
}

func (v *View) setPorts(h []byte) Fault {
	v.SrcPort = binary.BigEndian.Uint16(h[0:2])
	v.DstPort = binary.BigEndian.Uint16(h[2:4])
	v.Flags |= ViewHasL4
	return FaultNone
}

// parseICMP takes type and code, and the identifier of echo messages (RFC 792,
// RFC 4443 §4.1).
func (v *View) parseICMP(h []byte) Fault {
	if len(h) < ICMPLen {
		return FaultL4
	}
	v.SrcPort = binary.BigEndian.Uint16(h)
	if isEcho(v.Proto, h[0]) {
		v.DstPort = binary.BigEndian.Uint16(h[4:])
	}
	v.Flags |= ViewHasL4
	return FaultNone
}

func isEcho(proto, icmpType uint8) bool {
	if proto == ProtoICMP {
		return icmpType == 8 || icmpType == 0
	}
	return icmpType == 128 || icmpType == 129
}
