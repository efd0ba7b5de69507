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
// OIF, if the query has one, is where the packet is about to leave, and where its
// answer would come in. The mark counts if the query has one: Linux takes it into
// account with src_valid_mark only, so the caller who wants that default leaves it out.
func (s *Set) ReversePath(q *Query, mode ReverseMode) bool {
	if mode == ReverseOff {
		return true
	}
	res := s.Back(q)
	if res.Type != Unicast {
		return false
	}
	return mode == ReverseLoose || res.Route.Uses(q.IIF)
}

// Back looks up the way back to the source of a packet that came in by IIF.
func (s *Set) Back(q *Query) Result {
	back := q.Answer()
	return s.Lookup(&back)
}

// Answer is the query for the answer to a packet that came in by IIF and left by
// OIF, or is for the namespace itself.
func (q *Query) Answer() Query {
	return Query{
		Src: q.Dst, Dst: q.Src, IIF: q.OIF, L3mdev: q.IIF, Mark: q.Mark, TOS: q.TOS,
		Proto: q.Proto, Sport: q.Dport, Dport: q.Sport,
	}
}

// Uses reports whether one of the route's next hops is on the device.
func (r *Route) Uses(index uint16) bool {
	for i := range r.NextHops {
		if r.NextHops[i].Index == index {
			return true
		}
	}
	return false
}
