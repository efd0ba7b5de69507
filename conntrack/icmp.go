// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

// Types of ICMP (RFC 792, RFC 950) and ICMPv6 (RFC 4443, RFC 4620, RFC 4861).
const (
	icmpEchoReply      = 0
	icmpUnreachable    = 3
	icmpSourceQuench   = 4
	icmpRedirect       = 5
	icmpEcho           = 8
	icmpTimeExceeded   = 11
	icmpParameter      = 12
	icmpTimestamp      = 13
	icmpTimestampReply = 14
	icmpInfo           = 15
	icmpInfoReply      = 16
	icmpMask           = 17
	icmpMaskReply      = 18

	icmp6Error       = 127 // and below
	icmp6Echo        = 128
	icmp6EchoReply   = 129
	icmp6Query       = 130 // MLD, to 132
	icmp6Reduction   = 132
	icmp6RouterSol   = 133 // neighbour discovery, to 136
	icmp6NeighborAdv = 136
	icmp6Redirect    = 137
	icmp6NodeQuery   = 139
	icmp6NodeReply   = 140
	icmp6Report2     = 143 // MLDv2
)

// answerTo is the type of the message that answers one of typ. False if nobody
// answers such.
func answerTo(proto, typ uint8) (uint8, bool) {
	if proto == packet.ProtoICMPv6 {
		switch typ {
		case icmp6Echo, icmp6NodeQuery:
			return typ + 1, true
		case icmp6EchoReply, icmp6NodeReply:
			return typ - 1, true
		}
		return 0, false
	}
	switch typ {
	case icmpEcho:
		return icmpEchoReply, true
	case icmpEchoReply:
		return icmpEcho, true
	case icmpTimestamp, icmpInfo, icmpMask:
		return typ + 1, true
	case icmpTimestampReply, icmpInfoReply, icmpMaskReply:
		return typ - 1, true
	}
	return 0, false
}

// mayBegin reports whether a query of the type begins a connection: a question
// does, an answer does not.
func mayBegin(proto, typ uint8) bool {
	if proto == packet.ProtoICMPv6 {
		return typ == icmp6Echo || typ == icmp6NodeQuery
	}
	return typ == icmpEcho || typ == icmpTimestamp || typ == icmpInfo || typ == icmpMask
}

// isError reports whether an ICMP message of the type is about another packet,
// which it quotes.
func isError(proto, typ uint8) bool {
	if proto == packet.ProtoICMPv6 {
		return typ <= icmp6Error || typ == icmp6Redirect
	}
	switch typ {
	case icmpUnreachable, icmpSourceQuench, icmpRedirect, icmpTimeExceeded, icmpParameter:
		return true
	}
	return false
}

// isUntracked reports whether an ICMPv6 message is of a link and not of a
// connection: neighbour discovery and multicast listeners.
func isUntracked(typ uint8) bool {
	return typ >= icmp6Query && typ <= icmp6NeighborAdv || typ == icmp6Report2
}

// isICMP reports whether v is a whole ICMP message of its own family.
func isICMP(v *packet.View) bool {
	return v.Is(packet.ViewHasL4) && (v.Proto == packet.ProtoICMP || v.Proto == packet.ProtoICMPv6)
}

// Quote is the packet that an ICMP error quotes, as far as it does. Offsets count
// from the beginning of the frame.
type Quote struct {
	Tuple Tuple
	L3    int // its IP header
	L4    int // its upper-layer header, of which at least the ports are there
	End   int // end of what is quoted
}

// Quoted finds the packet that the ICMP or ICMPv6 error, or redirect, in f
// quotes. False if f is none, or quotes too little, or a fragment without ports.
// Preconditions: f.View was parsed without fault.
func Quoted(f *packet.Frame) (Quote, bool) {
	v := &f.View
	if !isICMP(v) || !isError(v.Proto, uint8(v.SrcPort>>8)) {
		return Quote{}, false
	}
	b := f.Bytes()[:v.End]
	at := v.L4 + packet.ICMPLen
	if v.Proto == packet.ProtoICMPv6 && v.SrcPort>>8 == icmp6Redirect {
		at = redirected(b, v.L4)
	}
	if at == 0 || at >= len(b) {
		return Quote{}, false
	}
	q := Quote{L3: at, End: len(b)}
	if v.Is(packet.ViewIPv4) {
		return q, q.read4(b)
	}
	return q, q.read6(b)
}

// redirected is the place of the packet in the redirected header option (RFC
// 4861 §4.6.3) of the redirect at l4, 0 if there is none.
func redirected(b []byte, l4 int) int {
	const fixed, option, header = 40, 4, 8
	for at := l4 + fixed; at+header <= len(b); {
		n := int(b[at+1]) * 8
		switch {
		case n == 0 || at+n > len(b):
			return 0
		case b[at] == option:
			return at + header
		}
		at += n
	}
	return 0
}

func (q *Quote) read4(b []byte) bool {
	h := b[q.L3:]
	if len(h) < packet.IPv4MinLen { // its version is not asked: it is that of what quotes it
		return false
	}
	n := int(h[0]&0xf) * 4
	later := binary.BigEndian.Uint16(h[6:])&0x1fff != 0
	if n < packet.IPv4MinLen || n > len(h) || later {
		return false
	}
	q.L4 = q.L3 + n
	q.Tuple = Tuple{Src: netip.AddrFrom4([4]byte(h[12:])), Dst: netip.AddrFrom4([4]byte(h[16:])), Proto: h[9]}
	return q.readPorts(b)
}

func (q *Quote) read6(b []byte) bool {
	h := b[q.L3:]
	if len(h) < packet.IPv6Len {
		return false
	}
	q.Tuple = Tuple{Src: netip.AddrFrom16([16]byte(h[8:])), Dst: netip.AddrFrom16([16]byte(h[24:]))}
	proto, at := h[6], q.L3+packet.IPv6Len
	const maxExtHdrs = 8 // as View.Parse
	for range maxExtHdrs + 1 {
		n := extHdrLen(proto, b[at:])
		switch {
		case n == 0:
			q.L4, q.Tuple.Proto = at, proto
			return q.readPorts(b)
		case n < 0:
			return false
		}
		proto, at = b[at], at+n
	}
	return false
}

// extHdrLen is the length of the extension header with which h begins: 0 if
// proto is none, -1 if it is cut short or of a fragment that is not the first.
func extHdrLen(proto uint8, h []byte) int {
	switch proto {
	case packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestOpts, packet.ProtoFragment, packet.ProtoAH:
	default:
		return 0
	}
	if len(h) < 8 {
		return -1
	}
	n := (int(h[1]) + 1) * 8
	switch proto {
	case packet.ProtoFragment:
		n = 8
		if binary.BigEndian.Uint16(h[2:])&^7 != 0 {
			return -1
		}
	case packet.ProtoAH:
		n = (int(h[1]) + 2) * 4
	}
	if n > len(h) {
		return -1
	}
	return n
}

// readPorts reads what the tuple says beside addresses and protocol. False if
// that is not quoted.
func (q *Quote) readPorts(b []byte) bool {
	h := b[q.L4:]
	switch q.Tuple.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		if len(h) < 4 {
			return false
		}
		q.Tuple.SrcPort, q.Tuple.DstPort = binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if len(h) < packet.ICMPLen {
			return false
		}
		q.Tuple.SrcPort, q.Tuple.DstPort = binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h)
	}
	return true
}
