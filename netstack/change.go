// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"iter"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"sluice/bridge"
	"sluice/router"
)

// space prepares one namespace: a new one, or the next state of one that is.
func (c *change) space(spec *NamespaceSpec) (*space, error) {
	next := &space{spec: cloneSpec(spec), devices: make(map[uint16]*port), ports: make(map[uint16]*port)}
	was := c.old.spaces[spec.Name]
	if was != nil && reflect.DeepEqual(was.spec, next.spec) {
		next.again(was)
		return next, nil
	}
	if err := c.adopt(next, was); err != nil {
		return nil, err
	}
	if err := c.devices(next, was); err != nil {
		return nil, err
	}
	if err := c.direct(next); err != nil {
		return nil, err
	}
	if err := c.serve(next, was); err != nil {
		return nil, err
	}
	if err := c.resolve(next, was); err != nil {
		return nil, fmt.Errorf("DNS: %w", err)
	}
	if err := c.rules(next, was); err != nil {
		return nil, err
	}
	if err := c.ownRules(next, was); err != nil {
		return nil, err
	}
	c.abandon(next, was)
	c.withdraw(next, was)
	return next, nil
}

// devices makes the namespace's networks, links and socket uplinks.
func (c *change) devices(next, was *space) error {
	for i := range next.spec.Networks {
		n, err := c.network(next, was, &next.spec.Networks[i])
		if err != nil {
			return fmt.Errorf("network %q: %w", next.spec.Networks[i].Name, err)
		}
		next.networks = append(next.networks, n)
	}
	for i := range next.spec.Links {
		l, err := c.link(next, was, &next.spec.Links[i])
		if err != nil {
			return fmt.Errorf("link %q: %w", next.spec.Links[i].Name, err)
		}
		next.links = append(next.links, l)
	}
	for i := range next.spec.Sockets {
		o, err := c.outside(was, &next.spec.Sockets[i])
		if err != nil {
			return fmt.Errorf("uplink %q: %w", next.spec.Sockets[i].Name, err)
		}
		next.outsides = append(next.outsides, o)
	}
	return nil
}

// again makes the namespace what it was, for another view.
func (s *space) again(was *space) {
	s.ns, s.router, s.rules, s.own, s.told, s.named = was.ns, was.router, was.rules, was.own, was.told, was.named
	for _, n := range was.networks {
		s.networks = append(s.networks, &network{spec: n.spec, bridge: n.bridge, link: n.link, conf: n.conf})
	}
	for _, l := range was.links {
		s.links = append(s.links, &link{spec: l.spec, link: l.link})
	}
	for _, o := range was.outsides {
		s.outsides = append(s.outsides, &outside{spec: o.spec, stack: o.stack, link: o.link, proxy: o.proxy})
	}
}

// direct notes what the router is to know, together with the view.
func (c *change) direct(next *space) error {
	conf, err := next.routerConfig()
	if err != nil {
		return err
	}
	c.swaps = append(c.swaps, next.router.Prepare(conf).Commit)
	return nil
}

// link prepares one end of a link: a new one, or the next state of one that is.
func (c *change) link(in, was *space, spec *LinkSpec) (*link, error) {
	l := &link{spec: *spec}
	var old []netip.Prefix
	if before := was.linkOf(spec.Index); before != nil && before.spec.Name == spec.Name {
		l.link, old = before.link, before.spec.Addresses
	} else if err := c.newLink(in, l); err != nil {
		return nil, err
	}
	c.retired = append(c.retired, func() { l.link.SetMTU(uint32(spec.MTU)) })
	return l, c.addAddresses(in.ns.host, l.link, spec.Addresses, old)
}

// newLink makes the host stack's interface on a new link.
func (c *change) newLink(in *space, l *link) error {
	s := &l.spec
	b := &BridgeSpec{Index: s.Index, MAC: linkMAC(s.Index), MTU: s.MTU}
	l.link = newHostLink(in.ns.host, b, c.net.worker(s.Index), c.net.opts.Counters.Port(s.Index))
	return c.addLink(in.ns.host, s.Name, l.link)
}

// addLink gives the host stack an interface.
func (c *change) addLink(h *host, name string, l *hostLink) error {
	if err := h.addLink(name, l); err != nil {
		return err
	}
	c.undos = append(c.undos, func() { h.removeLink(l) })
	return nil
}

// adopt gives a namespace what lives on, or makes it if it is new.
func (c *change) adopt(next, was *space) error {
	if was != nil {
		next.ns, next.router = was.ns, was.router
		return nil
	}
	h, err := newHost()
	if err != nil {
		return err
	}
	c.undos = append(c.undos, h.close)
	next.ns, next.router = &Namespace{name: next.spec.Name, net: c.net, host: h}, router.New(router.Limits{})
	return nil
}

// network prepares one network: a new one, or the next state of one that is.
func (c *change) network(in, was *space, spec *NetworkSpec) (*network, error) {
	n := &network{spec: *spec}
	old := was.network(spec.Name)
	if old == nil || !old.same(spec) {
		old = &network{}
		if err := c.newNetwork(in, n); err != nil {
			return nil, err
		}
	} else {
		n.bridge, n.link, n.conf, n.learn = old.bridge, old.link, old.conf, old.learn
		if bridgeOptions(&spec.Bridge) != bridgeOptions(&old.spec.Bridge) {
			n.bridge = bridge.New(bridgeOptions(&spec.Bridge))
		}
	}
	c.alter(n)
	if err := c.configure(n); err != nil {
		return nil, err
	}
	var had []netip.Prefix
	if old.link == n.link {
		had = old.spec.hostAddresses()
	}
	return n, c.addAddresses(in.ns.host, n.link, n.spec.hostAddresses(), had)
}

