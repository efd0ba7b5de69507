// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"net/netip"

	"sluice/bridge"
	"sluice/conntrack"
	"sluice/neigh"
	"sluice/packet"
	"sluice/policy"
	"sluice/router"
	"sluice/routing"
	"sluice/trace"
)

// space is one namespace as one snapshot wants it. What lives on from one
// snapshot to the next is in ns: the host stack and the router.
type space struct {
	spec     NamespaceSpec
	ns       *Namespace
	router   *router.Router
	networks []*network // in the order of the spec
	links    []*link    // the same
	outsides []*outside // the same

	conns  *Connections                  // nil: it tracks none
	owners map[netip.Addr]conntrack.Bind // containers' addresses, if it tracks connections
	rules  *rules                        // of its hooks; nil: everything passes
	own    map[uint16]*rules             // of ports, by number; only those that have some
	told   *told                         // by all of these
	named  map[uint16]*policy.Device     // what rules know of devices

	// devices are the local ports of networks and links, by index; ports are they
	// and the containers'.
	devices, ports map[uint16]*port
}

// link is one end of a link to another namespace, as one snapshot wants it.
type link struct {
	spec LinkSpec
	link *hostLink // the host stack's interface, with the end's addresses
	port *port
}

// linkMAC is the address of the host stack's interface on a link, where nobody
// sees it.
func linkMAC(index uint16) packet.MAC {
	return packet.MAC{2, 's', 'l', 0, byte(index >> 8), byte(index)}
}

// outlet is where a namespace's router sends its frames, on account of a port.
type outlet struct {
	space *space
	from  uint16     // 0: nobody's
	back  bool       // frames go to that port itself
	tag   bridge.Tag // of what goes back
}

// Emit implements router.Sink: the frame enters the network by its local port.
func (o *outlet) Emit(device uint16, vnet packet.Vnet, label packet.Label, frame []byte) {
	o.emit(device, waiting{frame: frame, vnet: vnet, label: label})
}

// Local implements router.Sink: the frame is for the host stack that caused it.
func (o *outlet) Local(device uint16, vnet packet.Vnet, frame []byte) {
	o.emit(device, waiting{frame: frame, vnet: vnet, to: toStack})
}

func (o *outlet) emit(device uint16, w waiting) {
	w.from = o.from
	if o.back && w.to == toBridge {
		w.to, w.port, w.tag = toPort, o.from, o.tag
	}
	p := o.space.devices[device]
	if p == nil || p.link.emit(w) {
		return
	}
	if from := o.space.ports[o.from]; from != nil {
		p = from // who has caused too many
	}
	drop(p, trace.LocalFull, 1)
}

// Say implements router.Sink: where there are hooks, the frame takes the way of what the
// host stack sends, from the device by which the packet came that it is about.
func (o *outlet) Say(device uint16, hooks router.Hooks, frame []byte) bool {
	if o.space.conns == nil {
		return false
	}
	w := waiting{frame: frame, to: toHooks}
	if p, ok := hooks.(*passing); ok {
		if p.bridged && isReset(frame) {
			return false // which br_netfilter lets pass by the hooks, too
		}
		w.about = p.about()
	}
	o.emit(device, w)
	return true
}

// Drop implements router.Sink.
func (o *outlet) Drop(port uint16, reason trace.Reason, frames int) {
	if p := o.space.ports[port]; p != nil {
		drop(p, reason, frames)
	}
}

// routerConfig is what the namespace's router is to know.
func (s *space) routerConfig() (*router.Config, error) {
	spec := s.spec.RouterSpec()
	set, err := router.BuildSet(&spec)
	if err != nil {
		return nil, fmt.Errorf("%w: routing: %w", ErrInvalid, err)
	}
	return &router.Config{
		Devices: spec.Devices, Set: set, Neighbours: s.neighbours(), Seed: s.spec.Routing.Seed,
	}, nil
}

