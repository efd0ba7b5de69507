// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"cmp"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"sluice/bridge"
	"sluice/dial"
	"sluice/neigh"
	"sluice/packet"
	"sluice/router"
	"sluice/routing"
)

// Socket is one socket of the host stack, as ss(8) shows it.
type Socket struct {
	Proto string         `json:"proto"` // tcp, udp
	State string         `json:"state"` // ESTAB, LISTEN… and UNCONN
	Local netip.AddrPort `json:"local"` // unspecified address: all
	// Remote is not valid for a socket that is not connected.
	Remote netip.AddrPort `json:"remote"`
	// RecvQ is the number of bytes that were received and not read yet.
	RecvQ int `json:"recvQ"`
	// Port is the container's whose connection it is, of a socket uplink's.
	Port uint16 `json:"port,omitempty"`
}

// WorkerStats is what a worker did since it was started, and the bounds of what
// it may hold.
type WorkerStats struct {
	Worker      int    `json:"worker"`
	Ports       int    `json:"ports"`       // served by it now
	Rounds      uint64 `json:"rounds"`      // looks at the epoll set that were followed by work or sleep
	Turns       uint64 `json:"turns"`       // of ports and of host stacks
	Frames      uint64 `json:"frames"`      // that came in those turns
	Wakes       uint64 `json:"wakes"`       // out of sleep, by a host stack
	RxErrors    uint64 `json:"rxErrors"`    // of ports' sockets
	FlowEntries int    `json:"flowEntries"` // in use; those of past views are counted until reused
	FlowMax     int    `json:"flowMax"`
	FlowHits    uint64 `json:"flowHits"`
	FlowMisses  uint64 `json:"flowMisses"`
	BufferBytes int    `json:"bufferBytes"` // address space of its frame buffers
}

// FDB is the forwarding table of a network; nil if it is gone.
func (ns *Namespace) FDB(network string) []bridge.Entry {
	n := ns.space().network(network)
	if n == nil {
		return nil
	}
	return n.bridge.Entries(nil, bridge.Tick(ns.net.tick.Load()))
}

// FDBStats is what the forwarding table of a network holds and did; zero if it is
// gone.
func (ns *Namespace) FDBStats(network string) bridge.Stats {
	n := ns.space().network(network)
	if n == nil {
		return bridge.Stats{}
	}
	return n.bridge.Stats()
}

// Addresses are those that the host stack has in a network, the gateway's first.
func (ns *Namespace) Addresses(network string) []netip.Prefix {
	n := ns.space().network(network)
	if n == nil {
		return nil
	}
	return slices.Clone(n.spec.hostAddresses())
}

// Neighbours is the neighbour table of a network, or for "" of the namespace, by
// device and address.
func (ns *Namespace) Neighbours(network string) []neigh.Entry {
	s := ns.space()
	if s == nil {
		return nil
	}
	all := s.router.Neigh().Entries(nil, neigh.Tick(ns.net.tick.Load()))
	if network != "" {
		n := s.network(network)
		all = slices.DeleteFunc(all, func(e neigh.Entry) bool { return n == nil || e.Device != n.spec.Bridge.Index })
	}
	slices.SortFunc(all, func(a, b neigh.Entry) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), a.Addr.Compare(b.Addr))
	})
	return all
}

// Index is that of a network as a device; 0 if it is gone.
func (ns *Namespace) Index(network string) uint16 {
	n := ns.space().network(network)
	if n == nil {
		return 0
	}
	return n.spec.Bridge.Index
}

// FlushNeighbours forgets dynamic neighbours and returns their number: those of a
// device, or of all for 0; one address, or all if it is not valid.
func (ns *Namespace) FlushNeighbours(device uint16, addr netip.Addr) int {
	s := ns.space()
	if s == nil {
		return 0
	}
	return s.router.Neigh().Flush(device, addr)
}

// Ask tells how the namespace's router would send a packet, `ip route get`.
func (ns *Namespace) Ask(q *routing.Question) (*router.Answer, error) {
	s := ns.space()
	if s == nil {
		return nil, ErrClosed
	}
	return s.router.Ask(q)
}

// Sockets are the TCP and UDP sockets of the host stack, by protocol and local
// port. The gVisor stack has no account of a socket's unsent bytes.
func (ns *Namespace) Sockets() []Socket {
	if ns.space() == nil {
		return nil
	}
	var all []Socket
	for _, e := range ns.host.stack.RegisteredEndpoints() {
		if s, ok := socketOf(e); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, compareSockets)
	return slices.Compact(all) // a socket of both families is registered twice
}

