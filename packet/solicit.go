// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"net/netip"
)

// Solicitation is a question for the link-layer address of Target, or whether it
// is still at To.
type Solicitation struct {
	MAC    MAC        // of who asks
	Source netip.Addr // of who asks; in IPv4 the unspecified address is allowed (RFC 5227 §2.1.1)
	Target netip.Addr
	To     MAC // zero: everybody, in IPv6 the solicited-node group of Target
}

// AppendSolicitation appends to dst the frame that asks: an ARP request (RFC
// 826), 42 bytes, or a neighbour solicitation with its source link-layer address
// (RFC 4861 §4.3), hop limit 255, complete checksum, 86 bytes. dst comes back as
// it was if source and target are not of one family, or a solicitation had no
// source: that would be one for duplicate address detection.
func AppendSolicitation(dst []byte, s Solicitation) []byte {
	src, target := s.Source.Unmap(), s.Target.Unmap()
	switch {
	case src.Is4() && target.Is4():
		return appendARPRequest(dst, s, src.As4(), target.As4())
	case src.Is6() && target.Is6() && !src.IsUnspecified():
		return appendNS(dst, s, src.As16(), target.As16())
	}
	return dst
}

func appendARPRequest(dst []byte, s Solicitation, src, target [4]byte) []byte {
	to := s.To
	if to.IsZero() {
		to = Broadcast()
	}
	dst = AppendEthernet(dst, to, s.MAC, EtherTypeARP)
	dst = append(dst, 0, 1, 0x08, 0, 6, 4, 0, arpRequest)
	dst = append(dst, s.MAC[:]...)
	dst = append(dst, src[:]...)
	dst = append(dst, 0, 0, 0, 0, 0, 0) // that is the question
	return append(dst, target[:]...)
}

func appendNS(dst []byte, s Solicitation, src, target [16]byte) []byte {
	const (
		length   = 32 // solicitation 24, option 8
		hopLimit = 255
	)
	to, all := s.To, target
	if to.IsZero() {
		to = MAC{0x33, 0x33, 0xff, target[13], target[14], target[15]} // RFC 2464 §7
		all = [16]byte{0xff, 2, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
	}
	dst = AppendEthernet(dst, to, s.MAC, EtherTypeIPv6)
	begin := len(dst)
	dst = append(dst, 0x60, 0, 0, 0, 0, length, ProtoICMPv6, hopLimit)
	dst = append(dst, src[:]...)
	dst = append(dst, all[:]...)
	dst = append(dst, NDNeighbourSol, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, target[:]...)
	dst = append(dst, optSourceLink, 1)
	dst = append(dst, s.MAC[:]...)

	v := View{L4: IPv6Len, Flags: ViewIPv6, Proto: ProtoICMPv6}
	b := dst[begin:]
	sum := ^Sum(b[v.L4:], PseudoHeader(b, &v, length))
	binary.BigEndian.PutUint16(b[v.L4+icmpCsumOffset:], sum)
	return dst
}
