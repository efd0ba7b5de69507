// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"

	"sluice/policy/nft"
)

// stage is a transaction that is being prepared: nothing of it can be seen. What
// could fail is done while it is; then it is applied, and published at once.
type stage struct {
	gen   uint64
	seed  [2]uint64
	grace *epochs
	now   int64

	fresh []*tableRun // all tables of the next ruleset, in its order
	codes []newCode
	elems []setChange
	objs  []newObject
	hooks bool               // base chains are others than before
	metas map[string]metaKey // by nft's words
	cts   map[string]ctKey
}

// newObject is an object that begins anew.
type newObject struct {
	state *state
	spec  StateSpec
}

// newCode is a chain's next program.
type newCode struct {
	chain *chain
	code  *code
}

// setChange is what a set gains and loses.
type setChange struct {
	set       *set
	tree      *nft.Set // what it is to be like; nil: as it is
	add, drop []*elem
	reset     []*elem // forget what they counted
	other     *elem
	otherToo  bool // other is meant
}

// Commit makes rs the ruleset: evaluators that pin from now on see all of it, others
// nothing. Counters and what else rules, objects and elements remember goes on with
// those that were there before, which are known by the address of their node in the
// tree. It costs what differs from the ruleset before. changes are what nft.Result
// says of the transaction: by them elements go that packets have added, and of which
// the tree doesn't know. now is Packet.Now.
//
// The error names what this engine doesn't support; nothing is changed then.
func (e *Engine) Commit(rs *nft.Ruleset, changes []nft.Change, now int64) error {
	publish, err := e.Prepare(rs, changes, now)
	if err != nil {
		return err
	}
	publish()
	return nil
}

// Prepare is the part of Commit that can fail, and takes the most of its time: what it
// returns does the rest. One that isn't called leaves no trace. Between the two there is
// no other Commit.
func (e *Engine) Prepare(rs *nft.Ruleset, changes []nft.Change, now int64) (publish func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.own.pinned.Store(e.epochs.now.Load()) // what is found of elements isn't used again meanwhile
	defer e.own.pinned.Store(0)
	s := &stage{gen: e.current.Load().gen + 1, seed: e.seed, grace: e.epochs, now: now, metas: metaNames(), cts: ctNames()}
	next := map[uint64]*tableRun{}
	for _, t := range rs.Tables {
		run := e.tables[t.Handle]
		if run == nil || run.tree != t {
			var err error
			if run, err = s.table(run, t); err != nil {
				return nil, err
			}
		}
		next[t.Handle] = run
		s.fresh = append(s.fresh, run)
	}
	s.hooks = s.hooks || len(next) != len(e.tables)
	for h := range next {
		s.hooks = s.hooks || e.tables[h] == nil
	}
	for i := range changes {
		s.live(next, &changes[i])
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.publish(s)
		e.tree, e.tables = rs, next
	}, nil
}

// publish applies what was prepared, and shows it.
// +checklocks:e.mu
func (e *Engine) publish(s *stage) {
	if len(s.objs) > 0 {
		e.settle() // what they have counted isn't what they count from now on
	}
	for i := range s.objs {
		s.objs[i].state.set(&s.objs[i].spec)
	}
	for i := range s.elems {
		s.elems[i].apply(s.gen)
	}
	passed := e.epochs.passed()
	for _, n := range s.codes {
		was := n.chain.code.Load()
		if was != nil && passed >= was.epoch {
			was.prev.Store(nil) // who pinned what was before it has gone
		}
		n.code.prev.Store(was)
		n.chain.code.Store(n.code)
	}
	snap := &snapshot{gen: s.gen, hooks: e.current.Load().hooks}
	if s.hooks {
		snap.hooks = hooksOf(s.fresh)
	}
	e.current.Store(snap)
	epoch := e.epochs.advance()
	for _, n := range s.codes {
		n.code.epoch = epoch
	}
	e.own.pinned.Store(0)
	for i := range s.elems {
		s.elems[i].set.published(epoch)
	}
}

