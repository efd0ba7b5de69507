// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"

	"sluice/packet"
	"sluice/trace"
)

// Static is a neighbour that the control path sets: nud permanent.
type Static struct {
	Device uint16
	Addr   netip.Addr
	MAC    packet.MAC
	Router bool
}

// Config is what a table is told: its devices, and the neighbours that it need not
// ask for. A later duplicate replaces the earlier.
type Config struct {
	Devices []Device
	Static  []Static
}

// config is a compiled Config, swapped as a whole. The permanent entries stand
// apart from the dynamic ones, so that they never compete with what is heard. Such
// an entry is written twice in its life: at birth, and when it leaves the set, by
// word = 0.
type config struct {
	devices map[uint16]*device
	static  map[key]*entry
}

// Change is a new configuration that is ready to be taken, so that whoever holds up
// the workers for it does so for little. It is good for one Commit.
type Change struct {
	t     *Table
	conf  *config
	ended []*entry            // of the old permanent set
	fresh map[key]struct{}    // new in the permanent set
	left  map[uint16]struct{} // devices
}

// Prepare compiles a configuration and changes nothing. Between it and Commit
// nobody may call it.
func (t *Table) Prepare(c Config) *Change {
	old := t.conf.Load()
	next := &config{make(map[uint16]*device, len(c.Devices)), make(map[key]*entry, len(c.Static))}
	for _, d := range c.Devices {
		next.devices[d.Index] = compile(d, old.devices[d.Index])
	}
	for _, s := range c.Static {
		if next.devices[s.Device] == nil {
			continue // unreachable: nobody looks it up
		}
		k := keyOf(s.Device, s.Addr)
		next.static[k] = permanent(k, s, old.static[k])
	}
	return t.change(next)
}

// compile makes a device; one that was there with the same MAC keeps its clock.
func compile(d Device, old *device) *device {
	if old != nil && old.MAC == d.MAC {
		return &device{d, old.clock}
	}
	return &device{d, &clock{reachable4: reachableTime, reachable6: reachableTime}}
}

// permanent makes a permanent entry, or takes the old one if it is the same.
func permanent(k key, s Static, old *entry) *entry {
	if old != nil && old.word.Load() == word(Permanent, s.MAC) && old.router == s.Router {
		return old
	}
	e := &entry{key: k, router: s.Router}
	e.word.Store(word(Permanent, s.MAC))
	return e
}

// change finds the difference between what is and what is to be.
func (t *Table) change(next *config) *Change {
	c := &Change{t: t, conf: next, fresh: make(map[key]struct{}), left: make(map[uint16]struct{})}
	old := t.conf.Load()
	for i, d := range old.devices {
		if n := next.devices[i]; n == nil || n.clock != d.clock {
			c.left[i] = struct{}{}
		}
	}
	for k, e := range old.static {
		if next.static[k] != e {
			c.ended = append(c.ended, e)
		}
	}
	for k, e := range next.static {
		if old.static[k] != e {
			c.fresh[k] = struct{}{}
		}
	}
	return c
}

// Commit makes the change. Entries of devices that left, or have another MAC, are
// gone when it returns, and so are dynamic ones that became permanent; Refs to
// them, and to permanent ones that left, are false. What they held is sent to the
// permanent MAC, or reported, by the next Tick.
func (c *Change) Commit() {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conf.Store(c.conf) // before what it ends is forgotten: who waits for the lock finds it
	for _, e := range c.ended {
		e.word.Store(0)
	}
	if len(c.left) == 0 && len(c.fresh) == 0 {
		return
	}
	for i := len(t.all) - 1; i >= 0; i-- { //nolint:modernize // see collect
		c.retire(t.all[i])
	}
}

// retire removes an entry if the change ends it.
//
// +checklocks:c.t.mu
func (c *Change) retire(e *entry) {
	t := c.t
	_, left := c.left[e.key.dev]
	_, fixed := c.fresh[e.key]
	switch {
	case left:
		t.lose(e, trace.PortRemoved)
	case fixed:
		mac := c.conf.static[e.key].mac()
		for _, h := range t.drain(e) {
			copy(h.Frame, mac[:])
			t.leaving.add(e.key.dev, h.Vnet, h.Label, h.Frame)
		}
	default:
		return
	}
	t.remove(e)
}
