// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"net/netip"
)

// Types of ICMP errors, RFC 792.
const (
	ICMPUnreach      = 3
	ICMPRedirect     = 5
	ICMPTimeExceeded = 11
	ICMPParamProblem = 12
)

// Codes of ICMPUnreach, RFC 792 and RFC 1812 §5.2.7.1.
const (
	ICMPNetUnreach   = 0
	ICMPHostUnreach  = 1
	ICMPProtoUnreach = 2
	ICMPPortUnreach  = 3
	ICMPFragNeeded   = 4
	ICMPSourceRoute  = 5
	ICMPNetProhib    = 9
	ICMPHostProhib   = 10
	ICMPAdminProhib  = 13
)

// Codes of ICMPRedirect.
const (
	ICMPRedirectNet  = 0
	ICMPRedirectHost = 1
)

// Codes of time exceeded, of both families.
const (
	ICMPExceededTTL  = 0
	ICMPExceededFrag = 1
)

// Types of ICMPv6 errors, RFC 4443 §3.
const (
	ICMP6Unreach      = 1
	ICMP6TooBig       = 2
	ICMP6TimeExceeded = 3
	ICMP6ParamProblem = 4
)

// Codes of ICMP6Unreach.
const (
	ICMP6NoRoute     = 0
	ICMP6Prohibited  = 1
	ICMP6BeyondScope = 2
	ICMP6AddrUnreach = 3
	ICMP6PortUnreach = 4
	ICMP6PolicyFail  = 5
	ICMP6RejectRoute = 6
)

// ICMP6UnknownOption is the code of ICMP6ParamProblem for an option at the
// pointer that isn't known.
const ICMP6UnknownOption = 2

const (
	// icmpQuote4 is the longest ICMP error, RFC 1812 §4.3.2.3: what every host takes.
	icmpQuote4 = 576
	// icmpQuote6 is the longest ICMPv6 error, RFC 4443 §2.4 c: the least MTU of IPv6.
	icmpQuote6 = 1280

	icmpTTL       = 64   // net.ipv4.ip_default_ttl, net.ipv6.conf.*.hop_limit
	tosControl    = 0xc0 // precedence "internetwork control", RFC 1812 §4.3.2.5
	tosMask       = 0x1e // what an error keeps of the packet's, as the kernel's RT_TOS
	redirectLimit = 255  // hop limit of neighbour discovery, RFC 4861 §8.1
)

// ICMPError is the error to report: of ICMP or ICMPv6, as the packet is.
type ICMPError struct {
	Type, Code uint8

	// Info is what stands in bytes 4 to 8 of the message, as a number: the MTU of
	// the next hop (ICMPFragNeeded, ICMP6TooBig), the pointer of ICMPv6, that of
	// ICMP in the upper byte, the gateway of ICMPRedirect. 0 for the others.
	Info uint32

	// ID is the identification of an IPv4 packet that carries the error, which
	// may be fragmented on its way. ICMPv6 has none.
	ID uint16

	// MTU is that of the way back, which an error of IPv4 fits into; 0, and all
	// from 576 on, is no bound. That of IPv6 is never below what an error may have.
	MTU int
}

// Redirect4 is the redirect to a gateway, an IPv4 address; the code is
// ICMPRedirectHost unless the sender is a museum piece.
func Redirect4(code uint8, gateway netip.Addr) ICMPError {
	a := gateway.As4()
	return ICMPError{Type: ICMPRedirect, Code: code, Info: binary.BigEndian.Uint32(a[:])}
}

// AppendICMP4 appends to dst an IPv4 packet from src, with which the sender of
// f's packet learns what became of it: RFC 792, RFC 1812 §4.3.2, byte for byte as
// the kernel's icmp_send makes it, but that the options which that echoes, record
// route and timestamp among them, are left out. It quotes as much of the packet as
// 576 bytes have room for, see appendQuote. dst comes back as it was if f or src is
// not IPv4.
//
// The TTL in the quote is f's. The kernel takes one from it before it redirects or
// misses a neighbour, and after it reports anything else.
//
// Whether an error may be sent is for MayAnswerWithICMP.
// Preconditions: f.View was parsed without fault.
func AppendICMP4(dst []byte, f *Frame, src netip.Addr, e ICMPError) []byte {
	v := &f.View
	if !v.Is(ViewIPv4) || !src.Is4() {
		return dst
	}
	begin, from, h := len(dst), src.As4(), f.Bytes()[v.L3:]
	room := icmpQuote4
	if e.MTU != 0 {
		room = max(IPv4MinLen+ICMPLen, min(room, e.MTU))
	}
	dst = append(dst, 0x45, h[1]&tosMask|tosControl, 0, 0, byte(e.ID>>8), byte(e.ID), 0, 0, icmpTTL, ProtoICMP, 0, 0)
	dst = append(dst, from[:]...)
	dst = append(dst, h[12:16]...)
	dst = append(dst, e.Type, e.Code, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, e.Info)
	dst = appendQuote(dst, f, room-IPv4MinLen-ICMPLen)

	b := dst[begin:]
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[ip4CsumOffset:], ^Sum(b[:IPv4MinLen], 0))
	m := b[IPv4MinLen:]
	binary.BigEndian.PutUint16(m[icmpCsumOffset:], ^Sum(m, 0))
	return dst
}

