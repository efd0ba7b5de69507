// SPDX-License-Identifier: Apache-2.0

// Package interp is package policy once more, as the oracle of its tests: it walks
// the syntax tree, packet for packet, and does what each node says, with no thought
// of speed. Sets are lists, numbers are big.Ints, checksums are summed over the
// whole. What is in here is so plain that one can see that it's right; what the
// engine does has to be the same.
//
// It is not for use in the product.
package interp

import (
	"cmp"
	"slices"

	"sluice/packet"
	"sluice/policy"
	"sluice/policy/nft"
)

// World is a ruleset with all that it remembers.
type World struct {
	rs     *nft.Ruleset
	memory map[any]*memory // by node of the tree
	sets   map[*nft.Set][]*element
	counts map[*nft.Numgen]uint32
	met    func(*nft.Rule, nft.Stmt) // is told of each statement that a packet comes to; nil: nobody is
}

// element is one element of a set, live.
type element struct {
	tree      *nft.Elem
	key, end  string
	memory    []*memory
	expires   int64 // 0: never
	timeout   int64
	isDefault bool
}

// New makes a world.
func New(rs *nft.Ruleset) *World {
	w := &World{rs: rs, memory: map[any]*memory{}, sets: map[*nft.Set][]*element{}, counts: map[*nft.Numgen]uint32{}}
	for _, t := range rs.Tables {
		for _, s := range t.Sets {
			w.load(s)
		}
	}
	return w
}

// load makes the elements of a set live.
func (w *World) load(s *nft.Set) {
	if _, ok := w.sets[s]; ok {
		return
	}
	w.sets[s] = []*element{}
	for e := range s.Elems.All() {
		w.sets[s] = append(w.sets[s], w.element(s, e))
	}
	if s.Default != nil {
		e := w.element(s, s.Default)
		e.isDefault = true
		w.sets[s] = append(w.sets[s], e)
	}
}

func (w *World) element(s *nft.Set, tree *nft.Elem) *element {
	e := &element{tree: tree, key: tree.Key, end: tree.End}
	if e.timeout = int64(tree.Timeout); e.timeout == 0 {
		e.timeout = int64(s.Timeout)
	}
	if e.timeout != 0 {
		e.expires = e.timeout
	}
	stmts := tree.Stmts
	if len(stmts) == 0 {
		stmts = s.Stmts
	}
	for _, st := range stmts {
		e.memory = append(e.memory, newMemory(st))
	}
	return e
}

// State is what a statement, by its node, remembers: packets and bytes of a counter;
// bytes of a quota.
func (w *World) State(node any) (packets, bytes uint64) {
	if m := w.memory[node]; m != nil {
		return m.packets, m.bytes
	}
	return 0, 0
}

// Elements are the live elements of a set: their keys, and what the first of their
// statements counted.
func (w *World) Elements(s *nft.Set, now int64) map[string][2]uint64 {
	found := map[string][2]uint64{}
	for _, e := range w.sets[s] {
		if e.over(now) || e.isDefault {
			continue
		}
		var n [2]uint64
		if len(e.memory) > 0 {
			n = [2]uint64{e.memory[0].packets, e.memory[0].bytes}
		}
		found[e.key] = n
	}
	return found
}

func (e *element) over(now int64) bool { return e.expires != 0 && e.expires <= now }

// base is a base chain in its table.
type base struct {
	table *nft.Table
	chain *nft.Chain
}

// bases are the base chains at a hook, in order.
func (w *World) bases(family nft.Family, hook nft.Hook) []base {
	var all []base
	for _, t := range w.rs.Tables {
		ours := t.Family == family || t.Family == nft.FamilyInet && (family == nft.FamilyIP || family == nft.FamilyIP6 || hook == nft.HookIngress)
		for _, c := range t.Chains {
			if ours && !t.Dormant && c.Base && c.Hook == hook {
				all = append(all, base{t, c})
			}
		}
	}
	slices.SortFunc(all, func(x, y base) int {
		if c := cmp.Compare(x.chain.Prio, y.chain.Prio); c != 0 {
			return c
		}
		return cmp.Compare(y.chain.Registered, x.chain.Registered)
	})
	return all
}

// Hook is policy.Evaluator.Hook.
func (w *World) Hook(p *policy.Packet, family nft.Family, hook nft.Hook, lo, hi int) policy.Verdict {
	return w.hook(p, family, hook, func(c *nft.Chain) bool {
		return c.Type != nft.ChainNAT && lo <= int(c.Prio) && int(c.Prio) < hi
	})
}

// NAT is policy.Evaluator.NAT.
func (w *World) NAT(p *policy.Packet, family nft.Family, hook nft.Hook) policy.Verdict {
	return w.hook(p, family, hook, func(c *nft.Chain) bool { return c.Type == nft.ChainNAT })
}

