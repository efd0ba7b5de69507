// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Bits of the TCP flags byte, RFC 9293 §3.1 and RFC 3168 §6.1.
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpCWR = 0x80
)

// Segmenter is software segmentation (GSO): it turns one frame into frames that
// any receiver understands, with complete checksums, byte by byte as the kernel
// does (tcp_gso_segment, __udp_gso_segment, inet_gso_segment):
//
//   - IPv4: total length, header checksum, identification counted up, whether or
//     not DF is set; options are repeated in each.
//   - IPv6: payload length; extension headers are repeated in each.
//   - TCP: sequence number; FIN and PSH in the last only, CWR in the first only.
//   - UDP (GSOUDPL4): length.
//   - L4 checksums are derived from the frame's partial sum as the kernel does,
//     not from the addresses; so they are right behind a routing header too.
//
// A frame that isn't GSO gives one frame, itself with a complete checksum, so
// that a port without offloads has one path for all frames.
//
// It is used by one goroutine and can be used again; it doesn't allocate.
// Zero is ready for Init.
type Segmenter struct {
	src *Frame // nil when nothing is left
	hdr int    // bytes of headers, repeated in each segment
	off int    // first payload byte that was not sent yet
	sum uint16 // the partial checksum without the length in it
	id  uint16 // IPv4 identification of the next segment
}

// Init begins the segmentation of f, which must not change until the last Next.
// False if f can't be segmented: its Vnet doesn't pass CheckVnet.
// Preconditions: f.View was parsed without fault.
func (s *Segmenter) Init(f *Frame) bool {
	*s = Segmenter{}
	if !f.CheckVnet() {
		return false
	}
	s.src = f
	if n, _ := f.Segments(); n == 1 {
		return true
	}
	b, v := f.Bytes(), &f.View
	s.hdr = f.headerLen()
	s.off = s.hdr
	partial := binary.BigEndian.Uint16(b[v.L4+csumOffset(v.Proto):])
	s.sum = checksum.Combine(partial, ^uint16(v.End-v.L4))
	s.id = binary.BigEndian.Uint16(b[v.L3+4:])
	return true
}

// Next writes the next frame into dst, with its View, InPort and an empty Vnet.
// False, and dst is left alone, when there is none.
// Preconditions: dst has a buffer of its own, at least as long as the source's.
func (s *Segmenter) Next(dst *Frame) bool {
	switch {
	case s.src == nil:
		return false
	case s.hdr == 0:
		s.whole(dst)
		return true
	}
	b, v := s.src.Bytes(), &s.src.View
	n := min(int(s.src.Vnet.GSOSize), v.End-s.off)
	dst.Reset(s.src.start, s.hdr+n)
	out := dst.Bytes()
	copy(out, b[:s.hdr])
	copy(out[s.hdr:], b[s.off:s.off+n])
	dst.InPort, dst.View = s.src.InPort, *v
	dst.View.End = len(out)
	s.fixIP(out, v)
	s.fixL4(out, v)
	if s.off += n; s.off == v.End {
		s.src = nil
	}
	return true
}

// whole gives the frame that needs no segmentation.
func (s *Segmenter) whole(dst *Frame) {
	dst.Reset(s.src.start, s.src.Len())
	copy(dst.Bytes(), s.src.Bytes())
	dst.InPort, dst.View, dst.Vnet = s.src.InPort, s.src.View, s.src.Vnet
	dst.Vnet.GSOType, dst.Vnet.GSOSize = GSONone, 0
	CompleteChecksum(dst) // can't refuse what CheckVnet passed
	dst.Vnet = Vnet{}
	s.src = nil
}

// fixIP gives the segment its own length, identification and header checksum.
func (s *Segmenter) fixIP(out []byte, v *View) {
	h := out[v.L3:]
	if v.Is(ViewIPv6) {
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-IPv6Len))
		return
	}
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	binary.BigEndian.PutUint16(h[4:], s.id)
	s.id++
	h = h[:v.L4-v.L3]
	binary.BigEndian.PutUint16(h[10:], 0)
	binary.BigEndian.PutUint16(h[10:], ^Sum(h, 0))
}

// fixL4 gives the segment its own TCP or UDP header and checksum.
func (s *Segmenter) fixL4(out []byte, v *View) {
	h := out[v.L4:]
	sum := checksum.Combine(s.sum, uint16(len(h)))
	if v.Proto == ProtoTCP {
		s.fixTCP(h)
		binary.BigEndian.PutUint16(h[tcpCsumOffset:], sum)
		binary.BigEndian.PutUint16(h[tcpCsumOffset:], ^Sum(h, 0))
		return
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)))
	binary.BigEndian.PutUint16(h[udpCsumOffset:], sum)
	binary.BigEndian.PutUint16(h[udpCsumOffset:], notZero(^Sum(h, 0)))
}

// fixTCP counts the sequence number up by the payload before this segment, and
// leaves each flag that marks one end of the data on that end only.
func (s *Segmenter) fixTCP(h []byte) {
	before := s.off - s.hdr
	seq := binary.BigEndian.Uint32(h[4:])
	binary.BigEndian.PutUint32(h[4:], seq+uint32(before))
	if before > 0 {
		h[13] &^= tcpCWR
	}
	if s.off+int(s.src.Vnet.GSOSize) < s.src.View.End {
		h[13] &^= tcpFIN | tcpPSH
	}
}
