// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strconv"
	"strings"
)

// ChangeOp is what a change did.
type ChangeOp uint8

// The changes.
const (
	ChangeAdd ChangeOp = iota
	ChangeInsert
	ChangeReplace // Rule is the new one
	ChangeDelete
	ChangeReset
	ChangeRename
	ChangeFlush // of a set: all its elements, also those that packets added
)

// Change is one thing that a transaction did, for echo, monitor and engines.
// Of Table, Chain, Set those are given that the thing is in, as they were then.
type Change struct {
	Op     ChangeOp
	Table  *Table
	Chain  *Chain
	Rule   *Rule
	Set    *Set
	Elems  []*Elem
	Object *Object
	// Position is where a rule is in its chain.
	Position int
}

// Result is what a transaction came to.
type Result struct {
	Ruleset *Ruleset
	Changes []Change
	// Requests are commands that only ask: the caller answers them.
	Requests []*Command
}

// tx is a transaction at work.
type tx struct {
	env     *Env
	rs      *Ruleset
	owned   map[any]bool    // tables, chains and sets that are this transaction's own
	fresh   map[*Set]bool   // sets that this transaction made
	jumpy   map[*Table]bool // tables whose jumps may have changed
	changes []Change
	asks    []*Command
}

// Apply does commands in their order, and checks at the end that all fits
// together. If one fails, nothing is done.
func (r *Ruleset) Apply(cmds []*Command, env *Env) (res *Result, err error) {
	t := &tx{env: env, rs: &Ruleset{Tables: slices.Clone(r.Tables), Handles: r.Handles, Registrations: r.Registrations}, owned: map[any]bool{}, fresh: map[*Set]bool{}, jumpy: map[*Table]bool{}}
	var text string
	defer caught(&err, func(pos Pos) string { return lineOf(text, pos) })
	for _, c := range cmds {
		text = c.text
		t.command(c)
	}
	text = ""
	t.finish(cmds)
	return &Result{Ruleset: t.rs, Changes: t.changes, Requests: t.asks}, nil
}

func (t *tx) note(c Change) { t.changes = append(t.changes, c) }

// command does one.
func (t *tx) command(c *Command) {
	switch c.Op {
	case OpList, OpGet, OpMonitor:
		t.asks = append(t.asks, c)
	case OpFlush:
		t.flush(c)
	case OpReset:
		t.reset(c)
	case OpRename:
		t.rename(c)
	case OpDelete, OpDestroy:
		t.remove(c)
	default:
		t.add(c)
	}
}

// add does "add", "create", "insert" and "replace".
func (t *tx) add(c *Command) {
	switch c.Kind {
	case KindTable:
		t.addTable(c)
	case KindChain:
		t.addChain(c)
	case KindRule:
		t.addRule(c)
	case KindSet, KindMap:
		t.addSet(c)
	case KindElement:
		t.addElements(c)
	case KindObject:
		t.addObject(c)
	default:
		fail(c.Pos, "%s: nothing to do", c.Op)
	}
}

// tableIndex finds things of a table by their names.
type tableIndex struct {
	chains, sets map[string]int
	uses         map[string]int // how many rules and elements refer to something
}

// find is the place of a table, -1 if there is none.
func (r *Ruleset) find(f Family, name string) int {
	return slices.IndexFunc(r.Tables, func(t *Table) bool { return t.Family == f && t.Name == name })
}

// Table is the table of that name, or nil.
func (r *Ruleset) Table(f Family, name string) *Table {
	if i := r.find(f, name); i >= 0 {
		return r.Tables[i]
	}
	return nil
}

// table is the transaction's own copy of a command's table.
func (t *tx) table(c *Command) *Table {
	i := t.rs.find(c.Family, c.Table)
	if i < 0 {
		refuse(c.Pos, NotFound, "Could not process rule: %s", NotFound)
	}
	return t.own(i)
}

// own copies a table, once.
func (t *tx) own(i int) *Table {
	old := t.rs.Tables[i]
	if t.owned[old] {
		return old
	}
	n := *old
	n.Chains, n.Sets, n.Objects = slices.Clone(old.Chains), slices.Clone(old.Sets), slices.Clone(old.Objects)
	n.index = &tableIndex{}
	t.rs.Tables[i] = &n
	t.owned[&n] = true
	return &n
}

// ownChain copies a chain, once.
func (t *tx) ownChain(tb *Table, name string) *Chain {
	i := tb.chainIndex(name)
	if i < 0 {
		return nil
	}
	old := tb.Chains[i]
	if t.owned[old] {
		return old
	}
	n := *old
	n.Rules = slices.Clone(old.Rules)
	tb.Chains[i] = &n
	t.owned[&n] = true
	return &n
}

// ownSet copies a set, once.
func (t *tx) ownSet(tb *Table, name string) *Set {
	i := tb.setIndex(name)
	if i < 0 {
		return nil
	}
	old := tb.Sets[i]
	if t.owned[old] {
		return old
	}
	n := *old
	tb.Sets[i] = &n
	t.owned[&n] = true
	return &n
}

