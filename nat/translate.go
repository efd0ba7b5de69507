// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

// Sizes of RFC 7915. A packet of IPv4 that may be fragmented, and would become one
// of IPv6 of more than its least MTU, is fragmented first, to FragmentMTU64.
const (
	leastMTU6     = 1280
	fragmentLen   = 8
	FragmentMTU64 = leastMTU6 - packet.IPv6Len - fragmentLen + packet.IPv4MinLen
)

// Growth is by how many bytes the frame's packet, or each of its segments, becomes
// longer when it is translated to the other family; less than 0: shorter.
// Preconditions: f.View was parsed without fault and is IP.
func Growth(f *packet.Frame) int {
	v := &f.View
	if v.Is(packet.ViewIPv6) {
		return packet.IPv4MinLen - (v.L4 - v.L3)
	}
	n := packet.IPv6Len - (v.L4 - v.L3)
	if v.Is(packet.ViewFrag) {
		n += fragmentLen
	}
	return n
}

// FragmentFirst reports whether an IPv4 packet, or the largest that an offload frame
// stands for, is to be fragmented as it becomes IPv6: RFC 7915 §4. Before, to
// FragmentMTU64, or behind, to what every link carries: then what has a checksum over
// the whole can be translated, too.
// Preconditions: as for Growth.
func FragmentFirst(f *packet.Frame) bool {
	v := &f.View
	if !v.Is(packet.ViewIPv4) {
		return false
	}
	return f.Bytes()[v.L3+6]&0x40 == 0 && f.L3Len()+Growth(f) > leastMTU6
}

// Translate makes of a packet one of the other family: RFC 7915 §4.1 and §5.1,
// with the addresses and ports of the connection. It changes the frame in its
// buffer, Ethernet type and Vnet as well, and parses View again. The hop limit
// stays: it is the router's. id is the identification of an IPv4 header that is not
// a fragment's, see NAT.ID.
//
// False, and nothing is changed: the packet is of the wrong family, an ICMP
// message that is neither query nor answer (see TranslateError), a fragment whose
// checksum can't be made, or it has what has no translation: a routing header with
// segments left, an authentication header, UDP in fragments without a checksum.
// Preconditions: as for Apply.
func (r *Rewrite) Translate(f *packet.Frame, id uint16) bool {
	v, b := &f.View, f.Bytes()
	if !r.family || !v.Is(packet.ViewIP) || v.Is(packet.ViewIPv6) == r.v6 || v.Is(packet.ViewRouted) {
		return false
	}
	p := parcel{
		b: b[v.L3:v.End], l4: v.L4 - v.L3, proto: v.Proto, v6: !r.v6,
		whole: !v.Is(packet.ViewFrag), later: v.Is(packet.ViewFragLater),
		partial: f.Vnet.NeedsCsum() && int(f.Vnet.CsumStart) == v.L4,
	}
	h, ok := p.header()
	n := h.len(r.v6)
	h.unit = f.L3Len() + Growth(f)
	if !ok || n-p.l4 > f.Headroom() || !r.upperLayer(&p, &h) {
		return false
	}
	l3 := v.L3
	f.Regrow(l3, v.L4, n)
	h.put(f.Bytes()[l3:l3+n], r, id)
	r.finish(f, l3)
	return true
}

// finish makes the Ethernet type and Vnet those of the family, and the view right.
func (r *Rewrite) finish(f *packet.Frame, l3 int) {
	b := f.Bytes()
	etherType := uint16(packet.EtherTypeIPv4)
	if r.v6 {
		etherType = packet.EtherTypeIPv6
	}
	binary.BigEndian.PutUint16(b[l3-2:], etherType)
	r.offload(&f.Vnet)
	f.View.Parse(b)
}

// offload makes the kind of segmentation that of the family.
func (r *Rewrite) offload(v *packet.Vnet) {
	ecn := v.GSOType & packet.GSOECN
	switch kind := v.GSOType &^ packet.GSOECN; {
	case kind == packet.GSOTCP4 && r.v6:
		v.GSOType = packet.GSOTCP6 | ecn
	case kind == packet.GSOTCP6 && !r.v6:
		v.GSOType = packet.GSOTCP4 | ecn
	}
}