// RouterSpec is what the routing of the namespace is made of. Whoever makes a
// snapshot can see with it, and with router.BuildSet, whether it is right.
func (s *NamespaceSpec) RouterSpec() router.Spec {
	spec := router.Spec{Routes: s.Routing.Routes, Restored: true, Rules: s.Routing.Rules}
	for i := range s.Networks {
		n := &s.Networks[i]
		spec.Devices = append(spec.Devices, s.device(n.Name, n.Bridge.Index, n.VRF, &n.Device, router.Device{
			MAC: n.Bridge.MAC, MTU: n.Bridge.MTU, Addrs: n.hostAddresses(),
		}))
		for j := range n.Ports {
			if p := &n.Ports[j]; p.Device != "" {
				spec.Ports = append(spec.Ports, router.Port{Index: p.Index, Name: p.Device})
			}
		}
	}
	for i := range s.Links {
		l := &s.Links[i]
		spec.Devices = append(spec.Devices, s.device(l.Name, l.Index, l.VRF, &l.Device, router.Device{
			MAC: linkMAC(l.Index), MTU: l.MTU, Addrs: l.Addresses, PointToPoint: true,
		}))
	}
	for i := range s.Sockets {
		o := &s.Sockets[i]
		spec.Devices = append(spec.Devices, s.device(o.Name, o.Index, o.VRF, &o.Device, router.Device{
			MAC: linkMAC(o.Index), MTU: o.MTU, PointToPoint: true,
		}))
	}
	return spec
}

// device completes what is particular to networks and links.
func (s *NamespaceSpec) device(name string, index uint16, vrf string, d *DeviceSpec, out router.Device) router.Device {
	out.Name, out.Index, out.VRF = name, index, s.table(vrf)
	out.NoForward, out.NoRedirects = d.NoForward, d.NoRedirects
	out.ReversePath, out.ClampMSS = d.ReversePath, d.ClampMSS
	return out
}

// table is that of a VRF, 0 for none.
func (s *NamespaceSpec) table(vrf string) routing.TableID {
	for i := range s.VRFs {
		if s.VRFs[i].Name == vrf {
			return s.VRFs[i].Table
		}
	}
	return 0
}

// neighbours are those that need not be asked for: containers, and static ones.
func (s *space) neighbours() []neigh.Static {
	var all []neigh.Static
	byName := make(map[string]uint16)
	for i := range s.spec.Networks {
		n := &s.spec.Networks[i]
		byName[n.Name] = n.Bridge.Index
		for j := range n.Ports {
			p := &n.Ports[j]
			if !p.VLAN.Has(home(&n.Bridge.VLAN)) {
				continue // nothing that the gateway sends reaches it
			}
			for _, a := range p.Addresses {
				all = append(all, neigh.Static{Device: n.Bridge.Index, Addr: a, MAC: p.MAC})
			}
		}
	}
	for i := range s.spec.Routing.Neighbours {
		n := &s.spec.Routing.Neighbours[i]
		all = append(all, neigh.Static{Device: byName[n.Dev], Addr: n.Addr, MAC: n.MAC})
	}
	return all
}

// network returns the namespace's network of that name, nil if there is none.
func (s *space) network(name string) *network {
	if s == nil {
		return nil
	}
	for _, n := range s.networks {
		if n.spec.Name == name {
			return n
		}
	}
	return nil
}

// linkOf returns the namespace's link of that index, nil if there is none.
func (s *space) linkOf(index uint16) *link {
	if s == nil {
		return nil
	}
	for _, l := range s.links {
		if l.spec.Index == index {
			return l
		}
	}
	return nil
}

// interfaces are those of the host stack in the namespace.
func (s *space) interfaces() []*hostLink {
	var all []*hostLink
	for _, n := range s.networks {
		all = append(all, n.link)
	}
	for _, l := range s.links {
		all = append(all, l.link)
	}
	return all
}
