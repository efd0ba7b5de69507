// SPDX-License-Identifier: Apache-2.0

package nft

import "slices"

// Compare is Diff by what things say: a table, chain or set of the same name is the same
// one, whatever its handle, as where a ruleset was loaded anew; and so is a rule of the
// same text.
func Compare(was, is *Ruleset, o *ListOptions) string {
	d := &differ{options: o}
	for _, t := range was.Tables {
		if is.Table(t.Family, t.Name) == nil {
			d.all("-", t)
		}
	}
	for _, t := range is.Tables {
		switch then := was.Table(t.Family, t.Name); {
		case then == nil:
			d.all("+", t)
		case then != t:
			d.likely(then, t)
		}
	}
	return d.String()
}

// likely compares two tables of one name.
func (d *differ) likely(was, is *Table) {
	if was.Dormant != is.Dormant || was.Comment != is.Comment {
		d.replaced(&Change{Table: was}, &Change{Table: is})
	}
	pairs(was.Objects, is.Objects, func(o *Object) string { return o.Kind.String() + " " + o.Name }, func(a, b *Object) {
		if a == nil || b == nil || (&Table{Objects: []*Object{a}}).ListTable(nil) != (&Table{Objects: []*Object{b}}).ListTable(nil) {
			d.replaced(about(a, Change{Table: was, Object: a}), about(b, Change{Table: is, Object: b}))
		}
	})
	pairs(was.Sets, is.Sets, func(s *Set) string { return s.Name }, func(a, b *Set) { d.likelySets(was, is, a, b) })
	pairs(was.Chains, is.Chains, func(c *Chain) string { return c.Name }, func(a, b *Chain) { d.likelyChains(was, is, a, b) })
}

// about is nil where there is nothing that a change could be about.
func about[T any](x *T, c Change) *Change {
	if x == nil {
		return nil
	}
	return &c
}

// replaced writes what is gone and what is new, but for elements that say the same; nil is nothing.
func (d *differ) replaced(was, is *Change) {
	if was != nil && is != nil && was.Elems != nil && was.Text(d.options) == is.Text(d.options) {
		return
	}
	if was != nil {
		d.line("-", *was)
	}
	if is != nil {
		d.line("+", *is)
	}
}

func (d *differ) likelySets(was, is *Table, a, b *Set) {
	x, y := about(a, Change{Table: was, Set: a}), about(b, Change{Table: is, Set: b})
	if x == nil || y == nil || x.Text(d.options) != y.Text(d.options) {
		d.replaced(x, y)
	}
	if b == nil {
		return // its elements go with it
	}
	if a == nil {
		a = &Set{}
	}
	element := func(e *Elem) *Change {
		if e == nil {
			return nil
		}
		return &Change{Table: is, Set: b, Elems: []*Elem{e}}
	}
	for was, is := range Changed(a.Elems, b.Elems) {
		d.replaced(element(was), element(is))
	}
	if a.Default != b.Default {
		d.replaced(element(a.Default), element(b.Default))
	}
}

func (d *differ) likelyChains(was, is *Table, a, b *Chain) {
	if a != nil && a.Anonymous || b != nil && b.Anonymous {
		return // the rule that it belongs to says it
	}
	x, y := about(a, Change{Table: was, Chain: a}), about(b, Change{Table: is, Chain: b})
	if x == nil || y == nil || x.Text(d.options) != y.Text(d.options) {
		d.replaced(x, y)
	}
	if a == nil {
		a = &Chain{Name: b.Name}
	}
	if b == nil {
		b = &Chain{Name: a.Name}
	}
	text := func(t *Table, all []*Rule) (out []string) {
		for _, r := range all {
			out = append(out, RuleText(t.Family, r, d.options))
		}
		return out
	}
	for _, e := range script(text(was, a.Rules), text(is, b.Rules)) {
		if e.was >= 0 {
			d.line("-", Change{Table: was, Chain: a, Rule: a.Rules[e.was]})
		} else {
			d.line("+", Change{Table: is, Chain: b, Rule: b.Rules[e.is]})
		}
	}
}

// pairs goes through what two lists have by the names of its entries; nil is what one
// of them has not.
func pairs[T any](was, is []*T, name func(*T) string, both func(a, b *T)) {
	now := make(map[string]*T, len(is))
	for _, x := range is {
		now[name(x)] = x
	}
	then := make(map[string]bool, len(was))
	for _, x := range was {
		then[name(x)] = true
		if now[name(x)] != x {
			both(x, now[name(x)])
		}
	}
	for _, x := range is {
		if !then[name(x)] {
			both(nil, x)
		}
	}
}

// edited is a line that only the first list has, or only the second; the other number is
// -1.
type edited struct{ was, is int }

// maxScript bounds the cost of a script, in pairs of lines.
const maxScript = 1 << 22

// script says what makes a list another one: the longest common subsequence stays.
func script(was, is []string) (out []edited) {
	head := 0
	for head < len(was) && head < len(is) && was[head] == is[head] {
		head++
	}
	a, b := was[head:], is[head:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return rest(a, b, head)
}

// rest is the script of what is behind so many lines, and begins and ends otherwise.
func rest(a, b []string, head int) (out []edited) {
	if len(a)*len(b) > maxScript { // all of it is another's
		for i := range a {
			out = append(out, edited{head + i, -1})
		}
		for j := range b {
			out = append(out, edited{-1, head + j})
		}
		return out
	}
	longest := common(a, b)
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || longest[i+1][j] >= longest[i][j+1]):
			out = append(out, edited{head + i, -1})
			i++
		default:
			out = append(out, edited{-1, head + j})
			j++
		}
	}
	return out
}

// common is how long the longest common subsequence of a[i:] and b[j:] is.
func common(a, b []string) [][]int32 {
	rows := make([][]int32, len(a)+1)
	for i := range rows {
		rows[i] = make([]int32, len(b)+1)
	}
	for i, x := range slices.Backward(a) {
		for j, y := range slices.Backward(b) {
			if x == y {
				rows[i][j] = rows[i+1][j+1] + 1
			} else {
				rows[i][j] = max(rows[i+1][j], rows[i][j+1])
			}
		}
	}
	return rows
}
