// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"net/netip"

	"sluice/conntrack"
	"sluice/packet"
)

// Parts says which fields of a packet are rewritten. Zero: none.
type Parts uint8

// The parts. A port is that of TCP, UDP and SCTP; of an ICMP or ICMPv6 query
// either of them is the identifier.
const (
	SrcAddr Parts = 1 << iota
	SrcPort
	DstAddr
	DstPort

	Source      = SrcAddr | SrcPort
	Destination = DstAddr | DstPort
)

// Rewrite is what one direction of a connection's packets become. It is a value
// without pointers, for the flow cache to keep. Zero rewrites nothing.
type Rewrite struct {
	src, dst     [16]byte // IPv4 in the first four
	sport, dport uint16
	parts        Parts
	v6           bool // what it becomes
	family       bool // it was the other
}

// Of is the rewriting that makes of a packet of one tuple one of another: of a
// connection c and a direction d, c.Tuple(d) and c.Out(d). If they are of two
// families, the packet is translated from one to the other, see Translates.
func Of(from, to conntrack.Tuple) Rewrite {
	r := Rewrite{sport: to.SrcPort, dport: to.DstPort, v6: to.Src.Is6()}
	r.src, r.dst = bytesOf(to.Src), bytesOf(to.Dst)
	r.family = from.Src.Is4() != to.Src.Is4()
	r.parts.set(SrcAddr, from.Src != to.Src)
	r.parts.set(SrcPort, from.SrcPort != to.SrcPort)
	r.parts.set(DstAddr, from.Dst != to.Dst)
	r.parts.set(DstPort, from.DstPort != to.DstPort && !isICMP(to.Proto)) // there it is type and code
	return r
}

// Translates reports whether the packet becomes one of the other family, by RFC
// 7915: for Translate, not for Apply.
func (r *Rewrite) Translates() bool { return r.family }

func (p *Parts) set(part Parts, on bool) {
	if on {
		*p |= part
	}
}

func bytesOf(a netip.Addr) (b [16]byte) {
	if a.Is4() {
		a4 := a.As4()
		copy(b[:], a4[:])
		return b
	}
	return a.As16()
}

// Parts is what the rewriting changes.
func (r *Rewrite) Parts() Parts { return r.parts }

// Only is the part of the rewriting that one hook does: Destination before
// routing, Source after it.
func (r Rewrite) Only(parts Parts) Rewrite {
	r.parts &= parts
	return r
}

// quoted is the rewriting of the packets that a packet of this direction quotes:
// they went the other way.
func (r *Rewrite) quoted() Rewrite {
	q := Rewrite{src: r.dst, dst: r.src, sport: r.dport, dport: r.sport, v6: r.v6}
	q.parts = (r.parts&Source)<<2 | (r.parts&Destination)>>2
	return q
}

// Apply rewrites the packet in f in its buffer, and the ports in f.View. The
// checksums follow by RFC 1624, complete or partial, so that a wrong one stays
// wrong, a UDP datagram without one stays without, and a first fragment is right
// although the rest isn't there; later fragments have addresses only.
//
// False, and nothing is changed, if the packet is of the other family, or a
// fragment of SCTP that needs another port: its CRC is over the whole.
// Preconditions: f.View was parsed without fault and f.CheckVnet() holds.
func (r *Rewrite) Apply(f *packet.Frame) bool {
	v, b := &f.View, f.Bytes()
	if r.family || !v.Is(packet.ViewIP) || v.Is(packet.ViewIPv6) != r.v6 {
		return false
	}
	if r.parts == 0 {
		return true
	}
	p := parcel{
		b: b[v.L3:v.End], l4: v.L4 - v.L3, proto: v.Proto, v6: r.v6,
		routed: v.Is(packet.ViewRouted), whole: !v.Is(packet.ViewFrag),
		later:   v.Is(packet.ViewFragLater),
		partial: f.Vnet.NeedsCsum() && int(f.Vnet.CsumStart) == v.L4,
	}
	if !p.rewrite(r) {
		return false
	}
	note(v, b)
	return true
}

// note keeps the view right.
func note(v *packet.View, b []byte) {
	if !v.Is(packet.ViewHasL4) {
		return
	}
	h := b[v.L4:]
	switch v.Proto {
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if v.DstPort != 0 { // an echo's identifier
			v.DstPort = binary.BigEndian.Uint16(h[4:])
		}
	default:
		v.SrcPort, v.DstPort = binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
	}
}

// parcel is an IP packet that is rewritten: a frame's, or one that is quoted and
// may be cut off.
type parcel struct {
	b       []byte // from the IP header on
	l4      int    // place of the L4 header in b
	proto   uint8
	v6      bool
	routed  bool // the pseudo-header has another destination, RFC 8200 §8.1
	whole   bool // b is all of it
	later   bool // no L4 header
	partial bool // the checksum is that of the pseudo-header only
	quote   bool // in an ICMP error: a CRC that can't follow stays
}

// rewrite does to the packet what r says.
func (p *parcel) rewrite(r *Rewrite) bool {
	at, ports := p.portFields(r)
	if p.proto == packet.ProtoSCTP {
		if ports && !p.sctp(r, at) {
			return false
		}
		p.addresses(r) // its CRC is not over them
		return true
	}
	addrs := p.addresses(r)
	if !p.later {
		p.sum(addrs, p.ports(r, at))
	}
	return true
}