// live finds the elements that packets have added and the transaction removes.
func (s *stage) live(tables map[uint64]*tableRun, c *nft.Change) {
	set := changedSet(tables, c)
	if set == nil {
		return
	}
	gone := setChange{set: set}
	take := func(e *elem) bool {
		switch {
		case e.source != nil:
		case c.Op == nft.ChangeReset:
			gone.reset = append(gone.reset, e)
		default:
			gone.drop = append(gone.drop, e)
		}
		return true
	}
	if c.Op == nft.ChangeFlush || len(c.Elems) == 0 && c.Op == nft.ChangeReset {
		set.each(s.gen, never, take)
	}
	for _, x := range c.Elems {
		if e := set.exact(unpack(x.Key, set.fields, set.width), nil, s.gen); e != nil {
			take(e)
		}
	}
	s.elems = append(s.elems, gone)
}

// changedSet is the set that packets add to and of which the change takes elements.
func changedSet(tables map[uint64]*tableRun, c *nft.Change) *set {
	if c.Set == nil || c.Op != nft.ChangeDelete && c.Op != nft.ChangeFlush && c.Op != nft.ChangeReset {
		return nil
	}
	t := tables[c.Table.Handle]
	if t == nil || t.sets[c.Set.Name] == nil {
		return nil
	}
	if s := t.sets[c.Set.Name].set; s.dynamic && !s.ranges {
		return s
	}
	return nil
}

// Live reports whether a set has an element that a packet has added: what nft.Env
// wants to know when one is to be deleted.
func (e *Engine) Live(table uint64, name, key string, now int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.tables[table]
	if t == nil || t.sets[name] == nil || t.sets[name].set.ranges {
		return false
	}
	s := t.sets[name].set
	return s.lively(unpack(key, s.fields, s.width), e.current.Load().gen, now) != nil
}

// table prepares the next version of a table; was is the one before, or nil.
func (s *stage) table(was *tableRun, tree *nft.Table) (*tableRun, error) {
	if was == nil {
		was = &tableRun{tree: &nft.Table{}}
	}
	t := &tableRun{
		tree: tree, chains: make(map[string]*chainRun, len(tree.Chains)),
		sets: make(map[string]*setRun, len(tree.Sets)), objects: make(map[objectKey]*objectRun, len(tree.Objects)),
	}
	s.hooks = s.hooks || was.tree.Dormant != tree.Dormant
	if err := s.objects(t, was); err != nil {
		return nil, err
	}
	s.declare(t, was)
	if err := s.sets(t); err != nil {
		return nil, err
	}
	return t, s.chains(t)
}

// objects takes over, or makes, the objects with names.
func (s *stage) objects(t, was *tableRun) error {
	for _, o := range t.tree.Objects {
		key := objectKey{o.Kind, o.Name}
		if old := was.objects[key]; old != nil && old.tree == o {
			t.objects[key] = old
			continue
		}
		spec, err := specOf(o.Stmt)
		if err != nil {
			return fmt.Errorf("%s, object %s: %w", t.tree.Name, o.Name, err)
		}
		run := &objectRun{tree: o, state: newState(&spec)}
		if old := was.objects[key]; old != nil && old.tree.Handle == o.Handle {
			run.state = old.state // rules refer to it; they see it change at once
		}
		s.objs = append(s.objs, newObject{run.state, spec})
		t.objects[key] = run
	}
	return nil
}

