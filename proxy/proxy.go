// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"sluice/dial"
	"sluice/trace"
)

// Times, in seconds where they are ticks.
const (
	// dialLimit bounds the wait for the outside. Whoever is not there after six SYNs
	// of the kernel is not there.
	dialLimit = 60
	// lingerTicks is what a connection may take that is closed in both directions,
	// until its peer has acknowledged all.
	lingerTicks = 60
	// Idle flows of UDP end as connections of nf_conntrack do: sooner if there was
	// never an answer.
	idleUnreplied = 30
	idleReplied   = 120
)

// Dialer makes sockets, see dial.Client. done may be called before Dial returns.
type Dialer interface {
	Dial(t dial.Target, done func(dial.Socket))
}

// Config is what a Proxy is made with.
type Config struct {
	Stack  *stack.Stack
	NIC    tcpip.NICID
	Device uint16 // that Dialer is told
	Dialer Dialer
	Limits Limits
	// Partial says that the stack's link takes datagrams whose sum is to be completed, as
	// it takes segments: by what their GSOOptions say.
	Partial bool
	// Drop counts a packet that a port's container has lost. It may be called by any
	// goroutine.
	Drop func(port uint16, r trace.Reason)
	// Watch adds a socket to an epoll set, edge-triggered, for reading and writing. Its
	// events are told to Ready, with the key. The set must let go of a socket that is
	// closed, as epoll does. The port is that of the container which the socket is for.
	Watch func(port uint16, fd int, key int32) error
	// Reuse takes over a socket whose connection has ended on both sides, for another one,
	// and takes it out of the set of Watch; the port is that of Watch. If it reports false,
	// the socket is closed. nil: all are.
	Reuse func(port uint16, fd int, ipv6 bool) bool
	// Wake asks for a call of Run. It may be called by any goroutine, with any lock.
	Wake func()
}

// Proxy serves one uplink stack. It is safe for concurrent use.
type Proxy struct {
	Config
	listener listener
	now      atomic.Uint32 // seconds, of Tick
	closed   atomic.Bool
	buffers  sync.Pool // of *message
	pieces   sync.Pool // of *pieces
	runs     runs
	waits    timeWaits
	debts    debts
	held     atomic.Int64 // bytes that wait for sockets of flows

	mu sync.Mutex
	// +checklocks:mu
	conns map[stack.TransportEndpointID]*conn
	// +checklocks:mu
	connQuota quota
	// +checklocks:mu
	lingerQuota quota
	// +checklocks:mu
	dialQuota quota
	// +checklocks:mu
	flows map[flowKey]*flow
	// +checklocks:mu
	flowQuota quota
	// beginQuota and reportQuota are of one second.
	// +checklocks:mu
	beginQuota quota
	// +checklocks:mu
	reportQuota quota
}

// New takes the stack's interface, which must be promiscuous and spoofing, and its
// transport handlers. No packet may have been delivered yet.
func New(c Config) *Proxy {
	c.Limits.setDefaults()
	l := &c.Limits
	p := &Proxy{
		Config: c, conns: make(map[stack.TransportEndpointID]*conn), flows: make(map[flowKey]*flow),
		connQuota: newQuota(l.Conns, l.ConnsPerPort), lingerQuota: newQuota(l.Conns, l.ConnsPerPort), dialQuota: newQuota(l.Dials, l.DialsPerPort),
		flowQuota: newQuota(l.Flows, l.FlowsPerPort), beginQuota: newQuota(l.Flows, l.FlowsPerPort),
		reportQuota: newQuota(reportsPerSecond, reportsPerSecondAndPort),
	}
	p.runs.socks = make(map[int32]watched)
	p.buffers.New = func() any { return new(message) }
	p.pieces.New = func() any { return new(pieces) }
	p.listener = newListener(c.Stack)
	c.Stack.SetTransportProtocolHandler(tcp.ProtocolNumber, p.handleTCP)
	c.Stack.SetTransportProtocolHandler(udp.ProtocolNumber, p.handleUDP)
	c.Stack.SetTransportProtocolHandler(icmp.ProtocolNumber4, p.handleEcho4)
	c.Stack.SetTransportProtocolHandler(icmp.ProtocolNumber6, p.handleEcho6)
	return p
}

// Tick is called once a second, with seconds that only grow.
func (p *Proxy) Tick(now uint32) {
	p.now.Store(now)
	p.mu.Lock()
	p.beginQuota.reset()
	p.reportQuota.reset()
	p.mu.Unlock()
	for _, f := range p.idle(now) {
		f.end()
	}
	p.expire()
	p.waits.end(maxWaits, now, 1)
}

// Close ends all connections and flows. The stack is closed by its owner, before or after.
func (p *Proxy) Close() {
	p.closed.Store(true)
	p.mu.Lock()
	var conns []*conn
	var flows []*flow
	for _, c := range p.conns {
		conns = append(conns, c)
	}
	for _, f := range p.flows {
		flows = append(flows, f)
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.abort()
	}
	for _, f := range flows {
		f.end()
	}
}

// Mark is what the Hash field of a packet must be: the port by which it came and, if it
// is a train of datagrams of that length in one, their length.
func Mark(port, train uint16) uint32 { return uint32(port) | uint32(train)<<16 }

func portOf(pkt *stack.PacketBuffer) uint16  { return uint16(pkt.Hash) }
func trainOf(pkt *stack.PacketBuffer) uint16 { return uint16(pkt.Hash >> 16) }

// addrPort is an address of gVisor's with a port.
func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// target is what a container wants to reach.
func target(device uint16, proto uint8, id *stack.TransportEndpointID) dial.Target {
	return dial.Target{Device: device, Proto: proto, To: addrPort(id.LocalAddress, id.LocalPort)}
}

func netProto(a tcpip.Address) tcpip.NetworkProtocolNumber {
	if a.Len() == header.IPv4AddressSize {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}
