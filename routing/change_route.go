// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"net/netip"
	"slices"
)

// putRoute is every operation that brings a route.
func (e *edit) putRoute(op Op, want *Route) error {
	r, err := want.complete()
	if err != nil {
		return err
	}
	if err := e.resolveFor(op, r); err != nil {
		return err
	}
	t, err := e.writable(r.Table)
	if err != nil {
		return err
	}
	l := t.leaf(r.Prefix)
	routes, err := l.place(op, r)
	if err != nil {
		return err
	}
	return e.store(t, l, routes)
}

// store puts another list of routes in the place of a leaf's.
func (e *edit) store(t *table, l *leaf, routes []*Route) error {
	e.recount(l, routes)
	if e.routes > e.limits.Routes {
		return fmt.Errorf("routes: %w at %d", ErrLimit, e.limits.Routes)
	}
	t.put(l.with(routes))
	return nil
}

// place returns the routes of the prefix after the operation with r.
func (l *leaf) place(op Op, r *Route) ([]*Route, error) {
	from, to := l.span(r.Metric)
	switch {
	case op == OpAdd && from < to:
		return nil, ErrExist
	case op == OpRestore:
		return slices.Insert(slices.Clone(l.routes), to, r), nil
	case op == OpAppend || op == OpPrepend:
		return l.join(op, r, from, to)
	case op == OpChange && from == to:
		return nil, ErrNoEnt
	case from == to:
		return slices.Insert(slices.Clone(l.routes), from, r), nil
	}
	return l.replace(r, from, to)
}

// join adds r to the routes of the same metric, which stand at from to to.
func (l *leaf) join(op Op, r *Route, from, to int) ([]*Route, error) {
	peers := l.routes[from:to]
	if slices.ContainsFunc(peers, r.same) {
		return nil, ErrExist
	}
	at := to
	if r.joins() {
		at = from + slices.IndexFunc(peers, (*Route).joins)
	}
	if r.joins() && at >= from {
		return l.joinHops(r, at)
	}
	if at = to; op == OpPrepend && !r.is6() {
		at = from
	}
	return slices.Insert(slices.Clone(l.routes), at, r), nil
}

// joinHops adds the next hops of r to the route at a place.
func (l *leaf) joinHops(r *Route, at int) ([]*Route, error) {
	c := *l.routes[at]
	c.NextHops = slices.Concat(c.NextHops, r.NextHops)
	if len(c.NextHops) > maxNextHops {
		return nil, fmt.Errorf("%d next hops: %w at %d", len(c.NextHops), ErrLimit, maxNextHops)
	}
	routes := slices.Clone(l.routes)
	routes[at] = &c
	return routes, nil
}

// replace puts r in the place of the first route of its metric; in IPv6 of the
// first that has gateways if r has, or has none if r has none, if there is such
// a one (fib6_add_rt2node).
func (l *leaf) replace(r *Route, from, to int) ([]*Route, error) {
	at, peers := from, l.routes[from:to]
	if r.is6() {
		at += max(0, slices.IndexFunc(peers, func(o *Route) bool { return o.joins() == r.joins() }))
	} else if twin := slices.IndexFunc(peers, r.same); twin > 0 {
		return nil, ErrExist
	}
	routes := slices.Clone(l.routes)
	routes[at] = r
	return routes, nil
}

// deleteRoute removes the first route that has all that want states; of an IPv6
// one only the gateways that want names, if it names any.
func (e *edit) deleteRoute(want *Route) error {
	w := *want
	if err := w.completePrefix(); err != nil {
		return err
	}
	if e.tables[w.table()] == nil {
		return ErrNoRoute
	}
	t, err := e.writable(w.table())
	if err != nil {
		return err
	}
	l := t.leaf(w.Prefix)
	at := slices.IndexFunc(l.routes, func(r *Route) bool { return r.matches(&w) && r.matchesHops(w.NextHops) })
	if at < 0 {
		return ErrNoRoute
	}
	rest := l.routes[at].without(w.NextHops)
	return e.store(t, l, substitute(l.routes, at, rest))
}

// substitute returns the list with another route in a place, or without it if
// that is nil.
func substitute(routes []*Route, at int, r *Route) []*Route {
	if r == nil {
		return slices.Delete(slices.Clone(routes), at, at+1)
	}
	routes = slices.Clone(routes)
	routes[at] = r
	return routes
}