// declare takes over, or makes, sets and chains without what is in them: so each can
// refer to each.
func (s *stage) declare(t, was *tableRun) {
	for _, tree := range t.tree.Sets {
		old := was.sets[tree.Name]
		if old == nil || old.tree.Handle != tree.Handle {
			old = &setRun{tree: &nft.Set{}, set: newSet(tree, s.seed, s.grace)}
		}
		t.sets[tree.Name] = old
	}
	byHandle := map[uint64]*chainRun{}
	if len(t.tree.Chains) > 0 {
		for _, c := range was.chains {
			byHandle[c.tree.Handle] = c
		}
	}
	for _, tree := range t.tree.Chains {
		old := byHandle[tree.Handle]
		if old == nil {
			old = &chainRun{tree: &nft.Chain{}, chain: &chain{handle: tree.Handle, name: tree.Name}}
			s.hooks = s.hooks || tree.Base
		}
		delete(byHandle, tree.Handle)
		t.chains[tree.Name] = old
	}
	for _, gone := range byHandle {
		s.hooks = s.hooks || gone.tree.Base
	}
}

// chains compiles the chains that aren't as they were.
func (s *stage) chains(t *tableRun) error {
	for _, tree := range t.tree.Chains {
		run := t.chains[tree.Name]
		if run.tree == tree {
			continue
		}
		if run.chain.name != tree.Name { // renamed: who reads it sees one name or the other
			run = &chainRun{tree: run.tree, chain: run.chain, rules: run.rules}
		}
		s.hooks = s.hooks || rehooked(run.tree, tree)
		rules := make(map[*nft.Rule]*ruleRun, len(tree.Rules))
		k, err := compile(s, t, tree, func(r *nft.Rule) *ruleRun {
			if rules[r] = run.rules[r]; rules[r] == nil {
				rules[r] = run.heir(r)
			}
			return rules[r]
		})
		if err != nil {
			return err
		}
		s.codes = append(s.codes, newCode{run.chain, k})
		t.chains[tree.Name] = &chainRun{tree: tree, chain: run.chain, rules: rules}
	}
	return nil
}

// heir is what a new rule remembers. One with the handle of another is that rule with
// some of its statements reset: it remembers what the others do.
func (c *chainRun) heir(r *nft.Rule) *ruleRun {
	if c.byHandle == nil {
		c.byHandle = make(map[uint64]*ruleRun, len(c.rules))
		for old, run := range c.rules {
			c.byHandle[old.Handle] = run
		}
	}
	old := c.byHandle[r.Handle]
	if old == nil {
		return &ruleRun{}
	}
	return &ruleRun{
		states: maps.Clone(old.states), counts: maps.Clone(old.counts), sets: maps.Clone(old.sets),
		chains: maps.Clone(old.chains), inner: slices.Clone(old.inner),
	}
}

// rehooked reports whether a chain comes to be at another place.
func rehooked(x, y *nft.Chain) bool {
	return x.Base != y.Base || x.Hook != y.Hook || x.Prio != y.Prio || x.Type != y.Type || !slices.Equal(x.Devices, y.Devices)
}

// sets finds out what the sets gain and lose.
func (s *stage) sets(t *tableRun) error {
	for _, tree := range t.tree.Sets {
		run := t.sets[tree.Name]
		if run.tree == tree {
			continue
		}
		c, err := s.difference(t, run, tree)
		if err != nil {
			return fmt.Errorf("%s, set %s: %w", t.tree.Name, tree.Name, err)
		}
		s.elems = append(s.elems, c)
		t.sets[tree.Name] = &setRun{tree: tree, set: run.set}
	}
	return nil
}

func (s *stage) difference(t *tableRun, run *setRun, tree *nft.Set) (c setChange, err error) {
	c.set, c.tree = run.set, tree
	for old, fresh := range nft.Changed(run.tree.Elems, tree.Elems) {
		var gone *elem
		if old != nil {
			gone = c.set.exact(unpack(old.Key, c.set.fields, c.set.width), unpack(old.End, c.set.fields, c.set.width), s.gen)
		}
		if gone != nil {
			c.drop = append(c.drop, gone)
		}
		if fresh == nil {
			continue
		}
		e, err := c.set.element(t, fresh, s.now)
		if err != nil {
			return c, err
		}
		if gone != nil && fresh.Timeout == old.Timeout && fresh.Expires == old.Expires {
			e.expires.Store(gone.expires.Load()) // only its statements are new
		}
		if live := c.set.exact(e.key, e.upper(), s.gen); live != nil && old == nil {
			c.drop = append(c.drop, live) // a packet has added it
		}
		c.add = append(c.add, e)
	}
	if run.tree.Default != tree.Default {
		c.otherToo = true
		if tree.Default != nil {
			c.other, err = c.set.element(t, tree.Default, s.now)
		}
	}
	return c, err
}

