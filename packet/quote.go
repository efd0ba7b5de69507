// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// appendQuote appends the first bytes of f's packet, room at most, as a wire
// would have carried them: of an offload frame the first segment, and each
// partial checksum complete. The kernel quotes what it has, a length that no
// wire has seen and half a sum; nobody depends on that, whereas a sender that
// compares the quote with what it sent depends on this.
// Preconditions: f.View was parsed without fault and is IP, room >= 0.
func appendQuote(dst []byte, f *Frame, room int) []byte {
	v := &f.View
	begin := len(dst)
	dst = append(dst, f.Bytes()[v.L3:v.L3+min(room, f.L3Len())]...)
	q := dst[begin:]
	switch n, _ := f.Segments(); {
	case n > 1 && f.CheckVnet():
		f.quoteSegment(q)
	case f.Vnet.NeedsCsum() && f.CheckVnet():
		sum := f.wireSum()
		overlay(q, 0, int(f.Vnet.CsumStart)+int(f.Vnet.CsumOffset)-v.L3, sum.bytes())
	}
	return dst
}

// overlay writes into q, which begins at from, the bytes that stand at pos, as
// far as q reaches.
func overlay(q []byte, from, pos int, b []byte) {
	for i, c := range b {
		if at := pos + i - from; at >= 0 && at < len(q) {
			q[at] = c
		}
	}
}

// csum is a finished checksum as it stands in its field.
type csum struct {
	b [4]byte
	n int
}

func (c *csum) bytes() []byte { return c.b[:c.n] }

// wireSum is what CompleteChecksum would write, without the frame being changed.
// Preconditions: a partial checksum that CheckVnet passed, not GSO.
func (f *Frame) wireSum() (c csum) {
	v := &f.View
	p := f.Bytes()[f.Vnet.CsumStart:v.End]
	if v.Proto == ProtoSCTP && v.Is(ViewHasL4) {
		binary.LittleEndian.PutUint32(c.b[:], SCTPSum(p))
		c.n = 4
		return c
	}
	binary.BigEndian.PutUint16(c.b[:], notZero(^Sum(p, 0)))
	c.n = 2
	return c
}

// quoteSegment makes of the beginning of a GSO frame that of its first segment,
// as Segmenter would: q begins at L3 and may end anywhere.
func (f *Frame) quoteSegment(q []byte) {
	v, b := &f.View, f.Bytes()
	hdr, size := f.headerLen(), int(f.Vnet.GSOSize)
	if v.Is(ViewIPv6) {
		putPart(q, 4, uint16(hdr+size-v.L3-IPv6Len))
	} else {
		putPart(q, 2, uint16(hdr+size-v.L3))
		putPart(q, ip4CsumOffset, 0)
		putPart(q, ip4CsumOffset, ^Sum(q[:min(len(q), v.L4-v.L3)], 0))
	}
	h := q[min(len(q), v.L4-v.L3):]
	n, off := hdr-v.L4, csumOffset(v.Proto)
	if len(h) < n {
		return // what is quoted has no whole header, and so no sum
	}
	if h = h[:n]; v.Proto == ProtoTCP {
		h[13] &^= tcpFIN | tcpPSH
	} else {
		putPart(h, 4, uint16(n+size))
	}
	partial := checksum.Combine(binary.BigEndian.Uint16(h[off:]), ^uint16(v.End-v.L4))
	putPart(h, off, checksum.Combine(partial, uint16(n+size)))
	sum := ^Sum(b[hdr:hdr+size], Sum(h, 0))
	if v.Proto == ProtoUDP {
		sum = notZero(sum)
	}
	putPart(h, off, sum)
}

// putPart writes a number at a place of q, if q has it.
func putPart(q []byte, at int, x uint16) {
	if at+2 <= len(q) {
		binary.BigEndian.PutUint16(q[at:], x)
	}
}
