// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"sluice/packet"
	"sluice/proxy"
	"sluice/qdisc"
	"sluice/trace"
)

// Theory of operation.
//
// A socket uplink is a device without a link layer, as one end of a link. At its other
// end is no namespace but a stack of its own, the uplink stack, which takes packets for
// any address and answers from it; package proxy ends connections there and goes on
// with sockets of the host. What is routed to the device is delivered to that stack,
// and what the stack sends comes in by the device.

// SocketSpec is a socket uplink of a namespace.
type SocketSpec struct {
	Name   string     `json:"name"`
	Index  uint16     `json:"index"` // as that of a port
	MTU    int        `json:"mtu"`
	Device DeviceSpec `json:"device,omitzero"`
	VRF    string     `json:"vrf,omitempty"`
	// Egress is as that of a LinkSpec.
	Egress *qdisc.Spec `json:"egress,omitempty"`
	// Limits that are zero are the defaults of package proxy.
	Limits proxy.Limits `json:"limits,omitzero"`
}

// outsideNIC is the number of an uplink stack's one interface.
const outsideNIC = 1

// Receive buffers of the uplink stack's connections. A container is microseconds away, so
// that a megabyte is a window for more than it can send; and there may be many. Send
// buffers are proxy.SendBuffer.
const (
	outsideBufferDef = 512 << 10
	outsideBufferMax = 1 << 20
)

// outsideControl is the congestion control towards containers. CUBIC would leave slow
// start at the first train of acknowledgements, which is the first one that a container
// sends, and then open its window by the clock, not by the round trips, of which there
// are thousands in a second.
const outsideControl = "reno"

// outsideTimeWait is longer than that of package proxy, which ends it.
const outsideTimeWait = 10 * time.Second

// outside is the uplink stack of one socket uplink. It lives from snapshot to snapshot.
type outside struct {
	spec  SocketSpec
	stack *stack.Stack
	link  *hostLink
	proxy *proxy.Proxy
	port  *port // of one snapshot, as link's
}

// newOutside makes the stack, and what feeds it.
func (c *change) newOutside(s *SocketSpec) (*outside, error) {
	o := &outside{spec: *s}
	o.stack = stack.New(stack.Options{
		Clock:            newTimers(),
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	b := &BridgeSpec{Index: s.Index, MAC: linkMAC(s.Index), MTU: s.MTU}
	o.link = newHostLink(nil, b, c.net.worker(s.Index), c.net.opts.Counters.Port(s.Index))
	if err := o.open(); err != nil {
		o.close()
		return nil, err
	}
	counters := c.net.opts.Counters
	config := proxy.Config{
		Stack: o.stack, NIC: outsideNIC, Device: s.Index, Dialer: asking{c.net}, Limits: s.Limits,
		Partial: true,
		Drop:    func(port uint16, r trace.Reason) { counters.Port(port).Drop(r, 1) },
		Watch:   func(port uint16, fd int, key int32) error { return c.net.worker(port).watch(fd, s.Index, key) },
		Wake:    o.link.ask,
	}
	if c.net.opts.Connects {
		config.Reuse = func(port uint16, fd int, ipv6 bool) bool { return port != 0 && c.net.worker(port).reuse(fd, ipv6) }
	}
	o.proxy = proxy.New(config)
	o.link.proxy = o.proxy
	c.undos = append(c.undos, o.close)
	return o, nil
}

// open gives the stack its interface, to which everything belongs and leads.
func (o *outside) open() error {
	if err := o.tune(); err != nil {
		return err
	}
	if err := o.stack.CreateNICWithOptions(outsideNIC, o.link, stack.NICOptions{Name: o.spec.Name}); err != nil {
		return fmt.Errorf("create interface: %w", tcpipError(err))
	}
	if err := o.stack.SetPromiscuousMode(outsideNIC, true); err != nil {
		return fmt.Errorf("promiscuous: %w", tcpipError(err))
	}
	if err := o.stack.SetSpoofing(outsideNIC, true); err != nil {
		return fmt.Errorf("spoofing: %w", tcpipError(err))
	}
	o.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: outsideNIC},
		{Destination: header.IPv6EmptySubnet, NIC: outsideNIC},
	})
	for proto, ep := range map[tcpip.NetworkProtocolNumber]*stack.NetworkEndpoint{
		ipv4.ProtocolNumber: &o.link.ipv4, ipv6.ProtocolNumber: &o.link.ipv6,
	} {
		e, err := o.stack.GetNetworkEndpoint(outsideNIC, proto)
		if err != nil {
			return fmt.Errorf("network protocol %#x: %w", proto, tcpipError(err))
		}
		*ep = e
	}
	return nil
}

