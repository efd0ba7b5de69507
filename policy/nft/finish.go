// SPDX-License-Identifier: Apache-2.0

package nft

// maxJumps is how deep the kernel jumps.
const maxJumps = 16

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
		w := &walker{table: tb, pos: pos, jumps: map[string][]string{}, rules: map[string][]Stmt{}, depth: map[string]int{}}
		for _, ch := range tb.Chains {
			if ch.Base {
				w.base = ch
				w.seen = map[string]bool{}
				w.walk(ch.Name, 0, map[string]bool{})
			}
		}
		tb.index = nil
	}
}

// walker follows the jumps of a table.
type walker struct {
	table *Table
	base  *Chain
	pos   Pos
	seen  map[string]bool // chains that were checked for this base chain
	depth map[string]int  // how deep a chain was entered at most
	jumps map[string][]string
	rules map[string][]Stmt // statements that only some hooks have
}

// walk checks a chain that is entered from the base chain.
func (w *walker) walk(name string, depth int, above map[string]bool) {
	if above[name] || depth > maxJumps {
		refuse(w.pos, TooManyLinks, "Could not process rule: %s", TooManyLinks)
	}
	if !w.seen[name] {
		w.seen[name] = true
		w.read(name)
		for _, s := range w.rules[name] {
			w.allowed(s)
		}
	} else if depth <= w.depth[name] {
		return
	}
	w.depth[name] = depth
	above[name] = true
	for _, to := range w.jumps[name] {
		w.walk(to, depth+1, above)
	}
	delete(above, name)
}

// read finds where a chain jumps to, once.
func (w *walker) read(name string) {
	if _, ok := w.jumps[name]; ok {
		return
	}
	w.jumps[name] = nil
	ch := w.table.chain(name)
	if ch == nil {
		return
	}
	to := map[string]bool{}
	for _, r := range ch.Rules {
		r.visit(func(x any) { w.look(name, x, to) })
	}
	for n := range to {
		w.jumps[name] = append(w.jumps[name], n)
	}
}

func (w *walker) look(name string, x any, to map[string]bool) {
	switch x := x.(type) {
	case *Verdict:
		if x.Chain != "" && x.Body == nil {
			to[x.Chain] = true
		}
	case *VMap:
		if x.Of.Set == nil {
			w.lookMap(w.table.set(x.Of.Name), to)
		}
	case *Reject, *NAT, *Mangle, *FIB:
		if s, ok := x.(Stmt); ok {
			w.rules[name] = append(w.rules[name], s)
		}
	}
}

func (w *walker) lookMap(s *Set, to map[string]bool) {
	if s == nil {
		return
	}
	for e := range s.all() {
		if e.Verdict != nil && e.Verdict.Chain != "" {
			to[e.Verdict.Chain] = true
		}
	}
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
