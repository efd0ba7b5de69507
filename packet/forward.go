// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Places of fields in the IP headers.
const (
	ip4FragOffset = 6
	ip4TTLOffset  = 8
	ip4CsumOffset = 10
	ip6HopOffset  = 7
)

// Bits of the IPv4 fragment field, RFC 791 §3.1.
const (
	ip4DF         = 0x4000
	ip4MF         = 0x2000
	ip4OffsetMask = 0x1fff
)

// HopLimit is the time to live of IPv4, the hop limit of IPv6, and 0 of
// anything else. Preconditions: f.View was parsed without fault.
func (f *Frame) HopLimit() uint8 {
	switch v := &f.View; {
	case v.Is(ViewIPv4):
		return f.Bytes()[v.L3+ip4TTLOffset]
	case v.Is(ViewIPv6):
		return f.Bytes()[v.L3+ip6HopOffset]
	}
	return 0
}

// DecrementTTL takes one from the time to live or hop limit. The checksum of the
// IPv4 header follows by RFC 1624, so that a wrong one stays wrong. The header of
// an offload frame is complete like any other, and the L4 checksum, partial or
// not, doesn't cover the field.
// Preconditions: f.View was parsed without fault and is IP, HopLimit() > 0.
func (f *Frame) DecrementTTL() {
	h := f.Bytes()[f.View.L3:]
	if f.View.Is(ViewIPv6) {
		h[ip6HopOffset]--
		return
	}
	before := binary.BigEndian.Uint16(h[ip4TTLOffset:])
	h[ip4TTLOffset]--
	replaceInSum(h[ip4CsumOffset:], before, before-0x100)
}

// Trim takes away what stands behind the packet, as Ethernet padding does.
// Preconditions: f.View was parsed without fault.
func (f *Frame) Trim() {
	f.end = f.start + f.View.End
	f.View.Flags &^= ViewTrailer
}

// replaceInSum makes the checksum at the beginning of field, complete, follow a
// 16-bit word that changed under it: RFC 1624, equation 3.
func replaceInSum(field []byte, before, after uint16) {
	sum := checksum.Combine(^binary.BigEndian.Uint16(field), checksum.Combine(^before, after))
	binary.BigEndian.PutUint16(field, ^sum)
}

// SetMACs rewrites the Ethernet header for the next hop. Tags stay where they
// are. Preconditions: the frame has an Ethernet header.
func (f *Frame) SetMACs(dst, src MAC) {
	b := f.Bytes()
	copy(b[0:6], dst[:])
	copy(b[6:12], src[:])
}
