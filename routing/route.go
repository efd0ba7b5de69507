// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Route is one line of a table. In a Change, fields that are zero are not stated:
// Add takes what ip-route(8) takes then, Delete matches whatever is there. In a
// Set all are stated, and nothing a Route points to ever changes.
//
// Its key is Table, Prefix and Metric. Several routes with the same key stand in
// the order that append and prepend made; the first that can be used is.
type Route struct {
	Prefix   netip.Prefix `json:"prefix"`
	Type     Type         `json:"type,omitempty"`
	Table    TableID      `json:"table,omitempty"`
	Metric   uint32       `json:"metric,omitempty"` // lower is better; IPv6 makes 0 to 1024, but for own addresses
	Scope    Scope        `json:"scope,omitempty"`
	Proto    Proto        `json:"proto,omitempty"`
	Src      netip.Addr   `json:"src,omitzero"`       // preferred source; one of the local addresses
	MTU      uint32       `json:"mtu,omitempty"`      // bytes of an IP packet, to 65535; 0: the device's
	MTULock  bool         `json:"mtuLock,omitempty"`  // path-MTU discovery must not lower MTU
	AdvMSS   uint32       `json:"advmss,omitempty"`   // bytes of a TCP segment to announce, to 65495; 0: from the MTU
	NextHops []NextHop    `json:"nextHops,omitempty"` // none if Type refuses; one or several else
}

const (
	// metric6 is what IPv6 makes of a metric that is not stated (IP6_RT_PRIO_USER).
	metric6   = 1024
	maxMTU    = 65535
	maxAdvMSS = 65495 // 65535 less an IPv4 and a TCP header
)

// The faults of a change that a caller may want to tell apart. Their texts are
// those that ip(8) users know.
var (
	ErrExist   = errors.New("file exists")
	ErrNoEnt   = errors.New("no such file or directory")
	ErrNoRoute = errors.New("no such process")
	ErrGateway = errors.New("nexthop has invalid gateway")
	ErrPrefSrc = errors.New("invalid preferred source address")
	ErrDevice  = errors.New("cannot find device")
	ErrLimit   = errors.New("limit reached")
)

// is6 reports the family of the route.
func (r *Route) is6() bool { return r.Prefix.Addr().Is6() }

// table is the table that the route says or stands in by default.
func (r *Route) table() TableID {
	if r.Table == 0 {
		return r.Type.home()
	}
	return r.Table
}

// Place is the table and the prefix under which a route stands that Apply is told
// to put, or to delete.
func (r *Route) Place() (TableID, netip.Prefix) { return r.table(), r.Prefix.Masked() }

// defaultScope is the scope of a route that states none, in the way of ip-route(8).
func (r *Route) defaultScope() Scope {
	switch {
	case r.is6():
		return ScopeGlobal
	case r.Type == Local:
		return ScopeHost
	case r.Type == Broadcast, r.Type == Multicast, r.Type == Anycast:
		return ScopeLink
	case r.Type == Unicast && len(r.NextHops) == 1 && !r.NextHops[0].Via.IsValid():
		return ScopeLink
	}
	return ScopeGlobal
}

// complete returns the route with everything stated that ip-route(8) and the
// kernel fill in.
func (r *Route) complete() (*Route, error) {
	c := *r
	c.NextHops = slices.Clone(r.NextHops)
	if err := c.completePrefix(); err != nil {
		return nil, err
	}
	c.Type = orElse(c.Type, Unicast)
	c.Table = c.table()
	c.Proto = orElse(c.Proto, ProtoBoot)
	if c.is6() {
		if !c.ofAddress() {
			c.Metric = orElse(c.Metric, metric6)
		}
		c.Scope = ScopeGlobal
	}
	if err := c.completeHops(); err != nil {
		return nil, err
	}
	c.Scope = orElse(c.Scope, c.defaultScope())
	return &c, c.check()
}

// ofAddress reports whether the route came with an own IPv6 address: those have
// metric 0, and nothing else can (addrconf_f6i_alloc).
func (r *Route) ofAddress() bool {
	return r.is6() && r.Proto == ProtoKernel && (r.Type == Local || r.Type == Anycast)
}

// completePrefix masks an IPv6 prefix and refuses an IPv4 one that needs it, as
// the kernel does.
func (r *Route) completePrefix() error {
	a := r.Prefix.Addr()
	switch {
	case !r.Prefix.IsValid() || a.Is4In6() || a.Zone() != "":
		return errors.New("invalid prefix")
	case a.Is6():
		r.Prefix = r.Prefix.Masked()
	case r.Prefix != r.Prefix.Masked():
		return fmt.Errorf("invalid prefix for given prefix length: %v", r.Prefix)
	}
	return nil
}

func (r *Route) completeHops() error {
	if r.Type.refuses() && r.is6() && len(r.NextHops) == 1 && r.NextHops[0].Dev == loopback {
		r.NextHops = nil // as the kernel shows an IPv6 route of these types
	}
	switch n := len(r.NextHops); {
	case n > 0 && r.Type.refuses():
		return fmt.Errorf("%v route can't have a gateway or device", r.Type)
	case n == 0 && !r.Type.refuses() && r.Type != Local:
		return errors.New("no such device: neither gateway nor device given")
	case n > maxNextHops:
		return fmt.Errorf("%d next hops: %w at %d", n, ErrLimit, maxNextHops)
	}
	for i := range r.NextHops {
		h := &r.NextHops[i]
		if err := h.check(r.is6()); err != nil {
			return err
		}
		h.Weight = orElse(h.Weight, 1)
		h.Index, h.Dead, h.seed = 0, false, 0
	}
	return nil
}

