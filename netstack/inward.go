// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"context"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sluice/dial"
	"sluice/proxy"
	"sluice/routing"
	"sluice/trace"
)

// Theory of operation.
//
// What was accepted on the host for a published port goes on in the namespace, from one
// of two places:
//
//   - If the container's answer to the client's address leaves by the same uplink, from
//     the uplink's stack, with that address: the container, and every rule on the way,
//     sees who it is. The port is the client's, too, unless another connection has it.
//   - Else from the namespace's own stack, with the address that it has towards the
//     container, the gateway's: 127.0.0.1 and ::1 are another host in the container, an
//     address of the other family is none, and what the namespace has networks or other
//     routes for would be answered by another way.

// Accept takes what was accepted on the host (dial.Client.Accepted). It does not wait.
func (n *Netstack) Accept(a *dial.Accepted) {
	s, o := n.outside(a.Device)
	if o == nil {
		a.Refuse()
		return
	}
	from := netip.AddrPortFrom(a.From.Addr().Unmap(), a.From.Port())
	shown := s.answersBy(o, a.To.Addr(), from.Addr())
	switch {
	case a.Proto == dial.TCP && shown:
		o.proxy.Connect(&proxy.Call{Accepted: a, Open: func(wq *waiter.Queue) (tcpip.Endpoint, error) { return o.openFrom(from, wq) }})
	case a.Proto == dial.TCP:
		o.proxy.Connect(&proxy.Call{Accepted: a, Open: func(wq *waiter.Queue) (tcpip.Endpoint, error) {
			e, err := s.gateway("tcp", o, a.To)
			if err != nil {
				return nil, err
			}
			return e.open(wq)
		}})
	case a.Proto == dial.UDP && shown:
		o.proxy.Relay(a, from)
	case a.Proto == dial.UDP:
		s.relay(o, a)
	default:
		a.Refuse()
	}
}

// outside is the socket uplink of an index, and its namespace; nil: there is none.
func (n *Netstack) outside(index uint16) (*space, *outside) {
	p := n.view.Load().port(index)
	if p == nil || p.outside == nil {
		return nil, nil
	}
	return p.space, p.outside
}

// answersBy reports whether what a container sends to an address leaves by an uplink.
func (s *space) answersBy(o *outside, container, to netip.Addr) bool {
	if container.Is4() != to.Is4() || !to.IsGlobalUnicast() {
		return false
	}
	a, err := s.router.Ask(&routing.Question{Query: routing.Query{Dst: to, L3mdev: o.spec.Index}})
	return err == nil && a.Reason == trace.None && a.Result.NextHop != nil && a.Result.NextHop.Index == o.spec.Index
}

// openFrom makes an endpoint in the uplink's stack that has a client's address.
func (o *outside) openFrom(from netip.AddrPort, wq *waiter.Queue) (tcpip.Endpoint, error) {
	proto := header.IPv4ProtocolNumber
	if from.Addr().Is6() {
		proto = header.IPv6ProtocolNumber
	}
	ep, err := o.stack.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if err != nil {
		return nil, callError("socket", err)
	}
	at := tcpip.FullAddress{NIC: outsideNIC, Addr: tcpip.AddrFromSlice(from.Addr().AsSlice()), Port: from.Port()}
	if err = ep.Bind(at); err != nil {
		at.Port = 0
		err = ep.Bind(at)
	}
	if err != nil {
		ep.Close()
		return nil, callError("bind", err)
	}
	return ep, nil
}

// gateway is an endpoint of the namespace's own stack for a container behind an uplink's
// VRF, on the interface that has the gateway's address.
func (s *space) gateway(network string, o *outside, to netip.AddrPort) (*endpoint, error) {
	e := &endpoint{ns: s.ns, network: network + "4", addr: to}
	if to.Addr().Is6() {
		e.network = network + "6"
	}
	a, err := s.router.Ask(&routing.Question{Query: routing.Query{Dst: to.Addr(), L3mdev: o.spec.Index}})
	if err != nil {
		return nil, err
	}
	if errno := routeErrno(a.Reason); errno != 0 {
		return nil, errno
	}
	if e.link = s.owner(a.Src); e.link == nil {
		return nil, net.UnknownNetworkError(to.Addr().String())
	}
	return e, nil
}

// gatewayIdle ends a flow of datagrams from the gateway's address.
const gatewayIdle = 2 * time.Minute

// relay carries a flow of datagrams from the gateway's address. One of no length from
// outside ends it: the next begins another.
func (s *space) relay(o *outside, a *dial.Accepted) {
	a.Over() // the end of the flow is that of the socket
	client, err := dial.Conn(a.FD)
	if err != nil {
		return
	}
	e, err := s.gateway("udp", o, a.To)
	if err != nil {
		client.Close()
		return
	}
	go e.carry(client)
}

func (e *endpoint) carry(client *net.UnixConn) {
	defer client.Close()
	container, err := e.dial(context.Background())
	if err != nil {
		return
	}
	defer container.Close()
	idle := time.AfterFunc(gatewayIdle, func() { client.Close() })
	defer idle.Stop()
	go func() {
		defer client.Close()
		copyDatagrams(client, container, idle)
	}()
	copyDatagrams(container, client, idle)
}

// copyDatagrams copies until one side ends. What is not idle lives on.
func copyDatagrams(to, from net.Conn, idle *time.Timer) {
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		idle.Reset(gatewayIdle)
		_, _ = to.Write(b[:n]) // what does not fit is lost, as in any network
	}
}
