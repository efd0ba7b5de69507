// SPDX-License-Identifier: Apache-2.0

package packet

import "net/netip"

// MayAnswerWithICMP reports whether the error e may be sent about f's packet:
// RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443 §2.4 e, as the kernel's icmp_send and
// icmp6_send do. No error is about
//
//   - an error, or a redirect: two hosts would never stop talking;
//   - a packet to a group or to all, by its MAC or its IP address: all would
//     answer. Of IPv6, ICMP6TooBig and an unknown option that asks for it are,
//     since path MTU discovery of groups rests upon them;
//   - a fragment of IPv4 other than the first;
//   - a packet whose source address is nobody's: unspecified, loopback, a group.
//
// The broadcast address of a subnet doesn't show in the bytes; that is for
// whoever knows the subnets. Preconditions: f.View was parsed without fault.
func MayAnswerWithICMP(f *Frame, e ICMPError) bool {
	v, b := &f.View, f.Bytes()
	src, dst := v.SrcAddr(b), v.DstAddr(b)
	group := f.DstMAC().IsMulticast() || dst.IsMulticast()
	switch {
	case src.IsUnspecified() || src.IsLoopback() || src.IsMulticast():
		return false
	case v.Is(ViewIPv4):
		return !group && !reserved4(src) && !everybody4(dst) && !v.Is(ViewFragLater) && !f.isICMPError()
	case v.Is(ViewIPv6):
		return (!group || f.answersGroup(e)) && !f.isICMP6Error()
	}
	return false
}

// everybody4 reports whether an address is that of all hosts on a link, RFC 919
// §7 and its older form.
func everybody4(a netip.Addr) bool {
	return a.IsUnspecified() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// reserved4 reports whether no host can send from the address: 0.0.0.0/8, and
// 240.0.0.0/4 with the broadcast address (RFC 1122 §3.2.1.3).
func reserved4(a netip.Addr) bool {
	first := a.As4()[0]
	return first == 0 || first >= 240
}

// isICMPError reports whether f is an ICMP message that is not a question or an
// answer to one: an error, a redirect, or a type that is not known.
func (f *Frame) isICMPError() bool {
	if f.View.Proto != ProtoICMP {
		return false
	}
	switch f.View.SrcPort >> 8 {
	case 0, 8, 13, 14, 15, 16, 17, 18: // echo, timestamp, information, address mask
		return false
	}
	return true
}

// isICMP6Error is the same for ICMPv6, where the upper half of the types are
// informational (RFC 4443 §2.1), redirects among them. A later fragment doesn't
// say what it is of; no error is long enough to need one.
func (f *Frame) isICMP6Error() bool {
	v := &f.View
	if v.Proto != ProtoICMPv6 || v.Is(ViewFragLater) {
		return false
	}
	typ := v.SrcPort >> 8
	return typ < 128 || typ == NDRedirect
}

// answersGroup is the exception of RFC 4443 §2.4 e.3 for packets to a group. The
// two upper bits of an option type say what becomes of those who don't know it
// (RFC 8200 §4.2): 10 is an error in any case, 11 not to a group.
func (f *Frame) answersGroup(e ICMPError) bool {
	if e.Type == ICMP6TooBig {
		return true
	}
	if e.Type != ICMP6ParamProblem || e.Code != ICMP6UnknownOption {
		return false
	}
	at := uint64(f.View.L3) + uint64(e.Info)
	return at < uint64(f.View.End) && f.Bytes()[at]>>6 == 0b10
}
