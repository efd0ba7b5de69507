// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// Theory of operation.
//
// A packet that passes a thousand rules which count has a thousand actions, and so have
// all packets that pass the same ones, of whatever flow. Such a list is kept once, as a
// Path, for all flows of an evaluator that have it, and counts its packets by itself: what
// it has counted is added to the counters of its rules when somebody looks at them. So a
// packet costs the same whether one rule counts it or a thousand do.
//
// Paths are bounded, all of an evaluator together. When there is no room for another, or
// the ruleset has changed, all of them end, and flows that refer to one are evaluated
// again. What is put off are counters of rules and objects only, which nobody else gets
// when they are gone; those of elements are used again, and count at once.

// MaxActions is how many actions a Record holds, and Few how many a flow has of its own.
const (
	MaxActions = 4096
	Few        = 24
)

// The bounds of an evaluator's paths, in what they cost: a counter one, another action as
// much memory as eight; and of those that have one hash.
const (
	maxPaths  = 1 << 16
	pathCosts = 32
	maxAlike  = 8
)

// Path is the actions of flows that have many of them. It is the evaluator's who made it.
type Path struct {
	counts []*state // of rules and objects: Kind is counter or last
	rest   []Action
	next   *Path // of the same hash
	over   bool

	packets, bytes atomic.Uint64 // not yet added to counts
	last           atomic.Int64
}

// paths are those of an evaluator. The lock is taken by who adds to them, or settles.
type paths struct {
	mu     sync.Mutex
	byHash map[uint64]*Path // +checklocks:mu
	cost   int              // +checklocks:mu
	gen    uint64           // +checklocks:mu
}

// Path is the one of what was recorded between two places; nil if it can't be kept.
func (e *Evaluator) Path(r *Record, from, to Mark) *Path {
	actions, more := r.actions[from.Actions:to.Actions], r.more[from.more:to.more]
	k := &e.paths
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gen != e.snap.gen {
		k.end()
		k.gen = e.snap.gen
	}
	h, alike := mixMark(hashActions(actions), from.sum)^to.sum, 0
	for p := k.byHash[h]; p != nil; p = p.next {
		if p.is(actions, more) {
			return p
		}
		alike++
	}
	if alike == maxAlike {
		return nil
	}
	p := newPath(actions, more)
	cost := pathCosts + len(p.counts) + 8*len(p.rest)
	if k.cost+cost > maxPaths {
		k.end()
	}
	if k.byHash == nil {
		k.byHash = map[uint64]*Path{}
	}
	k.cost += cost
	p.next = k.byHash[h]
	k.byHash[h] = p
	return p
}

func newPath(actions []Action, more []*state) *Path {
	p := &Path{}
	for i := range actions {
		if a := &actions[i]; a.waits() {
			p.counts = append(p.counts, a.state)
		} else {
			p.rest = append(p.rest, *a)
		}
	}
	p.counts, p.rest = slices.Concat(p.counts, more), slices.Clip(p.rest)
	return p
}

// waits reports whether it can be put off.
func (a *Action) waits() bool { return a.kind == actCount && a.own }

// is reports whether the path is that of these actions.
func (p *Path) is(actions []Action, more []*state) bool {
	counts, rest := p.counts, p.rest
	for i := range actions {
		switch a := &actions[i]; {
		case !a.waits():
			if len(rest) == 0 || rest[0] != *a {
				return false
			}
			rest = rest[1:]
		case len(counts) == 0 || counts[0] != a.state:
			return false
		default:
			counts = counts[1:]
		}
	}
	return len(rest) == 0 && slices.Equal(counts, more)
}

// hashActions tells paths apart, as far as that is cheap. Of what is behind Few actions, the
// sum of a Mark does.
func hashActions(actions []Action) uint64 {
	h := uint64(len(actions))
	for i := range actions {
		a := &actions[i]
		x := uint64(a.kind) ^ a.v.hi<<8 ^ a.v.lo<<16 ^ uint64(a.life)<<40
		if a.state != nil {
			x ^= a.state.mark
		}
		if a.elem != nil {
			for _, word := range a.elem.key {
				x = x*hashFactor ^ word
			}
		}
		h = mixMark(h, x)
	}
	return h
}

// mixMark adds a number to a hash.
func mixMark(h, x uint64) uint64 { return bits.RotateLeft64(h^x, 29) * hashFactor }

const hashFactor = 0x9e3779b97f4a7c15

// Hold is as the function Hold.
func (p *Path) Hold(pkt *Packet) bool { return !p.over && Hold(p.rest, pkt) }

// Replay is as the function Replay.
func (p *Path) Replay(pkt *Packet, n, bytes uint64) {
	if len(p.counts) > 0 {
		p.last.Store(pkt.Now)
		p.packets.Add(n)
		p.bytes.Add(bytes)
	}
	Replay(p.rest, pkt, n, bytes)
}

// settle adds to the counters what was counted since. Who has the evaluator may count on
// meanwhile.
func (p *Path) settle() {
	packets, bytes := p.packets.Swap(0), p.bytes.Swap(0)
	if packets == 0 && bytes == 0 {
		return
	}
	last := p.last.Load()
	for _, s := range p.counts {
		if s.Kind == CounterState {
			s.count(packets, bytes)
		} else {
			s.a.Store(max(s.a.Load(), last))
		}
	}
}

// settle is that for all paths.
func (k *paths) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.byHash {
		for ; p != nil; p = p.next {
			p.settle()
		}
	}
}

// end ends all paths. The evaluator's owner calls it: nobody counts meanwhile.
//
// +checklocks:k.mu
func (k *paths) end() {
	for _, p := range k.byHash {
		for ; p != nil; p = p.next {
			p.settle()
			p.over, p.counts, p.rest = true, nil, nil // flows may refer to it for long
		}
	}
	clear(k.byHash)
	k.cost = 0
}

// settle lets the counters say what was counted up to now.
//
// +checklocks:e.mu
func (e *Engine) settle() {
	for _, ev := range e.evaluators {
		ev.paths.settle()
	}
}

// close forgets an evaluator.
func (e *Engine) close(ev *Evaluator) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ev.paths.mu.Lock()
	defer ev.paths.mu.Unlock()
	ev.paths.end()
	e.evaluators = slices.DeleteFunc(e.evaluators, func(x *Evaluator) bool { return x == ev })
}
