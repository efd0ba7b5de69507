// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sluice/dial"
	"sluice/trace"
)

// Keepalive of the inner connections: a container that is gone without a word is
// noticed after two and a half minutes.
const (
	keepIdle     = 15 * time.Second
	keepInterval = 15 * time.Second
	keepCount    = 9
)

// conn is one connection of a container, from its SYN on.
type conn struct {
	proxy *Proxy
	id    stack.TransportEndpointID
	port  uint16
	since uint32 // when it began, in ticks
	quote quote

	// Of Proxy.mu:
	served bool // a goroutine has it
	dials  bool // it has a place among those that are dialled
	age    int  // since it ended, in ticks

	lingers bool // it has a place among those that the stack is to finish; of Proxy.mu, too

	shown  atomic.Pointer[tcpip.Endpoint] // ep, for who has not mu
	queued atomic.Bool                    // it waits for Proxy.Run
	closed atomic.Bool                    // there is no socket any more: the stack is to finish

	ended func() // the socket is closed; may be nil

	wq    waiter.Queue
	entry waiter.Entry

	told  atomic.Uint32       // when the dial ended, in ticks, and one more; 0: it has not
	errno unix.Errno          // of the dial: set by who sets told, then read by serve
	syn   *stack.PacketBuffer // until then

	mu sync.Mutex
	// +checklocks:mu
	fd int // -1: none
	// +checklocks:mu
	key int32
	// +checklocks:mu
	ep tcpip.Endpoint // nil before the handshake
	// +checklocks:mu
	calling tcpip.Endpoint // of what came from outside, before the handshake, see inward.go
	// +checklocks:mu
	readable, writable bool // the socket, as far as is known
	// +checklocks:mu
	upOver, downOver bool // the end of the data was passed on
	// +checklocks:mu
	gone bool // it is to be given up, or has been
	// +checklocks:mu
	out writer
}

// handleTCP is the stack's handler of segments that are for no connection.
func (p *Proxy) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false // the stack sends a reset
	}
	c, reason := p.admit(id, pkt)
	switch {
	case reason != trace.None:
		p.Drop(portOf(pkt), reason)
	case c != nil:
		p.Dialer.Dial(target(p.Device, dial.TCP, &c.id), c.opened)
	}
	return true
}

// admit gives a SYN its place, or says why it has none. One that comes again has no
// second: nil.
func (p *Proxy) admit(id stack.TransportEndpointID, pkt *stack.PacketBuffer) (*conn, trace.Reason) {
	port := portOf(pkt)
	p.mu.Lock()
	defer p.mu.Unlock()
	if was := p.conns[id]; was != nil {
		if !was.closed.Load() {
			return nil, trace.None
		}
		p.forget(was) // its endpoint is gone, but was not missed yet
	}
	switch {
	case p.closed.Load() || !p.connQuota.take(port):
		return nil, trace.UplinkConns
	case !p.dialQuota.take(port):
		p.connQuota.put(port)
		return nil, trace.UplinkDials
	}
	c := &conn{proxy: p, id: id, port: port, since: p.now.Load(), dials: true, fd: -1, syn: pkt.IncRef()}
	c.quote.take(pkt)
	p.conns[id] = c
	return c, trace.None
}

// forget gives up the places of a connection.
//
// +checklocks:p.mu
func (p *Proxy) forget(c *conn) {
	if p.conns[c.id] != c {
		return
	}
	delete(p.conns, c.id)
	if c.lingers {
		p.lingerQuota.put(c.port)
	} else {
		p.connQuota.put(c.port)
	}
	p.undial(c)
}

// undial says that a connection is no more among those that are dialled.
//
// +checklocks:p.mu
func (p *Proxy) undial(c *conn) {
	if c.dials {
		c.dials = false
		p.dialQuota.put(c.port)
	}
}

// claim is the connection of a request, which is the caller's from now on; nil if
// it has no place any more.
func (p *Proxy) claim(id stack.TransportEndpointID) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[id]
	if c == nil || c.served || p.closed.Load() {
		return nil
	}
	c.served = true
	p.running.Add(1)
	return c
}

// serve answers a connection whose dial has ended, in a goroutine of the forwarder's.
func (p *Proxy) serve(r *tcp.ForwarderRequest) {
	c := p.claim(r.ID())
	if c == nil {
		r.Complete(false)
		return
	}
	defer p.running.Done()
	if c.errno != 0 {
		c.decline(r, c.errno)
		return
	}
	ep, err := r.CreateEndpoint(&c.wq)
	if err != nil { // the container has changed its mind
		c.decline(r, unix.ETIMEDOUT)
		return
	}
	r.Complete(false)
	c.begin(ep)
}

// decline ends a request whose connection did not come about.
func (c *conn) decline(r *tcp.ForwarderRequest, errno unix.Errno) {
	c.mu.Lock()
	c.shut()
	c.mu.Unlock()
	c.proxy.mu.Lock()
	c.proxy.forget(c)
	c.proxy.mu.Unlock()
	r.Complete(errno == unix.ECONNREFUSED)
	switch errno {
	case unix.ECONNREFUSED:
	case dial.NoAgent, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
		c.proxy.Drop(c.port, trace.UplinkDown)
	default:
		c.proxy.reject(&c.quote, errno)
	}
}