// newNetwork makes the bridge of a new network, and the host stack's interface in
// it.
func (c *change) newNetwork(in *space, n *network) error {
	b := &n.spec.Bridge
	n.bridge, n.conf = bridge.New(bridgeOptions(b)), newAutoconf()
	n.link = newHostLink(in.ns.host, b, c.net.worker(b.Index), c.net.opts.Counters.Port(b.Index))
	return c.addLink(in.ns.host, n.spec.Name, n.link)
}

// alter notes what a network's bridge and interface are to become: the bridge's
// tables together with the view, the rest when the workers run again.
func (c *change) alter(n *network) {
	ready := n.bridge.Prepare(n.spec.setup())
	c.swaps = append(c.swaps, ready.Commit)
	c.retired = append(c.retired, func() { n.link.SetMTU(uint32(n.spec.Bridge.MTU)) })
}

// abandon notes that interfaces which the next state does not have go, and that
// the host stack's routes are those of the others. A new stack gets them at once:
// it must be able to answer the first frame that a worker hands to it.
func (c *change) abandon(next, was *space) {
	h := next.ns.host
	c.retired = append(c.retired, func() { h.setRoutes(next) }) // as the router has them then
	if was == nil {
		h.setRoutes(next)
		return
	}
	stay := next.interfaces()
	for _, l := range was.interfaces() {
		if !slices.Contains(stay, l) {
			c.retired = append(c.retired, func() { h.removeLink(l) })
		}
	}
}

// same reports whether a spec describes this network's next state, and not
// another one of the same name.
func (n *network) same(spec *NetworkSpec) bool {
	return n.spec.Bridge.MAC == spec.Bridge.MAC && n.spec.Bridge.Index == spec.Bridge.Index
}

// cloneSpec copies what the caller may change later.
func cloneSpec(s *NamespaceSpec) NamespaceSpec {
	c := *s
	r := &c.Routing
	r.Routes, r.Rules, r.Neighbours = slices.Clone(r.Routes), slices.Clone(r.Rules), slices.Clone(r.Neighbours)
	c.Networks = slices.Clone(s.Networks)
	c.Links = slices.Clone(s.Links)
	c.VRFs = slices.Clone(s.VRFs)
	c.Sockets = slices.Clone(s.Sockets)
	c.Connections.Rules = slices.Clone(s.Connections.Rules)
	c.Connections.Services = slices.Clone(s.Connections.Services)
	c.DNS = s.DNS.Clone()
	for i := range c.Networks {
		n := &c.Networks[i]
		n.Addresses = slices.Clone(n.Addresses)
		n.Ports = slices.Clone(n.Ports)
		for j := range n.Ports {
			n.Ports[j].Addresses = slices.Clone(n.Ports[j].Addresses)
			n.Ports[j].Aliases = slices.Clone(n.Ports[j].Aliases)
		}
		n.cloneBridging()
	}
	return c
}

// Ports are the containers' ports of all namespaces.
func (s *Snapshot) Ports() iter.Seq[*PortSpec] {
	return func(yield func(*PortSpec) bool) {
		for i := range s.Namespaces {
			for j := range s.Namespaces[i].Networks {
				n := &s.Namespaces[i].Networks[j]
				for k := range n.Ports {
					if !yield(&n.Ports[k]) {
						return
					}
				}
			}
		}
	}
}

func bridgeOptions(b *BridgeSpec) bridge.Options {
	return bridge.Options{
		Ageing:     time.Duration(b.AgeingSeconds) * time.Second,
		MaxEntries: b.MaxEntries, MaxPerPort: b.MaxPerPort,
	}
}

// addAddresses gives an interface the addresses that are new. What is to go goes
// when nothing can fail any more.
func (c *change) addAddresses(h *host, l *hostLink, next, old []netip.Prefix) error {
	for _, p := range next {
		if hasAddr(old, p.Addr()) {
			continue
		}
		if err := h.addAddress(l, p); err != nil {
			return err
		}
		c.undos = append(c.undos, func() { h.removeAddress(l, p) })
	}
	c.retired = append(c.retired, func() {
		for _, p := range old {
			if !hasAddr(next, p.Addr()) {
				h.removeAddress(l, p)
			}
		}
		h.setPrefixes(l, old, next)
	})
	return nil
}

func hasAddr(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Addr() == a })
}

// serve starts the echo services that are new. Those that are not wanted any more
// end when nothing can fail.
func (c *change) serve(next, was *space) error {
	h, wanted := next.ns.host, next.spec.echoes()
	for a := range wanted {
		if h.services[a] != nil {
			continue
		}
		if err := h.startServices(a); err != nil {
			return err
		}
		c.undos = append(c.undos, func() { h.stopServices(a) })
	}
	if was == nil {
		return nil
	}
	for a := range was.spec.echoes() {
		if !wanted[a] {
			c.retired = append(c.retired, func() { h.stopServices(a) })
		}
	}
	return nil
}

// echoes are the addresses that are to have the echo services.
func (s *NamespaceSpec) echoes() map[netip.Addr]bool {
	all := make(map[netip.Addr]bool)
	for i := range s.Networks {
		if n := &s.Networks[i]; n.Echo {
			for _, p := range n.hostAddresses() {
				all[p.Addr()] = true
			}
		}
	}
	return all
}
