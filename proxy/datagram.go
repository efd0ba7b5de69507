// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"sluice/dial"
)

// handleUDP is the stack's handler of datagrams.
func (p *Proxy) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.UDP(pkt.TransportHeader().Slice())
	if len(h) < header.UDPMinimumSize || int(h.Length()) < header.UDPMinimumSize {
		return true
	}
	n := int(h.Length()) - header.UDPMinimumSize
	if n > pkt.Data().Size() || !pkt.RXChecksumValidated && !validUDP(h, pkt) {
		return true
	}
	k := flowKey{dial.UDP, addrPort(id.RemoteAddress, id.RemotePort), addrPort(id.LocalAddress, id.LocalPort)}
	if f := p.flowOf(k, &id, pkt); f != nil {
		f.sendAll(pkt, nil, n)
	}
	return true
}

// validUDP is for datagrams that nobody has summed yet: those that were fragmented.
func validUDP(h header.UDP, pkt *stack.PacketBuffer) bool {
	if h.Checksum() == 0 && pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		return true
	}
	net := pkt.Network()
	return h.IsChecksumValid(net.SourceAddress(), net.DestinationAddress(), pkt.Data().Checksum())
}

// sendAll sends a header and the first n bytes of a packet's data as one message.
func (f *flow) sendAll(pkt *stack.PacketBuffer, head []byte, n int) {
	b := f.proxy.buffers.Get().(*message) //nolint:forcetypeassert // it is our pool
	defer f.proxy.buffers.Put(b)
	done := copy(b[:], head)
	views, skip := pkt.AsViewList()
	skip += pkt.HeaderSize()
	for v := views.Front(); v != nil && n > 0; v = v.Next() {
		s := v.AsSlice()
		k := min(skip, len(s))
		skip -= k
		k = copy(b[done:], s[k:min(len(s), k+n)])
		done, n = done+k, n-k
	}
	f.send(pkt, b[:done])
}

// datagram sends one of UDP to the container. Its sum is left to whoever receives it,
// unless it is to be fragmented.
func (f *flow) datagram(b []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(f.route.MaxHeaderLength()), Payload: buffer.MakeWithData(b),
	})
	defer pkt.DecRef()
	h := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	length := uint16(len(h) + len(b))
	h.Encode(&header.UDPFields{SrcPort: f.id.LocalPort, DstPort: f.id.RemotePort, Length: length})
	pkt.TransportProtocolNumber = udp.ProtocolNumber
	sum := f.route.PseudoHeaderChecksum(udp.ProtocolNumber, length)
	if f.proxy.Partial && int(length) <= int(f.route.MTU()) {
		h.SetChecksum(sum)
		pkt.GSOOptions = stack.GSO{Type: stack.GSOGvisor, NeedsCsum: true, CsumOffset: 6, MSS: 0xffff, L3HdrLen: f.ipHeader()}
	} else {
		h.SetChecksum(notZero(^h.CalculateChecksum(checksum.Checksum(b, sum))))
	}
	f.deliver(pkt)
}

// notZero is what is written for a sum of 0, which means that there is none.
func notZero(sum uint16) uint16 {
	if sum == 0 {
		return 0xffff
	}
	return sum
}

func (f *flow) ipHeader() uint16 {
	if f.ipv6() {
		return header.IPv6MinimumSize
	}
	return header.IPv4MinimumSize
}

// deliver sends a packet to the container. What there is no room for is lost, as in any
// network.
func (f *flow) deliver(pkt *stack.PacketBuffer) {
	_ = f.route.WritePacket(stack.NetworkHeaderParams{
		Protocol: pkt.TransportProtocolNumber, TTL: f.route.DefaultTTL(), TOS: stack.DefaultTOS,
	}, pkt)
}