// tell says how the dial ended: the SYN goes on to the forwarder. Only the first word
// counts. It may be called with any lock of the package.
func (c *conn) tell(errno unix.Errno) {
	if !c.told.CompareAndSwap(0, c.proxy.now.Load()+1) {
		return
	}
	c.errno = errno
	c.proxy.forwarder.HandlePacket(c.id, c.syn)
	c.syn.DecRef()
	c.syn = nil
}

// opened takes the socket, which is connected or about to be.
func (c *conn) opened(s dial.Socket) {
	if s.FD < 0 {
		c.tell(s.Errno)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		_ = unix.Close(s.FD)
		return
	}
	c.fd, c.out.fd = s.FD, s.FD
	key, err := c.proxy.watch(c.port, s.FD, c)
	if err != nil {
		c.shut()
		c.tell(unix.ENOMEM)
		return
	}
	c.key = key
	c.connected() // near by it is already
}

// connected sees what has become of the dial: getpeername(2) knows whether the socket
// is connected, and SO_ERROR why it won't be.
//
// +checklocks:c.mu
func (c *conn) connected() {
	if _, err := unix.Getpeername(c.fd); err == nil {
		c.tell(0)
		return
	}
	v, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		c.tell(unix.EIO)
	case v != 0:
		c.tell(unix.Errno(v))
	}
}

// begin starts to carry bytes.
func (c *conn) begin(ep tcpip.Endpoint) {
	c.listen(ep)
	c.proxy.mu.Lock()
	c.proxy.undial(c)
	c.proxy.mu.Unlock()
	c.mu.Lock()
	c.ep, c.readable, c.writable = ep, true, true
	c.shown.Store(&ep)
	if c.gone {
		c.finish()
	}
	c.mu.Unlock()
	c.proxy.enqueue(c)
}

// listen has the inner end watched, and kept alive.
func (c *conn) listen(ep tcpip.Endpoint) {
	idle, interval := tcpip.KeepaliveIdleOption(keepIdle), tcpip.KeepaliveIntervalOption(keepInterval)
	ep.SocketOptions().SetKeepAlive(true)
	_ = ep.SetSockOpt(&idle) // none of the three can fail for TCP
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepCount)
	c.entry = waiter.NewFunctionEntry(
		waiter.ReadableEvents|waiter.WritableEvents|waiter.EventHUp|waiter.EventErr,
		func(waiter.EventMask) { c.proxy.enqueue(c) },
	)
	c.wq.EventRegister(&c.entry)
}

// ready implements watched.
func (c *conn) ready(events uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fd < 0:
	case c.key == 0: // opened looks itself
	case c.calling != nil:
		c.hangUp(events)
	case c.ep == nil:
		c.connected()
	default:
		c.readable, c.writable = true, true
		c.step()
	}
}

// run does what the stack has asked for.
func (c *conn) run() {
	c.queued.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calling != nil {
		c.called()
	}
	if c.ep != nil && c.fd >= 0 {
		c.step()
	}
}

// abort ends the connection at once, on both sides.
func (c *conn) abort() {
	c.tell(unix.ECANCELED)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	switch {
	case c.calling != nil:
		c.unanswered()
	case c.ep != nil:
		c.finish()
	default:
		c.shut()
	}
}

// finish closes both sides, with resets if it is given up.
//
// +checklocks:c.mu
func (c *conn) finish() {
	if c.closed.Load() {
		return
	}
	if c.gone {
		c.ep.Abort()
	}
	c.shut()
	c.wq.EventUnregister(&c.entry)
	c.ep.Close()
	c.closed.Store(true)
	c.proxy.retire(c)
}

// retire gives the place of a connection to others. What the stack is to finish has
// places of its own, and no time where there is none.
func (p *Proxy) retire(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[c.id] != c || c.lingers {
		return
	}
	switch {
	case c.over():
		p.forget(c)
		return
	case !p.lingerQuota.take(c.port):
		p.forget(c)
		(*c.shown.Load()).Abort()
		return
	}
	c.lingers = true
	p.connQuota.put(c.port)
}

// over reports whether the stack has finished with a connection.
func (c *conn) over() bool {
	switch tcp.EndpointState((*c.shown.Load()).State()) {
	case tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
		return true
	}
	return false
}

// shut closes the socket, with a reset if the connection is given up.
//
// +checklocks:c.mu
func (c *conn) shut() {
	if c.fd < 0 {
		return
	}
	c.proxy.unwatch(c.key)
	if c.gone || c.ep == nil {
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // else it is a FIN
	}
	_ = unix.Close(c.fd)
	c.fd = -1
	if c.ended != nil {
		c.ended()
	}
}

// expire gives up dials that take too long, forgets connections whose endpoint is gone,
// and aborts those that take too long to end.
func (p *Proxy) expire() {
	const grace = 2 // the forwarder's goroutine has it by then, or never
	now := p.now.Load()
	var lost []*conn
	p.mu.Lock()
	for _, c := range p.conns {
		told := c.told.Load()
		switch {
		case !c.served && told != 0 && now+1-told > grace:
			p.forget(c)
			lost = append(lost, c)
		case c.dials && now-c.since > dialLimit:
			c.tell(unix.ETIMEDOUT)
		case c.closed.Load():
			p.linger(c)
		}
	}
	p.mu.Unlock()
	for _, c := range lost {
		c.abort()
	}
}

// linger waits for the end of an endpoint that was closed.
//
// +checklocks:p.mu
func (p *Proxy) linger(c *conn) {
	if c.over() {
		p.forget(c)
		return
	}
	if c.age++; c.age == lingerTicks {
		(*c.shown.Load()).Abort()
	}
}