// header is what of an IP header has a translation.
type header struct {
	class  uint8 // type of service, traffic class
	hops   uint8
	proto  uint8 // of the other family, once translated
	length int   // of what is behind the header, by its own field
	df     bool
	frag   bool
	more   bool
	offset int // in bytes
	id     uint32
	unit   int  // of an offload frame, the length of its largest packet, translated; 0: not known
	pseudo diff // taken off the sum: the addresses
}

// header reads the packet's; false if it has no translation.
func (p *parcel) header() (header, bool) {
	if p.v6 {
		return p.header6()
	}
	b := p.b
	field := binary.BigEndian.Uint16(b[6:])
	h := header{
		class: b[1], hops: b[8], proto: p.proto, length: int(binary.BigEndian.Uint16(b[2:])) - p.l4,
		df: field&0x4000 != 0, more: field&0x2000 != 0, offset: int(field&0x1fff) * 8,
		id: uint32(binary.BigEndian.Uint16(b[4:])),
	}
	h.frag = h.more || h.offset != 0
	h.pseudo = diff(^packet.Sum(b[12:20], 0))
	return h, true
}

func (p *parcel) header6() (header, bool) {
	b := p.b
	h := header{
		class: b[0]<<4 | b[1]>>4, hops: b[7], proto: p.proto,
		length: packet.IPv6Len + int(binary.BigEndian.Uint16(b[4:])) - p.l4,
	}
	h.pseudo = diff(^packet.Sum(b[8:40], 0))
	for at, next := packet.IPv6Len, b[6]; at < p.l4; {
		switch next {
		case packet.ProtoAH:
			return h, false
		case packet.ProtoFragment:
			field := binary.BigEndian.Uint16(b[at+2:])
			h.more, h.offset = field&1 != 0, int(field&^7)
			h.frag = h.more || h.offset != 0
			h.id = binary.BigEndian.Uint32(b[at+4:])
		}
		at, next = at+extHdrLen(next, b[at+1]), b[at]
	}
	return h, h.length >= 0 && h.length <= 0xffff-packet.IPv4MinLen
}

// len is the length of the header in a family, with its fragment header.
func (h *header) len(v6 bool) int {
	switch {
	case !v6:
		return packet.IPv4MinLen
	case h.frag:
		return packet.IPv6Len + fragmentLen
	}
	return packet.IPv6Len
}

// put writes the header in r's family.
func (h *header) put(b []byte, r *Rewrite, id uint16) {
	clear(b)
	if r.v6 {
		h.put6(b, r)
		return
	}
	b[0], b[1], b[8], b[9] = 0x45, h.class, h.hops, h.proto
	total := packet.IPv4MinLen + h.length
	binary.BigEndian.PutUint16(b[2:], uint16(total))
	unit := h.unit
	if unit == 0 {
		unit = total
	}
	field := uint16(0)
	switch {
	case h.frag:
		field, id = uint16(h.offset/8), uint16(h.id)
		if h.more {
			field |= 0x2000
		}
	case unit > leastMTU6-packet.IPv6Len+packet.IPv4MinLen:
		field = 0x4000
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], field)
	copy(b[12:16], r.src[:4])
	copy(b[16:20], r.dst[:4])
	binary.BigEndian.PutUint16(b[10:], ^packet.Sum(b[:packet.IPv4MinLen], 0))
}

func (h *header) put6(b []byte, r *Rewrite) {
	b[0], b[1], b[6], b[7] = 0x60|h.class>>4, h.class<<4, h.proto, h.hops
	binary.BigEndian.PutUint16(b[4:], uint16(h.length+len(b)-packet.IPv6Len))
	copy(b[8:24], r.src[:])
	copy(b[24:40], r.dst[:])
	if !h.frag {
		return
	}
	b[6], b[40] = packet.ProtoFragment, h.proto
	field := uint16(h.offset)
	if h.more {
		field |= 1
	}
	binary.BigEndian.PutUint16(b[42:], field)
	binary.BigEndian.PutUint32(b[44:], h.id)
}

// pseudoOf is what the addresses of r's family add to the sum.
func (r *Rewrite) pseudoOf() diff {
	if r.v6 {
		return diff(packet.Sum(r.src[:], 0)) + diff(packet.Sum(r.dst[:], 0))
	}
	return diff(packet.Sum(r.src[:4], 0)) + diff(packet.Sum(r.dst[:4], 0))
}

