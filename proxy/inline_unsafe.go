// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Theory of operation.
//
// The stack puts a segment into the queue of its endpoint and wakes a goroutine for
// it, and to wake another thread takes longer than all the rest of a packet's way. It
// wakes nobody for an endpoint that is locked by a user of it, who has it looked after
// what was queued meanwhile. So who delivers a segment is such a user, and then does
// what the goroutine would do (gVisor's transport/tcp/dispatcher.go:handleConnected).
// The functions for that are gVisor's, but not exported. Their names are checked by the
// linker, and what they do by the tests of this package.
//
// A SYN, and what is not established, is left to the goroutine.

//go:linkname handleSegments gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).handleSegmentsLocked
func handleSegments(ep *tcp.Endpoint) tcpip.Error

//go:linkname resetConnection gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).resetConnectionLocked
func resetConnection(ep *tcp.Endpoint, err tcpip.Error)

//go:linkname startTimeWait gvisor.dev/gvisor/pkg/tcpip/transport/tcp.startTimeWait
func startTimeWait(ep *tcp.Endpoint)

// Deliver gives a packet to the stack, by the entrance of its protocol. id is that of a
// segment of TCP; nil: it is none, or a SYN. It reports whether all is done that there
// is to do; else a goroutine of the stack's was woken.
func (p *Proxy) Deliver(to stack.NetworkEndpoint, pkt *stack.PacketBuffer, id *stack.TransportEndpointID) (done bool) {
	c := p.established(id)
	if c == nil {
		to.HandlePacket(pkt)
		return false
	}
	ep, ok := (*c.shown.Load()).(*tcp.Endpoint)
	if !ok {
		to.HandlePacket(pkt)
		return false
	}
	ep.LockUser()
	to.HandlePacket(pkt)
	over := digest(ep)
	ep.UnlockUser() // wakes the goroutine for what is left
	if over {
		c.wq.Notify(waiter.EventHUp | waiter.EventErr | waiter.ReadableEvents | waiter.WritableEvents)
	}
	return true
}

// established is the connection of a segment, if its endpoint has begun its work.
func (p *Proxy) established(id *stack.TransportEndpointID) *conn {
	if id == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[*id]
	if c == nil || c.shown.Load() == nil {
		return nil
	}
	return c
}

// digest handles what was queued. It reports whether that was the endpoint's end.
// Preconditions: the caller is the endpoint's user.
func digest(ep *tcp.Endpoint) (over bool) {
	switch ep.EndpointState() {
	case tcp.StateEstablished, tcp.StateFinWait1, tcp.StateFinWait2, tcp.StateCloseWait, tcp.StateLastAck, tcp.StateClosing:
	default:
		return false
	}
	if err := handleSegments(ep); err != nil {
		resetConnection(ep, err)
		return true
	}
	switch ep.EndpointState() {
	case tcp.StateClose:
		return true
	case tcp.StateTimeWait:
		startTimeWait(ep)
	}
	return false
}
