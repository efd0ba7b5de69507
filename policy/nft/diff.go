// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strings"
)

// Text is a change as "nft monitor" writes it, and as it could be done again: a
// command on each line.
func (c *Change) Text(o *ListOptions) string {
	p := newPrinter(o)
	p.table = c.Table
	verb := map[ChangeOp]string{ChangeAdd: "add", ChangeInsert: "insert", ChangeReplace: "replace", ChangeDelete: "delete", ChangeReset: "reset", ChangeRename: "rename", ChangeFlush: "flush"}[c.Op]
	p.thing(verb, c)
	return p.String()
}

// thing writes what a change is about.
func (p *printer) thing(verb string, c *Change) {
	where := c.Table.Family.String() + " " + c.Table.Name
	switch {
	case c.Rule != nil:
		p.printf("%s rule %s %s ", verb, where, c.Chain.Name)
		if c.Op == ChangeReplace {
			p.printf("handle %d ", c.Rule.Handle)
		}
		p.rule(c.Rule)
		p.printf(" # handle %d\n", c.Rule.Handle)
	case c.Chain != nil:
		p.printf("%s chain %s %s%s\n", verb, where, c.Chain.Name, p.chainHead(c.Chain, c.Op))
	case c.Elems != nil:
		p.elementsOf(verb, where, c)
	case c.Set != nil:
		p.printf("%s %s %s %s%s\n", verb, c.Set.word(), where, c.Set.Name, p.setHead(c.Set, c.Op))
	case c.Object != nil:
		p.printf("%s %s %s %s\n", verb, c.Object.Kind, where, c.Object.Name)
	default:
		p.printf("%s table %s\n", verb, where)
	}
}

func (s *Set) word() string {
	if s.IsMap {
		return "map"
	}
	return "set"
}

// chainHead is the declaration of a base chain that is added.
func (p *printer) chainHead(c *Chain, op ChangeOp) string {
	if !c.Base || op != ChangeAdd {
		return ""
	}
	policy := "accept"
	if c.Drop {
		policy = "drop"
	}
	return fmt.Sprintf(" { type %s hook %s%s priority %s; policy %s; }", c.Type, c.Hook, devicesText(c.Devices), p.priority(c), policy)
}

// setHead is the declaration of a set that is added, on one line.
func (p *printer) setHead(s *Set, op ChangeOp) string {
	if op != ChangeAdd {
		return ""
	}
	q := newPrinter(&p.ListOptions)
	q.table, q.Handles, q.Terse = p.table, false, true
	q.set(s)
	lines := strings.Split(strings.TrimSpace(q.String()), "\n")
	var parts []string
	for _, l := range lines[1 : len(lines)-1] {
		parts = append(parts, strings.TrimSpace(l)+";")
	}
	return " { " + strings.Join(parts, " ") + " }"
}

func (p *printer) elementsOf(verb, where string, c *Change) {
	p.printf("%s element %s %s { ", verb, where, c.Set.Name)
	for i, e := range c.Elems {
		if i > 0 {
			p.WriteString(", ")
		}
		p.element(c.Set, e)
	}
	p.WriteString(" }\n")
}

// Diff is what became of a ruleset, a line for each thing that is gone ("-") or
// new ("+"). It costs what has changed, not what there is.
func Diff(was, is *Ruleset, o *ListOptions) string {
	d := &differ{options: o}
	for _, t := range was.Tables {
		if now := is.Table(t.Family, t.Name); now == nil || now.Handle != t.Handle {
			d.all("-", t)
		}
	}
	for _, t := range is.Tables {
		switch then := was.Table(t.Family, t.Name); {
		case then == nil || then.Handle != t.Handle:
			d.all("+", t)
		case then != t:
			d.tables(then, t)
		}
	}
	return d.String()
}

// differ writes a diff.
type differ struct {
	strings.Builder
	options *ListOptions
}

// line writes one thing.
func (d *differ) line(sign string, c Change) {
	text := strings.TrimPrefix(c.Text(d.options), "add ")
	for l := range strings.Lines(text) {
		d.WriteString(sign + " " + l)
	}
}

// all writes a whole table that is new or gone.
func (d *differ) all(sign string, t *Table) {
	d.line(sign, Change{Table: t})
	empty := &Table{Family: t.Family, Name: t.Name}
	if sign == "-" {
		d.tables(t, empty)
	} else {
		d.tables(empty, t)
	}
}

// tables compares two versions of a table.
func (d *differ) tables(was, is *Table) {
	changes(was.Objects, is.Objects, func(o *Object) uint64 { return o.Handle }, func(sign string, t *Object) {
		d.line(sign, Change{Table: is, Object: t})
	}, func(a, b *Object) {
		d.line("-", Change{Table: is, Object: a})
		d.line("+", Change{Table: is, Object: b})
	})
	changes(was.Sets, is.Sets, func(s *Set) uint64 { return s.Handle }, func(sign string, s *Set) {
		d.line(sign, Change{Table: is, Set: s})
		if sign == "+" {
			d.elems(is, &Set{}, s)
		}
	}, func(a, b *Set) { d.elems(is, a, b) })
	changes(was.Chains, is.Chains, func(c *Chain) uint64 { return c.Handle }, func(sign string, c *Chain) {
		d.line(sign, Change{Table: is, Chain: c})
		for _, r := range c.Rules {
			d.line(sign, Change{Table: is, Chain: c, Rule: r})
		}
	}, func(a, b *Chain) { d.chain(is, a, b) })
}

// chain compares two versions of a chain.
func (d *differ) chain(t *Table, a, b *Chain) {
	if a.Name != b.Name || a.Drop != b.Drop {
		d.line("-", Change{Table: t, Chain: a})
		d.line("+", Change{Table: t, Chain: b})
	}
	changes(a.Rules, b.Rules, func(r *Rule) uint64 { return r.Handle }, func(sign string, r *Rule) {
		d.line(sign, Change{Table: t, Chain: b, Rule: r})
	}, func(x, y *Rule) {
		d.line("-", Change{Table: t, Chain: b, Rule: x})
		d.line("+", Change{Table: t, Chain: b, Rule: y})
	})
}

// elems compares the elements of two versions of a set.
func (d *differ) elems(t *Table, a, b *Set) {
	one := func(sign string, e *Elem) {
		if e != nil {
			d.line(sign, Change{Table: t, Set: b, Elems: []*Elem{e}})
		}
	}
	for was, is := range Changed(a.Elems, b.Elems) {
		one("-", was)
		one("+", is)
	}
	if a.Default != b.Default {
		one("-", a.Default)
		one("+", b.Default)
	}
}

// changes goes through what two lists have not in common: what is gone, what is
// new, and what is another by the same handle.
func changes[T comparable](was, is []T, handle func(T) uint64, alone func(sign string, x T), both func(a, b T)) {
	if slices.Equal(was, is) {
		return
	}
	now := make(map[uint64]T, len(is))
	for _, x := range is {
		now[handle(x)] = x
	}
	then := make(map[uint64]bool, len(was))
	for _, x := range was {
		then[handle(x)] = true
		y, ok := now[handle(x)]
		switch {
		case !ok:
			alone("-", x)
		case x != y:
			both(x, y)
		}
	}
	for _, x := range is {
		if !then[handle(x)] {
			alone("+", x)
		}
	}
}
