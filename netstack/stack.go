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

	"sluice/conntrack"
	"sluice/packet"
	"sluice/routing"
)

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

// host is a namespace's own end point: a gVisor stack with the gateway addresses,
// which has an interface behind the local port of each of the namespace's bridges.
// It does not forward, does not answer for addresses that it does not have (no
// spoofing), takes no packets for others (not promiscuous), and resolves nobody's
// link address: what it sends goes to the namespace's router. Its methods are
// called with Netstack.mu held.
type host struct {
	stack   *stack.Stack
	links   []*hostLink
	lastNIC tcpip.NICID
	// services are the echo services of the addresses that have them.
	services map[netip.Addr]*services
	orphans  *orphans
	census   *census
	inboxes  inboxes
}

// listens reports whether a socket takes what begins a TCP connection of this tuple.
func (h *host) listens(t conntrack.Tuple) bool {
	proto := ipv4.ProtocolNumber
	if t.Dst.Is6() {
		proto = ipv6.ProtocolNumber
	}
	id := stack.TransportEndpointID{
		LocalPort: t.DstPort, LocalAddress: tcpip.AddrFromSlice(t.Dst.AsSlice()),
		RemotePort: t.SrcPort, RemoteAddress: tcpip.AddrFromSlice(t.Src.AsSlice()),
	}
	return h.stack.FindTransportEndpoint(proto, tcp.ProtocolNumber, id, h.lastNIC) != nil
}

// newHost makes a stack without interfaces.
func newHost() (*host, error) {
	h := &host{services: make(map[netip.Addr]*services), orphans: newOrphans(), census: newCensus()}
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
	if err := h.tune(); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// addLink makes an interface. Its number is never used again, so that the one
// of a network that is replaced can stand beside the new one's.
func (h *host) addLink(name string, l *hostLink) error {
	h.lastNIC++
	l.nic = h.lastNIC
	if err := h.stack.CreateNICWithOptions(l.nic, l, stack.NICOptions{Name: fmt.Sprintf("%s.%d", name, l.nic)}); err != nil {
		return fmt.Errorf("create interface: %w", tcpipError(err))
	}
	h.links = append(h.links, l)
	for proto, ep := range map[tcpip.NetworkProtocolNumber]*stack.NetworkEndpoint{
		arp.ProtocolNumber: &l.arp, ipv4.ProtocolNumber: &l.ipv4, ipv6.ProtocolNumber: &l.ipv6,
	} {
		e, err := h.stack.GetNetworkEndpoint(l.nic, proto)
		if err != nil {
			return fmt.Errorf("network protocol %#x: %w", proto, tcpipError(err))
		}
		*ep = e
	}
	return nil
}

// removeLink undoes addLink. Preconditions: no worker delivers to it any more.
func (h *host) removeLink(l *hostLink) {
	h.links = slices.DeleteFunc(h.links, func(o *hostLink) bool { return o == l })
	_ = h.stack.RemoveNIC(l.nic) // it is there
	l.shut()
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
	for _, l := range h.links {
		l.shut()
	}
}

// everySecond does what needs a clock. It may be called at any time.
func (h *host) everySecond() {
	h.census.count(h.stack)
	h.orphans.expire()
}

// addAddress gives an interface an address. On an error nothing has changed.
func (h *host) addAddress(l *hostLink, p netip.Prefix) error {
	if err := h.stack.AddProtocolAddress(l.nic, protocolAddress(p), stack.AddressProperties{}); err != nil {
		return fmt.Errorf("add address %s: %w", p, tcpipError(err))
	}
	return nil
}

// removeAddress undoes addAddress. An address that the interface does not have
// is none the worse for it.
func (h *host) removeAddress(l *hostLink, p netip.Prefix) {
	_ = h.stack.RemoveAddress(l.nic, tcpip.AddrFromSlice(p.Addr().AsSlice()))
}

// setPrefixes gives addresses that stay another length of subnet. gVisor keeps
// it with the address, which is taken away and given back: connections do not
// notice. Neither can fail for an address that is there.
func (h *host) setPrefixes(l *hostLink, old, next []netip.Prefix) {
	for _, p := range next {
		if hasAddr(old, p.Addr()) && !slices.Contains(old, p) {
			_ = h.stack.RemoveAddress(l.nic, tcpip.AddrFromSlice(p.Addr().AsSlice()))
			_ = h.stack.AddProtocolAddress(l.nic, protocolAddress(p), stack.AddressProperties{})
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

// maxHints bounds the routes that the stack knows, which it walks one by one.
const maxHints = 256

// setRoutes replaces the routes: everything is behind each of the interfaces,
// which means that the namespace's router is asked. gVisor takes the first whose
// interface has the source address; those of the router before them are there for
// sockets that have none, which get the one that goes with their first.
func (h *host) setRoutes(s *space) {
	routes := s.hints()
	for _, n := range s.networks {
		n.link.broadcasts.Store(n.spec.broadcasts())
	}
	for _, l := range s.interfaces() {
		routes = append(routes,
			tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: l.nic},
			tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: l.nic})
	}
	h.stack.SetRouteTable(routes)
}

// hints are the most particular routes of the main table, with the source address
// of each.
func (s *space) hints() (all []tcpip.Route) {
	var known []*routing.Route
	for r := range s.router.Set().Routes(routing.TableMain) {
		if r.Type == routing.Unicast && s.inward(r.NextHops[0].Index) {
			known = append(known, r)
		}
	}
	slices.SortStableFunc(known, func(a, b *routing.Route) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	for _, r := range known[:min(len(known), maxHints)] {
		l := s.owner(r.Src)
		if l == nil {
			l = s.devices[r.NextHops[0].Index].link
		}
		hint := tcpip.Route{Destination: subnetOf(r.Prefix), NIC: l.nic}
		if r.Src.IsValid() {
			hint.SourceHint = tcpip.AddrFromSlice(r.Src.AsSlice())
		}
		all = append(all, hint)
	}
	return all
}

// inward reports whether the host stack has an interface at a device.
func (s *space) inward(device uint16) bool {
	p := s.devices[device]
	return p != nil && p.outside == nil
}

func subnetOf(p netip.Prefix) tcpip.Subnet { return protocolAddress(p).AddressWithPrefix.Subnet() }

// broadcasts are the broadcast addresses of the subnets, which gVisor leaves to
// the link.
func (s *NetworkSpec) broadcasts() *[]tcpip.Address {
	all := []tcpip.Address{header.IPv4Broadcast}
	for _, p := range s.Addresses {
		if p.Addr().Is4() && p.Bits() < 31 {
			subnet := subnetOf(p)
			all = append(all, subnet.Broadcast())
		}
	}
	return &all
}

// linkLocal is the address of fe80::/64 that goes with a MAC (RFC 4291
// Appendix A). Without one the stack could not speak of neighbours on its link.
func linkLocal(mac packet.MAC) netip.Prefix {
	a := header.LinkLocalAddr(tcpip.LinkAddress(mac[:]))
	return netip.PrefixFrom(netip.AddrFrom16(a.As16()), 64)
}

// hostAddresses are the addresses that the host stack is to have in a network: the
// gateway's, and a link-local one if any of those is IPv6.
func (s *NetworkSpec) hostAddresses() []netip.Prefix {
	if !s.hasIPv6() && !s.Learn.SLAAC && !s.Learn.DHCP6 {
		return s.Addresses
	}
	ll := linkLocal(s.Bridge.MAC)
	if slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr() == ll.Addr() }) {
		return s.Addresses
	}
	return append(slices.Clone(s.Addresses), ll)
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
