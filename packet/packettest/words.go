// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

// Packet says of a frame what the test cares about. Zero fields take the
// defaults of the layers: 10.44.0.10:40000 to 10.44.0.11:80, fd44::a to fd44::b.
type Packet struct {
	SrcMAC, DstMAC   packet.MAC
	Tags             []VLANTag // outer first
	Src, Dst         netip.Addr
	TTL              uint8 // or hop limit
	SrcPort, DstPort uint16
	Seq, Ack         uint32 // TCP; a ping's sequence number is the lower half of Seq
	Flags            uint8  // TCP; 0 stands for ACK
	ID               uint16 // of IPv4, or of a ping
	Payload          []byte
}

// TCP4 is a TCP segment in IPv4.
func TCP4(p Packet) []byte { return p.build(p.ipv4(), p.tcp()) }

// TCP6 is a TCP segment in IPv6.
func TCP6(p Packet) []byte { return p.build(p.ipv6(), p.tcp()) }

// UDP4 is a UDP datagram in IPv4.
func UDP4(p Packet) []byte { return p.build(p.ipv4(), p.udp()) }

// UDP6 is a UDP datagram in IPv6.
func UDP6(p Packet) []byte { return p.build(p.ipv6(), p.udp()) }

// SCTP4 is an SCTP packet in IPv4.
func SCTP4(p Packet) []byte {
	return p.build(p.ipv4(), SCTPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort, Tag: p.Seq})
}

// SCTP6 is an SCTP packet in IPv6.
func SCTP6(p Packet) []byte {
	return p.build(p.ipv6(), SCTPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort, Tag: p.Seq})
}

// Ping4 is an echo request of ICMP.
func Ping4(p Packet) []byte {
	return p.build(p.ipv4(), ICMPHdr{Type: 8, ID: p.ID, Seq: uint16(p.Seq)})
}

// Ping6 is an echo request of ICMPv6.
func Ping6(p Packet) []byte {
	return p.build(p.ipv6(), ICMPHdr{V6: true, Type: 128, ID: p.ID, Seq: uint16(p.Seq)})
}

// ARPRequest asks every station who has Dst; without DstMAC to broadcast.
func ARPRequest(p Packet) []byte {
	p.DstMAC = or(p.DstMAC, packet.Broadcast())
	return p.build(ARPMsg{SenderMAC: p.SrcMAC, SenderIP: p.Src, TargetIP: p.Dst}, nil)
}

// ARPReply tells DstMAC, which has Dst, that Src is at SrcMAC.
func ARPReply(p Packet) []byte {
	return p.build(ARPMsg{
		Op: 2, SenderMAC: p.SrcMAC, SenderIP: p.Src, TargetMAC: or(p.DstMAC, defaultDstMAC()), TargetIP: p.Dst,
	}, nil)
}

func (p Packet) build(l3, l4 Layer) []byte {
	layers := []Layer{EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC}}
	for _, t := range p.Tags {
		layers = append(layers, t)
	}
	layers = append(layers, l3)
	if l4 != nil {
		layers = append(layers, l4)
	}
	return Build(append(layers, Payload(p.Payload))...)
}

func (p Packet) ipv4() Layer {
	return IPv4Hdr{Src: p.Src, Dst: p.Dst, TTL: p.TTL, ID: p.ID}
}

func (p Packet) ipv6() Layer {
	return IPv6Hdr{Src: p.Src, Dst: p.Dst, HopLimit: p.TTL}
}

func (p Packet) tcp() Layer {
	return TCPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort, Seq: p.Seq, Ack: p.Ack, Flags: or(p.Flags, ACK)}
}

func (p Packet) udp() Layer {
	return UDPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort}
}

// NewFrame is an empty frame with a buffer of its own.
func NewFrame() *packet.Frame {
	f := new(packet.Frame)
	f.SetBuf(make([]byte, packet.BufLen))
	return f
}

// Frame is b as a received frame with an empty vnet header, in a buffer of its
// own, and parsed; a fault shows in View only. It panics if b is longer than
// the buffer.
func Frame(b []byte) *packet.Frame {
	f := NewFrame()
	f.Reset(packet.Headroom, len(b))
	copy(f.Bytes(), b)
	f.View.Parse(f.Bytes())
	return f
}

// Partial is b, a TCP, UDP or SCTP frame, with a partial checksum as a kernel
// leaves it to the device.
func Partial(b []byte) *packet.Frame {
	f := Frame(b)
	v := &f.View
	off := map[uint8]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6, packet.ProtoSCTP: 8}[v.Proto]
	if !v.Is(packet.ViewHasL4) || off == 0 {
		panic("packettest: only TCP, UDP and SCTP have partial checksums")
	}
	field := f.Bytes()[v.L4+off:]
	if v.Proto == packet.ProtoSCTP {
		binary.BigEndian.PutUint32(field, 0)
	} else {
		binary.BigEndian.PutUint16(field, pseudoSum(f.Bytes(), v))
	}
	f.Vnet = packet.Vnet{
		Flags: packet.FlagNeedsCsum, HdrLen: uint16(v.L4 + off + 2),
		CsumStart: uint16(v.L4), CsumOffset: uint16(off),
	}
	return f
}

// GSO is b, a TCP or UDP frame, as a segmentation-offload frame with segments of
// size payload bytes.
func GSO(b []byte, size int) *packet.Frame {
	f := Partial(b)
	f.Vnet.GSOSize = uint16(size)
	switch {
	case f.View.Proto == packet.ProtoUDP:
		f.Vnet.GSOType = packet.GSOUDPL4
	case f.View.Is(packet.ViewIPv6):
		f.Vnet.GSOType = packet.GSOTCP6
	default:
		f.Vnet.GSOType = packet.GSOTCP4
	}
	return f
}

// pseudoSum is the slow twin of packet.PseudoHeader.
func pseudoSum(b []byte, v *packet.View) uint16 {
	addrs := b[v.L3+12 : v.L3+20]
	if v.Is(packet.ViewIPv6) {
		addrs = b[v.L3+8 : v.L3+40]
	}
	n := v.End - v.L4
	return slowSum(addrs, slowSum([]byte{0, v.Proto, byte(n >> 8), byte(n)}, 0))
}
