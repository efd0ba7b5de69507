// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"sluice/policy/nft"
)

// States is what statements and sets remember at one moment, by the nodes of the
// tree: listings take their numbers from it.
type States struct {
	engine *Engine
	of     map[nft.Stmt]*state
	now    int64
}

var _ nft.State = (*States)(nil)

// Of is what a statement of a rule or an object remembers; false if it is none that
// does.
func (s *States) Of(stmt nft.Stmt) (StateValue, bool) {
	st := s.of[stmt]
	if st == nil {
		return StateValue{}, false
	}
	return st.value(s.now), true
}

// Counter implements nft.State.
func (s *States) Counter(c *nft.Counter) (packets, bytes uint64) {
	v, known := s.Of(c)
	if !known {
		return c.Packets, c.Bytes
	}
	return v.Packets, v.Bytes
}

// Quota implements nft.State.
func (s *States) Quota(q *nft.Quota) (used uint64) {
	v, known := s.Of(q)
	if !known {
		return q.Used
	}
	return v.Bytes
}

// Last implements nft.State.
func (s *States) Last(l *nft.Last) (ago time.Duration, set bool) {
	v, known := s.Of(l)
	if !known {
		return l.Used, l.Set
	}
	return time.Duration(max(v.Age, 0)), v.Age >= 0
}

// Elems implements nft.State: the elements as they are now, in the order of their keys.
func (s *States) Elems(t *nft.Table, set *nft.Set) iter.Seq[*nft.Elem] {
	if set.Name == "" || !set.Dynamic && !set.HasTimeout && len(set.Stmts) == 0 && !hasStatements(set) {
		return nil
	}
	var all []*nft.Elem
	for e := range s.engine.Elements(t.Handle, set.Name, s.now) {
		if !e.Default {
			all = append(all, e.listed(set))
		}
	}
	slices.SortFunc(all, func(x, y *nft.Elem) int { return cmp.Compare(x.Key, y.Key) })
	return slices.Values(all)
}

func hasStatements(set *nft.Set) bool {
	for e := range set.Elems.All() {
		if len(e.Stmts) > 0 || e.Timeout != 0 {
			return true
		}
	}
	return false
}

// listed is the element as the tree has it, with what it remembers.
func (e *Element) listed(set *nft.Set) *nft.Elem {
	tree := &nft.Elem{Key: e.Key, End: e.End, Data: e.Data, Stmts: e.stmts}
	if isVerdicts(set) {
		tree.Verdict = &e.Verdict
	}
	if e.Tree != nil {
		clone := *e.Tree
		tree = &clone
	} else if time.Duration(e.Timeout) != set.Timeout {
		tree.Timeout = time.Duration(e.Timeout)
	}
	tree.Expires = time.Duration(e.Expires)
	tree.Stmts = nil
	for i, st := range e.stmts {
		tree.Stmts = append(tree.Stmts, withNumbers(st, &e.States[i]))
	}
	return tree
}

// withNumbers is the statement with what it remembers.
func withNumbers(s nft.Stmt, v *StateValue) nft.Stmt {
	switch s := s.(type) {
	case *nft.Counter:
		return &nft.Counter{Packets: v.Packets, Bytes: v.Bytes}
	case *nft.Quota:
		q := *s
		q.Used = v.Bytes
		return &q
	case *nft.Last:
		return &nft.Last{Used: time.Duration(max(v.Age, 0)), Set: v.Age >= 0}
	}
	return s
}

// States gathers the states of all rules and objects; their values are read when
// they are asked for.
func (e *Engine) States(now int64) *States {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settle()
	s := &States{engine: e, of: map[nft.Stmt]*state{}, now: now}
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
	maps.Copy(to, r.states)
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

	stmts []nft.Stmt
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
	d := Element{Tree: e.source, Timeout: e.timeout, stmts: e.stmts, Default: e.source != nil && e.source.Key == "" && len(s.fields) > 0}
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
