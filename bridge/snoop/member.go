// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"net/netip"
	"slices"
)

// departure is a group that a port has left, which is asked whether somebody is
// there who stays.
type departure struct {
	group netip.Addr
	vlan  uint16
	port  uint16
	next  uint32 // when to ask again
	count uint8  // how often still
}

// take takes up a message. It reports whether Poll should be called soon.
func (t *Table) take(port, vlan uint16, m *message, now uint32) (soon bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.ports[port]
	if p == nil {
		return false // it left while the frame was on its way
	}
	switch m.meaning {
	case join:
		t.join(p, m.group, vlan, now)
	case leave:
		return t.leave(p, m.group, vlan, now)
	case records:
		return t.records(p, vlan, m, now)
	case router:
		t.hearRouter(p, t.at(vlan).family(m.v6), now)
	case query:
		t.hearQuery(p, vlan, m, now)
	case data:
	}
	return false
}

// records takes up a report of IGMPv3 or MLDv2.
//
// +checklocks:t.mu
func (t *Table) records(p *portState, vlan uint16, m *message, now uint32) (soon bool) {
	for {
		what, group, ok := m.next()
		if !ok {
			return soon
		}
		switch what {
		case join:
			t.join(p, group, vlan, now)
		case leave:
			soon = t.leave(p, group, vlan, now) || soon
		case query:
			soon = t.ask(p, group, vlan, now) || soon
		case data, records, router:
		}
	}
}

// join makes a port a member of a group, or lets it stay.
//
// +checklocks:t.mu
func (t *Table) join(p *portState, addr netip.Addr, vlan uint16, now uint32) {
	if unlisted(addr) {
		return
	}
	m := member{port: p.Index, expires: now + t.config.membership()}
	g := t.find(addr, vlan)
	if g != nil {
		if i := g.index(p.Index); i >= 0 {
			g.members[i].renew(m)
			return
		}
	}
	if p.groups >= t.config.MaxPerPort {
		t.stats.RefusedQuota++
		return
	}
	if g == nil {
		if g = t.enter(addr, vlan, now); g == nil {
			return
		}
	}
	p.groups++
	g.members = append(g.members, m)
	g.publish()
}

// index is the place of a port among the members; -1 if it is none.
func (g *group) index(port uint16) int {
	return slices.IndexFunc(g.members, func(m member) bool { return m.port == port })
}

// enter puts a new group without members into the table; nil if that is full.
//
// +checklocks:t.mu
func (t *Table) enter(addr netip.Addr, vlan uint16, now uint32) *group {
	if t.stats.Groups >= t.config.MaxGroups {
		t.stats.RefusedFull++
		t.overflow.Store(max(1, now+t.config.membership()))
		return nil
	}
	return t.insert(addr, vlan)
}

// insert puts a new group without members into the table, full or not.
//
// +checklocks:t.mu
func (t *Table) insert(addr netip.Addr, vlan uint16) *group {
	t.stats.Groups++
	g := &group{addr: addr, vlan: vlan}
	g.publish()
	head := t.bucket(addr, vlan)
	g.next.Store(head.Load())
	head.Store(g)
	return g
}

// leave is for a port where a host has left a group. Alone there, it takes the
// port with it; else the others are asked.
//
// +checklocks:t.mu
func (t *Table) leave(p *portState, addr netip.Addr, vlan uint16, now uint32) (soon bool) {
	if !p.FastLeave {
		return t.ask(p, addr, vlan, now)
	}
	if g := t.find(addr, vlan); g != nil {
		t.shrink(g, func(m member) bool { return m.port == p.Index && !m.permanent })
		t.unlink(g)
	}
	return false
}

// unlink takes a group without members out of the table.
//
// +checklocks:t.mu
func (t *Table) unlink(g *group) {
	if len(g.members) > 0 {
		return
	}
	link := t.bucket(g.addr, g.vlan)
	for link.Load() != g {
		link = &link.Load().next
	}
	link.Store(g.next.Load())
	t.stats.Groups--
}

// ask lets a membership end soon unless somebody answers. If another querier is
// there it will ask, and its query is what shortens the time.
//
// +checklocks:t.mu
func (t *Table) ask(p *portState, addr netip.Addr, vlan uint16, now uint32) (soon bool) {
	g := t.find(addr, vlan)
	if g == nil {
		return false
	}
	fam := t.at(vlan).family(addr.Is6())
	i := g.index(p.Index)
	if fam.hasOther || i < 0 || g.members[i].permanent {
		return false
	}
	g.members[i].shorten(now + t.config.lastMember())
	if !fam.querying {
		return false
	}
	return t.depart(departure{group: addr, vlan: vlan, port: p.Index, next: now, count: t.config.Robustness})
}

// renew lets a membership last as long as another, unless it does for ever.
func (m *member) renew(as member) {
	if !m.permanent {
		m.expires = as.expires
	}
}

// shorten lets a membership end at a time, unless it does before, or never.
func (m *member) shorten(until uint32) {
	if !m.permanent && int32(m.expires-until) > 0 {
		m.expires = until
	}
}

// depart notes a departure; one that is being asked about already is not asked
// about more often. There are no more of them than members.
//
// +checklocks:t.mu
func (t *Table) depart(d departure) bool {
	same := func(x departure) bool { return x.group == d.group && x.vlan == d.vlan && x.port == d.port }
	if slices.ContainsFunc(t.left, same) {
		return false
	}
	t.left = append(t.left, d)
	return true
}
