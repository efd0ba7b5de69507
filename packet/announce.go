// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"net/netip"
)

const arpRequest = 1

// GratuitousARP appends to dst an ARP announcement of ip at mac (RFC 5227 §3):
// a broadcast request with sender and target ip alike, 42 bytes. dst comes back
// as it was if ip is not IPv4.
func GratuitousARP(dst []byte, mac MAC, ip netip.Addr) []byte {
	ip = ip.Unmap()
	if !ip.Is4() {
		return dst
	}
	a := ip.As4()
	bcast := Broadcast()
	dst = AppendEthernet(dst, bcast, mac, EtherTypeARP)
	dst = append(dst, 0, 1, 0x08, 0, 6, 4, 0, arpRequest)
	dst = append(dst, mac[:]...)
	dst = append(dst, a[:]...)
	dst = append(dst, 0, 0, 0, 0, 0, 0) // RFC 5227 §2.1.1: target hardware address ignored, zero
	return append(dst, a[:]...)
}

// UnsolicitedNA appends to dst a neighbour advertisement of ip at mac to all
// nodes (RFC 4861 §7.2.6): override flag, target link-layer address, hop limit
// 255, complete checksum, 86 bytes. dst comes back as it was if ip is not IPv6.
func UnsolicitedNA(dst []byte, mac MAC, ip netip.Addr) []byte {
	if !ip.Is6() || ip.Is4In6() {
		return dst
	}
	dst = AppendEthernet(dst, MAC{0x33, 0x33, 0, 0, 0, 1}, mac, EtherTypeIPv6)
	return appendNA(dst, ip, netip.IPv6LinkLocalAllNodes(), NAFlagOverride, mac)
}

// AppendEthernet appends to dst the Ethernet header of a frame, without tags.
func AppendEthernet(dst []byte, to, from MAC, etherType uint16) []byte {
	dst = append(dst, to[:]...)
	dst = append(dst, from[:]...)
	return binary.BigEndian.AppendUint16(dst, etherType)
}
