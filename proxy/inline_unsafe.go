// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
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
// A handshake is begun and ended by the same means: the stack's own forwarder has a
// goroutine for each, which waits for the container's answer. What it does is done here
// when there is something to do. Only what a container sends twice, and the handshakes of
// connections that began outside, are left to the stack's goroutines.

//go:linkname handleSegments gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).handleSegmentsLocked
func handleSegments(ep *tcp.Endpoint) tcpip.Error

//go:linkname handleSegment gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).handleSegmentLocked
func handleSegment(ep *tcp.Endpoint, s *segment) (more bool, err tcpip.Error)

//go:linkname resetConnection gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).resetConnectionLocked
func resetConnection(ep *tcp.Endpoint, err tcpip.Error)

//go:linkname drainSegments gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).drainClosingSegmentQueue
func drainSegments(ep *tcp.Endpoint)

//go:linkname endTimeWait gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).timeWaitTimerExpired
func endTimeWait(ep *tcp.Endpoint)

//go:linkname startTimeWait gvisor.dev/gvisor/pkg/tcpip/transport/tcp.startTimeWait
func startTimeWait(ep *tcp.Endpoint)

// What is the stack's own, and never looked into here.
type (
	segment       struct{ _ byte }
	tcpProtocol   struct{ _ byte }
	listenContext struct{ _ byte }
	handshake     struct{ _ byte }
)

//go:linkname newSegment gvisor.dev/gvisor/pkg/tcpip/transport/tcp.newIncomingSegment
func newSegment(id stack.TransportEndpointID, clock tcpip.Clock, pkt *stack.PacketBuffer) (*segment, error)

// recvQ says that a segment's memory is that of the receive buffer.
const recvQ uint8 = 2

//go:linkname setOwner gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*segment).setOwner
func setOwner(s *segment, ep *tcp.Endpoint, queue uint8)

//go:linkname receiveMemUsed gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).receiveMemUsed
func receiveMemUsed(ep *tcp.Endpoint) int

//go:linkname releaseSegment gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*segment).DecRef
func releaseSegment(s *segment)

//go:linkname synOptions gvisor.dev/gvisor/pkg/tcpip/transport/tcp.parseSynSegmentOptions
func synOptions(s *segment) header.TCPSynOptions

//go:linkname protocolOf gvisor.dev/gvisor/pkg/tcpip/transport/tcp.protocolFromStack
func protocolOf(s *stack.Stack) *tcpProtocol

//go:linkname newListenContext gvisor.dev/gvisor/pkg/tcpip/transport/tcp.newListenContext
func newListenContext(s *stack.Stack, p *tcpProtocol, ep *tcp.Endpoint, window seqnum.Size, v6Only bool, proto tcpip.NetworkProtocolNumber) *listenContext

//go:linkname startHandshake gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*listenContext).startHandshake
func startHandshake(l *listenContext, s *segment, opts header.TCPSynOptions, wq *waiter.Queue, owner tcpip.PacketOwner) (*handshake, tcpip.Error)

//go:linkname processSegments gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*handshake).processSegments
func processSegments(h *handshake) tcpip.Error

//go:linkname handshakeFailed gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).handshakeFailed
func handshakeFailed(ep *tcp.Endpoint, err tcpip.Error)

//go:linkname replyWithReset gvisor.dev/gvisor/pkg/tcpip/transport/tcp.replyWithReset
func replyWithReset(s *stack.Stack, seg *segment, tos, ttl uint8, hopLimit int16) tcpip.Error

// listener answers SYNs for any address and port, as a tcp.Forwarder does.
type listener struct {
	stack *stack.Stack
	ctx   *listenContext
}

func newListener(s *stack.Stack) listener {
	return listener{s, newListenContext(s, protocolOf(s), nil, tcp.DefaultReceiveBufferSize, true, 0)}
}