func (w *World) hook(p *policy.Packet, family nft.Family, hook nft.Hook, which func(*nft.Chain) bool) policy.Verdict {
	var v policy.Verdict
	end := p.Frame.View.End
	if family == nft.FamilyBridge || family == nft.FamilyNetdev {
		end = p.Frame.Len()
	}
	for _, b := range w.bases(family, hook) {
		if !which(b.chain) || len(b.chain.Devices) > 0 && !at(p, hook, b.chain.Devices) {
			continue
		}
		run := &run{w: w, p: p, family: family, table: b.table, last: end}
		if b.table.Family == nft.FamilyInet && hook == nft.HookIngress && !run.ip() {
			continue
		}
		if hook == nft.HookEgress {
			run.lead = packet.EthernetLen
		}
		v = run.base(b.chain)
		if v.Code != policy.Accept {
			break
		}
	}
	return v
}

// run is one packet in one base chain.
type run struct {
	w      *World
	p      *policy.Packet
	family nft.Family
	table  *nft.Table
	verd   policy.Verdict
	last   int // end of the packet's bytes, whatever rules write into its header
	lead   int // what counts besides: at egress the Ethernet header
}

// ip makes the family that of the packet; false: it is none of IP.
func (r *run) ip() bool {
	view := &r.p.Frame.View
	if r.opaque() || !view.Is(packet.ViewIP) {
		return false
	}
	if r.family = nft.FamilyIP6; view.Is(packet.ViewIPv4) {
		r.family = nft.FamilyIP
	}
	return true
}

// at reports whether the packet is at one of these devices.
func at(p *policy.Packet, hook nft.Hook, devices []string) bool {
	d := p.In
	if hook == nft.HookEgress {
		d = p.Out
	}
	return d != nil && slices.Contains(devices, d.String())
}

// outcome is what a rule, or a chain, comes to.
type outcome uint8

const (
	goesOn  outcome = iota // with the next rule
	breaks                 // the rule ends, with the next rule
	returns                // the chain ends
	done                   // the verdict is there
)

func (r *run) base(c *nft.Chain) policy.Verdict {
	if r.walk(c) == done {
		return r.verd
	}
	v := policy.Verdict{Code: policy.Accept, Why: policy.Evidence{Table: r.table, Chain: c}}
	if c.Drop {
		v.Code = policy.Drop
	}
	return v
}

// walk goes through a chain.
func (r *run) walk(c *nft.Chain) outcome {
	for _, rule := range c.Rules {
		switch o := r.rule(c, rule); o {
		case done, returns:
			return o
		case goesOn, breaks:
		}
	}
	return goesOn
}

func (r *run) rule(c *nft.Chain, rule *nft.Rule) outcome {
	for _, s := range rule.Stmts {
		if r.w.met != nil {
			r.w.met(rule, s)
		}
		if o := r.stmt(c, rule, s); o != goesOn {
			return o
		}
	}
	return goesOn
}

// verdict does what a verdict says.
func (r *run) verdict(c *nft.Chain, rule *nft.Rule, v *nft.Verdict) outcome {
	switch v.Kind {
	case nft.Continue:
		return goesOn
	case nft.Return:
		return returns
	case nft.Accept:
		return r.end(policy.Accept, c, rule)
	case nft.Jump:
		if r.walk(r.target(v)) == done {
			return done
		}
		return breaks // whatever comes after a verdict in a rule isn't reached
	case nft.Goto:
		if r.walk(r.target(v)) == done {
			return done
		}
		return returns
	case nft.Drop, nft.QueueVerdict:
	}
	return r.end(policy.Drop, c, rule)
}

func (r *run) end(code policy.Code, c *nft.Chain, rule *nft.Rule) outcome {
	r.verd.Code = code
	r.verd.Why = policy.Evidence{Table: r.table, Chain: c, Rule: rule}
	return done
}

func (r *run) target(v *nft.Verdict) *nft.Chain {
	if v.Body != nil {
		return &nft.Chain{Name: v.Chain, Rules: v.Body}
	}
	for _, c := range r.table.Chains {
		if c.Name == v.Chain {
			return c
		}
	}
	panic("no chain " + v.Chain)
}

func (r *run) set(ref *nft.SetRef) *nft.Set {
	if ref.Set != nil {
		r.w.load(ref.Set)
		return ref.Set
	}
	return r.named(ref.Name)
}

func (r *run) named(name string) *nft.Set {
	for _, s := range r.table.Sets {
		if s.Name == name {
			return s
		}
	}
	panic("no set " + name)
}
