// SPDX-License-Identifier: Apache-2.0

package routing

import "net/netip"

// Query is what a look-up is told of a packet. The addresses have no zone and are
// of the same family; IPv4 is not written as IPv6.
type Query struct {
	Src   netip.Addr // not valid: not known yet; then a rule with `from` doesn't select it
	Dst   netip.Addr
	IIF   uint16 // device that the packet came in by; 0: the namespace sends it
	Port  uint16 // container's port that it came in by, which `iif` may name too; 0: none
	OIF   uint16 // device that it must leave by; 0: any
	Mark  uint32
	TOS   uint8 // the whole octet; the ECN bits don't count
	Proto uint8 // IP protocol
	Sport uint16
	Dport uint16
	Hash  uint64 // of the flow (FlowHash): chooses among next hops
	// L3mdev is a device whose VRF the packet belongs to, whatever OIF and IIF say
	// (flowi_l3mdev); 0: they say it. An answer is looked up in the VRF of the question.
	L3mdev uint16

	direct bool // routes without gateway only: how a gateway is looked up
}

// Family is that of the query.
func (q *Query) Family() Family {
	if q.Dst.Is6() {
		return IPv6
	}
	return IPv4
}

// Result is the answer to a Query: what becomes of the packet and why. What it
// points to belongs to the Set and never changes.
type Result struct {
	Type    Type     // TypeNone: no rule and no table has an answer (network unreachable); never Throw
	Table   TableID  // in which Route stands; 0 if there is none
	Route   *Route   // nil if there is no route, or a rule answered by itself
	NextHop *NextHop // nil unless the route has one
	Rule    *Rule    // that decided; nil for TypeNone
}

// Gateway is whom to resolve in order to send the packet on: the next hop's
// gateway, or the destination itself if that is on the link.
func (r *Result) Gateway(dst netip.Addr) netip.Addr {
	if r.NextHop != nil && r.NextHop.Via.IsValid() {
		return r.NextHop.Via
	}
	return dst
}

// Lookup decides on one packet: fib_rules_lookup and fib_lookup of Linux. It
// allocates nothing and keeps nothing of q. Rules are tried one after the other;
// a `goto` only goes forward, so their number bounds the work.
func (s *Set) Lookup(q *Query) Result {
	steps := s.steps[IPv4]
	if q.Dst.Is6() {
		steps = s.steps[IPv6]
	}
	var a addresses
	for i := 0; i < len(steps); i++ {
		st := &steps[i]
		if !st.always && !st.selects(q, a.of(q)) {
			continue
		}
		switch st.action {
		case ActionLookup:
			if res, ok := s.tryTable(st, q); ok {
				return res
			}
		case ActionGoto:
			if st.target != 0 {
				i = st.target - 1
			}
		case ActionNop:
		default:
			return Result{Type: st.action.resultType(), Rule: st.rule}
		}
	}
	return Result{}
}

// tryTable looks up in the table of a rule; false if the rules go on.
func (s *Set) tryTable(st *step, q *Query) (Result, bool) {
	t := st.table
	if st.rule.L3mdev {
		t = s.vrfTable(q)
	}
	if t == nil {
		return Result{}, false
	}
	r, h := t.find(q)
	if r == nil || r.Type == Throw {
		return Result{}, false
	}
	// Only a route that leads somewhere is suppressed, as in Linux.
	if st.rule.Suppress && !r.Type.refuses() && r.Prefix.Bits() <= int(st.rule.SuppressLen) {
		return Result{}, false
	}
	return Result{Type: r.Type, Table: t.id, Route: r, NextHop: h, Rule: st.rule}, true
}

// vrfTable is the table of the VRF that the packet's output or else input device
// belongs to; nil if to none.
func (s *Set) vrfTable(q *Query) *table {
	if q.L3mdev != 0 {
		return s.vrfs[q.L3mdev]
	}
	if t := s.vrfs[q.OIF]; t != nil {
		return t
	}
	return s.vrfs[q.IIF]
}