// AppendICMP6 appends to dst an IPv6 packet from src, with which the sender of
// f's packet learns what became of it: RFC 4443 §2.4, byte for byte as the
// kernel's icmp6_send makes it, with flow label 0. It quotes as much of the packet
// as 1280 bytes have room for, see appendQuote. dst comes back as it was if f or
// src is not IPv6.
//
// Whether an error may be sent is for MayAnswerWithICMP.
// Preconditions: f.View was parsed without fault.
func AppendICMP6(dst []byte, f *Frame, src netip.Addr, e ICMPError) []byte {
	if !f.View.Is(ViewIPv6) || !src.Is6() {
		return dst
	}
	begin := len(dst)
	dst = appendIPv6(dst, f, src, icmpTTL)
	dst = append(dst, e.Type, e.Code, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, e.Info)
	dst = appendQuote(dst, f, icmpQuote6-IPv6Len-ICMPLen)
	finishICMP6(dst[begin:])
	return dst
}

// AppendRedirect6 appends to dst an IPv6 packet with a redirect (RFC 4861 §4.5):
// the destination of f's packet is better reached by target, a router's
// link-local address, or itself if it is on the link. src is the link-local
// address of the router that says so, link the target's link-layer address, zero
// if it isn't known. The option of the redirected packet holds a multiple of 8
// bytes, 1280 in all, as the kernel's ndisc_send_redirect has it. dst comes back
// as it was if one of them is not IPv6.
// Preconditions: f.View was parsed without fault.
func AppendRedirect6(dst []byte, f *Frame, src, target netip.Addr, link MAC) []byte {
	const (
		fixed            = 40 // redirect before its options
		optHdr           = 8  // type, length, reserved
		optRedirectedPkt = 4
		unit             = 8 // of an option's length
	)
	v := &f.View
	if !v.Is(ViewIPv6) || !src.Is6() || !target.Is6() {
		return dst
	}
	begin, to, room := len(dst), target.As16(), icmpQuote6-IPv6Len-fixed-optHdr
	dst = appendIPv6(dst, f, src, redirectLimit)
	dst = append(dst, NDRedirect, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, to[:]...)
	dst = append(dst, f.Bytes()[v.L3+24:v.L3+40]...)
	if !link.IsZero() {
		dst = append(dst, optTargetLink, 1)
		dst = append(dst, link[:]...)
		room -= unit
	}
	option := len(dst)
	dst = append(dst, optRedirectedPkt, 0, 0, 0, 0, 0, 0, 0)
	dst = appendQuote(dst, f, room)
	n := (len(dst) - option) / unit
	dst = dst[:option+n*unit]
	dst[option+1] = byte(n)
	finishICMP6(dst[begin:])
	return dst
}

// appendIPv6 appends a header from src to the sender of f's packet. Its length
// is left to finishICMP6.
func appendIPv6(dst []byte, f *Frame, src netip.Addr, hopLimit uint8) []byte {
	from := src.As16()
	dst = append(dst, 0x60, 0, 0, 0, 0, 0, ProtoICMPv6, hopLimit)
	dst = append(dst, from[:]...)
	return append(dst, f.Bytes()[f.View.L3+8:f.View.L3+24]...)
}

// finishICMP6 gives the packet in b its length and checksum.
func finishICMP6(b []byte) {
	n := len(b) - IPv6Len
	binary.BigEndian.PutUint16(b[4:], uint16(n))
	v := View{L4: IPv6Len, Flags: ViewIPv6, Proto: ProtoICMPv6}
	sum := ^Sum(b[v.L4:], PseudoHeader(b, &v, n))
	binary.BigEndian.PutUint16(b[v.L4+icmpCsumOffset:], sum)
}
