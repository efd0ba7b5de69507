// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/nft"
)

// way is how packets come to a chain: the base chain, and what the rules that lead
// on ask.
type way struct {
	base *nft.Chain
	asks []literal
}

// aimed are packets for the rules of a ruleset, in some order, for a few runs of at
// most n packets, each from the beginning; packets of one flow follow each other.
func aimed(a *aimer, runs, n int) [][]shot {
	var groups [][]shot
	for _, c := range a.table.Chains {
		for _, w := range a.some(a.ways(c, 0)) {
			order := a.r.Perm(len(c.Rules))
			for _, i := range order[:min(len(order), 20)] {
				groups = append(groups, a.rule(w, c, i, c.Rules[i])...)
			}
		}
	}
	a.r.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
	all := make([][]shot, 1)
	for _, g := range groups {
		if len(all[len(all)-1])+len(g) > n {
			if len(all) == runs {
				break
			}
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], g...)
	}
	return all
}

// ways are some of the ways to a chain.
func (a *aimer) ways(c *nft.Chain, depth int) (all []way) {
	if c.Base {
		return []way{{base: c, asks: a.before(c)}}
	}
	if depth > 4 {
		return nil
	}
	for _, from := range a.table.Chains {
		for i, r := range from.Rules {
			leads, asks := leadsTo(r, c.Name)
			if !leads || slices.ContainsFunc(from.Rules[:i], always) {
				continue
			}
			for _, w := range a.ways(from, depth+1) {
				all = append(all, way{w.base, slices.Concat(w.asks, a.past(w.base, from, i), a.asksOf(w.base, r), at(asks, w.base.Hook))})
			}
		}
	}
	return all
}

// some are a few of them.
func (a *aimer) some(all []way) []way {
	a.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(len(all), 2)]
}

func at(asks []literal, h nft.Hook) []literal {
	for i := range asks {
		asks[i].hook = h
	}
	return asks
}

// leadsTo reports whether a rule goes to a chain, and what its verdict map has to say.
func leadsTo(r *nft.Rule, chain string) (leads bool, asks []literal) {
	switch s := r.Stmts[len(r.Stmts)-1].(type) {
	case *nft.Verdict:
		return s.Chain == chain && (s.Kind == nft.Jump || s.Kind == nft.Goto), nil
	case *nft.VMap:
		if s.Of.Set == nil {
			return false, nil
		}
		for e := range s.Of.Set.Elems.All() {
			if e.Verdict.Chain == chain {
				return true, []literal{{vmap: s, says: e.Verdict, want: true}}
			}
		}
	}
	return false, nil
}

// asksOf are the comparisons of a rule that depend on the packet alone.
func (a *aimer) asksOf(base *nft.Chain, r *nft.Rule) (all []literal) {
	for _, s := range r.Stmts {
		if m, ok := s.(*nft.Match); ok && a.known(m, base) {
			all = append(all, literal{all: []*nft.Match{m}, want: true, hook: base.Hook})
		}
	}
	return all
}

// decides reports whether a rule ends the packet's way through the chain, or only
// through the hook.
func decides(r *nft.Rule, hook bool) bool {
	switch s := r.Stmts[len(r.Stmts)-1].(type) {
	case *nft.Verdict:
		return s.Kind == nft.Drop || !hook && s.Kind != nft.Continue && s.Kind != nft.Jump
	case *nft.Reject, *nft.VMap:
		return true
	}
	return false
}

// past asks that the rules before the i-th let the packet go on: those that surely
// end its way if their comparisons are true are not all true of it.
func (a *aimer) past(base, c *nft.Chain, i int) (all []literal) {
	for _, r := range c.Rules[:i] {
		if !decides(r, false) {
			continue
		}
		l := literal{hook: base.Hook}
		sure := true
		for _, s := range r.Stmts {
			switch s := s.(type) {
			case *nft.Match:
				if !a.known(s, base) {
					sure = false
					break
				}
				l.all = append(l.all, s)
			case *nft.Counter, *nft.Verdict, *nft.Reject, *nft.Notrack:
			case *nft.VMap:
				sure = false
				all = append(all, literal{vmap: s, may: true, hook: base.Hook})
			default:
				sure = false
			}
		}
		if l.may = !sure; len(l.all) > 0 {
			all = append(all, l)
		}
	}
	return all
}

