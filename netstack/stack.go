// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"sluice/packet"
)

// nicID is the host stack's one interface.
const nicID = 1

// closeLimit bounds the wait for a stack's goroutines; it takes milliseconds.
const closeLimit = 5 * time.Second

// Buffers of TCP endpoints, in bytes. The maxima are what 50 Gbit/s need at a
// round trip of a millisecond; gVisor's own are 4 MB.
const (
	tcpBufferMin = 4 << 10
	tcpBufferDef = 1 << 20
	tcpRecvMax   = 8 << 20
	tcpSendMax   = 6 << 20
)

// Times of TCP endpoints, each bounding how long a peer that says nothing more can
// keep one.
const (
	// tcpRetries gives up data after some 100 s, the least that RFC 9293 §3.8.3
	// asks for; gVisor's own 15 take a quarter of an hour.
	tcpRetries = 8
	// tcpSynRetries gives up a handshake after 31 s.
	tcpSynRetries = 4
	// tcpFinWait is FIN-WAIT-2 of a connection that is closed.
	tcpFinWait = 20 * time.Second
	// tcpTimeWait is twice a segment's lifetime, which is milliseconds between two
	// ports of one bridge, and no minutes.
	tcpTimeWait = 10 * time.Second
)

// QuietStack ends what gVisor writes to standard error by itself: lines that a
// container can cause at will. It holds for the whole process and is called before
// New, by a program whose standard error is a log.
func QuietStack() { log.SetTarget(new(log.MultiEmitter)) }

// host is a namespace's own end point: a gVisor stack with the gateway addresses
// behind the bridge's local port. It does not forward, does not answer for
// addresses that it does not have (no spoofing), and takes no packets for others
// (not promiscuous). Its methods are called with Netstack.mu held.
type host struct {
	stack    *stack.Stack
	link     *hostLink
	services map[netip.Addr]*services
	orphans  *orphans
}

// newHost makes a stack without addresses.
func newHost(name string, link *hostLink) (*host, error) {
	h := &host{link: link, services: make(map[netip.Addr]*services), orphans: newOrphans()}
	h.stack = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			arp.NewProtocol, ipv4.NewProtocol,
			// Without duplicate address detection: the gateway's addresses are
			// the gateway's. Router advertisements are not listened to.
			ipv6.NewProtocol,
		},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
		HandleLocal: true, // the namespace can dial its own gateway address
	})
	if err := h.open(name); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *host) open(name string) error {
	if err := h.tune(); err != nil {
		return err
	}
	if err := h.stack.CreateNICWithOptions(nicID, h.link, stack.NICOptions{Name: name}); err != nil {
		return fmt.Errorf("create interface: %w", tcpipError(err))
	}
	for proto, ep := range map[tcpip.NetworkProtocolNumber]*stack.NetworkEndpoint{
		arp.ProtocolNumber: &h.link.arp, ipv4.ProtocolNumber: &h.link.ipv4, ipv6.ProtocolNumber: &h.link.ipv6,
	} {
		e, err := h.stack.GetNetworkEndpoint(nicID, proto)
		if err != nil {
			return fmt.Errorf("network protocol %#x: %w", proto, tcpipError(err))
		}
		*ep = e
	}
	return nil
}

// tune sets what differs from gVisor's defaults, or what must not depend on
// them. Loss recovery is RACK (RFC 8985), which is the default.
func (h *host) tune() error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcpBufferMin, Default: tcpBufferDef, Max: tcpSendMax}
	recv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcpBufferMin, Default: tcpBufferDef, Max: tcpRecvMax}
	retries, synRetries := tcpip.TCPMaxRetriesOption(tcpRetries), tcpip.TCPSynRetriesOption(tcpSynRetries)
	finWait, timeWait := tcpip.TCPLingerTimeoutOption(tcpFinWait), tcpip.TCPTimeWaitTimeoutOption(tcpTimeWait)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack, &moderate, &send, &recv, &retries, &synRetries, &finWait, &timeWait,
	} {
		if err := h.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set %T: %w", o, tcpipError(err))
		}
	}
	return nil
}

// close ends the stack: every connection, its goroutines and what the link has
// queued. gVisor ends its endpoints one by one; should one of them not end, the
// others are not to wait for it, and neither is Apply.
// Preconditions: no worker delivers to the link any more.
func (h *host) close() {
	for _, s := range h.services {
		s.stop()
	}
	for _, ep := range h.stack.CleanupEndpoints() {
		ep.Abort()
	}
	h.stack.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		h.stack.Wait()
	}()
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case <-gone:
	case <-limit.C:
	}
	h.link.shut()
}

// everySecond does what needs a clock. It may be called at any time.
func (h *host) everySecond() {
	h.link.census.count(h.stack)
	h.orphans.expire()
}

