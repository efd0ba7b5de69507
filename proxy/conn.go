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

// Keepalive of both ends' connections: who is gone without a word is noticed after two and
// a half minutes. Most connections don't last long enough to need it.
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
	dials bool // it has a place among those that are dialled, or shake hands
	kept  bool // its ends are kept alive
	age   int  // since it ended, in ticks

	lingers bool // it has a place among those that the stack is to finish; of Proxy.mu, too

	shown   atomic.Pointer[tcpip.Endpoint] // ep or calling, for who has not mu
	shaking atomic.Pointer[handshake]      // calling's, of what the container began
	queued  atomic.Bool                    // it waits for Proxy.Run
	closed  atomic.Bool                    // there is no socket any more: the stack is to finish

	owes   atomic.Bool // an acknowledgement, unless something was sent since
	debtor atomic.Bool // it is among Proxy.debts

	ended func() // the socket is closed; may be nil

	wq    waiter.Queue
	entry waiter.Entry

	mu sync.Mutex
	// +checklocks:mu
	syn *stack.PacketBuffer // until the dial has ended
	// +checklocks:mu
	fd int // -1: none
	// +checklocks:mu
	key int32
	// +checklocks:mu
	ep tcpip.Endpoint // nil before the handshake
	// +checklocks:mu
	calling tcpip.Endpoint // before the handshake is done
	// +checklocks:mu
	readable, writable bool // the socket, as far as is known
	// +checklocks:mu
	much, urgent bool // more may be there than a sip; some of it may be urgent
	// +checklocks:mu
	rest []byte // was read, and the stack had no room for it
	// +checklocks:mu
	hungUp, failed bool // it has heard the other side's last word; an error
	// +checklocks:mu
	unanswering bool // the world may not know yet that it is connected, see dial.Policy.Open
	// +checklocks:mu
	upOver, downOver bool // the end of the data was passed on
	// +checklocks:mu
	shutWR bool // the socket was told of the end
	// +checklocks:mu
	altered bool // the socket has options that others have not
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
	sum := func() uint16 { return pkt.Data().Checksum() }
	_, valid, ok := header.TCPValid(h, sum, uint16(pkt.Data().Size()), id.RemoteAddress, id.LocalAddress, pkt.RXChecksumValidated)
	if !ok || !valid {
		return true
	}
	c, reason := p.admit(id, pkt)
	switch {
	case reason != trace.None:
		p.Drop(portOf(pkt), reason)
	case c != nil:
		p.waits.end(2, p.now.Load(), 0)
		to := target(p.Device, dial.TCP, &c.id)
		to.Port = c.port
		p.Dialer.Dial(to, c.opened)
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

// tell says how the dial ended: the container is answered, or told why not. Only the
// first word counts.
//
// +checklocks:c.mu
func (c *conn) tell(errno unix.Errno) {
	syn := c.syn
	if syn == nil {
		return
	}
	c.syn = nil
	defer syn.DecRef()
	if errno == 0 {
		errno = c.answer(syn)
	}
	if errno != 0 {
		c.decline(errno, syn)
	}
}

// answer begins the handshake. It goes on in Deliver, and ends in called.
//
// +checklocks:c.mu
func (c *conn) answer(syn *stack.PacketBuffer) unix.Errno {
	c.watchStack()
	ep, h, err := c.proxy.listener.answer(c.id, syn, &c.wq)
	if err != nil {
		c.wq.EventUnregister(&c.entry)
		return unix.ETIMEDOUT
	}
	c.shaking.Store(h)
	c.calling = ep
	shown := c.calling
	c.shown.Store(&shown)
	return 0
}

// decline ends a connection that did not come about.
//
// +checklocks:c.mu
func (c *conn) decline(errno unix.Errno, syn *stack.PacketBuffer) {
	c.shut()
	c.gone = true
	c.proxy.mu.Lock()
	c.proxy.forget(c)
	c.proxy.mu.Unlock()
	switch errno {
	case unix.ECONNREFUSED:
		c.proxy.listener.refuse(c.id, syn)
	case dial.NoAgent, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
		c.proxy.Drop(c.port, trace.UplinkDown)
	default:
		c.proxy.reject(&c.quote, errno)
	}
}

// opened takes the socket, which is connected or about to be.
func (c *conn) opened(s dial.Socket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.FD < 0:
		c.tell(s.Errno)
		return
	case c.gone:
		_ = unix.Close(s.FD)
		return
	}
	c.fd, c.out.fd = s.FD, s.FD
	key, err := c.proxy.watch(c.port, s.FD, c)
	if err != nil {
		c.tell(unix.ENOMEM)
		return
	}
	c.key = key             // it is told of what there is already, too,
	c.note(eventsNow(c.fd)) // but this is sooner
	c.connected()
}

// note takes note of an event of the socket.
//
// +checklocks:c.mu
func (c *conn) note(events uint32) {
	const last = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	c.readable = c.readable || events&(unix.EPOLLIN|last) != 0
	c.writable = c.writable || events&unix.EPOLLOUT != 0
	c.hungUp = c.hungUp || events&last != 0
	c.failed = c.failed || events&unix.EPOLLERR != 0
	c.urgent = c.urgent || events&unix.EPOLLPRI != 0
}

