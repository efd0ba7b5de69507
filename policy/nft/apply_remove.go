// SPDX-License-Identifier: Apache-2.0

package nft

import "slices"

// remove does "delete" and "destroy".
func (t *tx) remove(c *Command) {
	if c.Op == OpDestroy && !t.exists(c) {
		return
	}
	switch c.Kind {
	case KindTable:
		t.removeTable(c)
	case KindChain:
		t.removeChain(c)
	case KindRule:
		t.removeRule(c)
	case KindSet, KindMap:
		t.removeSet(c)
	case KindElement:
		t.deleteElements(c)
	case KindObject:
		t.removeObject(c)
	default:
		fail(c.Pos, "%s: nothing to do", c.Op)
	}
}

// exists says whether what is to be destroyed is there.
func (t *tx) exists(c *Command) bool {
	if c.Kind == KindTable {
		return t.tableAt(c) >= 0
	}
	tb := t.rs.Table(c.Family, c.Table)
	if tb == nil {
		return false
	}
	switch c.Kind {
	case KindChain:
		return chainAt(tb, c) >= 0
	case KindRule:
		ch := tb.chain(c.Name)
		return ch != nil && slices.ContainsFunc(ch.Rules, func(r *Rule) bool { return r.Handle == c.Handle })
	case KindSet, KindMap:
		return setAt(tb, c) >= 0
	case KindObject:
		return objectAt(tb, c) >= 0
	default:
		return tb.set(c.Name) != nil
	}
}

// tableAt is the place of a command's table, by name or handle.
func (t *tx) tableAt(c *Command) int {
	if c.Handle == 0 {
		return t.rs.find(c.Family, c.Table)
	}
	return slices.IndexFunc(t.rs.Tables, func(tb *Table) bool { return tb.Family == c.Family && tb.Handle == c.Handle })
}

func chainAt(tb *Table, c *Command) int {
	return slices.IndexFunc(tb.Chains, func(ch *Chain) bool {
		return ch.Name == c.Name && c.Handle == 0 || c.Handle != 0 && ch.Handle == c.Handle
	})
}

func setAt(tb *Table, c *Command) int {
	return slices.IndexFunc(tb.Sets, func(s *Set) bool {
		return s.Name == c.Name && c.Handle == 0 || c.Handle != 0 && s.Handle == c.Handle
	})
}

func objectAt(tb *Table, c *Command) int {
	return slices.IndexFunc(tb.Objects, func(o *Object) bool {
		return o.Kind == c.Object && (o.Name == c.Name && c.Handle == 0 || c.Handle != 0 && o.Handle == c.Handle)
	})
}

// missing fails: what a command names is not there.
func missing(c *Command) {
	refuse(c.Pos, NotFound, "Could not process rule: %s", NotFound)
}

// inUse fails if something is referred to.
func inUse(c *Command, tb *Table, name string) {
	if tb.used(name) > 0 {
		refuse(c.Pos, Busy, "Could not process rule: %s", Busy)
	}
}

func (t *tx) removeTable(c *Command) {
	i := t.tableAt(c)
	if i < 0 {
		missing(c)
	}
	t.dropTable(i)
}

func (t *tx) dropTable(i int) {
	t.note(Change{Op: ChangeDelete, Table: t.rs.Tables[i]})
	t.rs.Tables = slices.Delete(t.rs.Tables, i, i+1)
}

func (t *tx) removeChain(c *Command) {
	tb := t.table(c)
	i := chainAt(tb, c)
	if i < 0 {
		missing(c)
	}
	ch := tb.Chains[i]
	inUse(c, tb, useChain+ch.Name) // also by itself
	for _, r := range ch.Rules {
		tb.use(r, -1)
	}
	tb.Chains = slices.Delete(tb.Chains, i, i+1)
	tb.index.chains = nil
	t.note(Change{Op: ChangeDelete, Table: tb, Chain: ch})
}

func (t *tx) removeRule(c *Command) {
	tb := t.table(c)
	ch := t.ownChain(tb, c.Name)
	if ch == nil {
		missing(c)
	}
	i := slices.IndexFunc(ch.Rules, func(r *Rule) bool { return r.Handle == c.Handle })
	if i < 0 {
		missing(c)
	}
	r := ch.Rules[i]
	tb.use(r, -1)
	ch.Rules = slices.Delete(ch.Rules, i, i+1)
	t.note(Change{Op: ChangeDelete, Table: tb, Chain: ch, Rule: r, Position: i})
}

func (t *tx) removeSet(c *Command) {
	tb := t.table(c)
	i := setAt(tb, c)
	if i < 0 {
		missing(c)
	}
	s := tb.Sets[i]
	inUse(c, tb, useSet+s.Name)
	for e := range s.all() {
		tb.useElem(s, e, -1)
	}
	tb.Sets = slices.Delete(tb.Sets, i, i+1)
	tb.index.sets = nil
	t.note(Change{Op: ChangeDelete, Table: tb, Set: s})
}

func (t *tx) removeObject(c *Command) {
	tb := t.table(c)
	i := objectAt(tb, c)
	if i < 0 {
		missing(c)
	}
	o := tb.Objects[i]
	inUse(c, tb, useObject+o.Kind.String()+o.Name)
	tb.Objects = slices.Delete(tb.Objects, i, i+1)
	t.note(Change{Op: ChangeDelete, Table: tb, Object: o})
}