// apply does the change, to be seen from generation gen on.
func (c *setChange) apply(gen uint64) {
	if c.tree != nil {
		c.set.configure(c.tree)
	}
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	for _, e := range c.drop {
		c.set.remove(e, gen)
	}
	for _, e := range c.reset {
		for i := range e.states {
			e.states[i].zero()
		}
	}
	c.set.insert(c.add, gen)
	if c.otherToo {
		c.set.setOther(c.other, gen)
	}
	c.set.changes.Add(1)
}

// published says with which epoch the change was.
func (s *set) published(epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(epoch)
	s.reclaim()
}

// fill gives a set that nobody sees yet all its elements.
func (s *set) fill(t *tableRun, tree *nft.Set, st *stage) error {
	c := setChange{set: s}
	for tree := range tree.Elems.All() {
		e, err := s.element(t, tree, st.now)
		if err != nil {
			return err
		}
		c.add = append(c.add, e)
	}
	if tree.Default != nil {
		e, err := s.element(t, tree.Default, st.now)
		if err != nil {
			return err
		}
		c.other, c.otherToo = e, true
	}
	c.apply(st.gen)
	return nil
}

// element makes an element of the tree's.
func (s *set) element(t *tableRun, tree *nft.Elem, now int64) (*elem, error) {
	e := &elem{source: tree, key: unpack(tree.Key, s.fields, s.width)}
	if tree.End != tree.Key {
		e.end = unpack(tree.End, s.fields, s.width)
	}
	e.data = unpack(tree.Data, s.dfields, s.dwidth)
	if tree.DataEnd != "" && tree.DataEnd != tree.Data {
		e.last = unpack(tree.DataEnd, s.dfields, s.dwidth)
	}
	var err error
	if tree.Verdict != nil {
		if e.verdict, err = t.verdictOf(tree.Verdict); err != nil {
			return nil, err
		}
	}
	if tree.Object != "" {
		if e.object, err = t.object(s.objects, tree.Object); err != nil {
			return nil, err
		}
	}
	e.stmts, e.order = s.statements(tree), tree.Order
	specs, err := specsOf(e.stmts)
	if err != nil {
		return nil, err
	}
	e.states = make([]state, len(specs))
	for i := range specs {
		e.states[i].set(&specs[i])
	}
	e.expire(tree, s.timeout.Load(), now)
	return e, nil
}

// statements are the element's own, or those that the set has for each.
func (s *set) statements(tree *nft.Elem) []nft.Stmt {
	if len(tree.Stmts) > 0 {
		return tree.Stmts
	}
	return s.stmts
}

// expire sets when the element's time is over.
func (e *elem) expire(tree *nft.Elem, timeout, now int64) {
	if e.timeout = int64(tree.Timeout); e.timeout == 0 {
		e.timeout = timeout
	}
	left := e.timeout
	if tree.Expires != 0 {
		left = int64(tree.Expires)
	}
	if left != 0 {
		e.expires.Store(now + left)
	}
}

// Tick does what has to be done once a second: elements whose time is over leave.
func (e *Engine) Tick(now int64) {
	e.mu.Lock()
	tables := maps.Clone(e.tables)
	e.mu.Unlock()
	for _, t := range tables {
		for _, s := range t.sets {
			s.set.expire(now)
		}
	}
}
