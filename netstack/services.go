// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	echoPort    = 7 // RFC 862
	discardPort = 9 // RFC 863

	// maxServed bounds the TCP connections of one service on one address. The
	// containers share them; one more is reset at once.
	maxServed = 64
	// idleLimit ends a connection that says nothing, or does not read its echo.
	idleLimit = 60 * time.Second
	// serviceBuffer is what one connection reads at a time, and more than a UDP
	// datagram over the smallest MTU; a longer one is cut by the echo.
	serviceBuffer = 32 << 10
)

// services are the listeners of one address of a host stack, and their connections:
// echo and discard, over TCP and UDP, which is what a user can reach without having
// set up a server, and what a speed test of the host stack talks to; or DNS.
type services struct {
	wg      sync.WaitGroup
	closers []io.Closer // listeners and packet sockets

	mu sync.Mutex
	// +checklocks:mu
	conns map[*tcpConn]struct{}
	// +checklocks:mu
	stopped bool
}

// startServices starts all four or none.
func startServices(h *host, a netip.Addr) (*services, error) {
	v := &services{conns: make(map[*tcpConn]struct{})}
	ns := &Namespace{host: h}
	for port, echo := range map[uint16]bool{echoPort: true, discardPort: false} {
		if err := v.serve(endpoint{ns: ns, addr: netip.AddrPortFrom(a, port)}, echo); err != nil {
			v.stop()
			return nil, fmt.Errorf("%s: %w", netip.AddrPortFrom(a, port), err)
		}
	}
	return v, nil
}

func (v *services) serve(at endpoint, echo bool) error {
	t, u := at, at
	t.network, u.network = "tcp", "udp"
	l, err := t.listen()
	if err != nil {
		return err
	}
	v.closers = append(v.closers, l)
	c, err := u.listenPacket()
	if err != nil {
		return err
	}
	v.closers = append(v.closers, c)
	v.wg.Go(func() { v.accept(l, func(c *tcpConn) { converse(c, echo) }) })
	v.wg.Go(func() { datagrams(c, echo) })
	return nil
}

// stop ends the services and waits for them.
func (v *services) stop() {
	v.mu.Lock()
	v.stopped = true
	for c := range v.conns {
		c.abort()
	}
	v.mu.Unlock()
	for _, c := range v.closers {
		_ = c.Close()
	}
	v.wg.Wait()
}

// accept serves the connections of one listener, each port of the bridge within
// its share.
func (v *services) accept(l net.Listener, serve func(*tcpConn)) {
	slots := newShares(maxServed)
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		conn := c.(*tcpConn) //nolint:forcetypeassert // it is our listener
		if !v.enter(conn, &slots) {
			conn.abort()
			continue
		}
		v.wg.Go(func() {
			serve(conn)
			v.leave(conn, &slots)
		})
	}
}

// converse serves one connection to its end. Whichever of peer, timer and stop
// comes first closes it. Nobody waits longer than the timer for a peer that does
// not read.
func converse(c *tcpConn, echo bool) {
	idle := time.AfterFunc(idleLimit, c.abort)
	defer idle.Stop()
	defer c.Close()
	b := make([]byte, serviceBuffer)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		idle.Reset(idleLimit)
		if echo {
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	}
}

// enter gives a connection one of the slots; false if its port has its share, or
// the services are to stop.
func (v *services) enter(c *tcpConn, slots *shares) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped || !slots.take(c.port) {
		return false
	}
	v.conns[c] = struct{}{}
	return true
}

func (v *services) leave(c *tcpConn, slots *shares) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.conns, c)
	slots.put(c.port)
}

// datagrams serves one UDP socket until it is closed. What comes from an echo
// port is not echoed: two echo services would talk to each other for ever.
func datagrams(c net.PacketConn, echo bool) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if u, ok := from.(*net.UDPAddr); echo && ok && u.Port != echoPort {
			_, _ = c.WriteTo(b[:n], from)
		}
	}
}
