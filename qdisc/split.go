// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"encoding/binary"

	"sluice/packet"
)

// wholeTime is how long a super-frame may keep the line busy: one that takes
// longer at the rate is cut, so that others need not wait for all of it.
const wholeTime = 1_000_000

// MetaOf is what f says of itself: lengths, ECN, the flow's hash with a seed, and
// for IPv4 the priority that its type of service stands for (the kernel's
// rt_tos2priority, which ip_forward gives a packet).
// Preconditions: f.View was parsed without fault.
func MetaOf(f *packet.Frame, seed uint64) Meta {
	n, wire := f.Segments()
	m := Meta{Len: uint32(f.Len()), Wire: uint32(wire), Segs: uint32(n), Mark: f.Mark}
	b, v := f.Bytes(), &f.View
	m.Hash = flowHash(b, v, seed)
	if tos, ok := tosOf(b, v); ok {
		m.ECN = ECN(tos & 3)
		if v.Is(packet.ViewIPv4) {
			m.Priority = tosPriorityTable[tos>>1&0xf]
		}
	}
	if f.Priority != 0 {
		m.Priority = f.Priority
	}
	return m
}

// tosPriorityTable is the kernel's ip_tos2prio: best effort 0, bulk 2,
// interactive bulk 4, interactive 6.
var tosPriorityTable = [16]uint32{0, 0, 0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 4, 4, 4, 4}

// tosOf is the type of service or traffic class of an IP packet.
func tosOf(b []byte, v *packet.View) (uint8, bool) {
	switch {
	case v.Is(packet.ViewIPv4) && len(b) >= v.L3+packet.IPv4MinLen:
		return b[v.L3+1], true
	case v.Is(packet.ViewIPv6) && len(b) >= v.L3+packet.IPv6Len:
		return uint8(binary.BigEndian.Uint16(b[v.L3:]) >> 4), true
	}
	return 0, false
}

// setCE writes the codepoint. Of IPv4 it counts the header's checksum on: the
// codepoint is the low end of the first 16 bits.
func setCE(b []byte, v *packet.View) {
	tos, ok := tosOf(b, v)
	if !ok {
		return
	}
	if v.Is(packet.ViewIPv6) {
		b[v.L3+1] |= uint8(CE) << 4
		return
	}
	b[v.L3+1] = tos | uint8(CE)
	sum := ^binary.BigEndian.Uint16(b[v.L3+10:])
	total := uint32(sum) + uint32(tos|uint8(CE)-tos)
	total = total&0xffff + total>>16
	binary.BigEndian.PutUint16(b[v.L3+10:], ^uint16(total))
}

// flowHash mixes addresses, protocol and ports; of what isn't IP the MACs and type.
func flowHash(b []byte, v *packet.View, seed uint64) uint32 {
	h := seed ^ uint64(v.Proto)<<56 ^ uint64(v.SrcPort)<<16 ^ uint64(v.DstPort)
	if v.Is(packet.ViewFrag) {
		h = seed ^ uint64(v.Proto)<<56 // the others of the datagram have no ports
	}
	from, to := 0, min(packet.EthernetLen, len(b))
	switch {
	case v.Is(packet.ViewIPv4):
		from, to = v.L3+12, v.L3+20
	case v.Is(packet.ViewIPv6):
		from, to = v.L3+8, v.L3+40
	}
	for ; from+4 <= min(to, len(b)); from += 4 {
		h = mix(h ^ uint64(binary.LittleEndian.Uint32(b[from:])))
	}
	return uint32(mix(h) >> 32)
}

// mix is the finaliser of MurmurHash3: each bit of x moves half of the result's.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// split cuts a super-frame into the frames that it stands for, and frees it. What
// finds no room is left out; lost is their number.
func (p *Pool) split(r Ref) (segs list, lost int) {
	if f := p.Frame(r); f != nil {
		p.source = *f
		segs, lost = p.cut(r)
		p.source = packet.Frame{}
	} else {
		segs, lost = p.divide(r)
	}
	p.free(r)
	return segs, lost
}

// cut makes real segments of p.source.
func (p *Pool) cut(r Ref) (segs list, lost int) {
	n := int(p.at(r).Segs)
	if !p.cutter.Init(&p.source) {
		return segs, n
	}
	for ; n > 0; n-- {
		m := p.at(r).Meta
		s := p.make(m)
		if s == 0 {
			break
		}
		it := p.at(s)
		size := p.source.L3Len() + p.source.View.L3
		if it.buf = p.bufs.take(max(p.source.Headroom()+packet.VnetLen, packet.Headroom) + size); it.buf == 0 {
			p.free(s)
			break
		}
		p.next(it)
		p.push(&segs, s)
	}
	return segs, n
}

// next writes the cutter's next segment into the item's buffer.
func (p *Pool) next(it *item) {
	f := &p.scratch
	f.SetBuf(p.bufs.bytes(it.buf))
	p.cutter.Next(f)
	b := f.Buf()
	copy(b[packet.Headroom:], f.Bytes()) // the source may have stood elsewhere: a tag was put before it
	it.len, it.vnet, it.view, it.input = uint32(f.Len()), f.Vnet, f.View, f.InPort
	it.Len, it.Wire, it.Segs = it.len, it.len, 1
}

// divide is split for a packet without bytes.
func (p *Pool) divide(r Ref) (segs list, lost int) {
	m := p.at(r).Meta
	n, left := m.Segs, m.Wire
	for i := n; i > 0; i-- {
		part := m
		part.Wire = (left + i - 1) / i
		part.Len, part.Segs = part.Wire, 1
		s := p.make(part)
		if s == 0 {
			return segs, int(i)
		}
		left -= part.Wire
		p.push(&segs, s)
	}
	return segs, 0
}
