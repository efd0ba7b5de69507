// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"net/netip"
	"slices"
	"sync/atomic"
)

// Theory of operation.
//
// In each VLAN, for each family, there is one querier: we, somebody else, or
// nobody. Snooping limits frames only while there is one, and only from the time
// on in which hosts have had to answer its first query.
//
//	nobody --- VLAN of SetPorts and Config.Querier ---------------> we
//	nobody --- query heard ---------------------------------------> other
//	we ------- query heard from a lower address than ours --------> other
//	other ---- query heard from a lower address, or its own ------> other
//	other ---- nothing heard for Config.otherQuerier -------------> we, or nobody
//
// (RFC 2236 §3, RFC 3810 §7.6.2; br_multicast_select_querier of Linux.)

// spread is the number of VLANs that begin to query in one second, so that a
// trunk of all VLANs does not make one burst.
const spread = 64

// family is the querier and the routers of one family in one VLAN. Readers use
// active and routers; the rest is guarded by Table.mu.
type family struct {
	active  atomic.Bool
	routers atomic.Pointer[[]uint16] // nil: none

	heard    []member   // routers that were heard
	trusted  uint32     // when the first query has been answered
	querying bool       // we would be the querier
	next     uint32     // our next query
	begun    bool       // the first of them was sent
	startup  uint8      // queries that are still to be sent in quick succession
	hasOther bool       // another is the querier
	other    netip.Addr // its address
	until    uint32     // how long it is believed to be there
}

func (fam *family) routerPorts() []uint16 {
	if p := fam.routers.Load(); p != nil {
		return *p
	}
	return nil
}

// hearRouter notes a router behind a port.
//
// +checklocks:t.mu
func (t *Table) hearRouter(p *portState, fam *family, now uint32) {
	if p.Router != RouterAuto {
		return
	}
	m := member{port: p.Index, expires: now + t.config.otherQuerier()}
	i := slices.IndexFunc(fam.heard, func(m member) bool { return m.port == p.Index })
	if i >= 0 {
		fam.heard[i] = m
		return
	}
	fam.heard = append(fam.heard, m)
	t.publish(fam)
}

// publish shows readers the router ports of a family.
//
// +checklocks:t.mu
func (t *Table) publish(fam *family) {
	var ports []uint16
	for _, m := range fam.heard {
		ports = append(ports, m.port)
	}
	for i, p := range t.ports {
		if p.Router == RouterAlways {
			ports = append(ports, i)
		}
	}
	slices.Sort(ports)
	fam.routers.Store(&ports)
}

// forgetRouters forgets the routers chosen and shows all of them anew.
//
// +checklocks:t.mu
func (t *Table) forgetRouters(chosen func(member) bool) {
	ports := t.ports
	for i := range t.vlans {
		if v := t.vlans[i].Load(); v != nil {
			for _, fam := range []*family{&v.v4, &v.v6} {
				fam.heard = slices.DeleteFunc(fam.heard, func(m member) bool {
					return chosen(m) || ports[m.port].Router != RouterAuto
				})
				t.publish(fam)
			}
		}
	}
}

// hearQuery takes up a query of another: the election, the router, and the end
// that is near for members of a group that is asked about.
//
// +checklocks:t.mu
func (t *Table) hearQuery(p *portState, vlan uint16, m *message, now uint32) {
	if p.Router == RouterNever {
		return
	}
	if m.group.IsValid() {
		if g := t.find(m.group, vlan); g != nil {
			for i := range g.members {
				g.members[i].shorten(now + m.maxResp*uint32(t.config.Robustness))
			}
		}
		return
	}
	if m.src.IsUnspecified() {
		return
	}
	fam := t.at(vlan).family(m.v6)
	t.hearRouter(p, fam, now)
	if t.yields(fam, m.src) {
		if !fam.hasOther && !fam.querying {
			fam.trusted = now + m.maxResp
		}
		fam.hasOther, fam.other, fam.until = true, m.src, now+t.config.otherQuerier()
	}
}

// yields reports whether a querier with this address takes over. Zero is what
// stands for no address of ours: it loses against every other.
//
// +checklocks:t.mu
func (t *Table) yields(fam *family, src netip.Addr) bool {
	if fam.hasOther {
		return !fam.other.Less(src)
	}
	own := t.config.Addr4
	if src.Is6() {
		own = t.config.Addr6
	}
	return !fam.querying || own.IsUnspecified() || src.Less(own)
}

