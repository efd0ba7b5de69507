// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"iter"

	"sluice/policy/nft"
)

// States is what the statements of rules and objects remember at one moment, by the
// nodes of the tree.
type States struct {
	of  map[nft.Stmt]*state
	now int64
}

// Of is what a statement remembers; false if it is none that does.
func (s *States) Of(stmt nft.Stmt) (StateValue, bool) {
	st := s.of[stmt]
	if st == nil {
		return StateValue{}, false
	}
	return st.value(s.now), true
}

// States gathers the states of all rules and objects; their values are read when
// they are asked for.
func (e *Engine) States(now int64) *States {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &States{of: map[nft.Stmt]*state{}, now: now}
	for _, t := range e.tables {
		for _, o := range t.objects {
			s.of[o.tree.Stmt] = o.state
		}
		for _, c := range t.chains {
			for _, r := range c.rules {
				r.gather(s.of)
			}
		}
	}
	return s
}

// gather adds the rule's states, also those of its anonymous chains.
func (r *ruleRun) gather(to map[nft.Stmt]*state) {
	for stmt, st := range r.states {
		to[stmt] = st
	}
	for _, inner := range r.inner {
		inner.gather(to)
	}
}

// Element is an element of a set as it is now.
type Element struct {
	Tree    *nft.Elem // nil: a packet added it
	Key     string    // as in the tree
	End     string
	Data    string
	Verdict nft.Verdict // of a verdict map
	Expires int64       // nanoseconds left; 0: it doesn't
	Timeout int64
	States  []StateValue
	Default bool // the catch-all element
}

// Elements goes through the elements of a set, in no order. The Element is good
// until the next.
func (e *Engine) Elements(table uint64, name string, now int64) iter.Seq[*Element] {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.tables[table]
	if t == nil || t.sets[name] == nil {
		return func(func(*Element) bool) {}
	}
	return t.sets[name].set.list(e.current.Load().gen, now)
}

// list describes the elements. They are gathered under the set's lock, so that none
// is used again meanwhile.
func (s *set) list(gen uint64, now int64) iter.Seq[*Element] {
	return func(yield func(*Element) bool) {
		s.mu.Lock()
		var all []Element
		s.each(gen, now, func(e *elem) bool {
			all = append(all, s.describe(e, now))
			return true
		})
		s.mu.Unlock()
		for i := range all {
			if !yield(&all[i]) {
				return
			}
		}
	}
}

func (s *set) describe(e *elem, now int64) Element {
	d := Element{Tree: e.source, Timeout: e.timeout, Default: e.source != nil && e.source.Key == "" && len(s.fields) > 0}
	if !d.Default {
		d.Key = pack(e.key, s.fields)
		d.End = pack(e.upper(), s.fields)
	}
	if len(e.data) > 0 {
		d.Data = pack(e.data, s.dfields)
	}
	d.Verdict = nft.Verdict{Kind: e.verdict.kind}
	if e.verdict.to != nil {
		d.Verdict.Chain = e.verdict.to.name
	}
	if x := e.expires.Load(); x != 0 {
		d.Expires = x - now
	}
	for i := range e.states {
		d.States = append(d.States, e.states[i].value(now))
	}
	return d
}
