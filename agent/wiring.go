// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"sluice/netstack"
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
	known := make(map[string]func(netip.Addr) bool)
	for _, nb := range n.Neighbours {
		if known[nb.Dev] == nil {
			known[nb.Dev] = s.known(nb.Dev)
		}
		if !known[nb.Dev](nb.Addr) {
			spec.Neighbours = append(spec.Neighbours, netstack.NeighbourSpec{Dev: nb.Dev, Addr: nb.Addr, MAC: nb.MAC})
		}
	}
	return spec
}

// known says which addresses of a network are a container's or the gateway's. What was
// set of such an address before it was given away must not hide who has it now; it
// holds again when the container is gone.
func (s *state) known(network string) func(netip.Addr) bool {
	n, holder := s.network(network), s.holder(network)
	return func(a netip.Addr) bool { return n != nil && slices.Contains(n.Gateways, a) || holder(a) != "" }
}

// rules are all of a namespace; nil if they are those that it has from the beginning.
func (s *state) rules(n *namespaceRecord, also string) []routing.Rule {
	owned := s.ownedRules(n.Name, also)
	if n.Rules == nil && len(owned) == 0 {
		return nil
	}
	return append(slices.Clone(s.statedRules(n)), owned...)
}

// statedRules are the rules but those of attachments, also if they are the first ones.
func (s *state) statedRules(n *namespaceRecord) []routing.Rule {
	if n.Rules != nil {
		return n.Rules
	}
	return firstRules(s.inVRF(n))
}

// inVRF reports whether any device of a namespace is in a VRF.
func (s *state) inVRF(n *namespaceRecord) bool {
	return slices.ContainsFunc(n.Links, func(l linkRecord) bool { return l.VRF != "" }) ||
		slices.ContainsFunc(s.in(n.Name), func(n *networkRecord) bool { return n.VRF != "" })
}

// firstRules are those that a namespace has from the beginning, with or without VRFs.
func firstRules(vrf bool) []routing.Rule {
	spec := router.Spec{}
	if vrf {
		spec.Devices = []router.Device{{Name: "vrf", Index: 1, VRF: 1}}
	}
	set, err := router.BuildSet(&spec)
	if err != nil { // it is the same each time
		panic("agent: " + err.Error())
	}
	return rulesOf(set)
}

// rulesOf are the rules of a Set, of both families; not nil.
func rulesOf(set *routing.Set) []routing.Rule {
	out := []routing.Rule{}
	for _, f := range []routing.Family{routing.IPv4, routing.IPv6} {
		for _, r := range set.Rules(f) {
			out = append(out, *r)
		}
	}
	return out
}

// lessRules are the rules that are not among others. Both may be thousands.
func lessRules(all, others []routing.Rule) []routing.Rule {
	there := make(map[routing.Rule]bool, len(others))
	for _, r := range others {
		there[r] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(r routing.Rule) bool { return there[r] })
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

// wiring is what the routing of a namespace is made of beside its routes.
func wiring(spec *netstack.NamespaceSpec) router.Spec {
	w := spec.RouterSpec()
	w.Routes = nil
	return w
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
func (c *sets) of(s *state, namespace string) (*routing.Set, error) {
	spec := s.namespaceSpec(namespace, "")
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
