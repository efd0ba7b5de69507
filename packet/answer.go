// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"net/netip"
)

const arpReply = 2

// ARPReply appends to dst the answer to the ARP request in f: its target is at
// mac. The answer has the request's VLAN tags and goes to the request's sender.
// dst comes back as it was if f is no ARP request.
func ARPReply(dst []byte, f *Frame, mac MAC) []byte {
	b, v := f.Bytes(), &f.View
	if !v.Is(ViewARP) || len(b) < v.L3+ARPLen || b[v.L3+7] != arpRequest {
		return dst
	}
	a := b[v.L3:]
	dst = appendAnswer(dst, b, v, MAC(a[8:14]), mac)
	dst = append(dst, a[:6]...)
	dst = append(dst, 0, arpReply)
	dst = append(dst, mac[:]...)
	dst = append(dst, a[24:28]...)
	return append(dst, a[8:18]...)
}

// NeighbourAdvert appends to dst the answer to the neighbour solicitation in f
// (RFC 4861 §7.2.4): its target is at mac, and is a router if router is set. The
// answer has the solicitation's VLAN tags and goes to its sender. dst comes back
// as it was if f is no solicitation, or one for duplicate address detection.
func NeighbourAdvert(dst []byte, f *Frame, mac MAC, router bool) []byte {
	b, v := f.Bytes(), &f.View
	m, ok := v.ND(b)
	if !ok || m.Type != NDNeighbourSol || v.SrcAddr(b).IsUnspecified() {
		return dst
	}
	flags := uint8(NAFlagSolicited | NAFlagOverride)
	if router {
		flags |= NAFlagRouter
	}
	dst = appendAnswer(dst, b, v, f.SrcMAC(), mac)
	return appendNA(dst, m.Target, v.SrcAddr(b), flags, mac)
}

// appendAnswer appends an Ethernet header to the tags and the type of the frame
// in b.
func appendAnswer(dst, b []byte, v *View, to, from MAC) []byte {
	dst = append(dst, to[:]...)
	dst = append(dst, from[:]...)
	return append(dst, b[macsLen:v.L3]...)
}

// appendNA appends an IPv6 packet with an advertisement of ip at mac: hop limit
// 255, target link-layer address, complete checksum, 72 bytes.
func appendNA(dst []byte, ip, to netip.Addr, flags uint8, mac MAC) []byte {
	const (
		length   = 32 // advertisement 24, option 8
		hopLimit = 255
	)
	begin := len(dst)
	src, all := ip.As16(), to.As16()
	dst = append(dst, 0x60, 0, 0, 0, 0, length, ProtoICMPv6, hopLimit)
	dst = append(dst, src[:]...)
	dst = append(dst, all[:]...)
	dst = append(dst, NDNeighbourAdvert, 0, 0, 0, flags, 0, 0, 0)
	dst = append(dst, src[:]...)
	dst = append(dst, optTargetLink, 1)
	dst = append(dst, mac[:]...)

	v := View{L4: IPv6Len, Flags: ViewIPv6, Proto: ProtoICMPv6}
	b := dst[begin:]
	sum := ^Sum(b[v.L4:], PseudoHeader(b, &v, length))
	binary.BigEndian.PutUint16(b[v.L4+icmpCsumOffset:], sum)
	return dst
}
