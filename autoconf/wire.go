// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

const (
	headers4 = packet.EthernetLen + packet.IPv4MinLen + packet.UDPLen
	headers6 = packet.EthernetLen + packet.IPv6Len

	icmpCsumOffset = 2
	udpCsumOffset  = 6
	ttl            = 64  // RFC 2131 says none; Linux's default
	hopLimitND     = 255 // RFC 4861 §6.1.2
)

// intact reports whether a datagram arrived whole and with right checksums. A
// partial one is right by definition once its pseudo-header is.
func intact(f *packet.Frame) bool {
	b, v := f.Bytes(), &f.View
	if f.Vnet.IsGSO() || v.Is(packet.ViewFrag|packet.ViewRouted) || !packet.VerifyL3(b, v) {
		return false
	}
	if f.Vnet.NeedsCsum() {
		return packet.PartialOK(f)
	}
	return packet.VerifyL4(b, v)
}

// payload is that of an intact UDP datagram. False if its length is wrong.
func payload(f *packet.Frame) ([]byte, bool) {
	b, v := f.Bytes(), &f.View
	n := int(binary.BigEndian.Uint16(b[v.L4+4:]))
	if n < packet.UDPLen || v.L4+n > v.End {
		return nil, false
	}
	return b[v.L4+packet.UDPLen : v.L4+n], true
}

// ends are the two ends of an answer.
type ends struct {
	fromMAC, toMAC packet.MAC
	from, to       netip.Addr
	sport, dport   uint16
}

func (e *ends) ethernet(dst []byte, etherType uint16) []byte {
	dst = append(dst, e.toMAC[:]...)
	dst = append(dst, e.fromMAC[:]...)
	return binary.BigEndian.AppendUint16(dst, etherType)
}

// udp4 appends the headers of a datagram, to be finished by finishUDP4 when its
// payload is there.
func (e *ends) udp4(dst []byte) []byte {
	from, to := e.from.As4(), e.to.As4()
	dst = e.ethernet(dst, packet.EtherTypeIPv4)
	dst = append(dst, 0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, packet.ProtoUDP, 0, 0)
	dst = append(dst, from[:]...)
	dst = append(dst, to[:]...)
	dst = binary.BigEndian.AppendUint16(dst, e.sport)
	dst = binary.BigEndian.AppendUint16(dst, e.dport)
	return append(dst, 0, 0, 0, 0)
}

func finishUDP4(frame []byte) {
	ip := frame[packet.EthernetLen:]
	udp := ip[packet.IPv4MinLen:]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[10:], ^packet.Sum(ip[:packet.IPv4MinLen], 0))
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	v := packet.View{L3: packet.EthernetLen, Flags: packet.ViewIPv4, Proto: packet.ProtoUDP}
	putSum(udp[udpCsumOffset:], packet.Sum(udp, packet.PseudoHeader(frame, &v, len(udp))))
}

// ip6 appends Ethernet and IPv6 headers, to be finished by finishIP6.
func (e *ends) ip6(dst []byte, proto, hopLimit uint8) []byte {
	from, to := e.from.As16(), e.to.As16()
	dst = e.ethernet(dst, packet.EtherTypeIPv6)
	dst = append(dst, 0x60, 0, 0, 0, 0, 0, proto, hopLimit)
	dst = append(dst, from[:]...)
	return append(dst, to[:]...)
}

func (e *ends) udp6(dst []byte) []byte {
	dst = e.ip6(dst, packet.ProtoUDP, ttl)
	dst = binary.BigEndian.AppendUint16(dst, e.sport)
	dst = binary.BigEndian.AppendUint16(dst, e.dport)
	return append(dst, 0, 0, 0, 0)
}

func finishIP6(frame []byte) {
	ip := frame[packet.EthernetLen:]
	up := ip[packet.IPv6Len:]
	proto, at := ip[6], icmpCsumOffset
	if proto == packet.ProtoUDP {
		at = udpCsumOffset
		binary.BigEndian.PutUint16(up[4:], uint16(len(up)))
	}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(up)))
	v := packet.View{L3: packet.EthernetLen, Flags: packet.ViewIPv6, Proto: proto}
	putSum(up[at:], packet.Sum(up, packet.PseudoHeader(frame, &v, len(up))))
}

// putSum writes the complement of a sum; 0 would say that there is none (RFC
// 768), and 0xffff is equal to it.
func putSum(b []byte, sum uint16) {
	if sum = ^sum; sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b, sum)
}
