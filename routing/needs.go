// SPDX-License-Identifier: Apache-2.0

package routing

// needs is what of a packet the look-ups of one family may depend on, beside its
// addresses and devices.
type needs struct {
	ports     bool // a rule asks for them
	tos       bool // a rule asks for it
	multipath int  // routes with several next hops, which are chosen by the flow's hash
}

// NeedsPorts reports whether a packet's ports can make a difference to a look-up:
// a rule states some, or a route has several next hops. If not, a fragment is
// decided upon like any other packet.
func (s *Set) NeedsPorts(f Family) bool { return s.needs[f].ports || s.needs[f].multipath > 0 }

// Multipath reports whether any route has several next hops.
func (s *Set) Multipath() bool { return s.needs[IPv4].multipath+s.needs[IPv6].multipath > 0 }

// NeedsTOS reports whether a packet's type of service can make a difference, so
// that a decision on a flow doesn't hold for all of its packets.
func (s *Set) NeedsTOS(f Family) bool { return s.needs[f].tos }

// ruleNeeds notes what the rules of a family ask for.
func (s *Set) ruleNeeds(f Family) {
	n := &s.needs[f]
	n.ports, n.tos = false, false
	for _, r := range s.rules[f] {
		n.ports = n.ports || r.Sport != Ports{} || r.Dport != Ports{}
		n.tos = n.tos || r.TOS != 0
	}
}

// recount notes that routes of one prefix took the place of others.
func (s *Set) recount(l *leaf, routes []*Route) {
	f := IPv4
	if l.prefix.Addr().Is6() {
		f = IPv6
	}
	s.routes += len(routes) - len(l.routes)
	s.needs[f].multipath += multipath(routes) - multipath(l.routes)
}

func multipath(routes []*Route) (n int) {
	for _, r := range routes {
		if len(r.NextHops) > 1 {
			n++
		}
	}
	return n
}