// Proxied are the connections and flows by a socket uplink: Local is whom the container,
// which is Remote, talks to. nil: there is no such uplink.
func (ns *Namespace) Proxied(uplink string) []Socket {
	s := ns.space()
	if s == nil {
		return nil
	}
	for _, o := range s.outsides {
		if o.spec.Name == uplink {
			return o.sockets()
		}
	}
	return nil
}

func (o *outside) sockets() []Socket {
	all := []Socket{}
	for _, e := range o.proxy.Entries() {
		s := Socket{Local: e.Outside, Remote: e.Inside, Port: e.Port, State: "UNCONN"}
		switch e.Proto {
		case dial.TCP:
			s.Proto, s.State = "tcp", "SYN-RECV"
			if e.Endpoint != nil {
				s.State = tcpState(tcp.EndpointState(e.Endpoint.State()))
				s.RecvQ, _ = e.Endpoint.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
			}
		case dial.UDP:
			s.Proto = "udp"
		default:
			s.Proto = "icmp"
		}
		if e.Replied {
			s.State = "ESTAB"
		}
		all = append(all, s)
	}
	slices.SortFunc(all, compareSockets)
	return all
}

func compareSockets(a, b Socket) int {
	if a.Proto != b.Proto {
		if a.Proto < b.Proto {
			return -1
		}
		return 1
	}
	if a.Local != b.Local {
		if a.Local.Port() != b.Local.Port() {
			return int(a.Local.Port()) - int(b.Local.Port())
		}
		return a.Local.Compare(b.Local)
	}
	return a.Remote.Compare(b.Remote)
}

// socketOf describes a TCP or UDP endpoint; false for any other.
func socketOf(e stack.TransportEndpoint) (s Socket, ok bool) {
	ep, ok := e.(tcpip.Endpoint)
	if !ok {
		return s, false
	}
	return describe(ep)
}

func describe(ep tcpip.Endpoint) (s Socket, ok bool) {
	info, ok := ep.Info().(*stack.TransportEndpointInfo)
	if !ok {
		return s, false
	}
	switch info.TransProto {
	case tcp.ProtocolNumber:
		s.Proto, s.State = "tcp", tcpState(tcp.EndpointState(ep.State()))
	case udp.ProtocolNumber:
		s.Proto, s.State = "udp", "UNCONN"
	default:
		return s, false
	}
	id := &info.ID
	s.Local = addrPort(id.LocalAddress, id.LocalPort, info.NetProto)
	if id.RemotePort != 0 {
		s.Remote = addrPort(id.RemoteAddress, id.RemotePort, info.NetProto)
		if s.Proto == "udp" {
			s.State = "ESTAB"
		}
	}
	if n, err := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption); err == nil {
		s.RecvQ = n
	}
	return s, true
}

// addrPort shows "all addresses" as the unspecified one of its family.
func addrPort(a tcpip.Address, port uint16, proto tcpip.NetworkProtocolNumber) netip.AddrPort {
	addr := addrOf(a)
	switch {
	case addr.IsValid():
	case proto == ipv4.ProtocolNumber:
		addr = netip.IPv4Unspecified()
	default:
		addr = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(addr, port)
}

// tcpState is the word of ss(8) for a state of RFC 9293 §3.3.2.
func tcpState(s tcp.EndpointState) string {
	switch s {
	case tcp.StateListen:
		return "LISTEN"
	case tcp.StateSynSent:
		return "SYN-SENT"
	case tcp.StateSynRecv:
		return "SYN-RECV"
	case tcp.StateEstablished:
		return "ESTAB"
	case tcp.StateFinWait1:
		return "FIN-WAIT-1"
	case tcp.StateFinWait2:
		return "FIN-WAIT-2"
	case tcp.StateTimeWait:
		return "TIME-WAIT"
	case tcp.StateCloseWait:
		return "CLOSE-WAIT"
	case tcp.StateLastAck:
		return "LAST-ACK"
	case tcp.StateClosing:
		return "CLOSING"
	default: // not connected yet, or no more
		return "UNCONN"
	}
}

// WorkerStats are those of every worker. It waits for each worker's round to
// end, as Apply does.
func (n *Netstack) WorkerStats() []WorkerStats {
	all := make([]WorkerStats, len(n.workers))
	for i, w := range n.workers {
		all[i] = w.snapshot()
	}
	for _, s := range n.view.Load().sockets() {
		all[s.worker.id].Ports++
	}
	return all
}

func (w *worker) snapshot() WorkerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &w.turn
	s, c := t.stats, t.flows.cache.Stats()
	s.FlowEntries, s.FlowMax = t.flows.cache.Len(), t.flows.cache.Cap()
	s.FlowHits, s.FlowMisses = c.Hits, c.Misses
	s.BufferBytes = (budget + hostSlice + cutFrames) * packet.BufLen
	return s
}
