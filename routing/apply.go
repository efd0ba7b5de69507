// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Theory of operation.
//
// A transaction works on a Set that nobody else has seen (edit). It starts with
// the maps of the old one copied and everything below them shared, and copies what
// it is about to write to: a table's trie (writable), a list of rules
// (writableRules), a leaf, a Route. Whoever still reads the old Set sees none of it.
//
//	1. change by change: put and delete routes, rules, devices   apply
//	2. forget tables that became empty, give up the right to write   commit
//	3. make what the data path reads: steps, tables of VRFs   compile
//
// A change sees those before it, so a connected route may be followed by one whose
// gateway it leads to, and a rule by another that says goto. If one fails the edit
// is dropped as it is; nothing needs to be undone.

// Op is what a Change does, in the words of ip-route(8). Zero is OpAdd.
type Op uint8

// The operations. Rules know OpAdd and OpDelete, devices those and OpReplace.
const (
	OpAdd     Op = iota // a new one; ErrExist if its key is taken
	OpAppend            // a new route behind those with the same key; IPv6 joins gateways to one route
	OpPrepend           // a new route before those with the same key
	OpChange            // in place of the first with the same key; ErrNoEnt if there is none
	OpReplace           // OpChange, or OpAdd if there is none
	OpRestore           // a complete route of an earlier Set, behind those with the same key; its gateways and source were checked then
	OpDelete            // the first that has all that is stated
	OpFlush             // all routes that the filter matches; none is fine
)

var opNames = [...]string{"add", "append", "prepend", "change", "replace", "restore", "del", "flush"}

// String is the operation in ip-route(8)'s word.
func (o Op) String() string { return nameOf(opNames[:], int(o)) }

// MarshalText makes JSON show the word.
func (o Op) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (o *Op) UnmarshalText(text []byte) error {
	n, ok := indexOf(opNames[:], string(text))
	if !ok {
		return fmt.Errorf("unknown operation %q", text)
	}
	*o = Op(n)
	return nil
}

// Change is one step of a transaction: an operation on one of the things below,
// of which exactly one is there.
type Change struct {
	Op     Op        `json:"op"`
	Route  *Route    `json:"route,omitempty"`
	Rule   *Rule     `json:"rule,omitempty"`
	Device *Device   `json:"device,omitempty"`
	Hop    *HopState `json:"hop,omitempty"`    // Op doesn't matter
	Filter *Filter   `json:"filter,omitempty"` // OpFlush
}

// HopState says whether a next hop can be used, for whoever watches it. It holds
// for the routes that are there and for those to come.
type HopState struct {
	Dev  string     `json:"dev"`
	Via  netip.Addr `json:"via,omitzero"`
	Dead bool       `json:"dead"`
}

// ChangeError says which change of a transaction could not be made and why.
type ChangeError struct {
	Index int // in the list, from 0
	Err   error
}

// Error is the number of the change, counted from one as lines are, and the fault.
func (e *ChangeError) Error() string { return fmt.Sprintf("change %d: %v", e.Index+1, e.Err) }

// Unwrap is the fault, which is one of the sentinels where a caller may want it.
func (e *ChangeError) Unwrap() error { return e.Err }

// Apply returns the Set with all changes made one after the other; each sees the
// ones before it. If one can't be made, the answer is a *ChangeError and nothing
// has happened. s stays as it is, so whoever still reads it can go on.
//
// The cost is that of the changes and of the number of tables, rules and devices,
// not of routes; except when a device or next hop changes its state, which looks
// at every route.
func (s *Set) Apply(changes []Change) (*Set, error) {
	e := s.edit(len(changes))
	for i := range changes {
		if err := e.apply(&changes[i]); err != nil {
			return nil, &ChangeError{Index: i, Err: err}
		}
	}
	return e.commit(), nil
}

// edit is a transaction in progress: a Set that nobody else sees yet.
type edit struct {
	*Set
	changes  int              // in the transaction
	mine     map[TableID]bool // tables that are not shared with the Set before
	ownRules [2]bool          // lists of rules that are not shared
}