// Poll lets memberships, routers and queriers expire and calls send for each
// query that is due. A control goroutine calls it each second, and may sooner
// when Target.Due says so. send may keep the query.
func (t *Table) Poll(now uint32, send func(Query)) {
	for _, a := range t.poll(now) {
		send(t.config.build(a))
	}
}

func (t *Table) poll(now uint32) (asks []ask) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(func(m member) bool { return !m.permanent && due(m.expires, now) })
	asks = t.departed(asks, now)
	asks = t.general(asks, now)
	t.fresh = t.fresh[:0]
	t.stats.Queries += uint64(len(asks))
	return asks
}

// departed asks about the groups that were left. One that a host has meanwhile
// reported, or that is gone, needs no more questions.
//
// +checklocks:t.mu
func (t *Table) departed(asks []ask, now uint32) []ask {
	left := t.left[:0]
	for _, d := range t.left {
		if d.count == 0 || !t.leaving(d, now) {
			continue
		}
		if due(d.next, now) {
			asks = append(asks, ask{group: d.group, vlan: d.vlan, port: d.port, v6: d.group.Is6()})
			d.count--
			d.next = now + t.config.seconds(t.config.LastMember)
		}
		left = append(left, d)
	}
	t.left = left
	return asks
}

// leaving reports whether a membership is about to end.
//
// +checklocks:t.mu
func (t *Table) leaving(d departure, now uint32) bool {
	g := t.find(d.group, d.vlan)
	if g == nil {
		return false
	}
	i := g.index(d.port)
	return i >= 0 && !g.members[i].permanent && remaining(g.members[i].expires, now) <= t.config.lastMember()
}

// general does the queriers of all VLANs.
//
// +checklocks:t.mu
func (t *Table) general(asks []ask, now uint32) []ask {
	wanted := t.own
	if !t.config.Querier {
		wanted = nil
	}
	for i, vid := range wanted {
		v := t.at(vid)
		t.begin(&v.v4, now+uint32(i/spread))
		t.begin(&v.v6, now+uint32(i/spread))
	}
	for vid := range t.vlans {
		v := t.vlans[vid].Load()
		if v == nil {
			continue
		}
		_, own := slices.BinarySearch(wanted, uint16(vid))
		for _, fam := range []*family{&v.v4, &v.v6} {
			a := ask{vlan: uint16(vid), v6: fam == &v.v6}
			asks = t.querier(asks, fam, a, own, now)
		}
	}
	return asks
}

// begin makes us the querier of a family, with the first query at a time.
//
// +checklocks:t.mu
func (t *Table) begin(fam *family, at uint32) {
	if fam.querying {
		return
	}
	fam.querying, fam.next, fam.startup = true, at, t.config.Robustness
	if !fam.hasOther && !fam.active.Load() {
		fam.trusted = at + t.config.seconds(t.config.ResponseInterval)
	}
}

// querier does one family: who queries, and whether it is time to.
//
// +checklocks:t.mu
func (t *Table) querier(asks []ask, fam *family, a ask, own bool, now uint32) []ask {
	fam.querying = own
	if fam.hasOther && due(fam.until, now) {
		fam.hasOther, fam.next = false, now
	}
	before := len(fam.heard)
	fam.heard = slices.DeleteFunc(fam.heard, func(m member) bool { return due(m.expires, now) })
	if len(fam.heard) != before {
		t.publish(fam)
	}
	fam.active.Store((own || fam.hasOther) && due(fam.trusted, now))
	switch {
	case !own || fam.hasOther:
	case due(fam.next, now):
		asks = append(asks, a)
		fam.next, fam.begun = now+t.interval(fam), true
	case fam.begun:
		for _, p := range t.fresh {
			a.port = p
			asks = append(asks, a)
		}
	}
	return asks
}

// interval is the time to the next general query.
//
// +checklocks:t.mu
func (t *Table) interval(fam *family) uint32 {
	if fam.startup > 1 {
		fam.startup--
		return t.config.startup()
	}
	return t.config.seconds(t.config.QueryInterval)
}

// Routers appends the router ports to dst, in no order: those that were heard, of
// each VLAN and family, and those that always are.
func (t *Table) Routers(dst []Entry, now uint32) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, p := range t.ports {
		if p.Router == RouterAlways {
			dst = append(dst, Entry{Port: i, Permanent: true})
		}
	}
	for vid := range t.vlans {
		v := t.vlans[vid].Load()
		if v == nil {
			continue
		}
		for _, fam := range []*family{&v.v4, &v.v6} {
			for _, m := range fam.heard {
				e := m.entry(netip.Addr{}, uint16(vid), now)
				e.V6 = fam == &v.v6
				dst = append(dst, e)
			}
		}
	}
	return dst
}
