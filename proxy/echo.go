// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"

	"sluice/dial"
)

// echoHeader is the header of an echo message of both families (RFC 792, RFC 4443
// §4.1): type, code, checksum, identifier, sequence number.
const echoHeader = 8

// handleEcho4 is the stack's handler of ICMP: of echo requests, others are not shown to
// it or mean nothing here.
func (p *Proxy) handleEcho4(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.ICMPv4(pkt.TransportHeader().Slice())
	if len(h) < echoHeader || h.Type() != header.ICMPv4Echo {
		return true
	}
	p.echo(dial.Echo4, id, pkt, h.Ident())
	return true
}

// handleEcho6 is the same of ICMPv6.
func (p *Proxy) handleEcho6(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.ICMPv6(pkt.TransportHeader().Slice())
	if len(h) < echoHeader || h.Type() != header.ICMPv6EchoRequest {
		return true
	}
	p.echo(dial.Echo6, id, pkt, h.Ident())
	return true
}

func (p *Proxy) echo(proto uint8, id stack.TransportEndpointID, pkt *stack.PacketBuffer, ident uint16) {
	id.LocalPort, id.RemotePort = 0, ident
	k := flowKey{proto, addrPort(id.RemoteAddress, ident), addrPort(id.LocalAddress, 0)}
	f := p.flowOf(k, &id, pkt)
	if f == nil {
		return
	}
	head := make([]byte, echoHeader)
	copy(head, pkt.TransportHeader().Slice())
	// A ping socket sums it, and puts an identifier of its own in. A raw one of IPv4
	// does neither.
	binary.BigEndian.PutUint16(head[2:], 0)
	sum := checksum.Checksum(head, pkt.Data().Checksum())
	binary.BigEndian.PutUint16(head[2:], ^sum)
	f.sendAll(pkt, head, pkt.Data().Size())
}

// echoReply sends an answer to the container, if it is one.
func (f *flow) echoReply(b []byte) {
	want := byte(header.ICMPv4EchoReply)
	if f.ipv6() {
		want = byte(header.ICMPv6EchoReply)
	} else if f.isRaw && len(b) > 0 { // with the IP header
		b = b[min(len(b), int(b[0]&0xf)*4):]
	}
	if len(b) < echoHeader || b[0] != want || f.isRaw && binary.BigEndian.Uint16(b[4:]) != f.id.RemotePort {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: echoHeader + int(f.route.MaxHeaderLength()), Payload: buffer.MakeWithData(b[echoHeader:]),
	})
	defer pkt.DecRef()
	h := pkt.TransportHeader().Push(echoHeader)
	copy(h, b)
	binary.BigEndian.PutUint16(h[2:], 0)
	binary.BigEndian.PutUint16(h[4:], f.id.RemotePort)
	sum := checksum.Checksum(h, pkt.Data().Checksum())
	pkt.TransportProtocolNumber = icmp.ProtocolNumber4
	if f.ipv6() {
		pkt.TransportProtocolNumber = icmp.ProtocolNumber6
		sum = checksum.Combine(sum, f.route.PseudoHeaderChecksum(icmp.ProtocolNumber6, uint16(echoHeader+pkt.Data().Size())))
	}
	binary.BigEndian.PutUint16(h[2:], ^sum)
	f.deliver(pkt)
}