func (r *Route) check() error {
	gateway := slices.ContainsFunc(r.NextHops, func(h NextHop) bool { return h.Via.IsValid() })
	switch {
	case r.Type > Throw, r.Scope > ScopeNowhere:
		return errors.New("unknown type or scope")
	case gateway && r.Scope >= ScopeLink:
		return fmt.Errorf("scope %v: %w", r.Scope, ErrGateway)
	case r.Src.IsValid() && (r.Src.Is4() == r.is6() || r.Src.Is4In6() || r.Src.Zone() != ""):
		return ErrPrefSrc
	case r.MTU > maxMTU:
		return errors.New("mtu is larger than " + strconv.Itoa(maxMTU))
	case r.MTULock && r.MTU == 0:
		return errors.New("mtu lock without an mtu")
	case r.AdvMSS > maxAdvMSS:
		return errors.New("advmss is larger than " + strconv.Itoa(maxAdvMSS))
	}
	return nil
}

// direct reports whether the route counts when a gateway is looked up. IPv4 passes
// over those that have gateways themselves, by their scope; IPv6 stops at them.
func (r *Route) direct() bool { return r.is6() || r.Scope >= ScopeLink }

// joins reports whether IPv6 makes one route of this and another with the same
// key: all next hops are gateways (rt6_qualify_for_ecmp).
func (r *Route) joins() bool {
	return r.is6() && !r.Type.refuses() && len(r.NextHops) > 0 &&
		!slices.ContainsFunc(r.NextHops, func(h NextHop) bool { return !h.Via.IsValid() })
}

// same reports whether two completed routes with the same key were configured alike.
func (r *Route) same(o *Route) bool {
	if r.is6() {
		return r.hasHopOf(o)
	}
	return r.Type == o.Type && r.Scope == o.Scope && r.Proto == o.Proto && r.Src == o.Src &&
		r.MTU == o.MTU && r.MTULock == o.MTULock && r.AdvMSS == o.AdvMSS &&
		slices.EqualFunc(r.NextHops, o.NextHops, func(a, b NextHop) bool { return a.same(&b) })
}

// hasHopOf is what IPv6 calls a duplicate: any next hop of the other, or none in
// both, whatever they do then (rt6_duplicate_nexthop).
func (r *Route) hasHopOf(o *Route) bool {
	if len(o.NextHops) == 0 {
		return len(r.NextHops) == 0
	}
	return slices.ContainsFunc(o.NextHops, func(h NextHop) bool { return r.hop(h.id()) >= 0 })
}

// hop is the position of a next hop in the route; -1 if it is not there.
func (r *Route) hop(id hopID) int {
	return slices.IndexFunc(r.NextHops, func(h NextHop) bool { return h.id() == id })
}

// matches reports whether the route is meant by a Delete that states want, next
// hops aside.
func (r *Route) matches(want *Route) bool {
	return meant(want.Type, r.Type) && meant(want.Metric, r.Metric) && meant(want.Scope, r.Scope) &&
		meant(want.Proto, r.Proto) && meant(want.Src, r.Src) && meant(want.AdvMSS, r.AdvMSS) &&
		(want.MTU == 0 || want.MTU == r.MTU && want.MTULock == r.MTULock)
}

// matchesHops reports whether the next hops are meant by a Delete that states
// want. One in IPv4 is compared with the first of the route, as in the kernel
// (fib_nh_match); several are compared one by one; IPv6 finds each for itself.
func (r *Route) matchesHops(want []NextHop) bool {
	switch {
	case len(want) == 0:
		return true
	case r.Type.refuses():
		return r.is6() && len(want) == 1 && want[0].Dev == loopback
	case r.is6():
		return !slices.ContainsFunc(want, func(w NextHop) bool { return r.meantHop(&w) < 0 })
	case len(want) == 1:
		return len(r.NextHops) > 0 && r.NextHops[0].meantBy(&want[0])
	}
	return slices.EqualFunc(r.NextHops, want, func(h, w NextHop) bool { return h.meantBy(&w) })
}

// meantHop is the position of the first next hop that want means; -1 if none.
func (r *Route) meantHop(want *NextHop) int {
	return slices.IndexFunc(r.NextHops, func(h NextHop) bool { return h.meantBy(want) })
}

// meantBy compares what want states.
func (h *NextHop) meantBy(want *NextHop) bool {
	return meant(want.Via, h.Via) && meant(want.Dev, h.Dev) && meant(want.Weight, h.Weight)
}

// orElse is v, or what is meant if v is not stated.
func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// meant reports whether a value is the wanted one, if one is stated.
func meant[T comparable](want, is T) bool {
	var zero T
	return want == zero || want == is
}

func quote(s string) string { return strconv.Quote(s) }
