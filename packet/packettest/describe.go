// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice/packet"
)

// Describe is the frame in a line, as "vlan 7 ipv4 10.0.0.1:40000 > 10.0.0.2:80
// tcp SYN", for messages of tests.
func Describe(b []byte) string {
	var v packet.View
	if fault := v.Parse(b); fault != packet.FaultNone {
		return fmt.Sprintf("malformed %v", fault)
	}
	var w strings.Builder
	for _, tci := range v.TCI[:v.Tags] {
		fmt.Fprintf(&w, "vlan %d ", tci&0xfff)
	}
	switch {
	case v.Is(packet.ViewARP):
		fmt.Fprintf(&w, "arp %v > %v", v.SrcAddr(b), v.DstAddr(b))
	case v.Is(packet.ViewIPv4):
		w.WriteString("ipv4 " + describeIP(b, &v))
	case v.Is(packet.ViewIPv6):
		w.WriteString("ipv6 " + describeIP(b, &v))
	default:
		fmt.Fprintf(&w, "type %#04x", v.EtherType)
	}
	return w.String()
}

func describeIP(b []byte, v *packet.View) string {
	src, dst := v.SrcAddr(b), v.DstAddr(b)
	ports := fmt.Sprintf("%v > %v", netip.AddrPortFrom(src, v.SrcPort), netip.AddrPortFrom(dst, v.DstPort))
	switch {
	case !v.Is(packet.ViewHasL4):
		return fmt.Sprintf("%v > %v proto %d", src, dst, v.Proto)
	case v.Proto == packet.ProtoTCP:
		return ports + " tcp " + flagNames(b[v.L4+13])
	case v.Proto == packet.ProtoUDP:
		return ports + " udp"
	case v.Proto == packet.ProtoSCTP:
		return ports + " sctp"
	}
	return fmt.Sprintf("%v > %v icmp type %d code %d", src, dst, v.SrcPort>>8, v.SrcPort&0xff)
}