// answer sends the SYN-ACK for a SYN. The endpoint is registered, and tells wq how it
// goes on.
func (l *listener) answer(id stack.TransportEndpointID, syn *stack.PacketBuffer, wq *waiter.Queue) (*tcp.Endpoint, *handshake, tcpip.Error) {
	s, err := newSegment(id, l.stack.Clock(), syn)
	if err != nil {
		return nil, nil, &tcpip.ErrMalformedHeader{}
	}
	defer releaseSegment(s)
	h, refused := startHandshake(l.ctx, s, synOptions(s), wq, nil)
	if refused != nil {
		return nil, nil, refused
	}
	ep, ok := l.stack.FindTransportEndpoint(syn.NetworkProtocolNumber, tcp.ProtocolNumber, id, syn.NICID).(*tcp.Endpoint)
	if !ok {
		return nil, nil, &tcpip.ErrConnectionAborted{}
	}
	return ep, h, nil
}

// refuse sends the reset for a SYN.
func (l *listener) refuse(id stack.TransportEndpointID, syn *stack.PacketBuffer) {
	s, err := newSegment(id, l.stack.Clock(), syn)
	if err != nil {
		return
	}
	defer releaseSegment(s)
	_ = replyWithReset(l.stack, s, stack.DefaultTOS, tcpip.UseDefaultIPv4TTL, tcpip.UseDefaultIPv6HopLimit)
}

// Deliver gives a segment of TCP, and no SYN of a container, to the stack, by the entrance
// of its protocol. It reports whether all is done that there
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
	over := p.process(c, ep, to, pkt, id)
	ep.UnlockUser() // wakes the goroutine for what is left
	c.concluded(ep, over)
	return true
}

// process has the endpoint handle a packet. It reports whether that was its end.
// Preconditions: the caller is the endpoint's user.
func (p *Proxy) process(c *conn, ep *tcp.Endpoint, to stack.NetworkEndpoint, pkt *stack.PacketBuffer, id *stack.TransportEndpointID) (over bool) {
	if !underWay(ep) {
		to.HandlePacket(pkt)
		return digest(ep, c.shaking.Load())
	}
	head, ok := strip(pkt)
	if !ok {
		to.HandlePacket(pkt)
		return digest(ep, nil)
	}
	payload := pkt.Data().Size()
	if payload > 0 && receiveMemUsed(ep) > int(ep.SocketOptions().GetReceiveBufferSize()) {
		return false // it sends more than it may
	}
	s, err := newSegment(*id, p.Stack.Clock(), pkt)
	if err != nil {
		return false
	}
	setOwner(s, ep, recvQ)
	_, failed := handleSegment(ep, s)
	releaseSegment(s)
	switch {
	case failed != nil:
		resetConnection(ep, failed)
		return true
	case isMessage(head, payload) && p.owe(c):
		return false
	case underWay(ep):
		return digest(ep, nil)
	}
	return ended(ep)
}

// concluded says that the endpoint has come to its end, if it has.
func (c *conn) concluded(ep *tcp.Endpoint, over bool) {
	if over {
		drainSegments(ep)
		c.wq.Notify(waiter.EventHUp | waiter.EventErr | waiter.ReadableEvents | waiter.WritableEvents)
	}
}

// established is the connection of a segment, if its endpoint has begun its work.
func (p *Proxy) established(id *stack.TransportEndpointID) *conn {
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
func digest(ep *tcp.Endpoint, h *handshake) (over bool) {
	if h != nil && ep.EndpointState() == tcp.StateSynRecv {
		if err := processSegments(h); err != nil {
			handshakeFailed(ep, err)
			return true
		}
	}
	if !underWay(ep) {
		return false
	}
	if err := handleSegments(ep); err != nil {
		resetConnection(ep, err)
		return true
	}
	return ended(ep)
}

// ended reports whether a segment was the endpoint's last, and does what there is to do if it
// is only to be remembered.
// Preconditions: the caller is the endpoint's user, which was under way before that segment.
func ended(ep *tcp.Endpoint) bool {
	switch ep.EndpointState() {
	case tcp.StateClose:
		return true
	case tcp.StateTimeWait:
		startTimeWait(ep)
	}
	return false
}

// underWay reports whether segments of the endpoint are those of a connection.
func underWay(ep *tcp.Endpoint) bool {
	switch ep.EndpointState() {
	case tcp.StateEstablished, tcp.StateFinWait1, tcp.StateFinWait2, tcp.StateCloseWait, tcp.StateLastAck, tcp.StateClosing:
		return true
	}
	return false
}
