// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"hash/crc32"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Places of the checksum in the L4 headers.
const (
	tcpCsumOffset  = 16
	udpCsumOffset  = 6
	icmpCsumOffset = 2
	sctpCsumOffset = 8
)

// Sum is the ones' complement sum (RFC 1071) of b, folded to 16 bits and added
// to initial. The checksum that stands in a header is its complement.
func Sum(b []byte, initial uint16) uint16 { return checksum.Checksum(b, initial) }

// PseudoHeader is the sum over the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1)
// of the IP packet in b, the frame that v was parsed from, for n bytes of L4
// header and payload. Not for ViewRouted: the final destination is not in it.
// Preconditions: v.Is(ViewIP), 0 <= n <= 65535.
func PseudoHeader(b []byte, v *View, n int) uint16 {
	seed := checksum.Combine(uint16(v.Proto), uint16(n))
	if v.Is(ViewIPv4) {
		return Sum(b[v.L3+12:v.L3+20], seed)
	}
	return Sum(b[v.L3+8:v.L3+40], seed)
}

// VerifyL3 reports whether the header checksum of the IPv4 packet in b is right.
// True for anything else, which has none.
func VerifyL3(b []byte, v *View) bool {
	return !v.Is(ViewIPv4) || Sum(b[v.L3:v.L4], 0) == 0xffff
}

// VerifyL4 reports whether the L4 checksum in b, the frame that v was parsed
// from without fault, is complete and right. UDP over IPv4 may have none (RFC
// 768), over IPv6 it must (RFC 8200 §8.1). True where it can't be told: unknown
// protocols, fragments, routed IPv6.
func VerifyL4(b []byte, v *View) bool {
	if !v.Is(ViewHasL4) || v.Is(ViewFrag|ViewRouted) {
		return true
	}
	p := b[v.L4:v.End]
	switch v.Proto {
	case ProtoTCP, ProtoICMPv6:
		return Sum(p, PseudoHeader(b, v, len(p))) == 0xffff
	case ProtoUDP:
		return verifyUDP(b, v, p)
	case ProtoICMP:
		return Sum(p, 0) == 0xffff
	case ProtoSCTP:
		return binary.LittleEndian.Uint32(p[sctpCsumOffset:]) == SCTPSum(p)
	}
	return true
}

// verifyUDP checks the datagram p by its own length, which may be shorter than
// the packet.
func verifyUDP(b []byte, v *View, p []byte) bool {
	n := int(binary.BigEndian.Uint16(p[4:]))
	if n < UDPLen || n > len(p) {
		return false
	}
	if binary.BigEndian.Uint16(p[udpCsumOffset:]) == 0 {
		return v.Is(ViewIPv4)
	}
	return Sum(p[:n], PseudoHeader(b, v, n)) == 0xffff
}

// SCTPSum is the CRC32c of the SCTP packet p with a zero checksum field (RFC 9260
// Appendix A). The field itself holds it in little-endian order.
// Preconditions: len(p) >= SCTPLen.
func SCTPSum(p []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // the package's own table, made once
	crc := ^crc32.Update(0, table, p[:sctpCsumOffset])
	for range 4 { // four zero bytes, without a buffer that would escape
		crc = table[byte(crc)] ^ crc>>8
	}
	return crc32.Update(^crc, table, p[SCTPLen:])
}

// PartialOK reports whether a TCP or UDP frame with Vnet.NeedsCsum holds in its
// checksum field the sum of its pseudo-header, as a partial checksum must.
// Preconditions: f.View was parsed without fault.
func PartialOK(f *Frame) bool {
	b, v := f.Bytes(), &f.View
	if !f.Vnet.NeedsCsum() || !v.Is(ViewHasL4) || v.Is(ViewFrag|ViewRouted) {
		return false
	}
	off := v.L4 + int(f.Vnet.CsumOffset)
	if int(f.Vnet.CsumStart) != v.L4 || int(f.Vnet.CsumOffset) != csumOffset(v.Proto) || off+2 > len(b) {
		return false
	}
	want := PseudoHeader(b, v, v.End-v.L4)
	return binary.BigEndian.Uint16(b[off:]) == want
}

// csumOffset is the place of the checksum in the header of a protocol whose
// checksum can be partial, -1 for others.
func csumOffset(proto uint8) int {
	switch proto {
	case ProtoTCP:
		return tcpCsumOffset
	case ProtoUDP:
		return udpCsumOffset
	case ProtoSCTP:
		return sctpCsumOffset
	}
	return -1
}

// CompleteChecksum turns a partial checksum (CHECKSUM_PARTIAL) into a complete
// one in place and clears FlagNeedsCsum, CsumStart and CsumOffset. A frame that
// needs none is left as it is. SCTP gets its CRC32c (RFC 9260 §6.8). False, and
// nothing is changed, if Vnet points outside the frame or the frame is GSO: for
// that there is Segmenter.
// Preconditions: f.View was parsed without fault.
func CompleteChecksum(f *Frame) bool {
	if f.Vnet.IsGSO() {
		return false
	}
	if !f.Vnet.NeedsCsum() {
		return true
	}
	v := &f.View
	b := f.Bytes()[:v.End] // Ethernet padding is not summed
	start, off := int(f.Vnet.CsumStart), int(f.Vnet.CsumOffset)
	switch {
	case start < EthernetLen || start+off+2 > len(b):
		return false
	case v.Proto == ProtoSCTP && v.Is(ViewHasL4) && start == v.L4 && off == sctpCsumOffset:
		binary.LittleEndian.PutUint32(b[start+off:], SCTPSum(b[start:]))
	default:
		sum := ^Sum(b[start:], 0) // the partial sum stands in the field and is summed with the rest
		binary.BigEndian.PutUint16(b[start+off:], notZero(sum))
	}
	f.Vnet.Flags &^= FlagNeedsCsum
	f.Vnet.CsumStart, f.Vnet.CsumOffset = 0, 0
	return true
}

// notZero makes a checksum of 0 into 0xffff, its equal, since 0 means
// "none" in UDP (RFC 768). As in the kernel's skb_checksum_help it is done for
// every protocol: both verify.
func notZero(sum uint16) uint16 {
	if sum == 0 {
		return 0xffff
	}
	return sum
}