// without is what is left of the route when the gateways that a Delete names are
// gone: nil if nothing is.
func (r *Route) without(gone []NextHop) *Route {
	if !r.joins() || len(gone) == 0 {
		return nil
	}
	c := *r
	c.NextHops = slices.Clone(r.NextHops)
	for i := range gone {
		at := c.meantHop(&gone[i])
		if at < 0 || !gone[i].Via.IsValid() {
			return nil
		}
		c.NextHops = slices.Delete(c.NextHops, at, at+1)
	}
	if len(c.NextHops) == 0 {
		return nil
	}
	return &c
}

// resolveFor is resolve, less the checks that a route has passed which is restored.
// What it leaned on may have gone since, as in Linux.
func (e *edit) resolveFor(op Op, r *Route) error {
	if op != OpRestore {
		return e.resolve(r)
	}
	for i := range r.NextHops {
		h := &r.NextHops[i]
		var ok bool
		if h.Index, ok = e.devices.index(h.Dev); !ok {
			return fmt.Errorf("%w %q", ErrDevice, h.Dev)
		}
		h.Dead, h.seed = e.isDead(h), h.newSeed()
	}
	return nil
}

// resolve finds the devices of the route's next hops and checks what must be
// there before it: devices, gateways on a link, an own address as its source.
func (e *edit) resolve(r *Route) error {
	for i := range r.NextHops {
		if err := e.resolveHop(r.Table, &r.NextHops[i]); err != nil {
			return err
		}
	}
	own := r.Type == Local && r.Prefix.Contains(r.Src) // the route makes it local
	if r.Src.IsValid() && !own && !e.isLocal(r.Src, r.Table) {
		return fmt.Errorf("%w %v", ErrPrefSrc, r.Src)
	}
	return nil
}

func (e *edit) resolveHop(id TableID, h *NextHop) error {
	var ok bool
	if h.Index, ok = e.devices.index(h.Dev); h.Dev != "" && !ok {
		return fmt.Errorf("%w %q", ErrDevice, h.Dev)
	}
	if e.devices.byName[h.Dev].Port {
		return fmt.Errorf("%w %q: it is a port of a network", ErrDevice, h.Dev)
	}
	if h.Via.IsValid() && !h.Onlink && !h.linkLocal() {
		link, err := e.gateway(id, h)
		if err != nil {
			return err
		}
		h.Dev, h.Index = link.Dev, link.Index
	}
	h.Dead, h.seed = e.isDead(h), h.newSeed()
	return nil
}

func (e *edit) isDead(h *NextHop) bool { return e.devices.byName[h.Dev].Down || e.dead[h.id()] }

// isLocal reports whether an address is the namespace's own, as seen by a table.
func (e *edit) isLocal(a netip.Addr, id TableID) bool {
	for _, id := range [...]TableID{TableLocal, id} {
		if t := e.tables[id]; t != nil {
			if r, _ := t.find(&Query{Dst: a}); r != nil && r.Type == Local {
				return true
			}
		}
	}
	return false
}

// gateway returns the next hop that leads to the gateway of h: that of a unicast
// route without a gateway of its own, in the table of the route that wants it or
// in those that the rules look into for every packet. What stands in the way in
// the former sends the search on to the latter; in IPv4 only a route that refuses
// does (fib_check_nh_v4_gw, ip6_route_check_nh).
func (e *edit) gateway(id TableID, h *NextHop) (*NextHop, error) {
	if e.isLocal(h.Via, id) {
		return nil, fmt.Errorf("%w: %v is a local address", ErrGateway, h.Via)
	}
	q := Query{Dst: h.Via, OIF: h.Index, direct: true}
	if t := e.tables[id]; t != nil && (id != TableMain || h.Via.Is6()) {
		r, link := t.find(&q)
		if leads(r, link) {
			return link, nil
		}
		if h.Via.Is4() && r != nil && !r.Type.refuses() {
			return nil, fmt.Errorf("%w: %v is on no link", ErrGateway, h.Via)
		}
	}
	if link := e.ruledGateway(&q); link != nil {
		return link, nil
	}
	return nil, fmt.Errorf("%w: %v is on no link", ErrGateway, h.Via)
}

// ruledGateway is gateway in the tables of the rules that select every packet.
func (e *edit) ruledGateway(q *Query) *NextHop {
	f := IPv4
	if q.Dst.Is6() {
		f = IPv6
	}
	for _, rule := range e.rules[f] {
		t := e.tables[rule.Table]
		if t == nil || !rule.selectsAll() {
			continue
		}
		r, link := t.find(q)
		if leads(r, link) {
			return link
		}
		if r != nil && r.Type != Throw {
			break
		}
	}
	return nil
}

// leads reports whether what was found puts a gateway on a link.
func leads(r *Route, link *NextHop) bool {
	return r != nil && r.Type == Unicast && link != nil && !link.Via.IsValid()
}
