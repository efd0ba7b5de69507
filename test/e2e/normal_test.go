// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// normalise leaves of what was recorded the IP packets that hosts did not ask for
// themselves, each in a line that begins with what it is. What differs from run to
// run is zero in it: the identification of IPv4 packets that somebody other than
// the test made, and the sums that depend on it.
func normalise(frames [][]byte) []string {
	var out []string
	for _, b := range frames {
		if s, ok := normal(slices.Clone(b)); ok {
			out = append(out, s)
		}
	}
	return out
}

// normal is one frame in a line.
func normal(b []byte) (string, bool) {
	var v packet.View
	if v.Parse(b) != packet.FaultNone || !v.Is(packet.ViewIP) {
		return "", false
	}
	ip, what := b[v.L3:v.End], pt.Describe(b)
	if !packet.VerifyL3(b, &v) {
		what += " BAD HEADER SUM"
	}
	if v.Is(packet.ViewIPv6) && !isRequest(b, &v) {
		ip[1] &= 0xf0 // the flow label, which a host makes up
		ip[2], ip[3] = 0, 0
	}
	isICMP := v.Is(packet.ViewHasL4) && (v.Proto == packet.ProtoICMP || v.Proto == packet.ProtoICMPv6)
	if !isICMP {
		scrub(ip)
		if isOwn(v.SrcAddr(b)) {
			ip = ip[v.L4-v.L3:]
		}
		return fmt.Sprintf("%s | %x", what, ip), true
	}
	msg := b[v.L4:v.End]
	if isChatter(v.Proto, msg[0]) {
		return "", false
	}
	if !packet.VerifyL4(b, &v) {
		what += " BAD SUM"
	}
	if isError(v.Proto, msg[0]) && len(msg) > 8 {
		what += " about " + quoted(v.Proto, msg[8:])
		scrub(msg[8:])
		if v.Proto == packet.ProtoICMP && msg[8]&0xf > 5 {
			return what, true // the kernel repeats options in its errors, which RFC 1122 leaves open
		}
	}
	binary.BigEndian.PutUint16(msg[2:], 0)
	if v.Proto == packet.ProtoICMP && (msg[0] == 0 || msg[0] == 3 && msg[1] == 3) && isOwn(v.SrcAddr(b)) {
		return fmt.Sprintf("%s | %x", what, msg), true
	}
	return fmt.Sprintf("%s | %x", what, scrub(ip)), true
}

// isOwn reports whether an IPv4 address is a gateway's or a link's. What these say
// as hosts, not as routers, is compared without the header: gVisor's type of
// service, DF and options differ from the kernel's.
func isOwn(src netip.Addr) bool {
	if !src.Is4() {
		return false
	}
	a := src.As4()
	return a[0] == 10 && (a[1] == 255 || a[1] >= 80 && a[3] == 1)
}

// isRequest reports whether the test made the packet.
func isRequest(b []byte, v *packet.View) bool {
	return v.Is(packet.ViewHasL4) && v.Proto == packet.ProtoICMPv6 && b[v.L4] == 128
}

// scrub clears identification and sum of an IPv4 header, and the sum of TCP and
// UDP, which is partial between two kernels.
func scrub(ip []byte) []byte {
	if len(ip) < 20 || ip[0]>>4 != 4 {
		return scrub6(ip)
	}
	binary.BigEndian.PutUint16(ip[4:], 0)
	binary.BigEndian.PutUint16(ip[10:], 0)
	if n := int(ip[0]&0xf) * 4; binary.BigEndian.Uint16(ip[6:])&0x1fff == 0 {
		scrubL4(ip[9], ip[min(n, len(ip)):])
	}
	return ip
}

func scrub6(ip []byte) []byte {
	if len(ip) > 40 && ip[0]>>4 == 6 {
		scrubL4(ip[6], ip[40:])
	}
	return ip
}

func scrubL4(proto uint8, b []byte) {
	at := map[uint8]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6}[proto]
	if at > 0 && len(b) >= at+2 {
		binary.BigEndian.PutUint16(b[at:], 0)
	}
}

// isChatter are messages that hosts send without being asked: neighbour discovery,
// but for redirects, and multicast listeners.
func isChatter(proto, kind uint8) bool {
	return proto == packet.ProtoICMPv6 && (kind >= 130 && kind <= 136 || kind == 143)
}

func isError(proto, kind uint8) bool {
	if proto == packet.ProtoICMP {
		return kind == 3 || kind == 4 || kind == 5 || kind == 11 || kind == 12
	}
	return kind < 128
}

// quoted describes the packet in an error, which may be cut.
func quoted(proto uint8, ip []byte) string {
	t := uint16(packet.EtherTypeIPv6)
	if proto == packet.ProtoICMP {
		t = packet.EtherTypeIPv4
	}
	// A cut packet does not parse; its addresses and protocol are what one looks for.
	switch {
	case t == packet.EtherTypeIPv4 && len(ip) >= 20:
		return fmt.Sprintf("%d.%d.%d.%d > %d.%d.%d.%d proto %d ttl %d len %d", ip[12], ip[13], ip[14], ip[15],
			ip[16], ip[17], ip[18], ip[19], ip[9], ip[8], binary.BigEndian.Uint16(ip[2:]))
	case t == packet.EtherTypeIPv6 && len(ip) >= 40:
		return fmt.Sprintf("%x > %x next %d hops %d", ip[8:24], ip[24:40], ip[6], ip[7])
	}
	return fmt.Sprintf("%d bytes", len(ip))
}
