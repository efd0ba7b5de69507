// SPDX-License-Identifier: Apache-2.0

package nft

// reset does "reset counters", "reset rules" and their like: the caller lists
// what was there, here the numbers begin anew.
func (t *tx) reset(c *Command) {
	t.asks = append(t.asks, c)
	switch c.Kind {
	case KindObject, KindObjects:
		t.resetObjects(c)
	case KindRule, KindRules:
		t.resetRules(c)
	case KindSet, KindMap, KindElement:
		t.resetSet(c)
	default:
		fail(c.Pos, "reset: expecting counter, counters, quota, quotas, rule, rules, set, map or element")
	}
}

// chosen goes through the tables that a command is about.
func (t *tx) chosen(c *Command, do func(*Table)) {
	found := false
	for i, tb := range t.rs.Tables {
		if c.Family != FamilyNone && tb.Family != c.Family || c.Table != "" && tb.Name != c.Table {
			continue
		}
		found = true
		do(t.own(i))
	}
	if !found && c.Table != "" {
		missing(c)
	}
}

func (t *tx) resetObjects(c *Command) {
	found := false
	t.chosen(c, func(tb *Table) {
		for i, o := range tb.Objects {
			if o.Kind != c.Object || c.Kind == KindObject && o.Name != c.Name {
				continue
			}
			found = true
			n := *o
			n.Stmt = zeroed(o.Stmt)
			tb.Objects[i] = &n
			t.note(Change{Op: ChangeReset, Table: tb, Object: &n})
		}
	})
	if c.Kind == KindObject && !found {
		missing(c)
	}
}

// zeroed is a statement that has counted nothing yet.
func zeroed(s Stmt) Stmt {
	switch s := s.(type) {
	case *Counter:
		return &Counter{}
	case *Quota:
		n := *s
		n.Used = 0
		return &n
	case *Last:
		return &Last{}
	case *Limit:
		n := *s
		return &n
	default:
		return s
	}
}

func hasState(list []Stmt) bool {
	for _, s := range list {
		if zeroed(s) != s {
			return true
		}
	}
	return false
}

func zeroedAll(list []Stmt) []Stmt {
	out := make([]Stmt, len(list))
	for i, s := range list {
		out[i] = zeroed(s)
	}
	return out
}

func (t *tx) resetRules(c *Command) {
	found := false
	t.chosen(c, func(tb *Table) {
		for i := range tb.Chains {
			name := tb.Chains[i].Name
			if c.Name != "" && name != c.Name {
				continue
			}
			found = true
			t.resetChain(c, tb, name)
		}
	})
	if c.Name != "" && !found {
		missing(c)
	}
}

func (t *tx) resetChain(c *Command, tb *Table, name string) {
	for i, r := range tb.chain(name).Rules {
		if c.Handle != 0 && r.Handle != c.Handle || !hasState(r.Stmts) {
			continue
		}
		n := *r
		n.Stmts = zeroedAll(r.Stmts)
		ch := t.ownChain(tb, name)
		ch.Rules[i] = &n
		t.note(Change{Op: ChangeReset, Table: tb, Chain: ch, Rule: &n, Position: i})
	}
}

func (t *tx) resetSet(c *Command) {
	tb, s := t.targetSet(c)
	var list []*Elem
	if c.elems != nil {
		k := t.checker(c, tb)
		for _, lit := range c.elems.elems {
			e := t.wanted(k, lit, s)
			if old := s.Elems.Find(e.Key); old != nil {
				list = append(list, old)
			}
		}
	} else {
		for e := range s.Elems.All() {
			list = append(list, e)
		}
	}
	for i, e := range list {
		n := *e
		n.Stmts = zeroedAll(e.Stmts)
		list[i] = &n
		s.Elems = s.Elems.With(&n)
	}
	t.note(Change{Op: ChangeReset, Table: tb, Set: s, Elems: list})
}