// connected sees what has become of the dial: a socket that can be written to is
// connected, if there is no error.
//
// +checklocks:c.mu
func (c *conn) connected() {
	switch {
	case c.syn == nil:
	case c.failed:
		v, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || v == 0 {
			v = int(unix.EIO)
		}
		c.tell(unix.Errno(v))
	case c.writable:
		c.tell(0)
	}
}

// begin starts to carry bytes.
//
// +checklocks:c.mu
func (c *conn) begin() {
	c.ep, c.calling = c.calling, nil
	if c.shaking.Swap(nil) != nil { // the outer connection is one that was dialled
		c.unanswering = true
		c.proxy.debts.add(c)
	}
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.proxy.undial(c)
}

// watchStack has the inner end watched.
func (c *conn) watchStack() {
	c.entry = waiter.NewFunctionEntry(
		waiter.ReadableEvents|waiter.WritableEvents|waiter.EventHUp|waiter.EventErr,
		func(waiter.EventMask) { c.proxy.enqueue(c) },
	)
	c.wq.EventRegister(&c.entry)
}

// keep has both ends kept alive.
func (c *conn) keep() {
	ep := *c.shown.Load()
	idle, interval := tcpip.KeepaliveIdleOption(keepIdle), tcpip.KeepaliveIntervalOption(keepInterval)
	ep.SocketOptions().SetKeepAlive(true)
	_ = ep.SetSockOpt(&idle) // none of the three can fail for TCP
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepCount)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		c.altered = true
		keepSocket(c.fd)
	}
}

// keepSocket has the host look after a connection of its own. It takes all of this for TCP.
func keepSocket(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepIdle/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepInterval/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

// ready implements watched.
func (c *conn) ready(events uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return
	}
	c.note(events)
	switch {
	case c.calling != nil:
		c.hangUp()
	case c.ep == nil:
		c.connected()
	default:
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

// abort ends the connection at once, on both sides. What was not answered yet never is.
func (c *conn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.syn != nil {
		c.syn.DecRef()
		c.syn = nil
	}
	c.gone = true
	switch {
	case c.calling != nil:
		c.unanswered()
	case c.ep != nil:
		c.finish()
	default:
		c.shut()
		c.proxy.mu.Lock()
		c.proxy.forget(c)
		c.proxy.mu.Unlock()
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
		p.leave(c)
		return
	case !p.lingerQuota.take(c.port):
		p.forget(c)
		(*c.shown.Load()).Abort()
		return
	}
	c.lingers = true
	p.connQuota.put(c.port)
}

// leave forgets a connection that the stack has finished with, or will soon.
//
// +checklocks:p.mu
func (p *Proxy) leave(c *conn) {
	p.forget(c)
	if ep, ok := (*c.shown.Load()).(*tcp.Endpoint); ok {
		p.waits.add(c.id, ep, p.now.Load())
	}
}

// over reports whether the stack has finished with a connection.
func (c *conn) over() bool {
	switch tcp.EndpointState((*c.shown.Load()).State()) {
	case tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
		return true
	}
	return false
}

// shut lets go of the socket, with a reset if the connection is given up.
//
// +checklocks:c.mu
func (c *conn) shut() {
	if c.fd < 0 {
		return
	}
	c.proxy.unwatch(c.key)
	if c.reuse() {
		c.fd = -1
		return
	}
	if c.gone || c.ep == nil {
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // else it is a FIN
	}
	closeNow(c.fd)
	c.fd = -1
	if c.ended != nil {
		c.ended()
	}
}

// reuse gives the socket to who may connect it again, if it is one that was dialled, and
// has ended well.
//
// +checklocks:c.mu
func (c *conn) reuse() bool {
	p := c.proxy
	if p.Reuse == nil || c.gone || c.altered || c.ended != nil || !c.upOver || !c.downOver {
		return false
	}
	return c.endSocket() && p.Reuse(c.port, c.fd, netProto(c.id.LocalAddress) == header.IPv6ProtocolNumber)
}

// endSocket tells the world that nothing more is to come.
//
// +checklocks:c.mu
func (c *conn) endSocket() bool {
	if !c.shutWR {
		c.shutWR = shutdownNow(c.fd) == 0
	}
	return c.shutWR
}

// expire gives up dials and handshakes that take too long, has what lasts kept alive,
// forgets connections whose endpoint is gone, and aborts those that take too long to end.
func (p *Proxy) expire() {
	var lost, lasting []*conn
	now := p.now.Load()
	p.mu.Lock()
	for _, c := range p.conns {
		switch {
		case c.dials && now-c.since > dialLimit:
			lost = append(lost, c)
		case c.closed.Load():
			p.linger(c)
		case !c.kept && !c.dials && c.shown.Load() != nil && now-c.since > 1:
			c.kept = true
			lasting = append(lasting, c)
		}
	}
	p.mu.Unlock()
	for _, c := range lost {
		c.abort()
	}
	for _, c := range lasting {
		c.keep()
	}
}

// linger waits for the end of an endpoint that was closed.
//
// +checklocks:p.mu
func (p *Proxy) linger(c *conn) {
	if c.over() {
		p.leave(c)
		return
	}
	if c.age++; c.age == lingerTicks {
		(*c.shown.Load()).Abort()
	}
}
