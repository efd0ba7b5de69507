// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/waiter"

	"sluice/packet"
)

// Theory of operation.
//
// gVisor bounds a UDP socket's receive queue by the bytes of payload in it. A
// datagram of one byte takes half a kilobyte of memory, and one of none counts
// nothing at all. So the host link counts datagrams before the stack does: what
// the socket took, by the stack's own statistics, less what was read from it. A
// socket that has maxDatagrams gets no more.

// maxDatagrams is the number of datagrams that may wait in a socket: more than
// 212 KB, the bound of their payload, holds of 512 bytes each.
const maxDatagrams = 512

// inbox is what the host link knows of a UDP socket.
type inbox struct {
	addr  netip.AddrPort // that it receives on; invalid Addr: all
	only4 bool
	only6 bool
	stats *tcpip.TransportEndpointStats
	read  atomic.Uint64
}

// full reports whether the socket has as many datagrams as it may. The counters
// are read one by one, so a few more may come in from other workers meanwhile.
func (x *inbox) full() bool {
	taken := x.stats.PacketsReceived.Value() - x.stats.ReceiveErrors.ReceiveBufferOverflow.Value() -
		x.stats.ReceiveErrors.ClosedReceiver.Value()
	return int64(taken-x.read.Load()) >= maxDatagrams
}

// takes reports whether datagrams for this address, of a host, go to the socket.
func (x *inbox) takes(to netip.Addr) bool {
	switch {
	case x.only4 && !to.Is4(), x.only6 && to.Is4():
		return false
	case !x.addr.Addr().IsValid():
		return true
	}
	return x.addr.Addr() == to
}

// inboxes are the UDP sockets of a host stack by local port. Reading them takes no
// lock.
type inboxes struct {
	byPort atomic.Pointer[map[uint16][]*inbox] // immutable; nil: none

	mu sync.Mutex // serialises changes
}

// full reports whether a frame is a datagram, or the first part of one, for a
// socket that is full. Preconditions: the frame passed inspect.
func (b *inboxes) full(f *packet.Frame) bool {
	v := &f.View
	if v.Proto != packet.ProtoUDP || !v.Is(packet.ViewHasL4) {
		return false
	}
	m := b.byPort.Load()
	if m == nil {
		return false
	}
	for _, x := range (*m)[v.DstPort] {
		if x.takes(v.DstAddr(f.Bytes())) && x.full() {
			return true
		}
	}
	return false
}

func (b *inboxes) add(x *inbox) {
	b.change(func(m map[uint16][]*inbox) {
		port := x.addr.Port()
		m[port] = append(slices.Clone(m[port]), x)
	})
}

func (b *inboxes) remove(x *inbox) {
	b.change(func(m map[uint16][]*inbox) {
		port := x.addr.Port()
		m[port] = slices.DeleteFunc(slices.Clone(m[port]), func(o *inbox) bool { return o == x })
		if len(m[port]) == 0 {
			delete(m, port)
		}
	})
}

// change replaces the map by a changed copy.
func (b *inboxes) change(edit func(map[uint16][]*inbox)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := make(map[uint16][]*inbox)
	if old := b.byPort.Load(); old != nil {
		maps.Copy(next, *old)
	}
	edit(next)
	b.byPort.Store(&next)
}

// packetConn is gonet's, with its inbox. gonet takes the bytes of a net.IP as they
// are: one of 16 bytes on an IPv4 socket would be an IPv6 address, and another
// net.Addr a panic.
type packetConn struct {
	*gonet.UDPConn
	v4    bool
	inbox *inbox
	all   *inboxes

	closing sync.Once
}

// newPacketConn makes the conn of a socket that is bound or connected.
func (e *endpoint) newPacketConn(ep tcpip.Endpoint, wq *waiter.Queue) (*packetConn, error) {
	at, err := ep.GetLocalAddress()
	if err != nil {
		return nil, callError("getsockname", err)
	}
	stats, ok := ep.Stats().(*tcpip.TransportEndpointStats)
	if !ok {
		return nil, unix.ENOTSUP
	}
	c := &packetConn{
		UDPConn: gonet.NewUDPConn(wq, ep), v4: e.protocol() == ipv4.ProtocolNumber, all: &e.ns.host.inboxes,
		inbox: &inbox{
			addr: netip.AddrPortFrom(addrOf(at.Addr), at.Port), only4: e.only4(), only6: e.only6(), stats: stats,
		},
	}
	c.all.add(c.inbox)
	return c, nil
}

// Read implements net.Conn.
func (c *packetConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

// ReadFrom implements net.PacketConn.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.UDPConn.ReadFrom(b)
	if err == nil {
		c.inbox.read.Add(1)
	}
	return n, from, err
}

// WriteTo implements net.PacketConn. The address must be a *net.UDPAddr.
func (c *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok || to == nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: unix.EINVAL}
	}
	ip := to.IP.To16()
	if c.v4 {
		ip = to.IP.To4()
	}
	if ip == nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: unix.EAFNOSUPPORT}
	}
	return c.UDPConn.WriteTo(b, &net.UDPAddr{IP: ip, Port: to.Port})
}

// Close implements net.PacketConn.
func (c *packetConn) Close() error {
	c.closing.Do(func() {
		_ = c.UDPConn.Close()
		c.all.remove(c.inbox)
	})
	return nil
}
