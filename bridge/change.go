// SPDX-License-Identifier: Apache-2.0

package bridge

// Change is a new membership and a new static set that are ready to be taken, so
// that whoever holds up the workers for it does so for little more than two
// stores. It is good for one Commit.
type Change struct {
	b      *Bridge
	ports  *portSet
	static staticSet
	left   bool                // a port is no member any more
	ended  []*slot             // of the old static set
	fresh  map[uint64]struct{} // keys that are new in the static set
}

// Prepare compiles what SetPorts and SetStatic would set, and changes nothing.
// Between it and Commit nobody may call either of them.
func (b *Bridge) Prepare(members []PortConfig, entries []StaticEntry) *Change {
	return b.change(newPortSet(members, b.ports.Load()), newStaticSet(entries, *b.static.Load()))
}

// Commit makes the change, with all that SetPorts and SetStatic say.
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
	if t := b.snoop.Load(); t != nil {
		t.SetPorts(b.ports.Load().snooped())
	}
	if !c.left && len(c.fresh) == 0 {
		return
	}
	b.forget(func(key uint64, port uint16) bool {
		return c.left && !c.ports.has(port) || c.claims(key)
	})
}

// claims reports whether a learned station is one of the new static entries; an
// untagged one claims its MAC in every VLAN.
func (c *Change) claims(key uint64) bool {
	_, same := c.fresh[key]
	_, untagged := c.fresh[key&^vlanBits]
	return same || untagged
}
