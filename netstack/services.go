// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	echoPort    = 7 // RFC 862
	discardPort = 9 // RFC 863

	// maxServed bounds the TCP connections of one service on one address; one
	// more is closed at once.
	maxServed = 64
	// idleLimit ends a connection that says nothing.
	idleLimit = 60 * time.Second
	// serviceBuffer is what one connection reads at a time, and more than a UDP
	// datagram over the smallest MTU; a longer one is cut by the echo.
	serviceBuffer = 32 << 10
)

// services are echo and discard on one address of a host stack, over TCP and
// UDP: what a user can reach without having set up a server, and what a speed
// test of the host stack talks to.
type services struct {
	wg      sync.WaitGroup
	closers []io.Closer // listeners and packet sockets

	mu sync.Mutex
	// +checklocks:mu
	conns map[net.Conn]struct{}
	// +checklocks:mu
	stopped bool
}

// startServices starts all four or none.
func startServices(s *stack.Stack, a netip.Addr) (*services, error) {
	v := &services{conns: make(map[net.Conn]struct{})}
	ns := &Namespace{host: &host{stack: s}}
	for port, echo := range map[uint16]bool{echoPort: true, discardPort: false} {
		if err := v.serve(ns, netip.AddrPortFrom(a, port), echo); err != nil {
			v.stop()
			return nil, fmt.Errorf("%s: %w", netip.AddrPortFrom(a, port), err)
		}
	}
	return v, nil
}

func (v *services) serve(ns *Namespace, at netip.AddrPort, echo bool) error {
	t := endpoint{ns: ns, network: "tcp", addr: at}
	l, err := t.listen()
	if err != nil {
		return err
	}
	v.closers = append(v.closers, l)
	u := endpoint{ns: ns, network: "udp", addr: at}
	c, err := u.listenPacket()
	if err != nil {
		return err
	}
	v.closers = append(v.closers, c)
	v.wg.Go(func() { v.accept(l, echo) })
	v.wg.Go(func() { datagrams(c, echo) })
	return nil
}

// stop ends the services and waits for them.
func (v *services) stop() {
	v.mu.Lock()
	v.stopped = true
	for c := range v.conns {
		_ = c.Close()
	}
	v.mu.Unlock()
	for _, c := range v.closers {
		_ = c.Close()
	}
	v.wg.Wait()
}

func (v *services) accept(l net.Listener, echo bool) {
	slots := make(chan struct{}, maxServed)
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		select {
		case slots <- struct{}{}:
			v.wg.Go(func() {
				defer func() { <-slots }()
				v.converse(c, echo)
			})
		default:
			_ = c.Close()
		}
	}
}

// converse serves one connection to its end. Whichever of peer, timer and stop
// comes first closes it.
func (v *services) converse(c net.Conn, echo bool) {
	if !v.enter(c) {
		_ = c.Close()
		return
	}
	idle := time.AfterFunc(idleLimit, func() { _ = c.Close() })
	defer func() {
		idle.Stop()
		v.leave(c)
		_ = c.Close()
	}()
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

func (v *services) enter(c net.Conn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped {
		return false
	}
	v.conns[c] = struct{}{}
	return true
}

func (v *services) leave(c net.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.conns, c)
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
