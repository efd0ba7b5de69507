// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sluice/neigh"
	"sluice/routing"
	"sluice/trace"
)

// Namespace is a live namespace: sockets in its host stack, which the kernel does
// not know of, and questions to its tables. It is usable until a snapshot without
// it is applied or the Netstack is closed; its sockets then end. Its methods are
// safe for any goroutine.
type Namespace struct {
	name string
	net  *Netstack
	host *host

	dns atomic.Pointer[resolver] // nil: there never was one; set under Netstack.mu
}

// close ends what lives in the namespace.
func (ns *Namespace) close() {
	if r := ns.dns.Load(); r != nil {
		r.close()
	}
	ns.host.close()
}

// Name is that of the snapshot.
func (ns *Namespace) Name() string { return ns.name }

// space is the namespace in the view of now; nil if it is gone.
func (ns *Namespace) space() *space {
	s := ns.net.view.Load().spaces[ns.name]
	if s == nil || s.ns != ns {
		return nil
	}
	return s
}

// DialContext connects to an address from the namespace's gateway address. The
// network is tcp, tcp4, tcp6, udp, udp4 or udp6, the address an IP address and a
// port: names are not resolved here. Errors are *net.OpError; an error of the
// stack is wrapped as the unix.Errno that the kernel would give.
func (ns *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	e, err := ns.endpoint(network, address)
	if err == nil && !e.addr.Addr().IsValid() {
		err = &net.AddrError{Err: "missing host", Addr: address}
	}
	var conn net.Conn
	if err == nil {
		conn, err = e.dial(ctx)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: e.netAddr(), Err: err}
	}
	return conn, nil
}

// Listen waits for connections to an address of the host stack. The network is
// tcp, tcp4 or tcp6; an address without a host means all of them, port 0 a free
// one. Accept returns net.ErrClosed after Close.
func (ns *Namespace) Listen(network, address string) (net.Listener, error) {
	e, err := ns.endpoint(network, address)
	if err == nil && !e.tcp() {
		err = net.UnknownNetworkError(network)
	}
	var l net.Listener
	if err == nil {
		l, err = e.listen()
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: e.netAddr(), Err: err}
	}
	return l, nil
}

// ListenPacket binds to an address of the host stack. The network is udp, udp4 or
// udp6; an address without a host means all of them, port 0 a free one.
func (ns *Namespace) ListenPacket(network, address string) (net.PacketConn, error) {
	e, err := ns.endpoint(network, address)
	if err == nil && e.tcp() {
		err = net.UnknownNetworkError(network)
	}
	var c net.PacketConn
	if err == nil {
		c, err = e.listenPacket()
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: e.netAddr(), Err: err}
	}
	return c, nil
}

// endpoint is what one call wants of the stack.
type endpoint struct {
	ns      *Namespace
	network string         // tcp4…
	addr    netip.AddrPort // invalid Addr: any
	link    *hostLink      // the interface that it is bound to; nil: any
}

// endpoint parses the network and the address. It returns what it can of them
// also with an error, for the error's sake.
func (ns *Namespace) endpoint(network, address string) (endpoint, error) {
	e := endpoint{ns: ns, network: network}
	space := ns.space()
	if space == nil {
		return e, ErrClosed
	}
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
	default:
		return e, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return e, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return e, &net.AddrError{Err: "port is not a number of 16 bits", Addr: address}
	}
	e.addr = netip.AddrPortFrom(netip.Addr{}, uint16(port))
	if host == "" {
		return e, nil
	}
	return e, e.at(space, host, address)
}

// at sets the host's address, and for a link-local one the interface.
func (e *endpoint) at(s *space, host, address string) error {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return &net.AddrError{Err: "not an IP address", Addr: address}
	}
	a := ip.Unmap().WithZone("")
	e.addr = netip.AddrPortFrom(a, e.addr.Port())
	if a.Is6() && a.IsLinkLocalUnicast() {
		if e.link = s.zone(ip.Zone()); e.link == nil {
			return &net.AddrError{Err: "link-local address without the network as its zone", Addr: address}
		}
	}
	if e.only4() && !a.Is4() || e.only6() && !a.Is6() {
		return &net.AddrError{Err: "address of another family than " + e.network, Addr: address}
	}
	return nil
}