// tune is host.tune with other buffers.
func (o *outside) tune() error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcpBufferMin, Default: proxy.SendBuffer, Max: proxy.SendBuffer}
	recv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcpBufferMin, Default: outsideBufferDef, Max: outsideBufferMax}
	retries, synRetries := tcpip.TCPMaxRetriesOption(tcpRetries), tcpip.TCPSynRetriesOption(tcpSynRetries)
	finWait, timeWait := tcpip.TCPLingerTimeoutOption(tcpFinWait), tcpip.TCPTimeWaitTimeoutOption(outsideTimeWait)
	control := tcpip.CongestionControlOption(outsideControl)
	for _, opt := range []tcpip.SettableTransportProtocolOption{
		&sack, &moderate, &send, &recv, &retries, &synRetries, &finWait, &timeWait, &control,
	} {
		if err := o.stack.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return fmt.Errorf("set %T: %w", opt, tcpipError(err))
		}
	}
	return nil
}

// close ends the stack and all connections by it.
// Preconditions: no worker delivers to the link any more.
func (o *outside) close() {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for _, ep := range o.stack.CleanupEndpoints() {
			ep.Abort()
		}
		if o.proxy != nil {
			o.proxy.Close()
		}
		o.stack.Close()
		o.stack.Wait()
	}()
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case <-gone:
	case <-limit.C:
	}
	o.link.shut()
}

// outside prepares a socket uplink: a new one, or the next state of one that is.
func (c *change) outside(was *space, spec *SocketSpec) (*outside, error) {
	if before := was.outsideOf(spec.Index); before != nil && before.same(spec) {
		c.retired = append(c.retired, func() { before.link.SetMTU(uint32(spec.MTU)) })
		return &outside{spec: *spec, stack: before.stack, link: before.link, proxy: before.proxy}, nil
	}
	if c.net.opts.Dialer == nil {
		return nil, errors.New("there is nobody to dial")
	}
	return c.newOutside(spec)
}

// same reports whether a spec describes this uplink's next state, and not another one
// of the same index.
func (o *outside) same(spec *SocketSpec) bool {
	return o.spec.Name == spec.Name && o.spec.Limits == spec.Limits
}

// outsideOf returns the namespace's socket uplink of that index, nil if there is none.
func (s *space) outsideOf(index uint16) *outside {
	if s == nil {
		return nil
	}
	for _, o := range s.outsides {
		if o.spec.Index == index {
			return o
		}
	}
	return nil
}

// withdraw notes that the socket uplinks which the next state does not have go.
func (c *change) withdraw(next, was *space) {
	if was == nil {
		return
	}
	for _, o := range was.outsides {
		if stays := next.outsideOf(o.spec.Index); stays == nil || stays.stack != o.stack {
			c.retired = append(c.retired, o.close)
		}
	}
}

// compileOutside adds a socket uplink's port to the view.
func (v *view) compileOutside(s *space, o *outside, counters *trace.Counters) {
	o.port = &port{
		index: o.spec.Index, offload: true, mtu: o.spec.MTU, counters: counters.Port(o.spec.Index),
		link: o.link, space: s, clamp: o.spec.Device.ClampMSS, outside: o,
		queues: [2]*qdisc.Spec{egress: o.spec.Egress},
	}
	v.queued = v.queued || o.spec.Egress != nil
	o.port.local = o.port
	v.add(o.port)
	s.devices[o.spec.Index], s.ports[o.spec.Index] = o.port, o.port
}

