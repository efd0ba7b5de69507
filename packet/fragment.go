// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

// Fragment is what the header of a fragment says. Zero is the whole of a packet.
type Fragment struct {
	ID     uint32 // 16 bits of IPv4
	Offset int    // of its data in the datagram's, in bytes, a multiple of 8
	Len    int    // bytes of data, without the headers that each fragment has
	More   bool   // it isn't the last one
}

// Fragment reads the fragment in b, the frame that v was parsed from. False if
// it isn't one; an atomic one (RFC 6946) isn't.
// Preconditions: v.Parse(b) was without fault.
func (v *View) Fragment(b []byte) (Fragment, bool) {
	if !v.Is(ViewFrag) {
		return Fragment{}, false
	}
	if v.Is(ViewIPv4) {
		h := b[v.L3:]
		field := binary.BigEndian.Uint16(h[ip4FragOffset:])
		return Fragment{
			ID:     uint32(binary.BigEndian.Uint16(h[4:])),
			Offset: int(field&ip4OffsetMask) * 8,
			Len:    v.End - v.L4,
			More:   field&ip4MF != 0,
		}, true
	}
	at := v.fragmentHeader(b)
	h := b[at:]
	field := binary.BigEndian.Uint16(h[2:])
	return Fragment{
		ID:     binary.BigEndian.Uint32(h[4:]),
		Offset: int(field &^ 7),
		Len:    v.End - at - 8,
		More:   field&1 != 0,
	}, true
}

// fragmentHeader is the place of the IPv6 fragment header: the parse went over
// it, and knows that the chain is whole up to there.
func (v *View) fragmentHeader(b []byte) int {
	at, proto := v.L3+IPv6Len, b[v.L3+6]
	for proto != ProtoFragment {
		at, proto = at+extHdrLen(proto, b[at+1]), b[at]
	}
	return at
}

// Fragmenter cuts an IPv4 packet that is larger than the next hop's MTU, byte for
// byte as the kernel's ip_do_fragment does when it forwards: RFC 791 §3.2.
//
//   - all fragments but the last have as much data as fits, a multiple of 8;
//   - the identification stays, also that of a fragment which is cut once more;
//   - of the options, the first fragment has all. In the others those whose
//     copied flag is not set (RFC 791 §3.1) are made no-operations, which keeps
//     the header's length;
//   - a partial checksum is completed: it covers the whole datagram.
//
// IPv6 is only fragmented by its sender; what a translator has made of IPv4 is an
// exception, see Init6. Segments of an offload frame are each a
// packet of their own: Segmenter makes them, and those that are too large can be
// cut here.
//
// It is used by one goroutine and can be used again; it doesn't allocate.
// Zero is ready for Init.
type Fragmenter struct {
	src   *Frame // nil when nothing is left
	off   int    // first data byte that was not sent yet, from the Ethernet header
	room  int    // data bytes that the MTU has room for
	csum  csum   // the completed checksum
	place int    // where it belongs, from the Ethernet header
	six   six
}

// Init begins the fragmentation of f, which must not change until the last Next.
// False if f can't be fragmented: it isn't IPv4, has DF set although it is too
// large, is GSO, its Vnet doesn't pass CheckVnet, or mtu has no room for a header
// and 8 bytes. A packet that fits comes out once, without its Ethernet padding.
// Preconditions: f.View was parsed without fault.
func (g *Fragmenter) Init(f *Frame, mtu int) bool {
	*g = Fragmenter{}
	v := &f.View
	if !v.Is(ViewIPv4) || f.Vnet.IsGSO() || !f.CheckVnet() {
		return false
	}
	df := binary.BigEndian.Uint16(f.Bytes()[v.L3+ip4FragOffset:])&ip4DF != 0
	g.off, g.room = v.L4, mtu-(v.L4-v.L3)
	if v.End-v.L4 > g.room && (df || g.room < 8) {
		return false
	}
	if f.Vnet.NeedsCsum() {
		g.csum = f.wireSum()
		g.place = int(f.Vnet.CsumStart) + int(f.Vnet.CsumOffset)
	}
	g.src = f
	return true
}

// Next writes the next fragment into dst, with its View, InPort and an empty
// Vnet. The View of a first fragment too short for its L4 header is that of a
// fault: without ViewHasL4. False, and dst is left alone, when there is none.
// Preconditions: dst has a buffer of its own, at least as long as the source's.
func (g *Fragmenter) Next(dst *Frame) bool {
	if g.src == nil {
		return false
	}
	if g.six.cut {
		return g.next6(dst)
	}
	b, v := g.src.Bytes(), &g.src.View
	n := v.End - g.off
	if n > g.room {
		n = g.room &^ 7
	}
	dst.Reset(g.src.start, v.L4+n)
	out := dst.Bytes()
	copy(out, b[:v.L4])
	copy(out[v.L4:], b[g.off:g.off+n])
	overlay(out[v.L4:], g.off, g.place, g.csum.bytes())
	if n < v.End-v.L4 {
		g.fixHeader(out[v.L3:v.L4], n)
	}
	dst.InPort = g.src.InPort
	dst.View.Parse(out)
	if g.off += n; g.off == v.End {
		g.src = nil
	}
	return true
}

// fixHeader gives the fragment with n bytes of data its own length, offset,
// options and checksum.
func (g *Fragmenter) fixHeader(h []byte, n int) {
	v := &g.src.View
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+n))
	field := binary.BigEndian.Uint16(h[ip4FragOffset:]) // offset and MF of the whole
	if g.off+n < v.End {
		field |= ip4MF
	}
	binary.BigEndian.PutUint16(h[ip4FragOffset:], field+uint16((g.off-v.L4)/8))
	if g.off > v.L4 && !v.Is(ViewFragLater) {
		uncopied(h[IPv4MinLen:])
	}
	binary.BigEndian.PutUint16(h[ip4CsumOffset:], 0)
	binary.BigEndian.PutUint16(h[ip4CsumOffset:], ^Sum(h, 0))
}

// uncopied makes no-operations of the options that only a first fragment has. It
// stops where the list ends or contradicts itself, as ip_options_fragment does.
func uncopied(options []byte) {
	const end, nop, copied = 0, 1, 0x80
	for i := 0; i < len(options) && options[i] != end; {
		if options[i] == nop {
			i++
			continue
		}
		if i+1 == len(options) || options[i+1] < 2 || i+int(options[i+1]) > len(options) {
			return
		}
		n := int(options[i+1])
		if options[i]&copied == 0 {
			for j := range n {
				options[i+j] = nop
			}
		}
		i += n
	}
}
