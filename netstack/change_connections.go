// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"sluice/conntrack"
	"sluice/nat"
)

// connections prepares what the next view needs of the table of connections: the
// table itself, if nobody tracked any before. It comes last, for the NAT learns of
// services here; until the swap no rule leads to those that are new.
func (c *change) connections() error {
	conns := c.net.conns.Load()
	if conns == nil && !c.next.tracks() {
		return nil
	}
	first := !c.old.tracks()
	if conns == nil {
		var err error
		if conns, err = c.net.openConnections(); err != nil {
			return err
		}
		c.net.opts.Log.Info("connections opened", "room", conns.table.Cap(), "kept", conns.report.Kept,
			"expired", conns.report.Expired, "torn", conns.report.Torn, "bad", conns.report.Bad)
		c.undos = append(c.undos, func() { _ = conns.table.Close() })
	}
	if err := c.limits(conns, first); err != nil {
		return err
	}
	if err := c.services(conns); err != nil {
		return err
	}
	for _, s := range c.next.spaces {
		c.zone(conns, s)
	}
	c.swaps = append(c.swaps, func() {
		c.net.conns.Store(conns)
		if first && c.next.tracks() { // the zones are known: the mappings of what goes on are
			conns.nat.Attach(conns.table, conns.Now())
		}
	})
	c.end(conns)
	return nil
}

// tracks reports whether a namespace of the view tracks connections.
func (v *view) tracks() bool {
	for _, s := range v.spaces {
		if s.spec.Connections.Track {
			return true
		}
	}
	return false
}

// zone notes what a namespace that tracks connections is to have.
func (c *change) zone(conns *Connections, s *space) {
	spec := &s.spec.Connections
	if !spec.Track {
		return
	}
	s.conns, s.owners = conns, make(map[netip.Addr]conntrack.Bind)
	if s.rules != nil && s.rules.env == nil {
		s.rules.env = s.ruleEnv(conns)
	}
	for i := range s.spec.Networks {
		for _, p := range s.spec.Networks[i].Ports {
			for _, a := range p.Addresses {
				s.owners[a] = conntrack.Bind{ID: p.Index, Gen: p.Tenure}
			}
		}
	}
	if was := c.old.spaces[s.spec.Name]; was != nil && reflect.DeepEqual(was.spec.Connections, *spec) {
		return
	}
	z, err := spec.natZone()
	if err != nil {
		return // Validate has seen it
	}
	c.swaps = append(c.swaps, func() {
		conns.table.SetZone(spec.Zone, spec.tracking())
		conns.nat.SetZone(spec.Zone, z)
	})
}

// holder is what the table is told of a container's port.
type holder struct {
	limits conntrack.PortLimits
	tenure uint32
}

// holders are the container ports of a view, by index.
func (v *view) holders() map[uint16]holder {
	all := make(map[uint16]holder)
	for _, s := range v.spaces {
		for i := range s.spec.Networks {
			for _, p := range s.spec.Networks[i].Ports {
				all[p.Index] = holder{p.Connections, p.Tenure}
			}
		}
	}
	return all
}

// limits notes whose ports have which bounds, and whose are gone. A table that goes on
// from a process before knows nobody yet: who isn't in the view is gone.
func (c *change) limits(conns *Connections, first bool) error {
	had, has := c.old.holders(), c.next.holders()
	reserved := 0
	for _, h := range has {
		reserved += h.limits.Reserve
	}
	if room := conns.table.Cap(); reserved > room {
		return fmt.Errorf("%w: %d connections reserved for all ports, there is room for %d", ErrInvalid, reserved, room)
	}
	c.swaps = append(c.swaps, func() {
		if first {
			for i := range uint16(MaxIndex) {
				conns.table.SetEndpoint(i+1, conntrack.Never)
			}
			had = nil
		}
		conns.forget(had, has)
		conns.admit(had, has)
	})
	return nil
}

// forget tells the table of ports that are gone, or are another container's.
func (c *Connections) forget(had, has map[uint16]holder) {
	for i, h := range had {
		if next, stays := has[i]; !stays || next != h {
			c.table.RemovePort(i)
			c.table.SetEndpoint(i, conntrack.Never)
		}
	}
}

// admit tells the table of ports that are new. There is room for what is theirs.
func (c *Connections) admit(had, has map[uint16]holder) {
	for i, h := range has {
		if was, known := had[i]; known && was == h {
			continue
		}
		c.table.SetEndpoint(i, h.tenure)
		if h.limits != (conntrack.PortLimits{}) {
			_ = c.table.SetPort(i, h.limits)
		}
	}
}

// services tells the NAT what is new, and notes what goes.
func (c *change) services(conns *Connections) error {
	had, has := c.old.services(), c.next.services()
	backends := make(map[uint16]bool)
	for _, v := range has {
		for _, b := range v.Backends {
			backends[b.Bind.ID] = true
			conns.table.SetBackend(b.Bind.ID, b.Bind.Gen)
		}
	}
	for id, v := range has {
		if was, known := had[id]; known && reflect.DeepEqual(was, v) {
			continue
		}
		if err := conns.nat.SetService(v); err != nil {
			return fmt.Errorf("%w: service %d: %w", ErrInvalid, id, err)
		}
	}
	c.swaps = append(c.swaps, func() { conns.withdraw(had, has, backends) })
	return nil
}

// services are those of all namespaces of a view, by number.
func (v *view) services() map[uint16]nat.Service {
	all := make(map[uint16]nat.Service)
	for _, s := range v.spaces {
		for _, v := range s.spec.Connections.Services {
			all[v.ID] = v
		}
	}
	return all
}

// withdraw takes away the services, and backends, that are gone.
func (c *Connections) withdraw(had, has map[uint16]nat.Service, backends map[uint16]bool) {
	for id, v := range had {
		if _, stays := has[id]; !stays {
			c.nat.RemoveService(id)
		}
		for _, b := range v.Backends {
			if b.Bind.ID != 0 && !backends[b.Bind.ID] {
				c.table.SetBackend(b.Bind.ID, conntrack.Never)
			}
		}
	}
}

// end notes which connections end with the change: those of namespaces that track
// them no longer, and those with the address of a device that has another now.
func (c *change) end(conns *Connections) {
	for name, was := range c.old.spaces {
		spec := &was.spec.Connections
		if !spec.Track {
			continue
		}
		next := c.next.spaces[name]
		if next == nil || !next.spec.Connections.Track || next.spec.Connections.Zone != spec.Zone {
			c.retired = append(c.retired, func() {
				conns.nat.RemoveZone(spec.Zone)
				conns.table.Delete(&conntrack.Filter{HasZone: true, Zone: spec.Zone}, conns.Now())
			})
			continue
		}
		stays := next.spec.addresses()
		for device, addrs := range was.spec.addresses() {
			if !slices.Equal(addrs, stays[device]) {
				c.retired = append(c.retired, func() { conns.table.DeleteDevice(device, conns.Now()) })
			}
		}
	}
}

// addresses are those of the devices, by index.
func (s *NamespaceSpec) addresses() map[uint16][]netip.Prefix {
	all := make(map[uint16][]netip.Prefix)
	for i := range s.Networks {
		n := &s.Networks[i]
		all[n.Bridge.Index] = n.Addresses
	}
	for i := range s.Links {
		all[s.Links[i].Index] = s.Links[i].Addresses
	}
	return all
}
