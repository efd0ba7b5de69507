// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sluice/dial"
	"sluice/trace"
)

// Theory of operation.
//
// What somebody outside began has its socket first, and the container is called then: by
// an endpoint that whoever embeds the package opens, in the uplink's stack or in another
// one. From the handshake on such a connection is as any. If the container refuses, or
// does not answer, the socket is reset. A client that resets it before is no longer
// called for.
//
// A flow of datagrams that began outside has no socket of the host's either, but one to
// whoever relays (dial.Accepted). Its end is the flow's.

// Call is a connection that is to be made to a container.
type Call struct {
	*dial.Accepted
	// Open makes the endpoint, which is bound as it is to be.
	Open func(*waiter.Queue) (tcpip.Endpoint, error)
}

// Connect calls the container for who is at the socket. It takes the socket over, and
// does not wait. What has no place is reset, and counted.
func (p *Proxy) Connect(call *Call) {
	if !p.reserve(call.Member) {
		p.Drop(call.Member, trace.UplinkConns)
		call.Refuse()
		return
	}
	c := &conn{
		proxy: p, port: call.Member, since: p.now.Load(), ended: call.Over, fd: -1,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fd, c.out.fd = call.FD, call.FD
	if err := c.call(call); err != nil {
		c.gone = true
		c.shut()
		p.mu.Lock()
		p.connQuota.put(c.port)
		p.mu.Unlock()
	}
}

// reserve takes the place of a connection.
func (p *Proxy) reserve(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed.Load() && p.connQuota.take(port)
}

// call sends the SYN.
//
// +checklocks:c.mu
func (c *conn) call(call *Call) error {
	ep, err := call.Open(&c.wq)
	if err != nil {
		return err
	}
	c.watchStack()
	to := tcpip.FullAddress{Addr: tcpip.AddrFromSlice(call.To.Addr().AsSlice()), Port: call.To.Port()}
	refused := ep.Connect(to)
	_, started := refused.(*tcpip.ErrConnectStarted)
	err = unix.ECONNREFUSED
	if refused == nil || started {
		err = c.enter(ep)
	}
	if err == nil {
		c.key, err = c.proxy.watch(c.port, c.fd, c)
		if err != nil {
			c.proxy.mu.Lock()
			delete(c.proxy.conns, c.id) // its place is the caller's to give up
			c.proxy.mu.Unlock()
		}
	}
	if err != nil {
		c.wq.EventUnregister(&c.entry)
		ep.Abort()
		ep.Close()
		return err
	}
	c.calling = ep
	c.proxy.enqueue(c)
	return nil
}

// errTwice says that there is such a connection already.
var errTwice = errors.New("there is one")

// enter enters the connection where all are.
//
// +checklocks:c.mu
func (c *conn) enter(ep tcpip.Endpoint) error {
	info, ok := ep.Info().(*stack.TransportEndpointInfo)
	if !ok {
		return errTwice
	}
	c.id = info.ID
	c.shown.Store(&ep)
	p := c.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if was := p.conns[c.id]; was != nil {
		if !was.closed.Load() {
			return errTwice
		}
		p.forget(was)
	}
	if p.closed.Load() {
		return errTwice
	}
	p.conns[c.id] = c
	return nil
}

// called looks whether the container has answered.
//
// +checklocks:c.mu
func (c *conn) called() {
	switch tcp.EndpointState(c.calling.State()) {
	case tcp.StateInitial, tcp.StateBound, tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
	case tcp.StateEstablished, tcp.StateCloseWait:
		c.begin()
	default:
		c.unanswered()
	}
}

// hangUp gives up the call if the client has. What a container began it is to hear of
// when it is connected.
//
// +checklocks:c.mu
func (c *conn) hangUp() {
	if c.failed && c.shaking.Load() == nil {
		c.unanswered()
	}
}

// unanswered ends a call: the socket is reset.
//
// +checklocks:c.mu
func (c *conn) unanswered() {
	ep := c.calling
	c.calling, c.gone = nil, true
	c.wq.EventUnregister(&c.entry)
	ep.Abort()
	ep.Close()
	c.shut()
	c.closed.Store(true)
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.proxy.forget(c)
}

// Relay begins the flow of who sends datagrams from outside, which are the messages of
// the socket. It takes the socket over. The container sees them from the address.
func (p *Proxy) Relay(a *dial.Accepted, from netip.AddrPort) {
	a.Over() // the end of the flow is that of the socket
	f := &flow{
		proxy: p, key: flowKey{dial.UDP, a.To, from}, port: a.Member, fd: -1, relayed: true,
		id: stack.TransportEndpointID{
			LocalAddress: tcpip.AddrFromSlice(from.Addr().AsSlice()), LocalPort: from.Port(),
			RemoteAddress: tcpip.AddrFromSlice(a.To.Addr().AsSlice()), RemotePort: a.To.Port(),
		},
	}
	f.used.Store(p.now.Load())
	if p.admitFlow(f) {
		f.opened(dial.Socket{FD: a.FD})
		return
	}
	p.Drop(a.Member, trace.UplinkFlows)
	_ = unix.Close(a.FD)
}

// admitFlow gives a flow its place, which it takes from one that is of the same: whose
// relay is no more, or that the container began.
func (p *Proxy) admitFlow(f *flow) bool {
	for {
		p.mu.Lock()
		was := p.flows[f.key]
		if was == nil {
			ok := !p.closed.Load() && p.flowQuota.take(f.port)
			if ok {
				p.flows[f.key] = f
			}
			p.mu.Unlock()
			return ok
		}
		p.mu.Unlock()
		was.end()
	}
}

// hungUp reports whether the other end of a socket of AF_UNIX is closed: a message of no
// length looks as the end does.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) != 0
}
