// SPDX-License-Identifier: Apache-2.0

package bridge

import "sluice/bridge/snoop"

// Setup is all that the control path says of a bridge but its Options. Zero is a
// bridge without ports.
type Setup struct {
	Ports      []PortConfig
	Static     []StaticEntry
	Neighbours []Neighbour    // whom ports with Suppress get answers for
	Snooping   *snoop.Config  // nil: off
	Groups     []snoop.Static // members of groups whatever is heard
}

// Change is a new Setup that is ready to be taken, so that whoever holds up the
// workers for it does so for little more than a few stores. It is good for one
// Commit.
type Change struct {
	b      *Bridge
	ports  *portSet
	static staticSet
	rest   *rest               // nil: stays as it is
	left   bool                // a port is no member any more
	ended  []*slot             // of the old static set
	fresh  map[uint64]struct{} // keys that are new in the static set
}

// rest is what of a Setup concerns neither ports nor stations.
type rest struct {
	neighbours neighbourSet
	snoop      *snoop.Table // nil: off
	groups     []snoop.Static
}

// Prepare compiles a Setup, and changes nothing. Between it and Commit nobody may
// call one of the methods that set a part of it.
func (b *Bridge) Prepare(s Setup) *Change {
	c := b.change(newPortSet(s.Ports, b.ports.Load()), newStaticSet(s.Static, *b.static.Load()))
	c.rest = &rest{newNeighbourSet(s.Neighbours), b.snooping(s.Snooping), s.Groups}
	return c
}

// Commit makes the change, with all that SetPorts, SetStatic, SetNeighbours and
// SetSnooping say; but what was learned about groups is kept if the configuration
// of snooping is the same.
func (c *Change) Commit() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.install(c)
}

// change finds the difference between what is and what is to be.
func (b *Bridge) change(ports *portSet, static staticSet) *Change {
	c := &Change{b: b, ports: ports, static: static, fresh: make(map[uint64]struct{})}
	for port := range b.ports.Load().byIndex {
		c.left = c.left || !ports.has(port)
	}
	old := *b.static.Load()
	for k, s := range old {
		if static[k] != s {
			c.ended = append(c.ended, s)
		}
	}
	for k, s := range static {
		if old[k] != s {
			c.fresh[k] = struct{}{}
		}
	}
	return c
}

// install makes a change. Sets are public before what they end is forgotten, so a
// learner that waits for the lock finds them; and the static set before the ports,
// on which the epoch hangs: see newEpoch.
//
// +checklocks:b.mu
func (b *Bridge) install(c *Change) {
	old := b.ports.Load()
	b.static.Store(&c.static)
	if c.ports == old {
		b.newEpoch()
	} else {
		b.ports.Store(c.ports)
		old.epoch.state.Store(0)
	}
	for _, s := range c.ended {
		s.state.Store(0)
	}
	b.installRest(c.rest)
	if !c.left && len(c.fresh) == 0 {
		return
	}
	b.forget(func(key uint64, port uint16) bool {
		return c.left && !c.ports.has(port) || c.claims(key)
	})
}

// installRest lets snooping know of the ports, and makes what else a change holds.
//
// +checklocks:b.mu
func (b *Bridge) installRest(r *rest) {
	t := b.snoop.Load()
	if r != nil {
		b.neighbours.Store(&r.neighbours)
		t = r.snoop
	}
	if t != nil {
		t.SetPorts(b.ports.Load().snooped())
	}
	if t != nil && r != nil {
		t.SetStatic(r.groups)
	}
	b.snoop.Store(t)
}

// claims reports whether a learned station is one of the new static entries; an
// untagged one claims its MAC in every VLAN.
func (c *Change) claims(key uint64) bool {
	_, same := c.fresh[key]
	_, untagged := c.fresh[key&^vlanBits]
	return same || untagged
}
