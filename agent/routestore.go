// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"sluice/routing"
)

// Theory of operation.
//
// A namespace may have a hundred thousand routes, so they are not part of its
// record: a change of one must not write them all, and whoever reads the state must
// not decode them all. In the bucket of a namespace each prefix of each table has a
// key (leafKey), whose value is the list of its routes, complete, in the order in
// which they stand. The bucket's sequence number is the transaction that wrote it
// last; routes that were decoded are kept with it, and are good while it is the same.
//
// What the namespace itself makes of its addresses is not in there: proto kernel.

// leafKey is a prefix in a table.
type leafKey struct {
	table  routing.TableID
	prefix netip.Prefix
}

// bytes is the key in the file; it sorts by table, family and prefix.
func (k leafKey) bytes() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 22), uint32(k.table))
	family := byte(4)
	if k.prefix.Addr().Is6() {
		family = 6
	}
	a := k.prefix.Addr().As16()
	return append(append(append(b, family), a[:]...), byte(k.prefix.Bits()))
}

func (k leafKey) compare(o leafKey) int { return bytes.Compare(k.bytes(), o.bytes()) }

// routeList is the routes of a namespace. It is immutable.
type routeList struct {
	// version is the transaction that wrote them.
	version uint64
	// all are sorted by leafKey; those of one stand in their order.
	all []routing.Route
}

// routeCache holds what was decoded last. Its zero value is ready.
type routeCache struct {
	mu sync.Mutex
	// +checklocks:mu
	lists map[string]*routeList
}

// prime notes what a committed transaction has written.
func (c *routeCache) prime(lists map[string]*routeList) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists == nil {
		c.lists = make(map[string]*routeList)
	}
	maps.Copy(c.lists, lists)
}

// read returns the routes of all namespaces that have any.
func (c *routeCache) read(tx *bbolt.Tx) (map[string]*routeList, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, lists := make(map[string]*routeList), c.lists
	all := tx.Bucket([]byte(bucketRoutes))
	err := all.ForEachBucket(func(name []byte) error {
		b := all.Bucket(name)
		if old := lists[string(name)]; old != nil && old.version == b.Sequence() {
			out[string(name)] = old
			return nil
		}
		list, err := decodeRoutes(b)
		out[string(name)] = list
		return err
	})
	if err != nil {
		return nil, err
	}
	// A transaction that writes has seen what was committed before it, so nothing
	// that it might take back is kept here.
	c.lists = maps.Clone(out)
	return out, nil
}

func decodeRoutes(b *bbolt.Bucket) (*routeList, error) {
	list := &routeList{version: b.Sequence()}
	err := b.ForEach(func(k, v []byte) error {
		var leaf []routing.Route
		if err := json.Unmarshal(v, &leaf); err != nil {
			return fmt.Errorf("route %x: %w", k, err)
		}
		list.all = append(list.all, leaf...)
		return nil
	})
	return list, err
}

// recorded is a route of a Set as it is written down.
func recorded(r *routing.Route) routing.Route {
	c := *r
	c.NextHops = slices.Clone(r.NextHops)
	for i := range c.NextHops {
		h := &c.NextHops[i]
		*h = routing.NextHop{Via: h.Via, Dev: h.Dev, Weight: h.Weight, Onlink: h.Onlink}
	}
	return c
}

// users reports whether a route was made by a user, not by the namespace.
func users(r *routing.Route) bool { return r.Proto != routing.ProtoKernel }

// leafOf is the routes of a Set in one place, as they are written down.
func leafOf(s *routing.Set, k leafKey) []routing.Route {
	var out []routing.Route
	for _, r := range s.At(k.table, k.prefix) {
		if users(r) {
			out = append(out, recorded(r))
		}
	}
	return out
}

// usersRoutes are all of a Set that a user made, sorted as in a routeList.
func usersRoutes(s *routing.Set) []routing.Route {
	var out []routing.Route
	for r := range s.Routes(0) {
		if users(r) {
			out = append(out, recorded(r))
		}
	}
	return out
}

// putLeaf writes the routes of one place.
func (t *txn) putLeaf(namespace string, k leafKey, leaf []routing.Route) error {
	if len(leaf) == 0 {
		return t.write(bucketRoutes, namespace, k.bytes(), nil)
	}
	text, err := json.Marshal(leaf)
	if err != nil {
		return err
	}
	return t.write(bucketRoutes, namespace, k.bytes(), text)
}

// putRoutes writes the places of a Set that touched names, or all that differ from
// what is written if it is nil.
func (t *txn) putRoutes(namespace string, s *routing.Set, touched map[leafKey]bool) error {
	if touched != nil && len(touched) == 0 {
		return nil
	}
	list := &routeList{version: uint64(t.tx.ID()), all: usersRoutes(s)}
	if touched == nil {
		touched = t.state.routes[namespace].differing(list)
	}
	if len(touched) == 0 {
		return nil
	}
	for _, k := range slices.SortedFunc(maps.Keys(touched), leafKey.compare) {
		if err := t.putLeaf(namespace, k, leafOf(s, k)); err != nil {
			return err
		}
	}
	t.prime(namespace, list)
	return nil
}

// prime makes a list that of a namespace, for the rest of the transaction and for
// whoever reads after it.
func (t *txn) prime(namespace string, list *routeList) {
	if t.primed == nil {
		t.primed = make(map[string]*routeList)
	}
	t.primed[namespace] = list
	t.state.routes[namespace] = list
}

// dropRoutes removes all routes of a namespace.
func (t *txn) dropRoutes(namespace string) error {
	if t.state.routes[namespace].len() == 0 {
		return nil
	}
	return t.putRoutes(namespace, routing.New(routing.Limits{}), nil)
}

// routeCount is the number of routes of all namespaces.
func (s *state) routeCount() (n int) {
	for _, l := range s.routes {
		n += l.len()
	}
	return n
}

func (l *routeList) len() int {
	if l == nil {
		return 0
	}
	return len(l.all)
}

// routes are those of a namespace; nil if it has none.
func (l *routeList) routes() []routing.Route {
	if l == nil {
		return nil
	}
	return l.all
}

// leaves are the routes by place.
func (l *routeList) leaves() map[leafKey][]routing.Route {
	out := make(map[leafKey][]routing.Route, l.len())
	for _, r := range l.routes() {
		k := leafKey{r.Table, r.Prefix}
		out[k] = append(out[k], r)
	}
	return out
}

// differing are the places in which two lists differ.
func (l *routeList) differing(o *routeList) map[leafKey]bool {
	out := make(map[leafKey]bool)
	was, is := l.leaves(), o.leaves()
	for k, leaf := range was {
		if !slices.EqualFunc(leaf, is[k], sameRoute) {
			out[k] = true
		}
	}
	for k := range is {
		if _, known := was[k]; !known {
			out[k] = true
		}
	}
	return out
}

// sameRoute compares two routes as they are written down.
func sameRoute(a, b routing.Route) bool {
	return a.Prefix == b.Prefix && a.Type == b.Type && a.Table == b.Table && a.Metric == b.Metric &&
		a.Scope == b.Scope && a.Proto == b.Proto && a.Src == b.Src &&
		a.MTU == b.MTU && a.MTULock == b.MTULock && a.AdvMSS == b.AdvMSS && slices.Equal(a.NextHops, b.NextHops)
}
