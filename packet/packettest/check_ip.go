// SPDX-License-Identifier: Apache-2.0

package packettest

import "sluice/packet"

// IPv4 wants an IPv4 packet with a right header checksum, of which all checks
// are true.
func IPv4(checks ...Checker) Checker {
	return func(s *subject) {
		s.t.Helper()
		s.is("ipv4", s.v.Is(packet.ViewIPv4), append([]Checker{headerChecksum}, checks...))
	}
}

func headerChecksum(s *subject) {
	s.t.Helper()
	if got := slowSum(s.b[s.v.L3:s.v.L3+int(s.b[s.v.L3]&0xf)*4], 0); got != 0xffff {
		s.t.Errorf("ipv4.checksum is wrong: %#04x", s.u16(s.v.L3+10))
	}
}

// IPv6 wants an IPv6 packet, of which all checks are true.
func IPv6(checks ...Checker) Checker {
	return func(s *subject) {
		s.t.Helper()
		s.is("ipv6", s.v.Is(packet.ViewIPv6), checks)
	}
}

// ARP wants an ARP message, of which all checks are true.
func ARP(checks ...Checker) Checker {
	return func(s *subject) {
		s.t.Helper()
		s.is("arp", s.v.Is(packet.ViewARP), checks)
	}
}

// Op wants an ARP operation: 1 is a request, 2 a reply. Inside ARP.
func Op(want uint16) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "op", s.u16(s.v.L3+6), want)
	}
}

// SenderMAC wants the sender's hardware address. Inside ARP.
func SenderMAC(want packet.MAC) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "sender_mac", packet.MAC(s.b[s.v.L3+8:]), want)
	}
}

// TargetMAC wants the target's hardware address. Inside ARP.
func TargetMAC(want packet.MAC) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "target_mac", packet.MAC(s.b[s.v.L3+18:]), want)
	}
}

// TTL wants a time to live or a hop limit. Inside IPv4 or IPv6.
func TTL(want uint8) Checker {
	return func(s *subject) {
		s.t.Helper()
		off := 8
		if s.v.Is(packet.ViewIPv6) {
			off = 7
		}
		equal(s, "ttl", s.b[s.v.L3+off], want)
	}
}

// TOS wants a type of service or a traffic class. Inside IPv4 or IPv6.
func TOS(want uint8) Checker {
	return func(s *subject) {
		s.t.Helper()
		got := s.b[s.v.L3+1]
		if s.v.Is(packet.ViewIPv6) {
			got = uint8(s.u16(s.v.L3) >> 4)
		}
		equalHex(s, "tos", got, want)
	}
}

// ID wants an identification. Inside IPv4.
func ID(want uint16) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "id", s.u16(s.v.L3+4), want)
	}
}

// Proto wants an upper-layer protocol, after IPv6 extension headers.
func Proto(want uint8) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "proto", s.v.Proto, want)
	}
}

// Flags wants all of these to be set in the View, as packet.ViewFragLater.
func Flags(want packet.ViewFlags) Checker {
	return func(s *subject) {
		s.t.Helper()
		equalHex(s, "flags", uint16(s.v.Flags&want), uint16(want))
	}
}

// NoFlags wants none of these to be set in the View.
func NoFlags(unwanted packet.ViewFlags) Checker {
	return func(s *subject) {
		s.t.Helper()
		equalHex(s, "flags", uint16(s.v.Flags&unwanted), 0)
	}
}
