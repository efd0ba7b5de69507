// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"hash/crc32"

	"sluice/packet"
)

// Bits of TCPHdr.Flags, RFC 9293 §3.1 and RFC 3168 §6.1.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// slowSum is the checksum as RFC 1071 §1 tells it, two bytes at a time and
// nothing clever. It is the twin of packet.Sum and must not become it.
func slowSum(b []byte, initial uint16) uint16 {
	sum := uint32(initial)
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// l4Sum is the checksum of p under the pseudo-header of up; without it, if there
// is no IP layer.
func l4Sum(up ipLayer, proto uint8, p []byte) uint16 {
	if up == nil {
		return ^slowSum(p, 0)
	}
	return ^slowSum(p, up.pseudo(proto, len(p)))
}

// TCPHdr is a TCP header. Ports 0 stand for 40000 to 80, Window 0 for 65535.
type TCPHdr struct {
	SrcPort, DstPort uint16
	Seq, Ack         uint32
	Flags            uint8
	Window, Urgent   uint16
	Options          []byte // padded to a multiple of 4 with zeros, at most 40
	DataOffset       *uint8 // in units of 4 bytes
	Checksum         *uint16
}

func (TCPHdr) id() (uint16, uint8) { return 0, packet.ProtoTCP }

func (h TCPHdr) wrap(up ipLayer, _ Layer, body []byte) []byte {
	b := make([]byte, packet.TCPMinLen+(len(h.Options)+3)&^3)
	copy(b[packet.TCPMinLen:], h.Options)
	putPorts(b, h.SrcPort, h.DstPort)
	binary.BigEndian.PutUint32(b[4:], h.Seq)
	binary.BigEndian.PutUint32(b[8:], h.Ack)
	b[12], b[13] = orElse(h.DataOffset, uint8(len(b)/4))<<4, h.Flags
	binary.BigEndian.PutUint16(b[14:], or(h.Window, 0xffff))
	binary.BigEndian.PutUint16(b[18:], h.Urgent)
	b = append(b, body...)
	binary.BigEndian.PutUint16(b[16:], orElse(h.Checksum, l4Sum(up, packet.ProtoTCP, b)))
	return b
}

func putPorts(b []byte, src, dst uint16) {
	binary.BigEndian.PutUint16(b, or(src, 40000))
	binary.BigEndian.PutUint16(b[2:], or(dst, 80))
}

// UDPHdr is a UDP header. Ports 0 stand for 40000 to 80.
type UDPHdr struct {
	SrcPort, DstPort uint16
	Len              *uint16
	Checksum         *uint16
}

func (UDPHdr) id() (uint16, uint8) { return 0, packet.ProtoUDP }

func (h UDPHdr) wrap(up ipLayer, _ Layer, body []byte) []byte {
	b := make([]byte, packet.UDPLen)
	putPorts(b, h.SrcPort, h.DstPort)
	binary.BigEndian.PutUint16(b[4:], orElse(h.Len, uint16(len(b)+len(body))))
	b = append(b, body...)
	sum := or(l4Sum(up, packet.ProtoUDP, b), 0xffff)
	binary.BigEndian.PutUint16(b[6:], orElse(h.Checksum, sum))
	return b
}

// SCTPHdr is an SCTP common header. Ports 0 stand for 40000 to 80. Chunks are
// the payload.
type SCTPHdr struct {
	SrcPort, DstPort uint16
	Tag              uint32
	Checksum         *uint32
}

func (SCTPHdr) id() (uint16, uint8) { return 0, packet.ProtoSCTP }

func (h SCTPHdr) wrap(_ ipLayer, _ Layer, body []byte) []byte {
	b := make([]byte, packet.SCTPLen)
	putPorts(b, h.SrcPort, h.DstPort)
	binary.BigEndian.PutUint32(b[4:], h.Tag)
	b = append(b, body...)
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(b[8:], orElse(h.Checksum, sum))
	return b
}

// ICMPHdr is an ICMP header, or ICMPv6 if V6 is set. Zero is an echo reply of
// ICMP; the words Ping4 and Ping6 make echo requests.
type ICMPHdr struct {
	V6         bool
	Type, Code uint8
	ID, Seq    uint16 // bytes 4 to 8, whatever the type has there
	Checksum   *uint16
}

func (h ICMPHdr) id() (uint16, uint8) {
	if h.V6 {
		return 0, packet.ProtoICMPv6
	}
	return 0, packet.ProtoICMP
}

func (h ICMPHdr) wrap(up ipLayer, _ Layer, body []byte) []byte {
	b := make([]byte, packet.ICMPLen)
	b[0], b[1] = h.Type, h.Code
	binary.BigEndian.PutUint16(b[4:], h.ID)
	binary.BigEndian.PutUint16(b[6:], h.Seq)
	b = append(b, body...)
	if !h.V6 {
		up = nil // the checksum of ICMP has no pseudo-header
	}
	sum := l4Sum(up, packet.ProtoICMPv6, b)
	binary.BigEndian.PutUint16(b[2:], orElse(h.Checksum, sum))
	return b
}
