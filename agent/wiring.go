// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"sluice/netstack"
	"sluice/packet"
	"sluice/router"
	"sluice/routing"
)

// ownedPriority is that of the rules which an attachment's table of its own makes:
// behind those of the user that state none.
const ownedPriority = 32765

// routingSpec is the routing of a namespace.
func (s *state) routingSpec(n *namespaceRecord, also string) netstack.RoutingSpec {
	spec := netstack.RoutingSpec{
		Routes: s.routes[n.Name].routes(), Seed: s.flowSeed(n.Name), Rules: s.rules(n, also),
	}
	for _, nb := range n.Neighbours {
		spec.Neighbours = append(spec.Neighbours, netstack.NeighbourSpec{Dev: nb.Dev, Addr: nb.Addr, MAC: nb.MAC})
	}
	return spec
}

// rules are all of a namespace; nil if they are those that it has from the beginning.
func (s *state) rules(n *namespaceRecord, also string) []routing.Rule {
	owned := s.ownedRules(n.Name, also)
	if n.Rules == nil && len(owned) == 0 {
		return nil
	}
	return append(slices.Clone(n.statedRules()), owned...)
}

// statedRules are the rules but those of attachments, also if they are the first ones.
func (n *namespaceRecord) statedRules() []routing.Rule {
	if n.Rules != nil {
		return n.Rules
	}
	spec := router.Spec{}
	for _, v := range n.VRFs {
		spec.Devices = append(spec.Devices, router.Device{Name: v.Name, Index: v.Index, VRF: v.Table})
	}
	set, err := router.BuildSet(&spec)
	if err != nil { // VRFs were checked when they came
		set = routing.New(routing.Limits{})
	}
	return rulesOf(set)
}

// rulesOf are the rules of a Set, of both families.
func rulesOf(set *routing.Set) []routing.Rule {
	var out []routing.Rule
	for _, f := range []routing.Family{routing.IPv4, routing.IPv6} {
		for _, r := range set.Rules(f) {
			out = append(out, *r)
		}
	}
	return out
}

// ownedRules send what comes from a container to the table of its own, if it has one.
func (s *state) ownedRules(namespace, also string) []routing.Rule {
	var out []routing.Rule
	devices := s.portDevices(namespace)
	for _, n := range s.in(namespace) {
		for _, a := range s.of(n.Name) {
			table := a.settings(n).Table()
			if table == 0 || !a.forwards(also) || devices[a.ID] == "" {
				continue
			}
			for _, f := range []routing.Family{routing.IPv4, routing.IPv6} {
				out = append(out, routing.Rule{
					Family: f, Priority: ownedPriority, PrioritySet: true, IIF: devices[a.ID], Table: table, Origin: routing.ProtoKernel,
				})
			}
		}
	}
	return out
}

// wiring is what the routing of a namespace is made of beside its routes: what the
// dataplane makes of its spec.
func wiring(spec *netstack.NamespaceSpec) router.Spec {
	out := router.Spec{Rules: spec.Routing.Rules, Restored: true}
	vrfs := make(map[string]routing.TableID)
	for _, v := range spec.VRFs {
		vrfs[v.Name] = v.Table
		out.Devices = append(out.Devices, router.Device{Index: v.Index, Name: v.Name, VRF: v.Table})
	}
	for i := range spec.Networks {
		n := &spec.Networks[i]
		out.Devices = append(out.Devices, router.Device{
			Index: n.Bridge.Index, Name: n.Name, Addrs: ownAddresses(n.Bridge.MAC, n.Addresses),
			NoForward: n.Device.NoForward, VRF: vrfs[n.VRF],
		})
		for _, p := range n.Ports {
			if p.Device != "" {
				out.Ports = append(out.Ports, router.Port{Index: p.Index, Name: p.Device})
			}
		}
	}
	for _, l := range spec.Links {
		out.Devices = append(out.Devices, router.Device{
			Index: l.Index, Name: l.Name, Addrs: l.Addresses, NoForward: l.Device.NoForward, PointToPoint: true, VRF: vrfs[l.VRF],
		})
	}
	return out
}

// ownAddresses adds the link-local address that a device with an IPv6 address has.
func ownAddresses(m packet.MAC, addrs []netip.Prefix) []netip.Prefix {
	if !slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return addrs
	}
	return append(slices.Clone(addrs), netip.PrefixFrom(linkLocal(m), 64))
}

// sets keeps the routing of namespaces as it was built last, since to build it takes
// a microsecond for each route. Its zero value is ready.
type sets struct {
	mu sync.Mutex
	// +checklocks:mu
	built map[string]builtSet
}

// builtSet is a Set and what it was made of.
type builtSet struct {
	wiring router.Spec
	routes *routeList
	set    *routing.Set
}

// of returns the routing of a namespace.
func (c *sets) of(s *state, namespace, also string) (*routing.Set, error) {
	spec := s.namespaceSpec(namespace, also)
	w, routes := wiring(&spec), s.routes[namespace]
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, known := c.built[namespace]; known && old.routes == routes && reflect.DeepEqual(old.wiring, w) {
		return old.set, nil
	}
	complete := w
	complete.Routes = routes.routes()
	set, err := router.BuildSet(&complete)
	if err != nil {
		return nil, err
	}
	c.put(namespace, builtSet{w, routes, set})
	return set, nil
}

// +checklocks:c.mu
func (c *sets) put(namespace string, b builtSet) {
	if c.built == nil {
		c.built = make(map[string]builtSet)
	}
	c.built[namespace] = b
}

// note keeps a Set that a transaction has made.
func (c *sets) note(s *state, namespace string, set *routing.Set) {
	spec := s.namespaceSpec(namespace, "")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(namespace, builtSet{wiring(&spec), s.routes[namespace], set})
}

// keep forgets the namespaces that are gone.
func (c *sets) keep(names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.built {
		if !slices.Contains(names, name) {
			delete(c.built, name)
		}
	}
}

// linkLocal is fe80::/64 with the modified EUI-64 of a MAC (RFC 4291 appendix A).
func linkLocal(m packet.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	})
}
