// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"slices"

	"sluice/bridge"
	"sluice/bridge/guard"
	"sluice/bridge/snoop"
)

// setup is what the network's bridge is to be.
func (s *NetworkSpec) setup() bridge.Setup {
	return bridge.Setup{
		Ports:      s.portConfigs(),
		Static:     s.staticEntries(),
		Neighbours: s.suppressed(),
		Snooping:   s.snooping(),
		Groups:     s.groups(),
	}
}

// portConfigs are the members: the local port, and the containers'.
func (s *NetworkSpec) portConfigs() []bridge.PortConfig {
	b := &s.Bridge
	all := make([]bridge.PortConfig, 0, len(s.Ports)+1)
	all = append(all, bridge.PortConfig{Index: b.Index, MTU: b.MTU, Local: true, VLAN: b.VLAN})
	for i := range s.Ports {
		p := &s.Ports[i]
		all = append(all, bridge.PortConfig{
			Index: p.Index, MTU: p.MTU,
			Flags: p.Flags, VLAN: p.VLAN, Storm: p.Storm, Guard: p.guards(), Router: p.Router,
			MirrorIn: p.MirrorIn, MirrorOut: p.MirrorOut,
		})
	}
	return all
}

// guards is what the frames of the container are checked for: it may be itself,
// and whom the spec names besides.
func (p *PortSpec) guards() guard.Config {
	if p.Guard == 0 {
		return guard.Config{}
	}
	c := guard.Config{Checks: p.Guard, Addrs: slices.Clone(p.GuardAddrs)}
	c.MACs = append(c.MACs, p.MAC)
	for _, a := range p.Addresses {
		c.Addrs = append(c.Addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	return c
}

// home is the VLAN of a station that sends without a tag behind a port: 0 for one
// that is not VLAN-aware, or takes tagged frames only. An entry without a VLAN
// holds in all of them.
func home(v *bridge.VLAN) uint16 { return v.PVID }

// staticEntries are the stations that need not be learned: the host stack, the
// containers, and those of the spec.
func (s *NetworkSpec) staticEntries() []bridge.StaticEntry {
	all := make([]bridge.StaticEntry, 0, len(s.Ports)+len(s.Bridge.Static)+2)
	for _, vid := range s.hostVLANs() {
		all = append(all, bridge.StaticEntry{MAC: s.Bridge.MAC, VLAN: vid, Port: s.Bridge.Index, Own: true})
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.MAC.IsZero() {
			continue
		}
		all = append(all, bridge.StaticEntry{MAC: p.MAC, VLAN: home(&p.VLAN), Port: p.Index})
	}
	for _, e := range s.Bridge.Static {
		all = append(all, bridge.StaticEntry{MAC: e.MAC, VLAN: e.VLAN, Port: e.Port})
	}
	return all
}

// hostVLANs are those in which the host stack is found by its MAC. The entry
// without a VLAN is always there: it keeps others from using the MAC in any.
func (s *NetworkSpec) hostVLANs() []uint16 {
	v := &s.Bridge.VLAN
	all := []uint16{0}
	if v.PVID != 0 {
		all = append(all, v.PVID)
	}
	for _, r := range v.Untagged {
		for vid := r.First; vid <= r.Last; vid++ {
			all = append(all, vid)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// suppressed are the neighbours whom the bridge answers for, if a port asks it to.
func (s *NetworkSpec) suppressed() (all []bridge.Neighbour) {
	asks := func(p PortSpec) bool { return p.Flags&bridge.Suppress != 0 }
	if !slices.ContainsFunc(s.Ports, asks) {
		return nil
	}
	for _, p := range s.hostAddresses() {
		all = append(all, bridge.Neighbour{
			Addr: p.Addr(), VLAN: home(&s.Bridge.VLAN), MAC: s.Bridge.MAC, Router: true,
		})
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		for _, a := range p.Addresses {
			all = append(all, bridge.Neighbour{Addr: a, VLAN: home(&p.VLAN), MAC: p.MAC})
		}
	}
	return all
}

// snooping is the spec's, with the bridge's MAC as the source of queries.
func (s *NetworkSpec) snooping() *snoop.Config {
	if s.Bridge.Snooping == nil {
		return nil
	}
	c := *s.Bridge.Snooping
	if c.MAC.IsZero() {
		c.MAC = s.Bridge.MAC
	}
	return &c
}

func (s *NetworkSpec) groups() (all []snoop.Static) {
	for _, g := range s.Bridge.Groups {
		all = append(all, snoop.Static{Group: g.Group, VLAN: g.VLAN, Port: g.Port})
	}
	return all
}

// cloneBridging copies what of the bridge's part the caller may change later.
func (s *NetworkSpec) cloneBridging() {
	b := &s.Bridge
	cloneVLAN(&b.VLAN)
	b.Static, b.Groups = slices.Clone(b.Static), slices.Clone(b.Groups)
	if b.Snooping != nil {
		b.Snooping = new(*b.Snooping)
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		cloneVLAN(&p.VLAN)
		p.GuardAddrs = slices.Clone(p.GuardAddrs)
	}
}

func cloneVLAN(v *bridge.VLAN) {
	v.Tagged, v.Untagged = slices.Clone(v.Tagged), slices.Clone(v.Untagged)
}

// Groups is the multicast database of a network: the members of groups, and the
// ports of routers. Nil if there is no snooping, or the network is gone.
func (ns *Namespace) Groups(network string) (members, routers []snoop.Entry) {
	n := ns.space().network(network)
	if n == nil {
		return nil, nil
	}
	t := n.bridge.Snooping()
	if t == nil {
		return nil, nil
	}
	now := ns.net.tick.Load()
	return t.Groups(nil, now), t.Routers(nil, now)
}
