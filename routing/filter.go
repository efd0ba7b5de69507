// SPDX-License-Identifier: Apache-2.0

package routing

import "net/netip"

// Filter selects routes, as `ip route show` and `ip route flush` do. What is zero
// is not compared; the zero Filter matches every route.
type Filter struct {
	Families []Family     `json:"families,omitempty"` // any if empty
	Table    TableID      `json:"table,omitempty"`
	Type     Type         `json:"type,omitempty"`
	Scope    Scope        `json:"scope,omitempty"`
	Proto    Proto        `json:"proto,omitempty"`
	Metric   uint32       `json:"metric,omitempty"`
	Dev      string       `json:"dev,omitempty"` // of any next hop
	Via      netip.Addr   `json:"via,omitzero"`  // of any next hop
	Src      netip.Addr   `json:"src,omitzero"`
	Root     netip.Prefix `json:"root,omitzero"`  // the prefix is this one or inside it
	Match    netip.Prefix `json:"match,omitzero"` // the prefix is this one or around it
	Exact    netip.Prefix `json:"exact,omitzero"`
}

// Matches reports whether the filter selects the route.
func (f *Filter) Matches(r *Route) bool {
	return meant(f.Table, r.Table) && meant(f.Type, r.Type) && meant(f.Scope, r.Scope) &&
		meant(f.Proto, r.Proto) && meant(f.Metric, r.Metric) && meant(f.Src, r.Src) &&
		f.matchesFamily(r) && f.matchesPrefix(r.Prefix) && f.matchesHop(r)
}

func (f *Filter) matchesFamily(r *Route) bool {
	for _, family := range f.Families {
		if r.is6() == (family == IPv6) {
			return true
		}
	}
	return len(f.Families) == 0
}

func (f *Filter) matchesPrefix(p netip.Prefix) bool {
	return (!f.Root.IsValid() || covers(f.Root, p)) &&
		(!f.Match.IsValid() || covers(p, f.Match)) &&
		(!f.Exact.IsValid() || p == f.Exact.Masked())
}

func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

func (f *Filter) matchesHop(r *Route) bool {
	if f.Dev == "" && !f.Via.IsValid() {
		return true
	}
	for i := range r.NextHops {
		if r.NextHops[i].meantBy(&NextHop{Dev: f.Dev, Via: f.Via}) {
			return true
		}
	}
	return false
}
