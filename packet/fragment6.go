// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

const fragmentHdrLen = 8 // RFC 8200 §4.5

// six is what fragments of IPv6 have beside what those of IPv4 do.
type six struct {
	cut  bool
	base int // offset of the data in the datagram
	id   uint32
	next uint8 // header behind the fragment header
	more bool  // what is cut is a fragment with more behind it
}

// Init6 begins the fragmentation of an IPv6 packet, which only its sender and a
// translator may do: RFC 7915 §4, RFC 8200 §4.5. id is the identification, unless the
// packet is a fragment already. A packet that fits comes out once, as it is.
// False if it can't be fragmented: it has other extension headers, is GSO, its Vnet
// doesn't pass CheckVnet, or mtu has no room for the headers and 8 bytes.
// Preconditions: as for Init.
func (g *Fragmenter) Init6(f *Frame, mtu int, id uint32) bool {
	*g = Fragmenter{}
	v := &f.View
	if !v.Is(ViewIPv6) || f.Vnet.IsGSO() || !f.CheckVnet() {
		return false
	}
	b := f.Bytes()
	g.six = six{id: id, next: b[v.L3+6]}
	if at := v.L3 + IPv6Len; g.six.next == ProtoFragment && v.L4 == at+fragmentHdrLen {
		field := binary.BigEndian.Uint16(b[at+2:])
		g.six = six{id: binary.BigEndian.Uint32(b[at+4:]), next: b[at], base: int(field &^ 7), more: field&1 != 0}
	} else if v.L4 != at {
		return false
	}
	g.off, g.room = v.L4, mtu-IPv6Len-fragmentHdrLen
	g.six.cut = v.End-v.L3 > mtu
	if g.room < 8 && g.six.cut {
		return false
	}
	if !g.six.cut {
		g.room = v.End - v.L4 // Next copies it
	}
	if f.Vnet.NeedsCsum() {
		g.csum = f.wireSum()
		g.place = int(f.Vnet.CsumStart) + int(f.Vnet.CsumOffset)
	}
	g.src = f
	return true
}

// next6 is Next for what doesn't fit.
func (g *Fragmenter) next6(dst *Frame) bool {
	b, v := g.src.Bytes(), &g.src.View
	n := v.End - g.off
	if n > g.room {
		n = g.room &^ 7
	}
	at := v.L3 + IPv6Len
	dst.Reset(g.src.start, at+fragmentHdrLen+n)
	out := dst.Bytes()
	copy(out, b[:at])
	data := out[at+fragmentHdrLen:]
	copy(data, b[g.off:g.off+n])
	overlay(data, g.off, g.place, g.csum.bytes())
	out[v.L3+6] = ProtoFragment
	binary.BigEndian.PutUint16(out[v.L3+4:], uint16(fragmentHdrLen+n))
	h := out[at:]
	h[0], h[1] = g.six.next, 0
	field := uint16(g.six.base + g.off - v.L4)
	if g.six.more || g.off+n < v.End {
		field |= 1
	}
	binary.BigEndian.PutUint16(h[2:], field)
	binary.BigEndian.PutUint32(h[4:], g.six.id)
	dst.InPort = g.src.InPort
	dst.View.Parse(out)
	if g.off += n; g.off == v.End {
		g.src = nil
	}
	return true
}
