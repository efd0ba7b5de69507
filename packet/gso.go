// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

// MaxSegments and MaxDatagrams bound what one GSO frame may stand for. Whoever
// cuts or counts the segments pays for each, so a sender that asks for 65,000 of
// them is refused.
//
// TCP: a kernel sends 64 KB in whatever the MSS of its peer makes of it: 45
// segments at 1448 bytes, 122 at 536 (RFC 9293 §3.7.1), 862 at an MSS of 88 with
// timestamps. Only an MSS of less than 64 bytes of payload passes the bound, which
// nobody but a hostile peer asks for; such a connection goes on in what is
// retransmitted, one segment at a time.
//
// UDP: the kernel's own bound of what one sendmsg(2) may ask for.
const (
	MaxSegments  = 1024
	MaxDatagrams = 128 // UDP_MAX_SEGMENTS since Linux 6.9
)

// gsoByFrags is the gso_size by which the kernel marks a list of fragments; it
// never leaves the kernel.
const gsoByFrags = 0xffff

// CheckVnet reports whether Vnet is consistent with the View: the checksum lies
// within the packet and where its protocol has it, the kind of segmentation
// matches the protocol, the segment size is possible and the segments are not
// absurdly many (MaxSegments, MaxDatagrams). False means that the
// sender lies or uses what can't be passed on, and that the frame is to be
// dropped. Preconditions: f.View was parsed without fault.
//
// Two kinds of offload are refused on purpose. UDP fragmentation (GSOUDP) isn't
// to be had from a kernel since 4.14: a veth fragments such a frame before it
// arrives. Segmentation inside a tunnel does arrive, as the inner TCP with
// CsumStart beyond the outer header; the vnet header can't say it and no kernel
// takes it back. A container end with tx-udp_tnl-segmentation and the like off
// (ethtool(8)) segments it itself, into partial checksums that pass here.
// HdrLen is a hint that nothing relies on: not checked.
func (f *Frame) CheckVnet() bool {
	if f.Vnet.IsGSO() {
		return f.checkGSO()
	}
	return !f.Vnet.NeedsCsum() || f.checkCsum()
}

// checkGSO wants headers that each segment can be given, and the partial
// checksum that each segment's is derived from (virtio 1.2 §5.1.6.2).
func (f *Frame) checkGSO() bool {
	v := &f.View
	if f.Vnet.GSOSize == 0 || f.Vnet.GSOSize == gsoByFrags || !f.gsoTypeFits() {
		return false
	}
	if !v.Is(ViewHasL4) || v.Is(ViewFrag|ViewTrailer) || !f.fewSegments() {
		return false
	}
	return f.Vnet.NeedsCsum() && int(f.Vnet.CsumStart) == v.L4 && int(f.Vnet.CsumOffset) == csumOffset(v.Proto)
}

// fewSegments reports whether the frame stands for as many as it may.
func (f *Frame) fewSegments() bool {
	n, _ := f.Segments()
	if f.View.Proto == ProtoUDP {
		return n <= MaxDatagrams
	}
	return n <= MaxSegments
}

// gsoTypeFits reports whether the kind of segmentation is one for the frame's
// protocols. A UDP datagram must be as long as its packet, since the kernel
// derives the segments' checksums from that field.
func (f *Frame) gsoTypeFits() bool {
	v := &f.View
	switch f.Vnet.GSOType {
	case GSOTCP4, GSOTCP4 | GSOECN:
		return v.Is(ViewIPv4) && v.Proto == ProtoTCP
	case GSOTCP6, GSOTCP6 | GSOECN:
		return v.Is(ViewIPv6) && v.Proto == ProtoTCP
	case GSOUDPL4:
		return v.Proto == ProtoUDP && v.Is(ViewHasL4) &&
			int(binary.BigEndian.Uint16(f.Bytes()[v.L4+4:])) == v.End-v.L4
	}
	return false
}

// checkCsum wants the partial checksum of an IP packet at its L4 header or, in
// what may be a tunnel, beyond it; anywhere after the Ethernet header in what
// is not IP. A fragment never has one: the kernel sums before it fragments.
func (f *Frame) checkCsum() bool {
	v := &f.View
	start, off := int(f.Vnet.CsumStart), int(f.Vnet.CsumOffset)
	if start < v.L4 || start+off+2 > v.End || v.Is(ViewFrag) {
		return false
	}
	switch v.Proto {
	case ProtoTCP, ProtoSCTP:
		return start == v.L4 && off == csumOffset(v.Proto)
	case ProtoUDP:
		return start > v.L4 || off == udpCsumOffset
	}
	return true
}

// headerLen is the length of all headers of a GSO frame, which each of its
// segments has. It comes from the frame's own fields, never from HdrLen.
// Preconditions: View has ViewHasL4 and is TCP or UDP.
func (f *Frame) headerLen() int {
	if f.View.Proto == ProtoTCP {
		return f.View.L4 + int(f.Bytes()[f.View.L4+12]>>4)*4
	}
	return f.View.L4 + UDPLen
}

// Segments is the number of frames on the wire that the frame stands for, and
// the sum of their lengths: for counters, quotas and shapers. It is 1 and Len()
// if the frame isn't GSO or has no payload to segment.
func (f *Frame) Segments() (n, wireBytes int) {
	payload, hdr := f.gsoPayload()
	if payload == 0 {
		return 1, f.Len()
	}
	size := int(f.Vnet.GSOSize)
	n = (payload + size - 1) / size
	return n, f.Len() + (n-1)*hdr
}

// gsoPayload is the number of L4 payload bytes and of header bytes of a GSO
// frame; 0, 0 if the frame isn't one that can be segmented.
func (f *Frame) gsoPayload() (payload, hdr int) {
	segmentable := f.View.Is(ViewHasL4) && (f.View.Proto == ProtoTCP || f.View.Proto == ProtoUDP)
	if !f.Vnet.IsGSO() || f.Vnet.GSOSize == 0 || !segmentable {
		return 0, 0
	}
	hdr = f.headerLen()
	return f.View.End - hdr, hdr
}

// L3Len is the length of the largest IP packet on the wire that the frame stands
// for, to compare with an MTU. 0 if it isn't IP.
func (f *Frame) L3Len() int {
	v := &f.View
	if !v.Is(ViewIP) {
		return 0
	}
	payload, hdr := f.gsoPayload()
	if payload == 0 {
		return v.End - v.L3
	}
	return hdr - v.L3 + min(payload, int(f.Vnet.GSOSize))
}
