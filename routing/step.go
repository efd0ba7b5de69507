// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
)

// Theory of operation.
//
// A namespace in which every container has its own table has a rule for each, and
// a look-up passes all of them by. So what a rule is mostly told apart by, its
// addresses, devices and mark, lies side by side in an array, compared word by
// word without a branch into the Rule itself: a few nanoseconds for each rule.

// step is a rule made ready for the data path: names resolved, tables found.
type step struct {
	from, to   span
	iif, oif   int32
	mark, mask uint32
	always     bool // the rule has nothing to say: the answer is yes
	not        bool
	transport  bool // the rule has more to say: TOS, protocol, ports
	action     Action
	target     int    // of ActionGoto: the step to go on with; 0: there is none
	table      *table // of ActionLookup; nil: there is no such table
	rule       *Rule
}

// words128 is an address as two words, IPv4 as IPv4-mapped IPv6.
type words128 struct{ hi, lo uint64 }

// words128Of makes an address that is not valid one that lies in no prefix that a
// rule could reasonably have.
func words128Of(a netip.Addr) words128 {
	if !a.IsValid() {
		return words128{math.MaxUint64, math.MaxUint64}
	}
	b := a.As16()
	return words128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// span is a prefix as two words and their masks; zero has every address.
type span struct{ addr, mask words128 }

func spanOf(p netip.Prefix) span {
	if !p.IsValid() {
		return span{}
	}
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	mask := words128{hi: ^uint64(0), lo: ^(^uint64(0) >> max(0, bits-64))}
	if bits < 64 {
		mask = words128{hi: ^(^uint64(0) >> bits)}
	}
	return span{addr: words128Of(p.Masked().Addr()), mask: mask}
}

func (s *span) has(a words128) bool {
	return (a.hi^s.addr.hi)&s.mask.hi|(a.lo^s.addr.lo)&s.mask.lo == 0
}

// addresses are those of a Query as steps compare them.
type addresses struct {
	src, dst words128
	made     bool
}

// of makes them when the first rule asks, which in most namespaces none does.
func (a *addresses) of(q *Query) *addresses {
	if !a.made {
		*a = addresses{words128Of(q.Src), words128Of(q.Dst), true}
	}
	return a
}

// selects reports whether the rule is for the packet.
func (s *step) selects(q *Query, a *addresses) bool { return s.applies(q, a) != s.not }

// applies reports whether everything that the rule states is so.
func (s *step) applies(q *Query, a *addresses) bool {
	return s.from.has(a.src) && s.to.has(a.dst) &&
		(s.iif == anyDevice || s.iif == int32(q.IIF) || s.iif == int32(q.Port) && q.Port != 0) &&
		(s.oif == anyDevice || s.oif == int32(q.OIF) && q.OIF != 0) &&
		(q.Mark^s.mark)&s.mask == 0 &&
		(!s.transport || s.rule.carries(q))
}

// carries reports whether the packet has the rule's type of service, protocol and
// ports.
func (r *Rule) carries(q *Query) bool {
	return meant(r.TOS, q.TOS&r.tosMask()) && meant(r.Proto, q.Proto) && r.Sport.has(q.Sport) && r.Dport.has(q.Dport)
}

// compileRules makes the steps of a family's rules.
func (s *Set) compileRules(rules []*Rule) []step {
	steps := make([]step, len(rules))
	for i, r := range rules {
		steps[i] = step{
			from: spanOf(r.From), to: spanOf(r.To),
			iif: s.devices.bind(r.IIF), oif: s.devices.bind(r.OIF),
			mark: r.Mark, mask: r.Mask, not: r.Not, always: r.selectsAll(),
			transport: r.TOS != 0 || r.Proto != 0 || r.Sport != Ports{} || r.Dport != Ports{},
			action:    r.Action, table: s.tables[r.Table], rule: r,
		}
		if r.Action == ActionGoto {
			steps[i].target = firstOf(rules, r.Goto)
		}
	}
	return steps
}

// firstOf is the position of the first rule with a priority; 0 if there is none.
// The first rule of all is nobody's target, since a goto only goes forward.
func firstOf(rules []*Rule, priority uint32) int {
	at, found := slices.BinarySearchFunc(rules, priority, func(r *Rule, p uint32) int { return cmp.Compare(r.Priority, p) })
	if !found {
		return 0
	}
	return at
}