// before asks that the base chains before this one let the packet go on.
func (a *aimer) before(c *nft.Chain) (all []literal) {
	for _, x := range a.table.Chains {
		if !x.Base || x == c || order(x, c) >= 0 {
			continue
		}
		for _, r := range x.Rules {
			if !decides(r, true) {
				continue
			}
			l := literal{may: true, hook: x.Hook}
			for _, ask := range a.asksOf(x, r) {
				l.all = append(l.all, ask.all...)
			}
			if len(l.all) > 0 {
				all = append(all, l)
			}
			if v, ok := r.Stmts[len(r.Stmts)-1].(*nft.VMap); ok {
				all = append(all, literal{vmap: v, may: true, hook: x.Hook})
			}
		}
	}
	return all
}

func order(x, y *nft.Chain) int {
	at := []nft.Hook{nft.HookPrerouting, nft.HookForward, nft.HookPostrouting}
	return cmp.Or(cmp.Compare(slices.Index(at, x.Hook), slices.Index(at, y.Hook)), cmp.Compare(x.Prio, y.Prio), cmp.Compare(y.Registered, x.Registered))
}

// stateful are comparisons of a rule that do not depend on the packet alone.
func (a *aimer) stateful(base *nft.Chain, r *nft.Rule) (all []*nft.Match) {
	for _, s := range r.Stmts {
		if m, ok := s.(*nft.Match); ok && !a.known(m, base) {
			all = append(all, m)
		}
	}
	return all
}

// marked asks that some rule that sets a mark, or adds to a set, is met.
func (a *aimer) marked(base *nft.Chain, r *nft.Rule) (asks []literal) {
	if len(a.stateful(base, r)) == 0 || a.r.IntN(3) == 0 {
		return nil
	}
	var setters []*nft.Rule
	for _, c := range a.table.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Stmts {
				m, sets := s.(*nft.Mangle)
				_, adds := s.(*nft.SetStmt)
				if adds || sets && isCT(m.Key) {
					setters = append(setters, r)
				}
			}
		}
	}
	if len(setters) > 0 {
		asks = a.asksOf(base, setters[a.r.IntN(len(setters))])
		for i := range asks {
			asks[i].may = true
		}
	}
	return asks
}

// rule aims at one rule: all met, and one after the other not, and all values of each
// field that it is about.
func (a *aimer) rule(w way, c *nft.Chain, i int, r *nft.Rule) (groups [][]shot) {
	own := a.asksOf(w.base, r)
	past := a.past(w.base, c, i)
	if len(past) > 30 { // enough
		a.r.Shuffle(len(past), func(i, j int) { past[i], past[j] = past[j], past[i] })
		past = past[:15]
	}
	led := slices.Concat(w.asks, past)
	about := []field{}
	for _, l := range own {
		about = append(about, l.fields()...)
	}
	for _, s := range r.Stmts {
		about = append(about, keyed(s)...)
	}
	talks := len(a.stateful(w.base, r)) > 0
	var solved, near []choice
	for range hits(r) {
		if x, ok, _ := a.solve(slices.Concat(led, own, a.marked(w.base, r))); ok {
			solved = append(solved, x)
			if hits(r) > 3 && !x.set[fData] && a.r.IntN(2) == 0 {
				x.data = 400
			}
			first := a.seeds(r, x)
			for _, g := range a.emit(x, talks) {
				groups = append(groups, slices.Concat(first, g))
			}
		}
	}
	for k := range own { // the k-th fails
		miss := slices.Clone(own)
		miss[k].want = false
		if x, ok, _ := a.solve(slices.Concat(led, miss)); ok {
			groups = append(groups, a.emit(x, talks)...)
			near = append(near, x)
		}
	}
	if len(solved) == 0 {
		solved = near
	}
	if len(solved) == 0 {
		return groups
	}
	slices.Sort(about)
	for _, f := range slices.Compact(about) {
		n := a.domain(f)
		from := a.r.IntN(n)
		for j := range min(n, 16) {
			x := solved[j%len(solved)]
			a.give(&x, f, (from+j)%n)
			groups = append(groups, a.emit(x, talks)...)
		}
	}
	return groups
}

// hits is how many packets are to meet all of a rule: more if it counts to a bound.
func hits(r *nft.Rule) int {
	for _, s := range r.Stmts {
		switch s := s.(type) {
		case *nft.Quota, *nft.Limit:
			return 10
		case *nft.ObjectRef:
			if s.Kind == nft.ObjQuota {
				return 10
			}
		}
	}
	return 3
}

