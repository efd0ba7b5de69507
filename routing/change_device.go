// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"errors"
	"fmt"
	"slices"
)

// Theory of operation.
//
// Routes name devices, the data path compares indices, and whether a next hop can
// be used is written into it (NextHop.Index, .Dead). So when a device changes, every
// route that names it is written again. That looks at all routes, which takes some
// milliseconds for 100,000 of them; it spares each look-up the question.

func (e *edit) applyDevice(op Op, d *Device) error {
	old, there := e.devices.byName[d.Name]
	switch {
	case op == OpAdd && there:
		return ErrExist
	case op == OpDelete && !there:
		return fmt.Errorf("%w %q", ErrDevice, d.Name)
	case op == OpDelete:
		e.dropDevice(d.Name)
		return nil
	case op == OpAdd || op == OpReplace:
		return e.putDevice(old, *d)
	}
	return fmt.Errorf("device %v: %w", op, errors.ErrUnsupported)
}

// putDevice makes old the device d; old is zero if d is new.
func (e *edit) putDevice(old, d Device) error {
	if err := d.check(); err != nil {
		return err
	}
	if owner, taken := e.devices.byIndex[d.Index]; taken && owner != d.Name {
		return fmt.Errorf("index %d is that of device %q: %w", d.Index, owner, ErrExist)
	}
	e.devices.put(d)
	if len(e.devices.byName) > e.limits.Devices {
		return fmt.Errorf("devices: %w at %d", ErrLimit, e.limits.Devices)
	}
	if old.Name != "" && (old.Index != d.Index || old.Down != d.Down) {
		e.rebind(func(h *NextHop) bool { return h.Dev == d.Name })
	}
	return nil
}

// dropDevice forgets a device, its next hops and the routes that have no other.
func (e *edit) dropDevice(name string) {
	e.devices.drop(name)
	for id := range e.dead {
		if id.dev == name {
			delete(e.dead, id)
		}
	}
	e.rewrite(func(r *Route) *Route {
		rest := slices.DeleteFunc(slices.Clone(r.NextHops), func(h NextHop) bool { return h.Dev == name })
		switch len(rest) {
		case len(r.NextHops):
			return r
		case 0:
			return nil
		}
		c := *r
		c.NextHops = rest
		return &c
	})
}

func (e *edit) applyHop(h *HopState) error {
	if _, ok := e.devices.index(h.Dev); !ok {
		return fmt.Errorf("%w %q", ErrDevice, h.Dev)
	}
	id := hopID{h.Via, h.Dev}
	if e.dead[id] == h.Dead {
		return nil
	}
	if h.Dead {
		e.dead[id] = true
	} else {
		delete(e.dead, id)
	}
	e.rebind(func(h *NextHop) bool { return h.id() == id })
	return nil
}

// rebind looks again for the device and the state of the next hops that touched
// is true for.
func (e *edit) rebind(touched func(*NextHop) bool) {
	e.rewrite(func(r *Route) *Route {
		if !slices.ContainsFunc(r.NextHops, func(h NextHop) bool { return touched(&h) }) {
			return r
		}
		c := *r
		c.NextHops = slices.Clone(r.NextHops)
		for i := range c.NextHops {
			h := &c.NextHops[i]
			h.Index, _ = e.devices.index(h.Dev)
			h.Dead, h.seed = e.isDead(h), h.newSeed()
		}
		return &c
	})
}

// rewrite puts in the place of every route what change makes of it: the route
// itself, another one with the same key, or nil for none.
func (e *edit) rewrite(change func(*Route) *Route) {
	for _, id := range e.Tables() {
		e.rewriteTable(e.tables[id], change)
	}
}

func (e *edit) rewriteTable(t *table, change func(*Route) *Route) {
	type move struct {
		leaf   *leaf
		routes []*Route
	}
	var moves []move // first, since a trie must not change while it is walked
	for _, l := range t.trie.All() {
		if routes, changed := l.rewrite(change); changed {
			moves = append(moves, move{l, routes})
		}
	}
	if len(moves) == 0 {
		return
	}
	// The table exists, so no limit is in the way of its copy.
	e.changes += len(moves)
	t, _ = e.writable(t.id)
	for _, m := range moves {
		e.recount(m.leaf, m.routes)
		t.put(m.leaf.with(m.routes))
	}
}

func (l *leaf) rewrite(change func(*Route) *Route) (routes []*Route, changed bool) {
	routes = make([]*Route, 0, len(l.routes))
	for _, r := range l.routes {
		n := change(r)
		changed = changed || n != r
		if n != nil {
			routes = append(routes, n)
		}
	}
	return routes, changed
}

// flush removes the routes that a filter matches.
func (e *edit) flush(f *Filter) error {
	e.rewrite(func(r *Route) *Route {
		if f.Matches(r) {
			return nil
		}
		return r
	})
	return nil
}