// zone is the interface that a link-local address is on: that of the network which
// its zone names, or the only one there is; else nil.
func (s *space) zone(name string) *hostLink {
	if n := s.network(name); n != nil {
		return n.link
	}
	if name == "" && len(s.networks) == 1 {
		return s.networks[0].link
	}
	return nil
}

func (e *endpoint) tcp() bool   { return strings.HasPrefix(e.network, "tcp") }
func (e *endpoint) only4() bool { return strings.HasSuffix(e.network, "4") }
func (e *endpoint) only6() bool { return strings.HasSuffix(e.network, "6") }

func (e *endpoint) netAddr() net.Addr {
	if !e.addr.IsValid() {
		return nil
	}
	if e.tcp() {
		return net.TCPAddrFromAddrPort(e.addr)
	}
	return net.UDPAddrFromAddrPort(e.addr)
}

// full is the address as gVisor writes it.
func (e *endpoint) full() tcpip.FullAddress {
	full := tcpip.FullAddress{Port: e.addr.Port()}
	if e.link != nil {
		full.NIC = e.link.nic
	}
	if e.addr.Addr().IsValid() {
		full.Addr = tcpip.AddrFromSlice(e.addr.Addr().AsSlice())
	}
	return full
}

// protocol is the address's; for none IPv6, which serves both unless it is told
// not to.
func (e *endpoint) protocol() tcpip.NetworkProtocolNumber {
	if e.addr.Addr().Is4() || e.only4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// open makes the stack's endpoint, with the options that the net package sets on
// a socket of the kernel.
func (e *endpoint) open(wq *waiter.Queue) (tcpip.Endpoint, error) {
	transport := udp.ProtocolNumber
	if e.tcp() {
		transport = tcp.ProtocolNumber
	}
	ep, err := e.stack().NewEndpoint(transport, e.protocol(), wq)
	if err != nil {
		return nil, callError("socket", err)
	}
	o := ep.SocketOptions()
	o.SetV6Only(e.only6())
	o.SetBroadcast(!e.tcp())
	if e.link != nil {
		if err := o.SetBindToDevice(int32(e.link.nic)); err != nil {
			ep.Close()
			return nil, callError("setsockopt", err)
		}
	}
	return ep, nil
}

func (e *endpoint) stack() *stack.Stack { return e.ns.host.stack }

// egress chooses the interface whose address is the source, as the router would.
func (e *endpoint) egress() error {
	if e.link != nil {
		return nil
	}
	space := e.ns.space()
	if space == nil {
		return ErrClosed
	}
	a, err := space.router.Ask(&routing.Question{Query: routing.Query{Dst: e.addr.Addr()}})
	if err != nil {
		return err
	}
	if errno := routeErrno(a.Reason); errno != 0 {
		return fmt.Errorf("connect: %w", errno)
	}
	if e.link = space.owner(a.Src); e.link == nil && a.Result.NextHop != nil {
		if p := space.devices[a.Result.NextHop.Index]; p != nil && p.outside == nil {
			e.link = p.link
		}
	}
	return nil
}

// owner is the interface that has an address, nil if there is none.
func (s *space) owner(a netip.Addr) *hostLink {
	for _, n := range s.networks {
		if hasAddr(n.spec.hostAddresses(), a) {
			return n.link
		}
	}
	for _, l := range s.links {
		if hasAddr(l.spec.Addresses, a) {
			return l.link
		}
	}
	return nil
}

// routeErrno is what connect(2) says when a route leads nowhere (fib_props); 0 if
// it leads somewhere.
func routeErrno(r trace.Reason) unix.Errno {
	switch r { //nolint:exhaustive // the others are no answer of a route
	case trace.NoRoute:
		return unix.ENETUNREACH
	case trace.Unreachable:
		return unix.EHOSTUNREACH
	case trace.Prohibit:
		return unix.EACCES
	case trace.Blackhole:
		return unix.EINVAL
	}
	return 0
}

// dial connects. The wait ends with the context.
func (e *endpoint) dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := e.egress(); err != nil {
		return nil, err
	}
	wq := new(waiter.Queue)
	ep, err := e.open(wq)
	if err != nil {
		return nil, err
	}
	entry, done := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if err := await(ctx, ep, ep.Connect(e.full()), done); err != nil {
		ep.Close()
		return nil, e.plainer(err)
	}
	if e.tcp() {
		return newConn(e.ns.host, ep, wq), nil
	}
	c, err := e.newPacketConn(ep, wq)
	if err != nil {
		ep.Close()
		return nil, err
	}
	return c, nil
}