// seeds is a packet that lets some rule add to a set what the rule then finds for the
// packet there.
func (a *aimer) seeds(r *nft.Rule, x choice) []shot {
	for _, s := range r.Stmts {
		m, ok := s.(*nft.Match)
		if !ok {
			continue
		}
		ref, ok := m.Right.(*nft.SetRef)
		if !ok || ref.Set != nil || !a.added[ref.Name] {
			continue
		}
		for _, c := range a.table.Chains {
			for i, adder := range c.Rules {
				for _, s := range adder.Stmts {
					if d, ok := s.(*nft.SetStmt); !ok || d.Set != ref.Name || d.Op == nft.SetDelete {
						continue
					} else if g := a.seed(c, i, d, m.Left, x); g != nil {
						return g
					}
				}
			}
		}
	}
	return nil
}

func (a *aimer) seed(c *nft.Chain, i int, d *nft.SetStmt, key nft.Expr, x choice) []shot {
	from, to := fieldsOf(key), fieldsOf(d.Key)
	for _, w := range a.some(a.ways(c, 0)) {
		equal := literal{about: to, test: func(y *choice) bool {
			for k := range min(len(from), len(to)) {
				if y.value(to[k]) != x.value(from[k]) {
					return false
				}
			}
			return y.six == x.six
		}}
		if y, ok, _ := a.solve(append(slices.Concat(w.asks, a.past(w.base, c, i), a.asksOf(w.base, c.Rules[i])), equal)); ok {
			if !y.set[fSport] {
				y.sport = a.fresh()
			}
			return a.talk(y, 0)
		}
	}
	return nil
}

// value is that of a field that keys are made of.
func (c *choice) value(f field) any {
	switch f {
	case fSrc:
		return c.src
	case fDst:
		return c.dst
	case fSport:
		return c.sport
	case fDport:
		return c.dport
	}
	return nil
}

// keyed are the fields that a statement's key is made of.
func keyed(s nft.Stmt) []field {
	switch s := s.(type) {
	case *nft.VMap:
		return fieldsOf(s.Key)
	case *nft.SetStmt:
		return fieldsOf(s.Key)
	case *nft.Mangle:
		if m, ok := s.Value.(*nft.Map); ok {
			return fieldsOf(m.Key)
		}
	}
	return nil
}

// emit makes conversations that end with the packet: it alone; after an answer; as an
// answer.
func (a *aimer) emit(c choice, talks bool) (groups [][]shot) {
	kinds := []int{a.r.IntN(6)}
	if talks {
		kinds = []int{0, 1, 2, 3, 4, 5}
	}
	for _, kind := range kinds {
		if !c.set[fSport] {
			c.sport = a.fresh()
		}
		key := fmt.Sprint(kind, c.six, c.in, c.src, c.dst, c.proto, c.dport, c.flags, c.ttl, c.tos, c.data, c.set[fSport])
		if c.set[fSport] {
			key += fmt.Sprint(c.sport)
		}
		if a.already[key] {
			continue
		}
		a.already[key] = true
		groups = append(groups, a.talk(c, kind))
	}
	return groups
}

func (a *aimer) talk(c choice, kind int) []shot {
	own := c.set[fFlags]
	with := func(x choice, flags uint8, last bool) choice {
		if !last || !own {
			x.flags = flags
		}
		if x.flags&pt.SYN != 0 && x.proto == packet.ProtoTCP {
			x.data = 0
		}
		return x
	}
	say := func(x choice, reply bool) shot { return shot{x.frame(reply), x.in} }
	first := with(c, pt.SYN, kind == 0)
	answer := with(c.other(), pt.SYN|pt.ACK, false)
	switch kind {
	case 1:
		return []shot{say(with(c, pt.SYN, false), false), say(answer, true), say(with(c, pt.ACK, true), false)}
	case 2:
		return []shot{say(with(c.other(), pt.SYN, false), false), say(with(c, pt.SYN|pt.ACK, true), true)}
	case 3:
		return []shot{say(first, false), say(answer, true)}
	case 5: // broken
		f := pt.Frame(first.frame(false))
		at := map[uint8]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6}[f.View.Proto]
		f.Bytes()[f.View.L4+max(at, 2)] ^= 0x55
		return []shot{{bytes.Clone(f.Bytes()), first.in}}
	case 4: // an answer that nobody asked for
		return []shot{say(with(c, []uint8{pt.SYN | pt.ACK, pt.RST, pt.ACK}[a.r.IntN(3)], true), true)}
	}
	return []shot{say(first, false)}
}
