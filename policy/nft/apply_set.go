// SPDX-License-Identifier: Apache-2.0

package nft

import "slices"

// addSet does "add set" and "add map".
func (t *tx) addSet(c *Command) {
	checkName(c.Name, c.Pos)
	tb := t.table(c)
	n := t.newSet(c)
	if old := tb.set(c.Name); old != nil {
		if c.Op == OpCreate || !sameSet(old, n) {
			refuse(c.Pos, Exists, "Could not process rule: %s", Exists)
		}
		return
	}
	n.Handle = tb.handle()
	tb.Sets = append(tb.Sets, n)
	if tb.index.sets != nil {
		tb.index.sets[n.Name] = len(tb.Sets) - 1
	}
	t.owned[n] = true
	t.fresh[n] = true
	t.note(Change{Op: ChangeAdd, Table: tb, Set: n})
}

// sameSet says whether a declaration says the same once more.
func sameSet(a, b *Set) bool {
	return a.IsMap == b.IsMap && slices.Equal(a.Key, b.Key) && slices.Equal(a.Data, b.Data) && a.ObjKind == b.ObjKind &&
		a.Interval == b.Interval && a.HasTimeout == b.HasTimeout && a.Constant == b.Constant && a.Dynamic == b.Dynamic
}

// newSet checks a declaration.
func (t *tx) newSet(c *Command) *Set {
	s := c.set
	n := &Set{
		Name: c.Name, IsMap: s.isMap, ObjKind: s.objKind, AutoMerge: s.autoMerge, DataInterval: s.dataInterval,
		Timeout: s.timeout, GCInterval: s.gc, Size: uint32(s.size), Comment: s.comment, Pos: c.Pos, HasTimeout: s.timeout > 0,
	}
	if !s.hasKey {
		fail(c.Pos, "set definition does not specify key")
	}
	if s.isMap && s.objKind == ObjNone && s.data == nil {
		fail(c.Pos, "map definition does not specify mapping data type")
	}
	n.Key = t.setTypes(c, s.key, s.typeof)
	if s.typeof {
		n.KeyExpr = concatOf(s.key)
	}
	n.Data = t.setTypes(c, s.data, s.typeofData)
	if s.typeofData && s.data != nil {
		n.DataExpr = concatOf(s.data)
	}
	t.setFlags(c, n)
	for _, st := range s.stmts {
		n.Stmts = append(n.Stmts, copyState(st))
	}
	if n.GCInterval > 0 && !n.HasTimeout {
		refuse(c.Pos, Invalid, "Could not process rule: %s", Invalid)
	}
	return n
}

func concatOf(list []Expr) Expr {
	if len(list) == 1 {
		return list[0]
	}
	return &Concat{Parts: list}
}

// setTypes are the types of a declaration.
func (t *tx) setTypes(c *Command, list []Expr, typeof bool) []Spec {
	var out []Spec
	for _, x := range list {
		if typeof {
			out = append(out, t.typeOf(c, x))
			continue
		}
		s, ok := x.(*symbol)
		if !ok {
			fail(c.Pos, "expecting a type")
		}
		spec, ok := typeNamed(s.text)
		if !ok {
			fail(s.pos, "unknown datatype %s", s.text)
		}
		out = append(out, spec)
	}
	size := 0
	for _, spec := range out {
		size += (spec.Bytes() + 3) / 4 * 4
	}
	if size > 64 {
		fail(c.Pos, "Key too long: a concatenation has 64 bytes at most")
	}
	return out
}

// typeOf is the type of an expression that stands for it.
func (t *tx) typeOf(c *Command, x Expr) Spec {
	if s, ok := x.(*symbol); ok {
		fail(s.pos, "syntax error, unexpected '%s', expecting an expression of a packet", s.text)
	}
	if k, ok := x.(*CT); ok && (k.Key == "saddr" || k.Key == "daddr") {
		return rtNexthop(k.Family)
	}
	spec := specOf(x)
	if b, ok := x.(*Binary); ok {
		spec = specOf(b.Left)
	}
	if spec.Type == TypeInvalid || spec.Bits == 0 {
		fail(c.Pos, "cannot use this expression to specify a type")
	}
	return spec
}

// setFlags sets what a set's flags say.
func (t *tx) setFlags(c *Command, n *Set) {
	flags := map[string]*bool{"constant": &n.Constant, "interval": &n.Interval, "timeout": &n.HasTimeout, "dynamic": &n.Dynamic}
	for _, f := range c.set.flags {
		if flags[f.text] == nil {
			fail(f.pos, "unknown set flag '%s', expecting constant, interval, timeout or dynamic", f.text)
		}
		*flags[f.text] = true
	}
	if p := c.set.policy; p != nil {
		if p.text != "performance" && p.text != "memory" {
			fail(p.pos, "unknown set policy '%s', expecting performance or memory", p.text)
		}
		n.Memory = p.text == "memory"
	}
	if n.AutoMerge && !n.Interval {
		n.AutoMerge = false
	}
	if n.Dynamic && (n.Interval || n.Constant) {
		refuse(c.Pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
}

// targetSet is the set of a command about elements.
func (t *tx) targetSet(c *Command) (*Table, *Set) {
	tb := t.table(c)
	s := t.ownSet(tb, c.Name)
	if s == nil {
		refuse(c.Pos, NotFound, "No such file or directory")
	}
	return tb, s
}

// addElements does "add element".
func (t *tx) addElements(c *Command) {
	tb, s := t.targetSet(c)
	k := t.checker(c, tb)
	mode := insertQuiet
	if c.Op == OpCreate {
		mode = insertCreate
	}
	var list []*Elem
	for _, lit := range c.elems.elems {
		e := k.element(lit, s, false)
		before := s.Elems
		if err := s.insert(e, mode); err != nil {
			refuse(lit.pos, err.code, "%s", err.what)
		}
		if before != s.Elems || e.Key == "" {
			tb.useElem(s, e, 1)
			t.jumpy[tb] = t.jumpy[tb] || e.Verdict != nil && e.Verdict.Chain != ""
			list = append(list, e)
		}
	}
	t.note(Change{Op: ChangeAdd, Table: tb, Set: s, Elems: list})
}

// deleteElements does "delete element".
func (t *tx) deleteElements(c *Command) {
	tb, s := t.targetSet(c)
	k := t.checker(c, tb)
	var list []*Elem
	for _, lit := range c.elems.elems {
		e := t.wanted(k, lit, s)
		old := s.Elems.Find(e.Key)
		switch {
		case s.remove(e):
			if old != nil {
				tb.useElem(s, old, -1)
				e = old
			}
		case t.live(tb, s, e):
		case c.Op == OpDestroy:
			continue
		default:
			refuse(lit.pos, NotFound, "Could not process rule: %s", NotFound)
		}
		list = append(list, e)
	}
	t.note(Change{Op: ChangeDelete, Table: tb, Set: s, Elems: list})
}

// wanted is an element that is named to be deleted: its value need not be given.
func (t *tx) wanted(k *checker, lit *elemLit, s *Set) *Elem {
	e := &Elem{}
	if _, ok := lit.key.(*starLit); !ok {
		k.elementKey(lit, s, e)
	}
	return e
}

func (t *tx) live(tb *Table, s *Set, e *Elem) bool {
	return t.env != nil && t.env.Live != nil && t.env.Live(tb, s, e.Key)
}