// flush does "flush ruleset", "flush table", "flush chain", "flush set".
func (t *tx) flush(c *Command) {
	switch c.Kind {
	case KindRuleset:
		for i, tb := range slices.Backward(t.rs.Tables) {
			if c.Family == FamilyNone || tb.Family == c.Family {
				t.dropTable(i)
			}
		}
	case KindTable:
		tb := t.table(c)
		for _, ch := range slices.Clone(tb.Chains) {
			t.flushChain(tb, ch.Name)
		}
	case KindChain:
		tb := t.table(c)
		if tb.chain(c.Name) == nil {
			missing(c)
		}
		t.flushChain(tb, c.Name)
	case KindSet, KindMap:
		t.flushSet(c)
	default:
		fail(c.Pos, "flush: expecting ruleset, table, chain, set or map")
	}
}

func (t *tx) flushChain(tb *Table, name string) {
	ch := t.ownChain(tb, name)
	for i, r := range ch.Rules {
		tb.use(r, -1)
		t.note(Change{Op: ChangeDelete, Table: tb, Chain: ch, Rule: r, Position: i})
	}
	ch.Rules = nil
}

func (t *tx) flushSet(c *Command) {
	tb, s := t.targetSet(c)
	for e := range s.all() {
		tb.useElem(s, e, -1)
	}
	s.Elems, s.Default = Elems{}, nil
	t.note(Change{Op: ChangeFlush, Table: tb, Set: s})
}

// rename does "rename chain".
func (t *tx) rename(c *Command) {
	if c.Kind != KindChain {
		fail(c.Pos, "rename: only chains can be renamed")
	}
	checkName(c.NewName, c.Pos)
	tb := t.table(c)
	if tb.chain(c.Name) == nil {
		missing(c)
	}
	if tb.chain(c.NewName) != nil {
		refuse(c.Pos, Exists, "Could not process rule: %s", Exists)
	}
	tb.used("")
	ch := t.ownChain(tb, c.Name)
	ch.Name = c.NewName
	tb.index.chains = nil
	t.renameJumps(tb, c.Name, c.NewName)
	t.note(Change{Op: ChangeRename, Table: tb, Chain: ch})
}

// renameJumps lets those that jump to a chain jump to its new name: the kernel
// holds the chain, not its name.
func (t *tx) renameJumps(tb *Table, from, to string) {
	n := tb.used(useChain + from)
	if n == 0 {
		return
	}
	tb.index.uses[useChain+to], tb.index.uses[useChain+from] = n, 0
	for _, ch := range slices.Clone(tb.Chains) {
		for i, r := range ch.Rules {
			if moved := renameRule(r, from, to); moved != r {
				t.ownChain(tb, ch.Name).Rules[i] = moved
			}
		}
	}
	for _, s := range slices.Clone(tb.Sets) {
		t.renameElems(tb, s, from, to)
	}
}

func (t *tx) renameElems(tb *Table, s *Set, from, to string) {
	for e := range s.all() {
		if e.Verdict == nil || e.Verdict.Chain != from {
			continue
		}
		n := *e
		n.Verdict = &Verdict{Kind: e.Verdict.Kind, Chain: to}
		own := t.ownSet(tb, s.Name)
		if e == s.Default {
			own.Default = &n
		} else {
			own.Elems = own.Elems.With(&n)
		}
	}
}

// renameRule is a copy of a rule that jumps to the new name, or the rule itself.
func renameRule(r *Rule, from, to string) *Rule {
	out := *r
	out.Stmts = slices.Clone(r.Stmts)
	changed := false
	for i, s := range r.Stmts {
		switch s := s.(type) {
		case *Verdict:
			n := renameVerdict(s, from, to)
			changed = changed || n != s
			out.Stmts[i] = n
		case *VMap:
			if s.Of.Set == nil {
				continue
			}
			if set := renameSet(s.Of.Set, from, to); set != s.Of.Set {
				out.Stmts[i] = &VMap{Key: s.Key, Of: &SetRef{Set: set}}
				changed = true
			}
		}
	}
	if !changed {
		return r
	}
	return &out
}

func renameVerdict(v *Verdict, from, to string) *Verdict {
	out := *v
	changed := v.Chain == from
	if changed {
		out.Chain = to
	}
	out.Body = slices.Clone(v.Body)
	for i, r := range v.Body {
		out.Body[i] = renameRule(r, from, to)
		changed = changed || out.Body[i] != r
	}
	if !changed {
		return v
	}
	return &out
}

func renameSet(s *Set, from, to string) *Set {
	out := *s
	changed := false
	for e := range s.all() {
		if e.Verdict == nil {
			continue
		}
		v := renameVerdict(e.Verdict, from, to)
		if v == e.Verdict {
			continue
		}
		n := *e
		n.Verdict, changed = v, true
		if e == s.Default {
			out.Default = &n
		} else {
			out.Elems = out.Elems.With(&n)
		}
	}
	if !changed {
		return s
	}
	return &out
}