// upperLayer translates what is behind the IP header: ports, sums, ICMP.
func (r *Rewrite) upperLayer(p *parcel, h *header) bool {
	at, ports := p.portFields(r)
	switch p.proto {
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return r.query(p, h)
	case packet.ProtoSCTP:
		return !ports || p.sctp(r, at)
	case packet.ProtoUDP:
		if r.v6 && !p.quote && p.lacksSum() {
			return p.whole && r.sumUDP(p, at)
		}
	case packet.ProtoTCP:
	default:
		return false // RFC 6146 §3.4; and in IPv6 it might be an extension header
	}
	if !p.later {
		p.sum(h.pseudo+r.pseudoOf(), p.ports(r, at))
	}
	return true
}

// lacksSum reports whether a UDP datagram, or the first fragment of one, has no
// checksum.
func (p *parcel) lacksSum() bool {
	return !p.later && !p.partial && len(p.b) >= p.l4+packet.UDPLen && binary.BigEndian.Uint16(p.b[p.l4+6:]) == 0
}

// sumUDP gives a datagram the checksum that IPv6 wants and IPv4 didn't: RFC 7915
// §4.5.
func (r *Rewrite) sumUDP(p *parcel, at fields) bool {
	d := p.b[p.l4:]
	n := int(binary.BigEndian.Uint16(d[4:]))
	if n < packet.UDPLen || n > len(d) {
		return false
	}
	p.ports(r, at)
	sum := diff(packet.Sum(d[:n], 0)) + r.pseudoOf() + packet.ProtoUDP + diff(n)
	if x := ^fold(uint32(sum)); x != 0 {
		binary.BigEndian.PutUint16(d[6:], x)
	} else {
		binary.BigEndian.PutUint16(d[6:], 0xffff)
	}
	return true
}

// query translates an echo request or answer: RFC 7915 §4.2, §5.2. Its sum has the
// pseudo-header in IPv6 and hasn't in IPv4.
func (r *Rewrite) query(p *parcel, h *header) bool {
	if p.proto != icmpOf(!r.v6) {
		return false
	}
	if p.quote && (p.later || h.frag) {
		h.proto = icmpOf(r.v6)
		return true
	}
	m := p.b[p.l4:]
	if h.frag || len(m) < packet.ICMPLen {
		return false // the sum of a first fragment lacks the length of the whole
	}
	icmpType, ok := echoOf(r.v6, m[0])
	if !ok {
		return false
	}
	h.proto = icmpOf(r.v6)
	var change diff
	change.put(m, uint16(icmpType)<<8|uint16(m[1]))
	change += p.ports(r, fields{4, 4})
	length := diff(h.length) + packet.ProtoICMPv6
	if r.v6 {
		change += r.pseudoOf() + length
	} else {
		change += h.pseudo + diff(^uint16(length))
	}
	change.apply(m[2:])
	return true
}

func icmpOf(v6 bool) uint8 {
	if v6 {
		return packet.ProtoICMPv6
	}
	return packet.ProtoICMP
}

// echoOf is the type of an echo message in a family, of what it is in the other.
func echoOf(v6 bool, icmpType uint8) (uint8, bool) {
	from, to := [2]uint8{8, 0}, [2]uint8{128, 129}
	if !v6 {
		from, to = to, from
	}
	for i := range from {
		if icmpType == from[i] {
			return to[i], true
		}
	}
	return 0, false
}

// ID is an identification for an IPv4 header that Translate writes: RFC 7915
// §5.1, RFC 6864. Whoever counts for itself begins with one.
func (n *NAT) ID() uint16 { return uint16(n.ids.Add(1)) }

// Prefix64 is the prefix of the zone's NAT64 that an address is in; invalid if it is
// in none.
func (n *NAT) Prefix64(zone uint16, a netip.Addr) netip.Prefix {
	z := (*n.zones.Load())[zone]
	if z == nil || z.Rules == nil {
		return netip.Prefix{}
	}
	for i := range z.Rules.hooks[Prerouting] {
		if r := &z.Rules.hooks[Prerouting][i]; r.Kind == NAT64 && r.Prefix.Contains(a) {
			return r.Prefix
		}
	}
	return netip.Prefix{}
}
