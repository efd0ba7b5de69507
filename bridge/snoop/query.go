// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

// Query is one query to be sent.
type Query struct {
	VLAN  uint16 // 0: none
	Port  uint16 // the only one to send it to; 0: all of the VLAN
	Frame []byte // Ethernet frame without a tag
}

// ask is a query before it is built.
type ask struct {
	group      netip.Addr // not valid: general
	vlan, port uint16
	v6         bool
}

// build makes the frame of a query.
func (c *Config) build(a ask) Query {
	q := Query{VLAN: a.vlan, Port: a.port}
	wait := c.ResponseInterval
	if a.group.IsValid() {
		wait = c.LastMember
	}
	if a.v6 {
		q.Frame = c.mld(a.group, uint32(wait.Milliseconds()))
	} else {
		q.Frame = c.igmp(a.group, uint32(wait.Milliseconds()/100))
	}
	return q
}

// igmp is a query of RFC 2236 or RFC 3376: TTL 1, router alert, internetwork
// control.
func (c *Config) igmp(group netip.Addr, tenths uint32) []byte {
	to, in := netip.AddrFrom4([4]byte{224, 0, 0, 1}).As4(), [4]byte{}
	if group.IsValid() {
		to, in = group.As4(), group.As4()
	}
	src := c.Addr4.As4()
	n, wait := igmpLen, min(tenths, 0xff)
	if c.Version4 == 3 {
		n, wait = igmp3Len, code(tenths, 4)
	}
	b := ethernet(packet.MAC{0x01, 0x00, 0x5e, to[1] & 0x7f, to[2], to[3]}, c.MAC, packet.EtherTypeIPv4)
	b = append(b, 0x46, 0xc0, 0, byte(24+n), 0, 0, 0x40, 0, 1, protoIGMP, 0, 0)
	b = append(b, src[:]...)
	b = append(b, to[:]...)
	b = append(b, 0x94, 4, 0, 0) // router alert, RFC 2113
	binary.BigEndian.PutUint16(b[packet.EthernetLen+10:], ^packet.Sum(b[packet.EthernetLen:], 0))
	begin := len(b)
	b = append(b, igmpQuery, byte(wait), 0, 0)
	b = append(b, in[:]...)
	if c.Version4 == 3 {
		b = append(b, c.Robustness&7, byte(code(c.seconds(c.QueryInterval), 4)), 0, 0)
	}
	binary.BigEndian.PutUint16(b[begin+2:], ^packet.Sum(b[begin:], 0))
	return b
}

// mld is a query of RFC 2710 or RFC 3810: hop limit 1, router alert (RFC 2711).
func (c *Config) mld(group netip.Addr, ms uint32) []byte {
	to, in := netip.IPv6LinkLocalAllNodes().As16(), [16]byte{}
	if group.IsValid() {
		to, in = group.As16(), group.As16()
	}
	src := c.Addr6.As16()
	n, wait := mldLen, min(ms, 0xffff)
	if c.Version6 == 2 {
		n, wait = mld2Len, code(ms, 12)
	}
	b := ethernet(packet.MAC{0x33, 0x33, to[12], to[13], to[14], to[15]}, c.MAC, packet.EtherTypeIPv6)
	b = append(b, 0x60, 0, 0, 0, 0, byte(8+n), packet.ProtoHopByHop, 1)
	b = append(b, src[:]...)
	b = append(b, to[:]...)
	b = append(b, packet.ProtoICMPv6, 0, 5, 2, 0, 0, 1, 0) // router alert: MLD; PadN
	begin := len(b)
	b = append(b, mldQuery, 0, 0, 0, byte(wait>>8), byte(wait), 0, 0)
	b = append(b, in[:]...)
	if c.Version6 == 2 {
		b = append(b, c.Robustness&7, byte(code(c.seconds(c.QueryInterval), 4)), 0, 0)
	}
	v := packet.View{L3: packet.EthernetLen, Flags: packet.ViewIPv6, Proto: packet.ProtoICMPv6}
	binary.BigEndian.PutUint16(b[begin+2:], ^packet.Sum(b[begin:], packet.PseudoHeader(b, &v, n)))
	return b
}

// code is the inverse of float: the largest code of at most this value.
func code(value uint32, mantissa uint) uint32 {
	if value < 1<<(mantissa+3) {
		return value
	}
	exp := uint32(0)
	for exp < 7 && value>>(exp+4) >= 1<<mantissa {
		exp++
	}
	m := min(value>>(exp+3), 1<<(mantissa+1)-1)
	return 1<<(mantissa+3) | exp<<mantissa | m&(1<<mantissa-1)
}

func ethernet(dst, src packet.MAC, etherType uint16) []byte {
	b := make([]byte, 0, 128)
	b = append(b, dst[:]...)
	b = append(b, src[:]...)
	return binary.BigEndian.AppendUint16(b, etherType)
}
