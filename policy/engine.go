// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/policy/nft"
)

// Engine has a ruleset, and evaluates packets with it. Commit and what else changes
// or lists it may be called from any goroutine; each goroutine that evaluates has an
// Evaluator of its own.
type Engine struct {
	seed    [2]uint64
	epochs  *epochs
	own     *reader // of Commit
	current atomic.Pointer[snapshot]

	mu     sync.Mutex
	tree   *nft.Ruleset         // +checklocks:mu
	tables map[uint64]*tableRun // by handle; +checklocks:mu
	drawn  uint64               // +checklocks:mu

	evaluators []*Evaluator // +checklocks:mu
}

// snapshot is a ruleset as evaluators see it.
type snapshot struct {
	gen   uint64
	hooks [numFamilies][numHooks][]*baseChain
}

const (
	numFamilies = 5
	numHooks    = int(nft.HookEgress) + 1
)

// baseChain is a chain at a hook.
type baseChain struct {
	chain      *chain
	prio       int
	registered uint64
	nat        bool
	route      bool
	ip         bool    // of family inet at a device: it sees IP only
	devices    []value // of ingress and egress; none: all
}

// New makes an engine without rules. The seed is a secret, which no one who sends
// packets may know.
func New(seed [2]uint64) *Engine {
	e := &Engine{seed: seed, epochs: newEpochs(), tree: &nft.Ruleset{}, tables: map[uint64]*tableRun{}}
	e.own = e.epochs.join()
	e.current.Store(&snapshot{gen: 1})
	return e
}

// Evaluator makes an evaluator for one goroutine; Close ends it.
func (e *Engine) Evaluator() *Evaluator {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drawn++
	ev := &Evaluator{eng: e, read: e.epochs.join(), random: e.seed[1] + e.drawn*0x9e3779b97f4a7c15}
	ev.rec = &ev.none
	e.evaluators = append(e.evaluators, ev)
	return ev
}

// Close ends the evaluator.
func (e *Evaluator) Close() {
	e.eng.epochs.leave(e.read)
	e.eng.close(e)
}

// Generation counts what was committed.
func (e *Engine) Generation() uint64 { return e.current.Load().gen }

// Empty reports whether there is no base chain: no packet need be shown to it.
func (s *snapshot) empty() bool {
	for f := range s.hooks {
		for h := range s.hooks[f] {
			if len(s.hooks[f][h]) > 0 {
				return false
			}
		}
	}
	return true
}

// Empty reports whether no base chain sees any packet, as of the pinned ruleset.
func (e *Evaluator) Empty() bool { return e.snap.empty() }

// chains are the base chains that see packets of a family at a hook, in their order.
func (s *snapshot) chains(f nft.Family, h nft.Hook) []*baseChain {
	return s.hooks[familyIndex(f)][h]
}

func familyIndex(f nft.Family) int {
	switch f {
	case nft.FamilyIP:
		return 0
	case nft.FamilyIP6:
		return 1
	case nft.FamilyARP:
		return 2
	case nft.FamilyBridge:
		return 3
	default:
	}
	return 4
}

// sees reports whether the chain is for packets of the device.
func (b *baseChain) sees(p *Packet, hook nft.Hook) bool {
	if len(b.devices) == 0 {
		return true
	}
	d := p.In
	if hook == nft.HookEgress {
		d = p.Out
	}
	return d != nil && slices.Contains(b.devices, d.name)
}

// tableRun is a table while it is in use.
type tableRun struct {
	tree    *nft.Table
	chains  map[string]*chainRun
	sets    map[string]*setRun
	objects map[objectKey]*objectRun
}

type objectKey struct {
	kind nft.ObjectKind
	name string
}

type objectRun struct {
	tree  *nft.Object
	state *state
}

type setRun struct {
	tree *nft.Set
	set  *set
}

type chainRun struct {
	tree  *nft.Chain
	chain *chain
	rules map[*nft.Rule]*ruleRun

	byHandle map[uint64]*ruleRun // made when it is needed
}

func (t *tableRun) chain(name string) (*chain, error) {
	if c := t.chains[name]; c != nil {
		return c.chain, nil
	}
	return nil, fmt.Errorf("no chain %s", name)
}

func (t *tableRun) set(name string) (*set, error) {
	if s := t.sets[name]; s != nil {
		return s.set, nil
	}
	return nil, fmt.Errorf("no set %s", name)
}

func (t *tableRun) object(kind nft.ObjectKind, name string) (*state, error) {
	if o := t.objects[objectKey{kind, name}]; o != nil {
		return o.state, nil
	}
	return nil, fmt.Errorf("no object %s", name)
}

// order is the order of base chains at a hook: by priority, and of equal ones the
// one that was registered last comes first.
func order(x, y *baseChain) int {
	if c := cmp.Compare(x.prio, y.prio); c != 0 {
		return c
	}
	return cmp.Compare(y.registered, x.registered)
}

// hooksOf are the base chains of all tables.
func hooksOf(tables []*tableRun) (h [numFamilies][numHooks][]*baseChain) {
	for _, t := range tables {
		if t.tree.Dormant {
			continue
		}
		for _, tree := range t.tree.Chains {
			if !tree.Base {
				continue
			}
			b := &baseChain{
				chain: t.chains[tree.Name].chain, prio: int(tree.Prio), registered: tree.Registered,
				nat: tree.Type == nft.ChainNAT, route: tree.Type == nft.ChainRoute,
				ip: t.tree.Family == nft.FamilyInet && tree.Hook == nft.HookIngress,
			}
			for _, d := range tree.Devices {
				b.devices = append(b.devices, nameOf(d))
			}
			for _, f := range familiesOf(t.tree.Family, tree.Hook) {
				h[f][tree.Hook] = append(h[f][tree.Hook], b)
			}
		}
	}
	for f := range h {
		for k := range h[f] {
			slices.SortStableFunc(h[f][k], order)
		}
	}
	return h
}

// familiesOf are the families of packets that a table's chains see.
func familiesOf(f nft.Family, hook nft.Hook) []int {
	if f == nft.FamilyInet && hook != nft.HookIngress {
		return []int{familyIndex(nft.FamilyIP), familyIndex(nft.FamilyIP6)}
	}
	return []int{familyIndex(f)}
}
