// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"sluice/packet"
)

// entrance is the uplink stack's interface. It brings segments in by Deliver, as a
// worker does.
type entrance struct {
	stack.LinkEndpoint
	stack.NetworkDispatcher

	lab    *lab
	inline atomic.Int64 // segments that were handled by who brought them
	opens  atomic.Int64 // SYNs of the container
	// sent are copies of the packets that the stack sends, if it is not nil.
	sent chan []byte
}

// WritePackets sends what the stack has for the container.
func (e *entrance) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	if e.sent != nil {
		for _, pkt := range pkts.AsSlice() {
			v := pkt.ToView()
			e.sent <- v.ToSlice()
			v.Release()
		}
	}
	return e.LinkEndpoint.WritePackets(pkts)
}

// Attach puts the entrance before the stack.
func (e *entrance) Attach(d stack.NetworkDispatcher) {
	e.NetworkDispatcher = d
	if d == nil {
		e.LinkEndpoint.Attach(nil)
		return
	}
	e.LinkEndpoint.Attach(e)
}

// DeliverNetworkPacket takes what the container has sent.
func (e *entrance) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	id, opens := segmentOf(pkt)
	to, err := e.lab.proxy.Stack.GetNetworkEndpoint(1, proto)
	if opens {
		e.opens.Add(1)
		e.lab.proxy.Renew(id)
	}
	if id == nil || opens || err != nil {
		e.NetworkDispatcher.DeliverNetworkPacket(proto, pkt)
		return
	}
	pkt.RXChecksumValidated = true
	if e.lab.proxy.Deliver(to, pkt, id) {
		e.inline.Add(1)
	}
}

func segmentOf(pkt *stack.PacketBuffer) (id *stack.TransportEndpointID, opens bool) {
	b := pkt.Data().AsRange().ToSlice()
	var tcp header.TCP
	var src, dst tcpip.Address
	switch {
	case header.IPVersion(b) == 4 && header.IPv4(b).Protocol() == packet.ProtoTCP:
		tcp, src, dst = header.IPv4(b).Payload(), header.IPv4(b).SourceAddress(), header.IPv4(b).DestinationAddress()
	case header.IPVersion(b) == 6 && header.IPv6(b).NextHeader() == packet.ProtoTCP:
		tcp, src, dst = header.IPv6(b).Payload(), header.IPv6(b).SourceAddress(), header.IPv6(b).DestinationAddress()
	default:
		return nil, false
	}
	opens = tcp.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) == header.TCPFlagSyn
	return &stack.TransportEndpointID{LocalAddress: dst, LocalPort: tcp.DestinationPort(), RemoteAddress: src, RemotePort: tcp.SourcePort()}, opens
}