// addAddress makes the stack own an address, and starts the services on it if
// they are wanted. On an error nothing has changed.
func (h *host) addAddress(p netip.Prefix, echo bool) error {
	if err := h.stack.AddProtocolAddress(nicID, protocolAddress(p), stack.AddressProperties{}); err != nil {
		return fmt.Errorf("add address %s: %w", p, tcpipError(err))
	}
	if !echo {
		return nil
	}
	if err := h.startServices(p.Addr()); err != nil {
		h.removeAddress(p)
		return err
	}
	return nil
}

// removeAddress undoes addAddress. An address that the stack does not have is
// none the worse for it.
func (h *host) removeAddress(p netip.Prefix) {
	h.stopServices(p.Addr())
	_ = h.stack.RemoveAddress(nicID, tcpip.AddrFromSlice(p.Addr().AsSlice()))
}

// setPrefixes gives addresses that stay another length of subnet. gVisor keeps
// it with the address, which is taken away and given back: connections do not
// notice. Neither can fail for an address that is there.
func (h *host) setPrefixes(old, next []netip.Prefix) {
	for _, p := range next {
		if hasAddr(old, p.Addr()) && !slices.Contains(old, p) {
			_ = h.stack.RemoveAddress(nicID, tcpip.AddrFromSlice(p.Addr().AsSlice()))
			_ = h.stack.AddProtocolAddress(nicID, protocolAddress(p), stack.AddressProperties{})
		}
	}
}

func (h *host) startServices(a netip.Addr) error {
	s, err := startServices(h, a)
	if err != nil {
		return fmt.Errorf("echo services on %s: %w", a, err)
	}
	h.services[a] = s
	return nil
}

func (h *host) stopServices(a netip.Addr) {
	if s := h.services[a]; s != nil {
		s.stop()
		delete(h.services, a)
	}
}

// setRoutes replaces the routes: the subnets of the addresses are connected, and
// there is no other.
func (h *host) setRoutes(addrs []netip.Prefix) {
	routes := make([]tcpip.Route, 0, len(addrs))
	for _, p := range addrs {
		subnet := protocolAddress(p).AddressWithPrefix.Subnet()
		routes = append(routes, tcpip.Route{Destination: subnet, NIC: nicID})
	}
	h.stack.SetRouteTable(routes)
}

// linkLocal is the address of fe80::/64 that goes with a MAC (RFC 4291
// Appendix A). Without one the stack could not speak of neighbours on its link.
func linkLocal(mac packet.MAC) netip.Prefix {
	a := header.LinkLocalAddr(tcpip.LinkAddress(mac[:]))
	return netip.PrefixFrom(netip.AddrFrom16(a.As16()), 64)
}

// hostAddresses are the addresses that a namespace's stack is to have: the
// gateway's, and a link-local one if any of those is IPv6.
func (s *NamespaceSpec) hostAddresses() []netip.Prefix {
	if !s.hasIPv6() {
		return s.Addresses
	}
	ll := linkLocal(s.Bridge.MAC)
	if slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr() == ll.Addr() }) {
		return s.Addresses
	}
	return append(slices.Clone(s.Addresses), ll)
}

// neighbours are the containers' addresses with their MACs.
func (s *NamespaceSpec) neighbours() map[netip.Addr]packet.MAC {
	all := make(map[netip.Addr]packet.MAC)
	for i := range s.Ports {
		for _, a := range s.Ports[i].Addresses {
			all[a] = s.Ports[i].MAC
		}
	}
	return all
}

// setNeighbours makes the containers known, so that the stack never has to ask
// for them and nobody can answer in their name. Both calls fail only for an
// interface or a protocol that does not exist.
func (h *host) setNeighbours(old, next map[netip.Addr]packet.MAC) {
	for a := range old {
		if _, stays := next[a]; !stays {
			_ = h.stack.RemoveNeighbor(nicID, protocolOf(a), tcpip.AddrFromSlice(a.AsSlice()))
		}
	}
	for a, mac := range next {
		if was, known := old[a]; !known || was != mac {
			_ = h.stack.AddStaticNeighbor(nicID, protocolOf(a), tcpip.AddrFromSlice(a.AsSlice()), tcpip.LinkAddress(mac[:]))
		}
	}
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func protocolAddress(p netip.Prefix) tcpip.ProtocolAddress {
	return tcpip.ProtocolAddress{
		Protocol: protocolOf(p.Addr()),
		AddressWithPrefix: tcpip.AddressWithPrefix{
			Address:   tcpip.AddrFromSlice(p.Addr().AsSlice()),
			PrefixLen: p.Bits(),
		},
	}
}

// addrOf is the inverse: the zero Addr for none.
func addrOf(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr.Unmap()
}