func (s *Set) edit(changes int) *edit {
	n := *s
	n.tables, n.devices, n.dead = maps.Clone(s.tables), s.devices.clone(), maps.Clone(s.dead)
	return &edit{Set: &n, changes: changes, mine: map[TableID]bool{}}
}

// commit makes the Set ready for readers.
func (e *edit) commit() *Set {
	for id := range e.mine {
		t := e.tables[id]
		t.owned = false
		if t.trie.Size() == 0 {
			delete(e.tables, id)
		}
	}
	e.compile()
	return e.Set
}

// cloneShare is the part of a table's routes that a transaction must change to
// make one copy of the whole cheaper than a copy of the way to each.
const cloneShare = 8

// writable returns a table that the transaction may write to.
func (e *edit) writable(id TableID) (*table, error) {
	t := e.tables[id]
	switch {
	case e.mine[id]:
		return t, nil
	case t == nil && len(e.tables) >= e.limits.Tables:
		return nil, fmt.Errorf("table %d: %w at %d tables", id, ErrLimit, e.limits.Tables)
	case t == nil:
		t = newTable(id)
		t.owned = true
	case e.changes > t.trie.Size()/cloneShare:
		t = &table{id: id, trie: t.trie.Clone(), owned: true}
	default:
		t = &table{id: id, trie: t.trie}
	}
	e.tables[id], e.mine[id] = t, true
	return t, nil
}

func (e *edit) apply(c *Change) error {
	switch {
	case c.Route != nil && c.Op == OpDelete:
		return e.deleteRoute(c.Route)
	case c.Route != nil && c.Op < OpDelete:
		return e.putRoute(c.Op, c.Route)
	case c.Rule != nil:
		return e.applyRule(c.Op, c.Rule)
	case c.Device != nil:
		return e.applyDevice(c.Op, c.Device)
	case c.Hop != nil:
		return e.applyHop(c.Hop)
	case c.Filter != nil && c.Op == OpFlush:
		return e.flush(c.Filter)
	}
	return fmt.Errorf("operation %v: %w", c.Op, errors.ErrUnsupported)
}

func (e *edit) applyRule(op Op, want *Rule) error {
	switch op {
	case OpAdd:
		return e.addRule(want)
	case OpDelete:
		return e.deleteRule(want)
	default:
		return fmt.Errorf("rule %v: %w", op, errors.ErrUnsupported)
	}
}

func (e *edit) addRule(want *Rule) error {
	r, err := want.complete()
	if err != nil {
		return err
	}
	rules := e.writableRules(r.Family)
	if len(*rules) >= e.limits.Rules {
		return fmt.Errorf("rules: %w at %d", ErrLimit, e.limits.Rules)
	}
	if !r.PrioritySet {
		r.Priority, r.PrioritySet = nextPriority(*rules), true
	}
	if r.Action == ActionGoto && r.Goto <= r.Priority {
		return fmt.Errorf("backward goto not supported: from %d to %d", r.Priority, r.Goto)
	}
	at := placeOf(*rules, r.Priority)
	for i := at - 1; i >= 0 && (*rules)[i].Priority == r.Priority; i-- {
		if (*rules)[i].same(r) {
			return ErrExist
		}
	}
	*rules = slices.Insert(*rules, at, r)
	return nil
}

func (e *edit) deleteRule(want *Rule) error {
	f := IPv4
	if want.is6() {
		f = IPv6
	}
	rules := e.writableRules(f)
	at := slices.IndexFunc(*rules, func(r *Rule) bool { return r.matches(want) })
	if at < 0 {
		return ErrNoEnt
	}
	*rules = slices.Delete(*rules, at, at+1)
	return nil
}

func (e *edit) writableRules(f Family) *[]*Rule {
	if !e.ownRules[f] {
		e.rules[f], e.ownRules[f] = slices.Clone(e.rules[f]), true
	}
	return &e.rules[f]
}
