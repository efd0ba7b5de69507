// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
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
	seen  uint32 // when it began, in ticks
	quote quote

	served bool // a goroutine has it; guarded by Proxy.mu
	dials  bool // it has a place among those that are dialled; the same
	age    int  // since it ended, in ticks; the same

	// What follows is set before the two goroutines start.
	ep     tcpip.Endpoint
	wq     waiter.Queue
	fd     int
	file   *os.File
	raw    syscall.RawConn
	out    writer
	upWake chan struct{} // of the up goroutine: the stack has data, or look again
	dnWake chan struct{} // of the other one: the stack has room, or look again

	// Each direction says when its data has ended and that was passed on; failed says
	// that one side was reset. Whoever sets one of them kicks.
	upOver, downOver, failed atomic.Bool
	left                     atomic.Int32 // goroutines
	closed                   atomic.Bool  // both are gone: the stack is to finish
	gone                     chan struct{}

	mu sync.Mutex // what is above against abort, before the goroutines start
}

// handleTCP is the stack's handler of segments that are for no connection.
func (p *Proxy) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false // the stack sends a reset
	}
	if reason := p.admit(id, pkt); reason != trace.None {
		p.Drop(portOf(pkt), reason)
		return true
	}
	return p.forwarder.HandlePacket(id, pkt)
}

// admit gives a SYN its place, or says why it has none.
func (p *Proxy) admit(id stack.TransportEndpointID, pkt *stack.PacketBuffer) trace.Reason {
	port := portOf(pkt)
	p.mu.Lock()
	defer p.mu.Unlock()
	if was := p.conns[id]; was != nil {
		if was.closed.Load() { // its endpoint is gone, but was not missed yet
			p.forget(was)
		} else {
			return trace.None
		}
	}
	switch {
	case p.closed.Load():
		return trace.UplinkConns
	case !p.connQuota.take(port):
		return trace.UplinkConns
	case !p.dialQuota.take(port):
		p.connQuota.put(port)
		return trace.UplinkDials
	}
	c := &conn{proxy: p, id: id, port: port, seen: p.now.Load(), dials: true, fd: -1, gone: make(chan struct{})}
	c.quote.take(pkt)
	p.conns[id] = c
	return trace.None
}

