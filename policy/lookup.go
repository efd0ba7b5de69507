// SPDX-License-Identifier: Apache-2.0

package policy

import "sluice/policy/nft"

// found is what the set has for the key in the registers, the catch-all element
// left out. What it rests upon is recorded.
func (e *Evaluator) found(s *set, in *inst) *elem {
	changes := s.changes.Load()
	el := s.find(e.reg[in.dst:int(in.dst)+s.width], e.snap.gen, e.p.Now)
	switch {
	case el == nil && s.dynamic:
		e.rec.add(Action{kind: actMissing, set: s, v: value{0, changes}})
	case el != nil && (s.dynamic || el.expires.Load() != 0):
		e.rec.add(Action{kind: actLives, elem: el, life: el.life.Load()})
	}
	return el
}

// lookup is the element for the key in the registers, also the catch-all one. nil,
// and the rule ends: there is none, or its own statements don't let the packet pass.
func (e *Evaluator) lookup(s *set, in *inst) *elem {
	el := e.found(s, in)
	if el == nil {
		el = s.rest(e.snap.gen, e.p.Now)
	}
	if el == nil || !e.element(el) {
		return nil
	}
	return el
}

// member is `@set`, and `!= @set`.
func (e *Evaluator) member(s *set, in *inst) bool {
	if in.flag&flagInvert == 0 {
		return e.lookup(s, in) != nil
	}
	return e.found(s, in) == nil && s.rest(e.snap.gen, e.p.Now) == nil
}

// element runs the statements of an element that was found.
func (e *Evaluator) element(el *elem) bool {
	for i := range el.states {
		if !e.state(&el.states[i], el) {
			return false
		}
	}
	return true
}

// state lets the packet pass a statement that remembers something; el is the
// element that it is of.
func (e *Evaluator) state(s *state, el *elem) bool {
	switch s.Kind {
	case CounterState, LastState:
		if el == nil {
			e.rec.count(s)
			break
		}
		if el.born == 0 { // it may be another's before long
			e.rec.add(Action{kind: actLives, elem: el, life: el.life.Load()})
		}
		e.rec.add(Action{kind: actCount, state: s})
	case QuotaState:
		e.rec.Volatile |= ByQuota
	case LimitState:
		e.rec.Volatile |= ByLimit
	case ConnCountState:
		e.rec.Volatile |= ByConnCount
	}
	return s.pass(e.length(), e.p)
}

// mapped puts into a register what a map has.
func (e *Evaluator) mapped(c *code, in *inst) bool {
	s := c.sets[in.arg]
	el := e.lookup(s, in)
	if el == nil {
		return false
	}
	n := copy(e.reg[in.aux:], el.data)
	if in.flag&flagWide != 0 { // its range's end behind it
		last := el.last
		if last == nil {
			last = el.data
		}
		copy(e.reg[int(in.aux)+n:], last)
	}
	return true
}

// dynamic is add, update and delete of an element.
func (e *Evaluator) dynamic(d *dynamic) bool {
	e.new = arrival{
		op: d.op, key: e.reg[d.key : int(d.key)+d.set.width], verdict: d.verdict,
		timeout: d.timeout, lasts: d.lasts, specs: d.specs, stmts: d.stmts,
	}
	if d.set.dwidth > 0 {
		e.new.data = e.reg[d.data : int(d.data)+d.set.dwidth]
	}
	el := d.set.arrive(&e.new, e.snap.gen, e.p.Now)
	if d.op == nft.SetDelete {
		e.rec.Volatile |= BySet
		return true
	}
	if el == nil {
		e.rec.Volatile |= BySet
		return false
	}
	lasts := int64(0)
	if d.op == nft.SetUpdate && el.timeout != 0 {
		lasts = e.new.life(d.set.timeout.Load())
	}
	if lasts != 0 {
		e.rec.add(Action{kind: actRefresh, elem: el, life: el.life.Load(), v: value{0, uint64(lasts)}})
	} else {
		e.rec.add(Action{kind: actLives, elem: el, life: el.life.Load()})
	}
	return e.element(el)
}
