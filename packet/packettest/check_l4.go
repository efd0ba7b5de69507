// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"hash/crc32"
	"strings"

	"sluice/packet"
)

// TCP wants a TCP segment with a right checksum, or a right partial one if the
// frame's vnet header says so, of which all checks are true.
func TCP(checks ...Checker) Checker { return l4("tcp", packet.ProtoTCP, checks) }

// UDP wants a UDP datagram with a right length and checksum, or a right partial
// one if the frame's vnet header says so, of which all checks are true.
func UDP(checks ...Checker) Checker {
	return l4("udp", packet.ProtoUDP, append([]Checker{udpLength}, checks...))
}

// SCTP wants an SCTP packet with a right checksum, of which all checks are true.
func SCTP(checks ...Checker) Checker { return l4("sctp", packet.ProtoSCTP, checks) }

// ICMP wants an ICMP message with a right checksum, of which all checks are true.
func ICMP(checks ...Checker) Checker { return l4("icmp", packet.ProtoICMP, checks) }

// ICMPv6 wants an ICMPv6 message with a right checksum, of which all checks are
// true.
func ICMPv6(checks ...Checker) Checker { return l4("icmpv6", packet.ProtoICMPv6, checks) }

func l4(name string, proto uint8, checks []Checker) Checker {
	return func(s *subject) {
		s.t.Helper()
		ok := s.v.Is(packet.ViewHasL4) && s.v.Proto == proto
		s.is(name, ok, append([]Checker{l4Checksum}, checks...))
	}
}

// l4Checksum is the slow twin of packet.VerifyL4 and packet.PartialOK. What is
// in pieces has no checksum that could be verified.
func l4Checksum(s *subject) {
	s.t.Helper()
	if s.v.Is(packet.ViewFrag | packet.ViewRouted) {
		return
	}
	p := s.b[s.v.L4:s.v.End]
	ok := false
	switch s.v.Proto {
	case packet.ProtoICMP:
		ok = slowSum(p, 0) == 0xffff
	case packet.ProtoSCTP:
		ok = s.partial || sctpOK(p)
	case packet.ProtoUDP:
		ok = s.sumOK(p, 6) || s.v.Is(packet.ViewIPv4) && binary.BigEndian.Uint16(p[6:]) == 0
	default:
		ok = s.sumOK(p, 16)
	}
	if !ok {
		s.t.Errorf("%schecksum is wrong (partial: %v)", s.where, s.partial)
	}
}

// sumOK verifies the complete or partial checksum of p, which is at off.
func (s *subject) sumOK(p []byte, off int) bool {
	pseudo := pseudoSum(s.b, &s.v)
	if s.partial {
		return binary.BigEndian.Uint16(p[off:]) == pseudo
	}
	return slowSum(p, pseudo) == 0xffff
}

func sctpOK(p []byte) bool {
	zeroed := append([]byte(nil), p...)
	clear(zeroed[8:12])
	return binary.LittleEndian.Uint32(p[8:]) == crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli))
}

func udpLength(s *subject) {
	s.t.Helper()
	if !s.v.Is(packet.ViewFrag) {
		equal(s, "length", int(s.u16(s.v.L4+4)), s.v.End-s.v.L4)
	}
}

// SrcPort wants a source port. Inside TCP, UDP or SCTP.
func SrcPort(want uint16) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "src_port", s.v.SrcPort, want)
	}
}

// DstPort wants a destination port. Inside TCP, UDP or SCTP.
func DstPort(want uint16) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "dst_port", s.v.DstPort, want)
	}
}

// Seq wants a sequence number. Inside TCP.
func Seq(want uint32) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "seq", s.u32(s.v.L4+4), want)
	}
}

// AckNum wants an acknowledgement number. Inside TCP.
func AckNum(want uint32) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "ack", s.u32(s.v.L4+8), want)
	}
}

// TCPFlags wants exactly these flags. Inside TCP.
func TCPFlags(want uint8) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "flags", flagNames(s.b[s.v.L4+13]), flagNames(want))
	}
}

// flagNames is the flags in words, as "SYN|ACK".
func flagNames(flags uint8) string {
	var set []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if flags>>i&1 != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, "|")
}

// ICMPType wants a type and code. Inside ICMP or ICMPv6.
func ICMPType(wantType, wantCode uint8) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "type", s.b[s.v.L4], wantType)
		equal(s, "code", s.b[s.v.L4+1], wantCode)
	}
}

// EchoID wants the identifier of an echo request or reply. Inside ICMP or
// ICMPv6.
func EchoID(want uint16) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "echo_id", s.v.DstPort, want)
	}
}

// NextMTU wants the MTU that an ICMP error about a packet which is too big tells.
// Inside ICMP or ICMPv6.
func NextMTU(want uint32) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "mtu", s.u32(s.v.L4+4), want)
	}
}
