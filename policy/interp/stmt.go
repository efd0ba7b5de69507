// SPDX-License-Identifier: Apache-2.0

package interp

import (
	"bytes"
	"math/big"
	"strings"

	"sluice/packet"
	"sluice/policy"
	"sluice/policy/nft"
)

// stmt does one statement.
func (r *run) stmt(c *nft.Chain, rule *nft.Rule, s nft.Stmt) outcome {
	switch s := s.(type) {
	case *nft.Match:
		return when(r.matches(s))
	case *nft.VMap:
		e := r.lookup(r.set(s.Of), s.Key)
		if e == nil {
			return breaks
		}
		return r.verdict(c, rule, e.tree.Verdict)
	case *nft.Verdict:
		return r.verdict(c, rule, s)
	case *nft.ObjectRef:
		return when(r.object(s))
	case *nft.Reject:
		return r.reject(c, rule, s)
	case *nft.NAT:
		return r.nat(c, rule, s)
	case *nft.Mangle:
		return when(r.mangle(s))
	case *nft.SetStmt:
		return when(r.setStmt(s))
	case *nft.Log:
		r.p.Logs = true
		return goesOn
	case *nft.Notrack:
		if _, ok := original(r.p); !ok {
			r.p.NoTrack = true
		}
		return goesOn
	}
	return when(r.remembers(s).pass(r.length(), r.p))
}

func when(ok bool) outcome {
	if ok {
		return goesOn
	}
	return breaks
}

// remembers is what the statement remembers.
func (r *run) remembers(s nft.Stmt) *memory {
	m := r.w.memory[s]
	if m == nil {
		m = newMemory(s)
		r.w.memory[s] = m
	}
	return m
}

// length is that of the packet from its network header on, or at egress its link's.
func (r *run) length() int { return r.last - r.network() + r.lead }

// object does what a named object does.
func (r *run) object(s *nft.ObjectRef) bool {
	name := s.Name
	if s.Map != nil {
		e := r.lookup(r.set(s.Map.Of), s.Map.Key)
		if e == nil {
			return false
		}
		name = e.tree.Object
	}
	for _, o := range r.table.Objects {
		if o.Name == name && o.Kind == s.Kind {
			return r.remembers(o.Stmt).pass(r.length(), r.p)
		}
	}
	return false
}

// matches compares.
func (r *run) matches(m *nft.Match) bool {
	if ref, ok := m.Right.(*nft.SetRef); ok {
		return r.inSet(m, r.set(ref))
	}
	left, ok := r.bytes(m.Left)
	if !ok {
		return false
	}
	switch m.Op {
	case nft.Eq:
		return r.equal(m.Left, left, m.Right)
	case nft.Ne:
		return !r.equal(m.Left, left, m.Right)
	default:
	}
	right := m.Right.(*nft.Value).Data
	x, y := number(left), number(right)
	switch m.Op {
	case nft.Lt:
		return x.Cmp(y) < 0
	case nft.Gt:
		return x.Cmp(y) > 0
	case nft.Le:
		return x.Cmp(y) <= 0
	case nft.Ge:
		return x.Cmp(y) >= 0
	case nft.AnyBit:
		return new(big.Int).And(x, y).Sign() != 0
	case nft.NoBit:
		return new(big.Int).And(x, y).Sign() == 0
	default:
	}
	panic("no such comparison")
}

func number(s string) *big.Int { return new(big.Int).SetBytes([]byte(s)) }

// equal reports whether the bytes are what the right side stands for.
func (r *run) equal(of nft.Expr, left string, right nft.Expr) bool {
	switch x := right.(type) {
	case *nft.Value:
		if x.Wildcard {
			return strings.HasPrefix(left, strings.TrimRight(x.Data, "\x00"))
		}
		return number(left).Cmp(number(x.Data)) == 0
	case *nft.Range:
		n := number(left)
		return number(x.From.Data).Cmp(n) <= 0 && n.Cmp(number(x.To.Data)) <= 0
	case *nft.Prefix:
		shift := uint(int(x.Addr.Bits) - x.Len)
		return new(big.Int).Rsh(number(left), shift).Cmp(new(big.Int).Rsh(number(x.Addr.Data), shift)) == 0
	case *nft.Concat:
		for i, part := range x.Parts {
			n := size(of.(*nft.Concat).Parts[i])
			if !r.equal(of.(*nft.Concat).Parts[i], left[:n], part) {
				return false
			}
			left = left[n:]
		}
		return true
	}
	panic("no such constant")
}

// find is the element that holds the key, of several the first; and the catch-all
// element.
func (r *run) find(s *nft.Set, key string) (found, rest *element) {
	for _, e := range r.w.sets[s] {
		switch {
		case e.over(r.p.Now):
		case e.isDefault:
			rest = e
		case found == nil && within(s, e, key):
			found = e
		}
	}
	return found, rest
}

