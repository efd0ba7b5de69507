// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Theory of operation.
//
// Close of a TCP connection returns at once, and what was written before is sent
// later: until the peer has acknowledged it, the connection is an orphan. A peer
// that acknowledges nothing, or says for ever that its window is shut, would keep
// the orphan and its buffer for as long as it likes. So orphans are counted, by
// the port of their peer, and have a time. One that has no place, or no time left,
// is aborted: its data is gone and the peer gets a reset, as after a close with a
// linger time of 0.

const (
	// maxOrphans bounds the connections that are closed and not yet acknowledged.
	maxOrphans = 512
	// orphanTicks is how many seconds one may take. What a socket can have
	// buffered is through in that time at a megabit per second.
	orphanTicks = 60
)

// Keepalive of TCP, as the net package has it: a peer that is gone without a word
// is noticed after two and a half minutes.
const (
	keepaliveIdle     = 15 * time.Second
	keepaliveInterval = 15 * time.Second
	keepaliveCount    = 9
)

// listener accepts TCP connections. It differs from gonet's in what it gives: a
// tcpConn, and net.ErrClosed after Close.
type listener struct {
	host *host
	ep   tcpip.Endpoint
	wq   *waiter.Queue

	closing sync.Once
	closed  chan struct{}
}

func newListener(h *host, ep tcpip.Endpoint, wq *waiter.Queue) *listener {
	return &listener{host: h, ep: ep, wq: wq, closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		ep, wq, err := l.ep.Accept(nil)
		if err == nil {
			return newConn(l.host, ep, wq), nil
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			return nil, l.closedError()
		}
		select {
		case <-l.closed:
			return nil, l.closedError()
		case <-ready:
		}
	}
}

func (l *listener) closedError() error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close implements net.Listener. A waiting Accept returns; connections that wait
// to be accepted are reset.
func (l *listener) Close() error {
	l.closing.Do(func() {
		l.ep.Shutdown(tcpip.ShutdownWrite | tcpip.ShutdownRead)
		close(l.closed)
		l.ep.Close()
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr {
	a, err := l.ep.GetLocalAddress()
	if err != nil {
		return nil
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addrOf(a.Addr), a.Port))
}

// tcpConn is a connection whose end is watched.
type tcpConn struct {
	*gonet.TCPConn
	host *host
	ep   tcpip.Endpoint
	port uint16 // by which the peer came; 0 if it was dialled

	closing sync.Once
}

func newConn(h *host, ep tcpip.Endpoint, wq *waiter.Queue) *tcpConn {
	idle, interval := tcpip.KeepaliveIdleOption(keepaliveIdle), tcpip.KeepaliveIntervalOption(keepaliveInterval)
	ep.SocketOptions().SetKeepAlive(true)
	_ = ep.SetSockOpt(&idle) // none of the three can fail for TCP
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	c := &tcpConn{TCPConn: gonet.NewTCPConn(wq, ep), host: h, ep: ep}
	if s, ok := describe(ep); ok {
		c.port = h.census.owner(connID{s.Local, s.Remote})
	}
	return c
}

// Close implements net.Conn. What was written is sent on, within the bounds of
// orphans.
func (c *tcpConn) Close() error {
	c.closing.Do(func() {
		_ = c.TCPConn.Close()
		c.host.orphans.add(c.ep, c.port)
	})
	return nil
}

// abort ends the connection without sending what was written.
func (c *tcpConn) abort() {
	c.closing.Do(func() {
		c.ep.Abort()
		_ = c.TCPConn.Close()
	})
}

// orphans are the connections of a host stack that are closed and not done.
type orphans struct {
	mu sync.Mutex
	// +checklocks:mu
	all map[tcpip.Endpoint]orphan
	// +checklocks:mu
	shares shares
}

type orphan struct {
	port uint16
	age  int // in seconds
}

func newOrphans() *orphans {
	return &orphans{all: make(map[tcpip.Endpoint]orphan), shares: newShares(maxOrphans)}
}

// add takes over a connection that was closed just now.
func (o *orphans) add(ep tcpip.Endpoint, port uint16) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if acknowledged(ep) {
		return
	}
	if !o.shares.take(port) {
		o.reap()
		if !o.shares.take(port) {
			ep.Abort()
			return
		}
	}
	o.all[ep] = orphan{port: port}
}

// expire makes all a second older, and aborts those that had their time.
func (o *orphans) expire() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ep, was := range o.all {
		if was.age++; was.age >= orphanTicks && !acknowledged(ep) {
			ep.Abort()
		}
		o.all[ep] = was
	}
	o.reap()
}

// reap forgets the orphans that are done.
//
// +checklocks:o.mu
func (o *orphans) reap() {
	for ep, was := range o.all {
		if acknowledged(ep) {
			delete(o.all, ep)
			o.shares.put(was.port)
		}
	}
}

// acknowledged reports whether all that a closed connection sent has been
// acknowledged. What it is then, waiting for the peer's FIN or in TIME-WAIT, ends
// by timers of the stack.
func acknowledged(ep tcpip.Endpoint) bool {
	switch tcp.EndpointState(ep.State()) {
	case tcp.StateFinWait1, tcp.StateClosing, tcp.StateLastAck, tcp.StateEstablished, tcp.StateCloseWait:
		return false
	}
	return true
}
