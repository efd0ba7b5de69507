// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"sluice/packet"
)

// Theory of operation.
//
// gVisor bounds neither the TCP endpoints of a stack nor what one peer may have of
// them, and an endpoint does not know by which port its peer came: addresses can
// be forged, ports can't. So the census stands before the stack. A SYN needs a
// place, which the census gives fairly among the ports and remembers by both
// addresses; each endpoint that a peer can make begins with one. Once a second it
// is compared with the endpoints that the stack really has, and places of others
// are free again.
//
// SYN cookies, which would make endpoints without a place, are never used: the
// backlog of a listener is as long as the census is large. They are not missed,
// since a flood of SYNs fills its own port's share and no more.

const (
	// maxConns is the number of TCP connections of peers that a host stack has, in
	// all states: some 6 KB each, and their buffers.
	maxConns = 8192
	// graceTicks is how many seconds a SYN keeps its place without an endpoint: a
	// goroutine makes that, at some time, or nobody listens.
	graceTicks = 2
)

// connID names a connection of the host stack. Both addresses are without zone.
type connID struct{ local, remote netip.AddrPort }

// place is what the census remembers of a connection.
type place struct {
	port uint16 // by which its SYN came
	gone uint8  // counts in a row without an endpoint
}

// census knows the TCP connections of a host stack that peers began.
type census struct {
	mu sync.Mutex
	// +checklocks:mu
	conns map[connID]place
	// +checklocks:mu
	shares shares
}

func newCensus() *census {
	return &census{conns: make(map[connID]place), shares: newShares(maxConns)}
}

// admit reports whether a SYN may go on to the stack: it has a place, or gets one.
// Preconditions: the frame is TCP over IP with ports.
func (c *census) admit(f *packet.Frame) bool {
	v, b := &f.View, f.Bytes()
	id := connID{
		local:  netip.AddrPortFrom(v.DstAddr(b), v.DstPort),
		remote: netip.AddrPortFrom(v.SrcAddr(b), v.SrcPort),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.conns[id]; known {
		return true
	}
	if !c.shares.take(f.InPort) {
		return false
	}
	c.conns[id] = place{port: f.InPort}
	return true
}

// owner is the port by which a connection came; 0 if it did not come by any.
func (c *census) owner(id connID) uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns[id].port
}

// size is the number of places that are taken.
func (c *census) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

// count compares the census with the stack's endpoints, once a second.
func (c *census) count(s *stack.Stack) {
	if c.size() == 0 {
		return
	}
	alive := make(map[connID]bool)
	for _, e := range s.RegisteredEndpoints() {
		if k, ok := socketOf(e); ok && k.Proto == "tcp" && k.Remote.IsValid() {
			alive[connID{k.Local, k.Remote}] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, p := range c.conns {
		switch {
		case alive[id]:
			p.gone = 0
		case p.gone == graceTicks:
			delete(c.conns, id)
			c.shares.put(p.port)
			continue
		default:
			p.gone++
		}
		c.conns[id] = p
	}
}
