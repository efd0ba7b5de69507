// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"maps"
	"slices"
)

// maxJumps is how deep the kernel jumps.
const maxJumps = 16

// flow is what of a chain matters to those that lead to it.
type flow struct {
	jumps []string // chains, by name
	maps  []string // verdict maps, by name
	check []Stmt   // statements that only some hooks have
}

// finish checks what only the whole can be checked for: where jumps lead.
func (t *tx) finish(cmds []*Command) {
	pos := Pos{}
	if len(cmds) > 0 {
		pos = cmds[len(cmds)-1].Pos
	}
	for _, tb := range t.rs.Tables {
		if !t.owned[tb] {
			continue
		}
		for _, ch := range tb.Chains {
			if t.owned[ch] {
				ch.flow = flowOf(ch)
			}
		}
		if t.jumpy[tb] {
			walkTable(tb, pos)
		}
		tb.index = nil
	}
}

// walkTable follows all jumps from all base chains.
func walkTable(tb *Table, pos Pos) {
	w := &walker{table: tb, pos: pos, depth: map[string]int{}, maps: map[string][]string{}}
	for _, ch := range tb.Chains {
		if ch.Base {
			w.base = ch
			w.seen = map[string]bool{}
			w.walk(ch.Name, 0, map[string]bool{})
		}
	}
}

// walker follows the jumps of a table.
type walker struct {
	table *Table
	base  *Chain
	pos   Pos
	seen  map[string]bool     // chains that were checked for this base chain
	depth map[string]int      // how deep a chain was entered at most
	maps  map[string][]string // where verdict maps lead
}

// walk checks a chain that is entered from the base chain.
func (w *walker) walk(name string, depth int, above map[string]bool) {
	if above[name] || depth > maxJumps {
		refuse(w.pos, TooManyLinks, "Could not process rule: %s", TooManyLinks)
	}
	ch := w.table.chain(name)
	if ch == nil || w.seen[name] && depth <= w.depth[name] {
		return
	}
	for _, s := range ch.flow.check {
		w.allowed(s)
	}
	w.seen[name] = true
	w.depth[name] = max(depth, w.depth[name])
	above[name] = true
	for _, to := range ch.flow.jumps {
		w.walk(to, depth+1, above)
	}
	for _, m := range ch.flow.maps {
		for _, to := range w.targets(m) {
			w.walk(to, depth+1, above)
		}
	}
	delete(above, name)
}

// targets are the chains that a verdict map leads to.
func (w *walker) targets(name string) []string {
	if list, ok := w.maps[name]; ok {
		return list
	}
	to := map[string]bool{}
	if s := w.table.set(name); s != nil {
		for e := range s.all() {
			if e.Verdict != nil && e.Verdict.Chain != "" {
				to[e.Verdict.Chain] = true
			}
		}
	}
	w.maps[name] = slices.Sorted(maps.Keys(to))
	return w.maps[name]
}

// flowOf reads the rules of a chain.
func flowOf(ch *Chain) *flow {
	jumps, tables := map[string]bool{}, map[string]bool{}
	f := &flow{}
	for _, r := range ch.Rules {
		r.visit(func(x any) {
			switch x := x.(type) {
			case *Verdict:
				if x.Chain != "" && x.Body == nil {
					jumps[x.Chain] = true
				}
			case *VMap:
				if x.Of.Set == nil {
					tables[x.Of.Name] = true
				}
			case *Reject:
				f.check = append(f.check, x)
			case *NAT:
				f.check = append(f.check, x)
			}
		})
	}
	f.jumps, f.maps = slices.Sorted(maps.Keys(jumps)), slices.Sorted(maps.Keys(tables))
	return f
}

// allowed refuses a statement that the hook of the base chain does not have.
func (w *walker) allowed(s Stmt) {
	ok := true
	switch s := s.(type) {
	case *NAT:
		ok = natHook(s.Kind, w.base)
	case *Reject:
		ok = rejectHook(w.table.Family, w.base.Hook)
	}
	if !ok {
		refuse(w.pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
}

// rejectHook says whether a hook has reject.
func rejectHook(f Family, h Hook) bool {
	switch f {
	case FamilyBridge:
		return h == HookPrerouting || h == HookInput
	case FamilyNetdev:
		return h == HookIngress
	default:
		return h != HookPostrouting && h != HookEgress
	}
}