// within reports whether the element has the key in each of its parts.
func within(s *nft.Set, e *element, key string) bool {
	at := 0
	for _, k := range s.Key {
		n := k.Bytes()
		part := []byte(key[at : at+n])
		if bytes.Compare(part, []byte(e.key[at:at+n])) < 0 || bytes.Compare([]byte(e.end[at:at+n]), part) < 0 {
			return false
		}
		at += n
	}
	return true
}

// lookup is what a map has; nil: nothing, or what it has lets nobody pass.
func (r *run) lookup(s *nft.Set, x nft.Expr) *element {
	key, ok := r.bytes(x)
	if !ok {
		return nil
	}
	e, rest := r.find(s, key)
	if e == nil {
		e = rest
	}
	if e == nil || !r.passes(e) {
		return nil
	}
	return e
}

func (r *run) inSet(m *nft.Match, s *nft.Set) bool {
	key, ok := r.bytes(m.Left)
	if !ok {
		return false
	}
	e, rest := r.find(s, key)
	if e == nil {
		e = rest
	}
	if m.Op == nft.Ne {
		return e == nil
	}
	return e != nil && r.passes(e)
}

func (r *run) passes(e *element) bool {
	for _, m := range e.memory {
		if !m.pass(r.length(), r.p) {
			return false
		}
	}
	return true
}

// setStmt adds, updates or deletes an element.
func (r *run) setStmt(s *nft.SetStmt) bool {
	set := r.named(s.Set)
	key, ok := r.bytes(s.Key)
	if !ok {
		return false
	}
	var data string
	var verdict *nft.Verdict
	if v, isVerdict := s.Data.(*nft.Verdict); isVerdict {
		verdict = v
	} else if s.Data != nil {
		if data, ok = r.bytes(s.Data); !ok {
			return false
		}
	}
	live, _ := r.find(set, key)
	if s.Op == nft.SetDelete {
		r.w.remove(set, live)
		return true
	}
	timeout := int64(s.Timeout)
	if timeout == 0 {
		timeout = int64(set.Timeout)
	}
	lasts := timeout
	if s.Expires != 0 {
		lasts = int64(s.Expires)
	}
	if live == nil {
		if live = r.w.arrive(set, s, key, r.p.Now); live == nil {
			return false
		}
		live.tree = &nft.Elem{Key: key, End: key, Data: data, Verdict: verdict}
		if live.timeout = timeout; timeout != 0 {
			live.expires = r.p.Now + lasts
		}
	} else if s.Op == nft.SetUpdate && live.timeout != 0 {
		live.expires = r.p.Now + lasts
	}
	return r.passes(live)
}

func (w *World) remove(s *nft.Set, gone *element) {
	var rest []*element
	for _, e := range w.sets[s] {
		if e != gone {
			rest = append(rest, e)
		}
	}
	w.sets[s] = rest
}

// arrive adds an element, if there is room.
func (w *World) arrive(set *nft.Set, s *nft.SetStmt, key string, now int64) *element {
	var rest []*element
	n := 0
	for _, e := range w.sets[set] {
		if !e.over(now) {
			rest = append(rest, e)
			n++
			if e.isDefault {
				n--
			}
		}
	}
	w.sets[set] = rest
	most := int(set.Size)
	if most == 0 && set.Dynamic {
		most = 65535
	}
	if most > 0 && n >= most {
		return nil
	}
	e := &element{key: key, end: key}
	stmts := s.Stmts
	if len(stmts) == 0 {
		stmts = set.Stmts
	}
	for _, st := range stmts {
		e.memory = append(e.memory, newMemory(st))
	}
	w.sets[set] = append(w.sets[set], e)
	return e
}

// reject refuses.
func (r *run) reject(c *nft.Chain, rule *nft.Rule, s *nft.Reject) outcome {
	v := &r.verd
	v.Code, v.Why = policy.Reject, policy.Evidence{Table: r.table, Chain: c, Rule: rule}
	if s.Kind == nft.RejectTCP {
		v.Reject = policy.RejectTCP
		return done
	}
	v.Reject = policy.RejectICMP
	v.Type, v.ICMP = 3, s.Code
	six := r.p.Frame.View.Is(packet.ViewIPv6)
	if six {
		v.Type = 1
	}
	if s.Kind == nft.RejectICMPX {
		v.ICMP = [4]uint8{0, 3, 1, 13}[s.Code]
		if six {
			v.ICMP = [4]uint8{0, 4, 3, 1}[s.Code]
		}
	}
	return done
}
