// SPDX-License-Identifier: Apache-2.0

package routing

// ReverseMode is how strictly a packet's source is checked against the routes
// back to it (RFC 3704; rp_filter in Linux' ip-sysctl). The numbers are rp_filter's.
type ReverseMode uint8

// The modes.
const (
	ReverseOff    ReverseMode = iota // no check
	ReverseStrict                    // the route back leaves by the device that the packet came in by
	ReverseLoose                     // there is a route back
)

// ReversePath reports whether the packet of a query may come in by its IIF: the
// route to its source, as its answer would look it up, is a unicast one and, in
// strict mode, one of its next hops is on IIF. It allocates nothing.
//
// The mark counts if the query has one: Linux takes it into account with
// src_valid_mark only, so the caller who wants that default leaves it out. The
// ports and the protocol don't.
func (s *Set) ReversePath(q *Query, mode ReverseMode) bool {
	if mode == ReverseOff {
		return true
	}
	back := Query{Src: q.Dst, Dst: q.Src, Mark: q.Mark, TOS: q.TOS}
	res := s.Lookup(&back)
	if res.Type != Unicast {
		return false
	}
	return mode == ReverseLoose || res.Route.uses(q.IIF)
}

// uses reports whether one of the route's next hops is on the device.
func (r *Route) uses(index uint16) bool {
	for i := range r.NextHops {
		if r.NextHops[i].Index == index {
			return true
		}
	}
	return false
}
