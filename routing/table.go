// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// Theory of operation.
//
// A table is a bart trie (a multibit trie with eight bits a step: at most 4 steps
// for IPv4 and 16 for IPv6) from prefix to leaf. A leaf is the list of the routes
// of its prefix, best metric first. Neither the trie of a published version nor a
// leaf is ever written to: a change copies the nodes on the way to its prefix, or
// the whole trie once if a transaction brings so much that it pays.
//
// A look-up finds the longest prefix and takes its first route that is usable. It
// mostly is. If not, because all next hops are dead or on another device than the
// query asks for, the next shorter prefix is found by looking up the prefix
// itself, one bit shorter, and so on. That costs a look-up for each, at most 128,
// and nothing in the usual case.

// leaf is all routes of one prefix in one table. It is immutable.
type leaf struct {
	prefix netip.Prefix
	routes []*Route // by metric, then in the order of arrival
}

// with returns a leaf with another list of routes.
func (l *leaf) with(routes []*Route) *leaf { return &leaf{prefix: l.prefix, routes: routes} }

// span is the range of the routes with a metric; empty, at the place where such a
// route belongs, if there is none.
func (l *leaf) span(metric uint32) (from, to int) {
	from, _ = slices.BinarySearchFunc(l.routes, metric, func(r *Route, m uint32) int { return cmp.Compare(r.Metric, m) })
	for to = from; to < len(l.routes) && l.routes[to].Metric == metric; to++ {
	}
	return from, to
}

// table is one routing table, both families.
type table struct {
	id    TableID
	trie  *bart.Table[*leaf]
	owned bool // by the transaction in progress, which may write to the trie
}

func newTable(id TableID) *table { return &table{id: id, trie: new(bart.Table[*leaf])} }

// leaf returns the routes of a prefix; an empty list if there are none.
func (t *table) leaf(p netip.Prefix) *leaf {
	if t != nil {
		if l, ok := t.trie.Get(p); ok {
			return l
		}
	}
	return &leaf{prefix: p}
}

// put replaces the routes of a prefix.
func (t *table) put(l *leaf) {
	switch {
	case len(l.routes) > 0 && t.owned:
		t.trie.Insert(l.prefix, l)
	case len(l.routes) > 0:
		t.trie = t.trie.InsertPersist(l.prefix, l)
	case t.owned:
		t.trie.Delete(l.prefix)
	default:
		t.trie = t.trie.DeletePersist(l.prefix)
	}
}

// find returns the route that the table has for the query and the next hop to
// take; nil if it has none. The hop is nil if the route has none.
func (t *table) find(q *Query) (*Route, *NextHop) {
	l, ok := t.trie.Lookup(q.Dst)
	for ok {
		if r, h, found := l.choose(q); found {
			return r, h
		}
		bits := l.prefix.Bits()
		if bits == 0 {
			break
		}
		l, ok = t.trie.LookupPrefix(netip.PrefixFrom(q.Dst, bits-1))
	}
	return nil, nil
}

// choose returns the first route that is usable and its next hop.
func (l *leaf) choose(q *Query) (r *Route, h *NextHop, ok bool) {
	for _, r = range l.routes {
		if q.direct && !r.direct() {
			continue
		}
		if len(r.NextHops) == 0 {
			return r, nil, true
		}
		if h = r.nextHop(q); h != nil {
			return r, h, true
		}
	}
	return nil, nil, false
}
