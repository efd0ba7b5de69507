// SPDX-License-Identifier: Apache-2.0

package nft

// visit shows all statements and expressions of a rule, also those of its
// anonymous chains and sets.
func (r *Rule) visit(see func(any)) {
	for _, s := range r.Stmts {
		visitStmt(s, see)
	}
}

func visitStmt(s Stmt, see func(any)) {
	see(s)
	switch s := s.(type) {
	case *Match:
		visitExpr(s.Left, see)
		visitExpr(s.Right, see)
	case *VMap:
		visitExpr(s.Key, see)
		visitExpr(s.Of, see)
	case *Verdict:
		for _, r := range s.Body {
			r.visit(see)
		}
	case *ObjectRef:
		if s.Map != nil {
			visitExpr(s.Map, see)
		}
	case *NAT:
		visitExpr(s.Addr, see)
		visitExpr(s.Port, see)
	case *Mangle:
		visitExpr(s.Key, see)
		visitExpr(s.Value, see)
	case *SetStmt:
		visitExpr(s.Key, see)
		visitExpr(s.Data, see)
		for _, x := range s.Stmts {
			visitStmt(x, see)
		}
	}
}

func visitExpr(x Expr, see func(any)) {
	if x == nil {
		return
	}
	see(x)
	switch x := x.(type) {
	case *Concat:
		for _, part := range x.Parts {
			visitExpr(part, see)
		}
	case *Binary:
		visitExpr(x.Left, see)
		visitExpr(x.Right, see)
	case *Hash:
		visitExpr(x.Of, see)
	case *Map:
		visitExpr(x.Key, see)
		visitExpr(x.Of, see)
	case *SetRef:
		if x.Set != nil {
			for e := range x.Set.all() {
				visitElem(e, see)
			}
		}
	}
}

// visitElem shows what an element refers to.
func visitElem(e *Elem, see func(any)) {
	if e.Verdict != nil {
		visitStmt(e.Verdict, see)
	}
}

// all goes through the elements, the catch-all last.
func (s *Set) all() func(yield func(*Elem) bool) {
	return func(yield func(*Elem) bool) {
		for e := range s.Elems.All() {
			if !yield(e) {
				return
			}
		}
		if s.Default != nil {
			yield(s.Default)
		}
	}
}

// Uses is the first rule, of a chain or of one that it leads to, that has a statement or
// an expression of which is says so; nil if there is none.
func (t *Table) Uses(c *Chain, is func(any) bool) (found *Rule) {
	u := usage{chains: map[string]*Chain{}, sets: map[string]*Set{}, seen: map[string]bool{}, is: is}
	for _, c := range t.Chains { // the table's own index is a transaction's
		u.chains[c.Name] = c
	}
	for _, s := range t.Sets {
		u.sets[s.Name] = s
	}
	u.look(c)
	return u.found
}

// usage looks for what Uses is asked for.
type usage struct {
	chains map[string]*Chain
	sets   map[string]*Set
	seen   map[string]bool // chains
	is     func(any) bool
	found  *Rule
}

func (u *usage) look(c *Chain) {
	if c == nil || u.seen[c.Name] {
		return
	}
	u.seen[c.Name] = true
	for _, r := range c.Rules {
		r.visit(func(x any) {
			u.follow(x)
			if u.found == nil && u.is(x) {
				u.found = r
			}
		})
	}
}

// follow looks at the chains that something leads to.
func (u *usage) follow(x any) {
	switch y := x.(type) {
	case *Verdict:
		u.look(u.chains[y.Chain])
	case *SetRef:
		s := u.sets[y.Name]
		if y.Set != nil || s == nil {
			return
		}
		for e := range s.all() {
			visitElem(e, func(z any) {
				if v, ok := z.(*Verdict); ok {
					u.look(u.chains[v.Chain])
				}
			})
		}
	}
}

// Names under which uses are counted.
const (
	useChain  = "chain "
	useSet    = "set "
	useObject = "object "
)

// use counts what a rule refers to, up or down; only once somebody has asked.
func (t *Table) use(r *Rule, n int) {
	if t.index.uses != nil {
		r.visit(func(x any) { t.index.count(x, n) })
	}
}

func (t *Table) useElem(s *Set, e *Elem, n int) {
	if t.index.uses == nil {
		return
	}
	visitElem(e, func(x any) { t.index.count(x, n) })
	if e.Object != "" {
		t.index.uses[useObject+s.ObjKind.String()+e.Object] += n
	}
}

func (i *tableIndex) count(x any, n int) {
	switch x := x.(type) {
	case *Verdict:
		if x.Chain != "" {
			i.uses[useChain+x.Chain] += n
		}
	case *SetRef:
		if x.Set == nil {
			i.uses[useSet+x.Name] += n
			return
		}
		for e := range x.Set.all() {
			if e.Object != "" {
				i.uses[useObject+x.Set.ObjKind.String()+e.Object] += n
			}
		}
	case *SetStmt:
		i.uses[useSet+x.Set] += n
	case *ObjectRef:
		if x.Name != "" {
			i.uses[useObject+x.Kind.String()+x.Name] += n
		}
	}
}

// used is how often something is referred to.
func (t *Table) used(name string) int {
	if t.index.uses == nil {
		t.index.uses = map[string]int{}
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				t.use(r, 1)
			}
		}
		for _, s := range t.Sets {
			for e := range s.all() {
				t.useElem(s, e, 1)
			}
		}
	}
	return t.index.uses[name]
}