// plainer says host unreachable where gVisor, which knows no such error of IPv6, says
// that the network is: the next hop did not answer.
func (e *endpoint) plainer(err error) error {
	space := e.ns.space()
	if space == nil || !errors.Is(err, unix.ENETUNREACH) {
		return err
	}
	a, ask := space.router.Ask(&routing.Question{Query: routing.Query{Dst: e.addr.Addr()}})
	if ask != nil || a.Neighbour != neigh.Failed {
		return err
	}
	return fmt.Errorf("connect: %w", unix.EHOSTUNREACH)
}

// await turns the result of Connect into that of the connection.
func await(ctx context.Context, ep tcpip.Endpoint, err tcpip.Error, done <-chan struct{}) error {
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			err = ep.LastError()
		}
	}
	return callError("connect", err)
}

func (e *endpoint) listen() (net.Listener, error) {
	wq := new(waiter.Queue)
	ep, err := e.open(wq)
	if err != nil {
		return nil, err
	}
	ep.SocketOptions().SetReuseAddress(true) // as net does: a restart finds its port in TIME_WAIT
	if err := e.bind(ep); err != nil {
		return nil, err
	}
	if err := ep.Listen(maxConns); err != nil { // SYN cookies are not wanted, see census.go
		ep.Close()
		return nil, callError("listen", err)
	}
	return newListener(e.ns.host, ep, wq), nil
}

// bind closes the endpoint if it fails.
func (e *endpoint) bind(ep tcpip.Endpoint) error {
	if err := ep.Bind(e.full()); err != nil {
		ep.Close()
		return callError("bind", err)
	}
	return nil
}

func (e *endpoint) listenPacket() (net.PacketConn, error) {
	wq := new(waiter.Queue)
	ep, err := e.open(wq)
	if err != nil {
		return nil, err
	}
	if err := e.bind(ep); err != nil {
		return nil, err
	}
	c, err := e.newPacketConn(ep, wq)
	if err != nil {
		ep.Close()
		return nil, err
	}
	return c, nil
}

// callError names the step that an error of the stack comes from; nil stays nil.
func callError(call string, err tcpip.Error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", call, tcpipError(err))
}

// tcpipError makes an error of gVisor's, which is none by itself: the kernel's
// number for the same if there is one.
func tcpipError(err tcpip.Error) error {
	if errno := errnoOf(err); errno != 0 {
		return errno
	}
	return errors.New(err.String())
}

// errnoOf is 0 for what the kernel has no number for.
func errnoOf(err tcpip.Error) unix.Errno {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused:
		return unix.ECONNREFUSED
	case *tcpip.ErrConnectionReset:
		return unix.ECONNRESET
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return unix.ECONNABORTED
	case *tcpip.ErrTimeout:
		return unix.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return unix.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return unix.ENETUNREACH
	case *tcpip.ErrPortInUse:
		return unix.EADDRINUSE
	case *tcpip.ErrBadLocalAddress:
		return unix.EADDRNOTAVAIL
	case *tcpip.ErrNoPortAvailable:
		return unix.EAGAIN
	}
	return 0
}