// addresses writes the addresses and the IPv4 header's checksum, and says what
// the change adds to the sum of the pseudo-header.
func (p *parcel) addresses(r *Rewrite) (pseudo diff) {
	src, dst, n := 12, 16, 4
	if p.v6 {
		src, dst, n = 8, 24, 16
	}
	if r.parts&SrcAddr != 0 {
		pseudo.replace(p.b[src:src+n], r.src[:n])
	}
	header := pseudo
	if r.parts&DstAddr != 0 {
		header.replace(p.b[dst:dst+n], r.dst[:n])
	}
	if !p.v6 {
		header.apply(p.b[10:])
	}
	if p.routed {
		return pseudo
	}
	return header
}

// fields are the places of the ports, counted from the L4 header; 0, 0 are none
// or the same, an identifier's.
type fields struct{ src, dst int }

// portFields finds what r is to change behind the IP header; false if nothing.
func (p *parcel) portFields(r *Rewrite) (fields, bool) {
	if p.later || r.parts&(SrcPort|DstPort) == 0 {
		return fields{}, false
	}
	h := p.b[p.l4:]
	switch p.proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		if len(h) >= 4 {
			return fields{0, 2}, true
		}
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if len(h) >= packet.ICMPLen && IsQuery(p.proto, h[0]) {
			return fields{4, 4}, true
		}
	}
	return fields{}, false
}

// ports writes the ports and says what the change adds to the sum.
func (p *parcel) ports(r *Rewrite, at fields) (d diff) {
	if at.dst == 0 {
		return 0
	}
	h := p.b[p.l4:]
	if r.parts&SrcPort != 0 {
		d.put(h[at.src:], r.sport)
	}
	if r.parts&DstPort != 0 {
		d.put(h[at.dst:], r.dport)
	}
	return d
}

// sum makes the L4 checksum follow. A quoted packet may end before it.
func (p *parcel) sum(addrs, ports diff) {
	off, least := sumField(p.proto, p.v6)
	h := p.b[p.l4:]
	if off == 0 || len(h) < least {
		return
	}
	if p.proto == packet.ProtoICMP {
		addrs = 0 // no pseudo-header
	}
	field := h[off:]
	isUDP := p.proto == packet.ProtoUDP
	switch {
	case p.partial:
		addrs.apply1(field)
	case isUDP && field[0]|field[1] == 0: // none, RFC 768
		return
	default:
		(addrs + ports).apply(field)
	}
	if isUDP && field[0]|field[1] == 0 {
		field[0], field[1] = 0xff, 0xff
	}
}

// sumField is the place of the checksum in an L4 header, and how much of the
// header there has to be; 0 if there is none that knows the addresses or ports.
func sumField(proto uint8, v6 bool) (off, least int) {
	switch proto {
	case packet.ProtoTCP:
		return 16, packet.TCPMinLen
	case packet.ProtoUDP:
		return 6, packet.UDPLen
	case protoUDPLite:
		return 6, packet.UDPLen
	case protoDCCP:
		return 6, dccpMinLen
	case packet.ProtoICMP:
		if !v6 {
			return 2, packet.ICMPLen
		}
	case packet.ProtoICMPv6:
		if v6 {
			return 2, packet.ICMPLen
		}
	}
	return 0, 0
}

// Protocols that the parse doesn't look into, but whose checksum is over the
// addresses: RFC 4340 §9.1, RFC 3828 §3.1.
const (
	protoDCCP    = 33
	protoUDPLite = 136
	dccpMinLen   = 12
)

// sctp writes the ports. A CRC is linear: what the change does to it is the same
// whether or not it was right, so a wrong one stays wrong. False, and nothing is
// changed, if the CRC is over more than is there; in a quote it stays as it is.
func (p *parcel) sctp(r *Rewrite, at fields) bool {
	h := p.b[p.l4:]
	if p.partial || p.quote && !p.whole {
		p.ports(r, at)
		return true
	}
	if !p.whole || len(h) < packet.SCTPLen {
		return false
	}
	before := packet.SCTPSum(h)
	p.ports(r, at)
	crc := binary.LittleEndian.Uint32(h[8:])
	binary.LittleEndian.PutUint32(h[8:], crc^before^packet.SCTPSum(h))
	return true
}

// IsQuery reports whether an ICMP or ICMPv6 message has an identifier that is
// translated: RFC 792 and RFC 950 (echo, timestamp, information, address mask), RFC
// 4443 §4.1.
func IsQuery(proto, icmpType uint8) bool {
	if proto == packet.ProtoICMPv6 {
		return icmpType == 128 || icmpType == 129
	}
	switch icmpType {
	case 0, 8, 13, 14, 15, 16, 17, 18:
		return true
	}
	return false
}

// diff is what changed words add to a ones' complement sum, not folded: RFC 1624,
// ~m + m'. It has room for 30,000 words.
type diff uint32

// replace writes to over from.
func (d *diff) replace(from, to []byte) {
	*d += diff(^packet.Sum(from, 0)) + diff(packet.Sum(to, 0))
	copy(from, to)
}

// put writes a word.
func (d *diff) put(b []byte, x uint16) {
	*d += diff(^binary.BigEndian.Uint16(b)) + diff(x)
	binary.BigEndian.PutUint16(b, x)
}

// apply makes a checksum, the complement of a sum, follow: equation 3.
func (d diff) apply(field []byte) {
	sum := fold(uint32(^binary.BigEndian.Uint16(field)) + uint32(d))
	binary.BigEndian.PutUint16(field, ^sum)
}

// apply1 makes a sum that isn't complemented follow, as a partial checksum is.
func (d diff) apply1(field []byte) {
	sum := fold(uint32(binary.BigEndian.Uint16(field)) + uint32(d))
	binary.BigEndian.PutUint16(field, sum)
}

func fold(x uint32) uint16 {
	x = x>>16 + x&0xffff
	return uint16(x>>16 + x&0xffff)
}