// watch adds a socket of an uplink to the worker's epoll set. It is let go of when it is
// closed.
func (w *worker) watch(fd int, uplink uint16, key int32) error {
	const edges = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff
	ev := unix.EpollEvent{Events: edges, Fd: outsideIndex | int32(uplink), Pad: key}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(w.poll.fd, unix.EPOLL_CTL_ADD, fd, &ev))
}

// outsideIndex marks the epoll events of uplinks' sockets; below it is the uplink's
// index.
const outsideIndex = 1 << 16

// outsideReady serves an event of an uplink's socket.
func (t *turn) outsideReady(ev *unix.EpollEvent) {
	if p := t.view.port(uint16(ev.Fd)); p != nil && p.outside != nil {
		p.link.approach(t.mail)
		p.outside.proxy.Ready(ev.Pad, ev.Events)
	}
}

// enter gives a packet to an uplink stack: the frame's, as it came.
func (l *hostLink) enter(to stack.NetworkEndpoint, pkt *stack.PacketBuffer, f *packet.Frame) {
	pkt.Hash = proxy.Mark(f.InPort, trainOf(f))
	v := &f.View
	if v.Proto != packet.ProtoTCP {
		to.HandlePacket(pkt)
		return
	}
	var id stack.TransportEndpointID
	switch ok := segmentOf(f, &id); {
	case !ok:
		to.HandlePacket(pkt)
	case opens(f):
		l.proxy.Renew(&id)
		to.HandlePacket(pkt)
	default:
		l.proxy.Deliver(to, pkt, &id)
	}
}

// segmentOf gives the endpoint that a segment is for; false: it may be for none.
func segmentOf(f *packet.Frame, id *stack.TransportEndpointID) bool {
	v, b := &f.View, f.Bytes()
	if !v.Is(packet.ViewHasL4) || v.Is(packet.ViewFrag|packet.ViewRouted) {
		return false
	}
	*id = stack.TransportEndpointID{
		LocalAddress: tcpip.AddrFromSlice(v.DstAddr(b).AsSlice()), LocalPort: v.DstPort,
		RemoteAddress: tcpip.AddrFromSlice(v.SrcAddr(b).AsSlice()), RemotePort: v.SrcPort,
	}
	return true
}

// exit delivers frame i, which is routed to a socket uplink, to its stack.
func (t *turn) exit(c *crossing, out *port, i int) {
	t.keepExit(c, out)
	t.send(c.in, out, i)
}

// keepExit remembers that a flow leaves by a device that has no bridge, or a queue.
func (t *turn) keepExit(c *crossing, out *port) {
	if c.keep && c.src.Valid() && c.in.sock != nil {
		t.keep(&decision{src: c.src, dst: c.src, out: out.index}, c)
	}
}

func (s *SocketSpec) validate(indices map[uint16]string, taken names, vrfs map[string]bool) error {
	if err := taken.claim(s.Name, "uplink"); err != nil {
		return err
	}
	if err := claimIndex(indices, s.Index, "uplink "+s.Name); err != nil {
		return err
	}
	if err := validateQueue("egress", s.Egress); err != nil {
		return err
	}
	l := &s.Limits
	switch {
	case s.MTU < minMTU6 || s.MTU > maxMTU:
		return fmt.Errorf("MTU %d is not in %d..%d", s.MTU, minMTU6, maxMTU)
	case s.VRF != "" && !vrfs[s.VRF]:
		return fmt.Errorf("there is no VRF %q", s.VRF)
	case min(l.Conns, l.ConnsPerPort, l.Dials, l.DialsPerPort, l.Flows, l.FlowsPerPort) < 0,
		max(l.Conns, l.ConnsPerPort, l.Dials, l.DialsPerPort, l.Flows, l.FlowsPerPort) > maxTable:
		return fmt.Errorf("a limit is not in 0..%d", maxTable)
	}
	return nil
}
