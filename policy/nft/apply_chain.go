// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
)

var hookNames = [...]string{
	HookNone: "", HookPrerouting: "prerouting", HookInput: "input", HookForward: "forward", HookOutput: "output",
	HookPostrouting: "postrouting", HookIngress: "ingress", HookEgress: "egress",
}

// String is the hook's name.
func (h Hook) String() string { return hookNames[h] }

var chainTypeNames = [...]string{ChainFilter: "filter", ChainNAT: "nat", ChainRoute: "route"}

// String is the type's name.
func (t ChainType) String() string { return chainTypeNames[t] }

// familyHooks are the hooks of a family.
func familyHooks(f Family) []Hook {
	switch f {
	case FamilyARP:
		return []Hook{HookInput, HookOutput}
	case FamilyNetdev:
		return []Hook{HookIngress, HookEgress}
	case FamilyInet:
		return []Hook{HookPrerouting, HookInput, HookForward, HookOutput, HookPostrouting, HookIngress}
	default:
		return []Hook{HookPrerouting, HookInput, HookForward, HookOutput, HookPostrouting}
	}
}

// priorityTable has the named priorities, of bridges and of all others.
var priorityTable = [2]map[string]int64{
	{"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100},
	{"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300},
}

// priorities are the named ones of a family, with the hooks that have them.
func priorityNumber(f Family, h Hook, name string) (int64, bool) {
	table := priorityTable[0]
	if f == FamilyBridge {
		table = priorityTable[1]
	}
	n, ok := table[name]
	if !ok || !priorityHook(f, h, name) {
		return 0, false
	}
	return n, true
}

func priorityHook(f Family, h Hook, name string) bool {
	switch {
	case f == FamilyNetdev || f == FamilyARP || h == HookIngress || h == HookEgress:
		return name == "filter"
	case name == "dstnat":
		return h == HookPrerouting || h == HookOutput && false
	case name == "srcnat":
		return h == HookPostrouting
	case name == "out":
		return h == HookOutput
	}
	return true
}

// addChain does "add chain".
func (t *tx) addChain(c *Command) {
	checkName(c.Name, c.Pos)
	tb := t.table(c)
	n := &Chain{Name: c.Name, Comment: c.chain.comment, Pos: c.Pos}
	if c.chain.base {
		t.baseChain(c, tb, n)
	} else if c.chain.policy != nil && tb.chain(c.Name) == nil {
		fail(c.chain.policy.pos, "chain policy is only for base chains")
	}
	if old := tb.chain(c.Name); old != nil {
		t.updateChain(c, tb, old, n)
		return
	}
	n.Handle = tb.handle()
	n.Registered = t.registered()
	tb.Chains = append(tb.Chains, n)
	if tb.index.chains != nil {
		tb.index.chains[n.Name] = len(tb.Chains) - 1
	}
	t.owned[n] = true
	t.note(Change{Op: ChangeAdd, Table: tb, Chain: n})
}

// registered is the next number of a base chain's registration.
func (t *tx) registered() uint64 {
	t.rs.Registrations++
	return t.rs.Registrations
}

// updateChain is "add chain" of one that is there: it may set the policy.
func (t *tx) updateChain(c *Command, tb *Table, old, n *Chain) {
	if c.Op == OpCreate {
		refuse(c.Pos, Exists, "Could not process rule: %s", Exists)
	}
	if c.chain.base {
		if !old.Base || old.Type != n.Type || old.Hook != n.Hook || old.Prio != n.Prio {
			refuse(c.Pos, Exists, "Could not process rule: %s", Exists)
		}
	}
	if c.chain.policy == nil {
		return
	}
	if !old.Base {
		refuse(c.Pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
	drop := t.policy(c.chain.policy)
	if old.Drop != drop {
		own := t.ownChain(tb, old.Name)
		own.Drop = drop
		t.note(Change{Op: ChangeAdd, Table: tb, Chain: own})
	}
}

func (t *tx) policy(s *symbol) bool {
	switch s.text {
	case "accept":
		return false
	case "drop":
		return true
	}
	fail(s.pos, "invalid policy '%s', expecting accept or drop", s.text)
	return false
}

// baseChain checks type, hook and priority.
func (t *tx) baseChain(c *Command, tb *Table, n *Chain) {
	n.Base = true
	typ := slices.Index(chainTypeNames[:], c.chain.typ.text)
	if typ < 0 {
		fail(c.chain.typ.pos, "unknown chain type, expecting filter, nat or route")
	}
	n.Type = ChainType(typ)
	hook := slices.Index(hookNames[1:], c.chain.hook.text) + 1
	if hook == 0 {
		fail(c.chain.hook.pos, "unknown chain hook, expecting prerouting, input, forward, output, postrouting, ingress or egress")
	}
	n.Hook = Hook(hook)
	if !slices.Contains(familyHooks(tb.Family), n.Hook) {
		fail(c.chain.hook.pos, "The %s family does not support this hook", tb.Family)
	}
	n.Prio = t.priority(c, tb.Family, n.Hook)
	t.chainKind(c, tb, n)
	t.devices(c, n)
	if c.chain.policy != nil {
		n.Drop = t.policy(c.chain.policy)
	}
}

// priority is the number of a priority.
func (t *tx) priority(c *Command, f Family, h Hook) int32 {
	s, ok := c.chain.prio.(*symbol)
	if !ok {
		fail(c.Pos, "expecting a priority")
	}
	n, ok := priorityNumber(f, h, s.text)
	if !ok {
		n = t.plainPriority(s)
	}
	n += c.chain.offset
	if n != int64(int32(n)) {
		fail(s.pos, "priority %d does not fit in 32 bits", n)
	}
	return int32(n)
}

func (t *tx) plainPriority(s *symbol) int64 {
	text, neg := s.text, false
	if text != "" && text[0] == '-' {
		text, neg = text[1:], true
	}
	n, ok := parseNumber(text)
	if !ok || n.BitLen() > 32 {
		fail(s.pos, "'%s' is invalid priority in this context.", s.text)
	}
	if neg {
		return -n.Int64()
	}
	return n.Int64()
}

// chainKind sees that a type fits family, hook and priority, as the kernel does.
func (t *tx) chainKind(c *Command, tb *Table, n *Chain) {
	ok := true
	ipFamily := tb.Family == FamilyIP || tb.Family == FamilyIP6 || tb.Family == FamilyInet
	switch n.Type {
	case ChainNAT:
		ok = ipFamily && n.Hook != HookForward && n.Hook != HookIngress && n.Prio > -200
	case ChainRoute:
		ok = ipFamily && n.Hook == HookOutput
	default:
	}
	if !ok {
		refuse(c.Pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
}

// devices sees that those hooks that need a device have one.
func (t *tx) devices(c *Command, n *Chain) {
	atDevice := n.Hook == HookIngress || n.Hook == HookEgress
	if !atDevice && len(c.chain.devices) > 0 {
		fail(c.chain.devices[0].pos, "a device is only for the hooks ingress and egress")
	}
	for _, d := range c.chain.devices {
		n.Devices = append(n.Devices, d.text)
	}
	if atDevice && len(n.Devices) == 0 {
		fail(c.Pos, "the hook %s needs a device", n.Hook)
	}
	slices.Sort(n.Devices)
	n.Devices = slices.Compact(n.Devices)
}

// addRule does "add rule", "insert rule" and "replace rule".
func (t *tx) addRule(c *Command) {
	tb := t.table(c)
	ch := t.ownChain(tb, c.Name)
	if ch == nil {
		refuse(c.Pos, NotFound, "Could not process rule: %s", NotFound)
	}
	at := t.rulePlace(c, ch)
	k := t.checker(c, tb)
	if ch.Base {
		k.base = ch
	}
	r := k.rule(c.rule)
	for range countSets(r) {
		tb.handle()
	}
	switch c.Op {
	case OpReplace:
		r.Handle = ch.Rules[at].Handle
		tb.use(ch.Rules[at], -1)
		ch.Rules[at] = r
		t.note(Change{Op: ChangeReplace, Table: tb, Chain: ch, Rule: r, Position: at})
	default:
		r.Handle = tb.handle()
		ch.Rules = slices.Insert(ch.Rules, at, r)
		op := ChangeAdd
		if c.Op == OpInsert {
			op = ChangeInsert
		}
		t.note(Change{Op: op, Table: tb, Chain: ch, Rule: r, Position: at})
	}
	tb.use(r, 1)
	t.jumpy[tb] = true
}

// rulePlace is where a rule goes.
func (t *tx) rulePlace(c *Command, ch *Chain) int {
	at := len(ch.Rules)
	switch {
	case c.Handle != 0:
		at = slices.IndexFunc(ch.Rules, func(r *Rule) bool { return r.Handle == c.Handle })
	case c.Index >= 0:
		at = c.Index
	case c.Op == OpInsert:
		return 0
	default:
		return at
	}
	if at < 0 || at >= len(ch.Rules) {
		refuse(c.Pos, NotFound, "Could not process rule: %s", NotFound)
	}
	if c.Op == OpAdd || c.Op == OpCreate {
		at++
	}
	return at
}

// countSets is how many sets of its own a rule has: each takes a handle.
func countSets(r *Rule) int {
	n := 0
	r.visit(func(x any) {
		if s, ok := x.(*SetRef); ok && s.Set != nil {
			n++
		}
	})
	return n
}
