// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strings"
)

// Answer is what a "list", "get" or "reset" command shows of a ruleset, as text
// or as JSON. For a reset it is asked of the ruleset from before.
func (r *Ruleset) Answer(c *Command, o *ListOptions, asJSON bool) (out string, err error) {
	defer caught(&err, func(pos Pos) string { return lineOf(c.text, pos) })
	q := &query{c: c, o: o}
	rs := q.ruleset(r)
	if asJSON {
		return string(rs.ListJSON(o)), nil
	}
	if c.Kind == KindTables {
		var b strings.Builder
		for _, t := range rs.Tables {
			b.WriteString("table " + t.Family.String() + " " + t.Name + "\n")
		}
		return b.String(), nil
	}
	var b strings.Builder
	p := newPrinter(o)
	p.tight = c.Kind >= KindTables && c.Kind != KindRules
	if err := rs.list(&b, p); err != nil {
		return "", err
	}
	return b.String(), nil
}

// query chooses what a command asks for.
type query struct {
	c     *Command
	o     *ListOptions
	found bool
}

// ruleset is the part of r that is asked for.
func (q *query) ruleset(r *Ruleset) *Ruleset {
	out := &Ruleset{}
	for _, t := range r.Tables {
		if q.c.Family != FamilyNone && t.Family != q.c.Family || q.c.Table != "" && t.Name != q.c.Table {
			continue
		}
		if part := q.table(t); part != nil {
			out.Tables = append(out.Tables, part)
		}
	}
	named := q.c.Kind == KindTable || q.c.Name != ""
	if named && !q.found || q.c.Table != "" && r.find(q.c.Family, q.c.Table) < 0 {
		refuse(q.c.Pos, NotFound, "No such file or directory")
	}
	return out
}

// table is the part of a table that is asked for, nil if there is none.
func (q *query) table(t *Table) *Table {
	switch q.c.Kind {
	case KindRuleset, KindTable, KindTables, KindRules:
		q.found = true
		return t
	default:
	}
	part := q.part(t)
	plural := q.c.Kind >= KindTables && (q.c.Kind != KindObjects || len(t.Objects) > 0)
	if !plural && part.Chains == nil && part.Sets == nil && part.Objects == nil {
		return nil
	}
	q.found = true
	return part
}

// part is a table with only those things in it that are asked for.
func (q *query) part(t *Table) *Table {
	part := &Table{Family: t.Family, Name: t.Name, Handle: t.Handle}
	for _, c := range t.Chains {
		if x := q.chain(c); x != nil {
			part.Chains = append(part.Chains, x)
		}
	}
	for _, s := range t.Sets {
		if x := q.set(t, s); x != nil {
			part.Sets = append(part.Sets, x)
		}
	}
	for _, x := range t.Objects {
		if q.object(x) {
			part.Objects = append(part.Objects, x)
		}
	}
	return part
}

func (q *query) chain(c *Chain) *Chain {
	switch q.c.Kind {
	case KindChains:
		head := *c
		head.Rules = nil
		return &head
	case KindChain, KindRule:
		if c.Name != q.c.Name {
			return nil
		}
		if q.c.Handle == 0 {
			return c
		}
		one := *c
		one.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r *Rule) bool { return r.Handle != q.c.Handle })
		return &one
	default:
		return nil
	}
}

func (q *query) set(t *Table, s *Set) *Set {
	switch q.c.Kind {
	case KindSets:
		if s.IsMap {
			return nil
		}
		return s
	case KindMaps:
		if !s.IsMap {
			return nil
		}
		return s
	case KindSet, KindMap:
		if s.Name != q.c.Name || s.IsMap != (q.c.Kind == KindMap) {
			return nil
		}
		return s
	case KindElement:
		if s.Name != q.c.Name {
			return nil
		}
		return q.elements(t, s)
	default:
		return nil
	}
}

// elements is a set with only the elements that are asked for.
func (q *query) elements(t *Table, s *Set) *Set {
	one := *s
	one.Elems, one.Default = Elems{}, nil
	k := &checker{table: t, family: t.Family, spans: q.c.spans, pos: q.c.Pos}
	if q.o != nil {
		k.env = q.o.Env
	}
	for _, lit := range q.c.elems.elems {
		want := &Elem{}
		if _, ok := lit.key.(*starLit); !ok {
			k.elementKey(lit, s, want)
		}
		have := q.element(t, s, want)
		if have == nil {
			refuse(lit.pos, NotFound, "Could not process rule: %s", NotFound)
		}
		if have.Key == "" {
			one.Default = have
		} else {
			one.Elems = one.Elems.With(have)
		}
	}
	return &one
}

// element is the element that has a key.
func (q *query) element(t *Table, s *Set, want *Elem) *Elem {
	if want.Key == "" {
		return s.Default
	}
	if q.o != nil && q.o.State != nil {
		if seq := q.o.State.Elems(t, s); seq != nil {
			for e := range seq {
				if s.covers(e, want.Key) {
					return e
				}
			}
			return nil
		}
	}
	if e := s.Elems.Floor(want.Key); e != nil && s.covers(e, want.Key) && len(s.Key) == 1 {
		return e
	}
	return s.Elems.Find(want.Key)
}

func (q *query) object(o *Object) bool {
	switch q.c.Kind {
	case KindObjects:
		return o.Kind == q.c.Object
	case KindObject:
		return o.Kind == q.c.Object && o.Name == q.c.Name
	default:
		return false
	}
}
