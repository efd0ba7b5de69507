// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

// Bits of a TCP header, RFC 9293 §3.1.
const (
	tcpRST = 0x04
	tcpACK = 0x10
)

// AppendReset appends to dst an IP packet that refuses the TCP segment in f, from its
// destination to its source: RFC 9293 §3.10.7.1, as the kernel's nf_send_reset makes
// it. dst comes back as it was if f is not TCP with its header, or a reset itself.
// Preconditions: f.View was parsed without fault.
func AppendReset(dst []byte, f *Frame) []byte {
	v := &f.View
	if v.Proto != ProtoTCP || !v.Is(ViewHasL4) || v.Is(ViewFrag) {
		return dst
	}
	h := f.Bytes()[v.L4:v.End]
	flags := h[13]
	if flags&tcpRST != 0 {
		return dst
	}
	at := len(dst)
	dst = appendAnswerIP(dst, f)
	l4 := len(dst)
	dst = append(dst, h[2], h[3], h[0], h[1])
	seq, ack, answer := uint32(0), uint32(0), uint8(tcpRST)
	if flags&tcpACK != 0 {
		seq = binary.BigEndian.Uint32(h[8:])
	} else {
		n := uint32(len(h) - int(h[12]>>4)*4)
		n += uint32(flags&tcpSYN/tcpSYN) + uint32(flags&tcpFIN)
		ack, answer = binary.BigEndian.Uint32(h[4:])+n, tcpRST|tcpACK
	}
	dst = binary.BigEndian.AppendUint32(dst, seq)
	dst = binary.BigEndian.AppendUint32(dst, ack)
	dst = append(dst, TCPMinLen/4<<4, answer, 0, 0, 0, 0, 0, 0)
	made := View{L4: l4 - at, End: len(dst) - at, Proto: ProtoTCP, Flags: v.Flags & ViewIP}
	b := dst[at:]
	binary.BigEndian.PutUint16(b[made.L4+tcpCsumOffset:], ^Sum(b[made.L4:], PseudoHeader(b, &made, TCPMinLen)))
	return dst
}

// appendAnswerIP appends an IP header back to the packet's source, for TCP without
// options.
func appendAnswerIP(dst []byte, f *Frame) []byte {
	h := f.Bytes()[f.View.L3:]
	if f.View.Is(ViewIPv6) {
		dst = append(dst, 0x60, 0, 0, 0, 0, TCPMinLen, ProtoTCP, icmpTTL)
		dst = append(dst, h[24:40]...)
		return append(dst, h[8:24]...)
	}
	at := len(dst)
	dst = append(dst, 0x45, 0, 0, IPv4MinLen+TCPMinLen, 0, 0, ip4DF>>8, 0, icmpTTL, ProtoTCP, 0, 0)
	dst = append(dst, h[16:20]...)
	dst = append(dst, h[12:16]...)
	b := dst[at:]
	binary.BigEndian.PutUint16(b[ip4CsumOffset:], ^Sum(b, 0))
	return dst
}

// IsReset reports whether f is a segment with RST. Preconditions: f.View was parsed
// without fault.
func IsReset(f *Frame) bool {
	v := &f.View
	return v.Proto == ProtoTCP && v.Is(ViewHasL4) && f.Bytes()[v.L4+13]&tcpRST != 0
}
