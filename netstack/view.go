// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/bridge"
	"sluice/trace"
)

// view is a compiled snapshot: what a worker looks at. It and all that it holds
// directly is immutable. The zero view has no port.
type view struct {
	// gen counts the views of a Netstack; a flow-cache entry is good for one.
	gen        uint64
	generation uint64  // the snapshot's own
	ports      []*port // by index; nil where there is none
	domains    map[string]*domain
}

// domain is one namespace as one snapshot wants it. What lives on from one
// snapshot to the next hangs on it: the bridge and ns.
type domain struct {
	spec   NamespaceSpec
	ns     *Namespace
	bridge *bridge.Bridge
	local  *port // the bridge's own
}

// port is one port as one snapshot wants it: a container's, or a bridge's local
// port, behind which the host stack is.
type port struct {
	index    uint16
	offload  bool
	mtu      int
	counters *trace.PortCounters
	bridge   *bridge.Bridge
	sock     *socket   // nil for a local port
	link     *hostLink // nil for a container's port
	local    *port     // the local port of its bridge; itself for a local port
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

// compile adds a domain's ports to the view. sock finds the socket of each.
func (v *view) compile(d *domain, counters *trace.Counters, sock func(uint16) *socket) {
	b := &d.spec.Bridge
	d.local = &port{
		index: b.Index, offload: true, mtu: b.MTU, counters: counters.Port(b.Index),
		bridge: d.bridge, link: d.ns.host.link,
	}
	d.local.local = d.local
	v.add(d.local)
	for i := range d.spec.Ports {
		s := &d.spec.Ports[i]
		v.add(&port{
			index: s.Index, offload: s.Offload, mtu: s.MTU, counters: counters.Port(s.Index),
			bridge: d.bridge, sock: sock(s.Index), local: d.local,
		})
	}
	v.domains[d.spec.Name] = d
}

// portConfigs is the domain's membership as its bridge wants it.
func (d *domain) portConfigs() []bridge.PortConfig {
	all := make([]bridge.PortConfig, 0, len(d.spec.Ports)+1)
	all = append(all, bridge.PortConfig{Index: d.spec.Bridge.Index, MTU: d.spec.Bridge.MTU, Local: true})
	for i := range d.spec.Ports {
		p := &d.spec.Ports[i]
		all = append(all, bridge.PortConfig{Index: p.Index, MTU: p.MTU})
	}
	return all
}

// staticEntries are the stations that need not be learned: the host stack and
// the containers.
func (d *domain) staticEntries() []bridge.StaticEntry {
	all := make([]bridge.StaticEntry, 0, len(d.spec.Ports)+1)
	b := &d.spec.Bridge
	all = append(all, bridge.StaticEntry{MAC: b.MAC, Port: b.Index, Own: true})
	for i := range d.spec.Ports {
		p := &d.spec.Ports[i]
		all = append(all, bridge.StaticEntry{MAC: p.MAC, Port: p.Index})
	}
	return all
}