// forget gives up the places of a connection.
//
// +checklocks:p.mu
func (p *Proxy) forget(c *conn) {
	if p.conns[c.id] != c {
		return
	}
	delete(p.conns, c.id)
	p.connQuota.put(c.port)
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

// dialled says that a connection is no more among those that are dialled.
func (c *conn) dialled() {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	if c.dials {
		c.dials = false
		c.proxy.dialQuota.put(c.port)
	}
}

// serve is the life of a connection, in a goroutine of the forwarder's.
func (p *Proxy) serve(r *tcp.ForwarderRequest) {
	c := p.claim(r.ID())
	if c == nil {
		r.Complete(false)
		return
	}
	defer p.running.Done()
	errno := c.dial()
	if errno == 0 {
		errno = c.answer(r)
	}
	c.dialled()
	if errno != 0 {
		c.decline(r, errno)
		return
	}
	c.left.Store(2)
	p.running.Go(c.down)
	c.up()
}

// decline ends a request whose connection did not come about.
func (c *conn) decline(r *tcp.ForwarderRequest, errno unix.Errno) {
	if c.file != nil {
		reset(c.fd)
		c.file.Close()
	}
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

// dial gets the outer connection. It returns why there is none.
func (c *conn) dial() unix.Errno {
	got := make(chan unix.Errno, 1)
	c.proxy.Dialer.Dial(target(c.proxy.Device, dial.TCP, &c.id), func(s dial.Socket) { got <- c.take(&s) })
	select {
	case errno := <-got:
		if errno != 0 {
			return errno
		}
	case <-c.gone:
		return unix.ECANCELED
	}
	return c.await()
}

// take takes a socket over.
func (c *conn) take(s *dial.Socket) unix.Errno {
	if s.FD < 0 {
		return s.Errno
	}
	file := os.NewFile(uintptr(s.FD), "outside")
	raw, err := file.SyscallConn()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || c.failed.Load() {
		file.Close()
		return unix.ECANCELED
	}
	c.fd, c.file, c.raw = s.FD, file, raw
	return 0
}

// await waits until the socket is connected. What getpeername(2) gives is the state,
// and SO_ERROR why there will be none.
func (c *conn) await() (errno unix.Errno) {
	_ = c.file.SetWriteDeadline(time.Now().Add(dialLimit)) // no file with a poller refuses
	err := c.raw.Write(func(fd uintptr) bool {
		if _, err := unix.Getpeername(int(fd)); err == nil {
			return true
		}
		v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			errno = unix.EIO
			return true
		}
		errno = unix.Errno(v)
		return v != 0
	})
	if err != nil {
		return unix.ETIMEDOUT
	}
	if errno == 0 {
		c.rewindWrites()
	}
	return errno
}

// answer does the handshake with the container.
func (c *conn) answer(r *tcp.ForwarderRequest) unix.Errno {
	ep, err := r.CreateEndpoint(&c.wq)
	if err != nil {
		return unix.ETIMEDOUT // it has changed its mind
	}
	r.Complete(false)
	c.adopt(ep)
	return 0
}

// adopt sets what connections of containers have.
func (c *conn) adopt(ep tcpip.Endpoint) {
	idle, interval := tcpip.KeepaliveIdleOption(keepIdle), tcpip.KeepaliveIntervalOption(keepInterval)
	ep.SocketOptions().SetKeepAlive(true)
	_ = ep.SetSockOpt(&idle) // none of the three can fail for TCP
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepCount)
	c.out.fd = c.fd
	c.upWake, c.dnWake = make(chan struct{}, 1), make(chan struct{}, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ep = ep
	if c.failed.Load() {
		ep.Abort()
	}
}

// abort ends the connection at once, on both sides. It may be called at any time, by
// any goroutine without a lock of the stack.
func (c *conn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.failed.Swap(true) {
		close(c.gone)
	}
	if c.ep != nil {
		c.ep.Abort()
	}
	c.kick()
}

// kick lets both goroutines look at the flags again. What waits for the socket is
// woken by a deadline, which it takes back before it looks.
func (c *conn) kick() {
	poke(c.upWake)
	poke(c.dnWake)
	if c.file == nil {
		return
	}
	_ = c.file.SetReadDeadline(past()) // of a closed file nobody waits
	if c.failed.Load() {
		_ = c.file.SetWriteDeadline(past())
	}
}

// poke fills a channel of one place. That of nobody is nil.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func past() time.Time { return time.Unix(1, 0) }

func (c *conn) rewindReads()  { _ = c.file.SetReadDeadline(time.Time{}) }
func (c *conn) rewindWrites() { _ = c.file.SetWriteDeadline(time.Time{}) }

// leave ends one of the goroutines. The last one closes both sides.
func (c *conn) leave() {
	if c.left.Add(-1) > 0 {
		c.kick()
		return
	}
	if c.failed.Load() {
		reset(c.fd)
		c.ep.Abort()
	}
	c.file.Close()
	c.ep.Close()
	c.closed.Store(true)
}

// reset makes the close of a socket send a reset.
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // else it is a FIN
}

// expire forgets connections whose endpoint is gone, and aborts those that take too
// long to end.
func (p *Proxy) expire() {
	const grace = 2 // the forwarder's goroutine has it by then, or never
	now := p.now.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		switch {
		case !c.served && now-c.seen > grace:
			p.forget(c)
		case !c.closed.Load():
		case tcp.EndpointState(c.ep.State()) == tcp.StateClose || tcp.EndpointState(c.ep.State()) == tcp.StateError,
			tcp.EndpointState(c.ep.State()) == tcp.StateTimeWait:
			p.forget(c)
		default:
			if c.age++; c.age == lingerTicks {
				c.ep.Abort()
			}
		}
	}
}
