// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/autoconf"
	"sluice/bridge"
	"sluice/packet"
	"sluice/qdisc"
	"sluice/trace"
)

// view is a compiled snapshot: what a worker looks at. It and all that it holds
// directly is immutable, but for port.released. The zero view has no port.
type view struct {
	// gen counts the views of a Netstack; a flow-cache entry is good for one.
	gen        uint64
	generation uint64  // the snapshot's own
	ports      []*port // by index; nil where there is none
	spaces     map[string]*space
	queued     bool // a port has queueing disciplines
	framed     bool // rules see frames somewhere
	trees      []*sharing
}

// network is one network as one snapshot wants it. The bridge and the link live
// on.
type network struct {
	spec   NetworkSpec
	bridge *bridge.Bridge
	link   *hostLink // the host stack's interface in the network
	conf   *autoconf.Server
	learn  *autoconf.Learner // nil: it never asked for anything
	local  *port             // the bridge's own
}

// port is one port as one snapshot wants it: a container's, or a bridge's local
// port, behind which the host stack is.
type port struct {
	index    uint16
	offload  bool
	mtu      int
	metered  bool // has storm limits
	counters *trace.PortCounters
	bridge   *bridge.Bridge
	sock     *socket   // nil for a local port
	link     *hostLink // nil for a container's port
	local    *port     // the local port of its bridge; itself for a local port
	space    *space
	pvid     uint16   // of a local port: the VLAN that it is in; 0: none
	peer     uint16   // of a link's: the other end
	outside  *outside // of a socket uplink's: what is behind it
	clamp    uint16   // of TCP's MSS, see DeviceSpec
	tenure   uint32   // see PortSpec

	conf   *autoconf.Server  // of a network's local port
	learn  *autoconf.Learner // the same; nil: nothing is asked
	client *autoconf.Client  // of a container's port: who is behind it; nil: many

	queues [2]*qdisc.Spec // by direction, of a device egress only; nil: none
	trees  [2]*sharing    // of which the queues are a part; nil: of none
	// released says that it has no discipline for egress any more, see release.go. That and
	// the queue end under all turn locks, and nothing else in here ever changes.
	released bool

	mac    packet.MAC // of a network's local port
	framed *rules     // of its namespace, if they see frames; nil: they don't
	own    *rules     // of a container's port; nil: it has none
}

// worker is whose the port's queues are: who reads its socket, or serves its link.
func (p *port) worker() *worker {
	if p.sock != nil {
		return p.sock.worker
	}
	return p.link.worker
}

// port returns the port of this index, nil if there is none.
func (v *view) port(index uint16) *port {
	if int(index) >= len(v.ports) {
		return nil
	}
	return v.ports[index]
}

// sockets lists the sockets of all container ports, by index.
func (v *view) sockets() []*socket {
	var all []*socket
	for _, p := range v.ports {
		if p != nil && p.sock != nil {
			all = append(all, p.sock)
		}
	}
	return all
}

// socket returns the socket of this index, nil if there is none.
func (v *view) socket(index uint16) *socket {
	if p := v.port(index); p != nil {
		return p.sock
	}
	return nil
}

// add puts a port into the view. Preconditions: its index is free.
func (v *view) add(p *port) {
	if n := int(p.index) + 1; n > len(v.ports) {
		v.ports = append(v.ports, make([]*port, n-len(v.ports))...)
	}
	v.ports[p.index] = p
}

// compile adds a namespace's ports to the view. sock finds the socket of each.
func (v *view) compile(s *space, counters *trace.Counters, sock func(uint16) *socket) {
	for _, n := range s.networks {
		v.compileNetwork(s, n, counters, sock)
	}
	for _, l := range s.links {
		l.port = &port{
			index: l.spec.Index, offload: true, mtu: l.spec.MTU, counters: counters.Port(l.spec.Index),
			link: l.link, space: s, peer: l.spec.Peer, clamp: l.spec.Device.ClampMSS,
			queues: [2]*qdisc.Spec{egress: l.spec.Egress},
		}
		v.queued = v.queued || l.spec.Egress != nil
		l.port.local = l.port
		v.add(l.port)
		s.devices[l.spec.Index], s.ports[l.spec.Index] = l.port, l.port
	}
	for _, o := range s.outsides {
		v.compileOutside(s, o, counters)
	}
	v.spaces[s.spec.Name] = s
}

func (v *view) compileNetwork(s *space, n *network, counters *trace.Counters, sock func(uint16) *socket) {
	b := &n.spec.Bridge
	n.local = &port{
		index: b.Index, offload: true, mtu: b.MTU, counters: counters.Port(b.Index),
		bridge: n.bridge, link: n.link, space: s, pvid: b.VLAN.PVID, conf: n.conf, learn: n.learn,
		clamp: n.spec.Device.ClampMSS, mac: b.MAC, framed: s.frameRules(),
		queues: [2]*qdisc.Spec{egress: n.spec.Egress},
	}
	v.queued = v.queued || n.spec.Egress != nil
	n.local.local = n.local
	v.framed = v.framed || n.local.framed != nil
	v.add(n.local)
	s.devices[b.Index], s.ports[b.Index] = n.local, n.local
	for i := range n.spec.Ports {
		p := &n.spec.Ports[i]
		port := &port{
			index: p.Index, offload: p.Offload, mtu: p.MTU, metered: p.Storm != bridge.Storm{}, counters: counters.Port(p.Index),
			bridge: n.bridge, sock: sock(p.Index), local: n.local, space: s, clamp: p.ClampMSS, tenure: p.Tenure,
			framed: n.local.framed, own: s.own[p.Index],
		}
		v.framed = v.framed || port.own != nil
		if !p.MAC.IsZero() {
			port.client = &autoconf.Client{MAC: p.MAC, Addrs: p.Addresses, Name: p.Name}
		}
		port.queues = [2]*qdisc.Spec{egress: p.Egress, ingress: p.Ingress}
		v.queued = v.queued || p.Egress != nil || p.Ingress != nil
		v.add(port)
		s.ports[p.Index] = port
	}
}