// chainIndex is the place of a chain, -1 if there is none.
func (t *Table) chainIndex(name string) int {
	if t.index == nil {
		return slices.IndexFunc(t.Chains, func(c *Chain) bool { return c.Name == name })
	}
	if t.index.chains == nil {
		t.index.chains = map[string]int{}
		for i, c := range t.Chains {
			t.index.chains[c.Name] = i
		}
	}
	if i, ok := t.index.chains[name]; ok {
		return i
	}
	return -1
}

// setIndex is the place of a set, -1 if there is none.
func (t *Table) setIndex(name string) int {
	if t.index == nil {
		return slices.IndexFunc(t.Sets, func(s *Set) bool { return s.Name == name })
	}
	if t.index.sets == nil {
		t.index.sets = map[string]int{}
		for i, s := range t.Sets {
			t.index.sets[s.Name] = i
		}
	}
	if i, ok := t.index.sets[name]; ok {
		return i
	}
	return -1
}

// chain, set and object find something in a table by its name.
func (t *Table) chain(name string) *Chain {
	if i := t.chainIndex(name); i >= 0 {
		return t.Chains[i]
	}
	return nil
}

func (t *Table) set(name string) *Set {
	if i := t.setIndex(name); i >= 0 {
		return t.Sets[i]
	}
	return nil
}

func (t *Table) object(kind ObjectKind, name string) *Object {
	i := slices.IndexFunc(t.Objects, func(o *Object) bool { return o.Name == name && o.Kind == kind })
	if i < 0 {
		return nil
	}
	return t.Objects[i]
}

// handle is the next handle in a table.
func (t *Table) handle() uint64 {
	t.Handles++
	return t.Handles
}

// addTable does "add table".
func (t *tx) addTable(c *Command) {
	checkName(c.Table, c.Pos)
	if i := t.rs.find(c.Family, c.Table); i >= 0 {
		if c.Op == OpCreate {
			refuse(c.Pos, Exists, "Could not process rule: %s", Exists)
		}
		tb := t.own(i)
		if len(c.table.flags) > 0 || tb.Dormant {
			t.tableFlags(c, tb)
		}
		return
	}
	t.rs.Handles++
	tb := &Table{Family: c.Family, Name: c.Table, Handle: t.rs.Handles, Comment: c.table.comment, Pos: c.Pos, index: &tableIndex{}}
	t.tableFlags(c, tb)
	t.rs.Tables = append(t.rs.Tables, tb)
	t.owned[tb] = true
	t.note(Change{Op: ChangeAdd, Table: tb})
}

func (t *tx) tableFlags(c *Command, tb *Table) {
	tb.Dormant = false
	for _, f := range c.table.flags {
		switch f.text {
		case "dormant":
			tb.Dormant = true
		case "owner":
			tb.Owner = true
		case "persist":
			tb.Persist = true
		default:
			fail(f.pos, "unknown table option %s, expecting dormant, owner or persist", f.text)
		}
	}
}

// checkName refuses names that the kernel would.
func checkName(name string, pos Pos) {
	if len(name) > 255 {
		fail(pos, "String exceeds maximum length of %d", 255)
	}
	l := lexer{text: name}
	if name == "" || !isLetter(name[0]) || l.next().kind != tokWord || l.off != len(name) || strings.ContainsAny(name, "*:\\") {
		fail(pos, "%q can't be a name: expecting a letter, then letters, digits and the signs / - . _", name)
	}
}

// addObject does "add counter" and its like.
func (t *tx) addObject(c *Command) {
	checkName(c.Name, c.Pos)
	tb := t.table(c)
	if tb.object(c.Object, c.Name) != nil {
		if c.Op == OpCreate {
			refuse(c.Pos, Exists, "Could not process rule: %s", Exists)
		}
		t.updateObject(c, tb)
		return
	}
	o := &Object{Kind: c.Object, Name: c.Name, Handle: tb.handle(), Stmt: copyState(c.object.stmt), Comment: c.object.comment, Pos: c.Pos}
	tb.Objects = append(tb.Objects, o)
	t.note(Change{Op: ChangeAdd, Table: tb, Object: o})
}

// updateObject sets the limit of a quota that is there; nothing else changes.
func (t *tx) updateObject(c *Command, tb *Table) {
	q, ok := c.object.stmt.(*Quota)
	if !ok {
		return
	}
	i := slices.IndexFunc(tb.Objects, func(o *Object) bool { return o.Name == c.Name && o.Kind == c.Object })
	old := tb.Objects[i]
	was, _ := old.Stmt.(*Quota)
	if was.Bytes == q.Bytes && was.Over == q.Over {
		return
	}
	n := *old
	n.Stmt = copyState(q)
	tb.Objects[i] = &n
	t.note(Change{Op: ChangeAdd, Table: tb, Object: &n})
}

// checker makes one for a command.
func (t *tx) checker(c *Command, tb *Table) *checker {
	return &checker{env: t.env, table: tb, family: tb.Family, spans: c.spans, pos: c.Pos, fresh: t.fresh, handle: tb.handle, chainName: func() string {
		return "__chain" + strconv.FormatUint(tb.handle(), 10)
	}}
}
