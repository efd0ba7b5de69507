// SPDX-License-Identifier: Apache-2.0

package nft

// checker turns what was parsed into the checked tree, for one rule or one set.
type checker struct {
	env    *Env
	table  *Table
	family Family
	base   *Chain // the base chain of the rule, nil if it is only jumped to
	spans  spans
	pos    Pos // of the rule or the command

	out   []Stmt
	proto [3]string // the header that is known at each base
	dep   [3]*Match // the statement that said so, while listing may leave it out
	// wraps: a range of hours may go past midnight; wrapped: one did.
	wraps, wrapped bool
	raw            bool // the field was given by its place: numbers will do for its values

	// chainName makes the name of an anonymous chain.
	chainName func() string
	// handle is the next handle of the table.
	handle func() uint64
	// fresh are the sets that the transaction made: one that packets add to gets
	// a limit of size, as by nft.
	fresh map[*Set]bool
}

// rule checks a rule.
func (c *checker) rule(r *ruleLit) *Rule {
	c.spans, c.pos = r.spans, r.pos
	c.start()
	terminal := false
	for _, s := range r.stmts {
		if terminal {
			fail(c.place(s), "Statement after terminal statement has no effect")
		}
		terminal = c.statement(s)
	}
	return &Rule{Stmts: mergeLoads(c.out), Comment: r.comment, Pos: r.pos}
}

// start sets what the family says of a packet.
func (c *checker) start() {
	c.out, c.dep = nil, [3]*Match{}
	c.proto = [3]string{}
	switch c.family {
	case FamilyIP:
		c.proto[BaseNetwork] = "ip"
	case FamilyIP6:
		c.proto[BaseNetwork] = "ip6"
	case FamilyARP:
		c.proto[BaseNetwork] = "arp"
	case FamilyBridge:
		c.proto[BaseLink] = "ether"
	default:
	}
}

// place is where a statement stands.
func (c *checker) place(s Stmt) Pos {
	switch s := s.(type) {
	case *simpleLit:
		return s.pos
	case *matchLit:
		return s.pos
	case *vmapLit:
		return s.pos
	case *verdictLit:
		return s.pos
	case *objectLit:
		return s.pos
	case *rejectLit:
		return s.pos
	case *natLit:
		return s.pos
	case *mangleLit:
		return s.pos
	case *setStmtLit:
		return s.pos
	default:
		return c.pos
	}
}

// at is where an expression stands, the rule if nobody knows.
func (c *checker) at(x Expr) Pos {
	if pos := c.spans.place(x); pos.Line > 0 {
		return pos
	}
	return c.pos
}

// statement checks one, and says whether nothing can follow it.
func (c *checker) statement(s Stmt) (terminal bool) {
	c.raw = false
	switch s := s.(type) {
	case *matchLit:
		c.match(s)
		return false
	case *mangleLit:
		c.mangle(s)
	case *vmapLit:
		c.vmap(s)
	case *verdictLit:
		c.add(c.verdict(s))
		return s.kind != Continue
	case *objectLit:
		c.objectRef(s)
	case *rejectLit:
		c.reject(s)
		return true
	case *natLit:
		c.nat(s)
		return true
	case *setStmtLit:
		c.setStmt(s)
	case *simpleLit:
		c.simple(s)
	}
	return false
}

// add appends a checked statement. Listing can't leave out what was said before
// a statement that does something.
func (c *checker) add(s Stmt) {
	c.out = append(c.out, s)
	c.dep = [3]*Match{}
}

// simple checks a statement without parts.
func (c *checker) simple(s *simpleLit) {
	if _, ok := s.Stmt.(*Notrack); ok && (c.family == FamilyNetdev || c.family == FamilyARP) {
		refuse(s.pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
	c.add(copyState(s.Stmt))
}

// verdict checks a verdict. That its chain exists is seen at the end of a
// transaction, with loops.
func (c *checker) verdict(v *verdictLit) *Verdict {
	out := &Verdict{Kind: v.kind, Chain: v.chain}
	if v.body == nil {
		if (v.kind == Jump || v.kind == Goto) && c.table != nil {
			c.target(v)
		}
		return out
	}
	out.Chain = c.chainName()
	for _, r := range v.body {
		inner := &checker{env: c.env, table: c.table, family: c.family, chainName: c.chainName, handle: c.handle, fresh: c.fresh}
		rule := inner.rule(r)
		rule.Handle = c.handle()
		out.Body = append(out.Body, rule)
	}
	return out
}

func (c *checker) target(v *verdictLit) {
	chain := c.table.chain(v.chain)
	if chain == nil {
		refuse(v.pos, NotFound, "Could not process rule: %s", NotFound)
	}
	if chain.Base {
		refuse(v.pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
}

// vmap checks a verdict map.
func (c *checker) vmap(s *vmapLit) {
	key := c.key(s.key)
	of := c.setOf(s.of, key, &setShape{data: []Spec{{Type: TypeVerdict}}, isMap: true})
	c.out = append(c.out, &VMap{Key: key, Of: of})
}

// objectRef checks "counter name x".
func (c *checker) objectRef(s *objectLit) {
	switch x := s.name.(type) {
	case *symbol:
		if c.table.object(s.kind, x.text) == nil {
			refuse(x.pos, NotFound, "Could not process rule: %s", NotFound)
		}
		c.add(&ObjectRef{Kind: s.kind, Name: x.text})
	case *mapLit:
		key := c.key(x.key)
		of := c.setOf(x.of, key, &setShape{isMap: true, obj: s.kind})
		c.add(&ObjectRef{Kind: s.kind, Map: &Map{Key: key, Of: of}})
	default:
		fail(s.pos, "expecting the name of a %s or a map of names", s.kind)
	}
}

// setStmt checks "add @set { … }".
func (c *checker) setStmt(s *setStmtLit) {
	set := c.table.set(s.set.name)
	if set == nil {
		refuse(s.set.pos, NotFound, "No such file or directory; did you mean another set in table %s '%s'?", c.family, c.table.Name)
	}
	c.mayUpdate(s, set)
	out := &SetStmt{Op: s.op, Set: set.Name, Timeout: s.elem.timeout, Expires: s.elem.expires, Comment: s.elem.comment}
	if set.Dynamic && set.Size == 0 && c.fresh[set] {
		set.Size = 65535
	}
	out.Key = c.elemKey(s.elem.key, set)
	c.sameTypes(s.elem.key, out.Key, set.Key)
	if set.IsMap != (s.elem.data != nil) {
		fail(s.pos, "%s is a %s", set.Name, map[bool]string{true: "map: expecting key : value", false: "set: it has no values"}[set.IsMap])
	}
	if s.elem.data != nil {
		out.Data = c.dataOf(s.elem.data, set)
	}
	for _, st := range s.elem.stmts {
		out.Stmts = append(out.Stmts, copyState(st))
	}
	c.add(out)
}

// elemKey checks the key of an element that a packet makes; parts of it may be
// constant.
func (c *checker) elemKey(x Expr, set *Set) Expr {
	lit, ok := x.(*Concat)
	if !ok || len(lit.Parts) != len(set.Key) {
		return c.key(x)
	}
	out := &Concat{}
	for i, part := range lit.Parts {
		if s, ok := part.(*symbol); ok {
			out.Parts = append(out.Parts, c.value(s, set.Key[i]))
			continue
		}
		out.Parts = append(out.Parts, c.key(part))
	}
	return out
}

func (c *checker) dataOf(x Expr, set *Set) Expr {
	if v, ok := x.(*verdictLit); ok {
		if set.Data[0].Type != TypeVerdict {
			fail(v.pos, "datatype mismatch: map expects %s, mapping expression has type netfilter verdict", set.Data[0].Type.info().desc)
		}
		return c.verdict(v)
	}
	return c.assigned(x, set.Data)
}

// mayUpdate says whether packets can change a set.
func (c *checker) mayUpdate(s *setStmtLit, set *Set) {
	if set.Constant || set.Interval || set.ObjKind != ObjNone {
		refuse(s.set.pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
	if fixed := set.keySize() <= 2 || set.Size > 0 && !set.HasTimeout; fixed && !set.Dynamic {
		refuse(s.set.pos, NotSupported, "Could not process rule: %s", NotSupported) // a bitmap, a table of fixed size
	}
	if len(s.elem.stmts) > 0 && !set.Dynamic {
		refuse(s.set.pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
	if s.elem.hasTimeout && !set.HasTimeout {
		refuse(s.set.pos, Invalid, "Could not process rule: %s", Invalid)
	}
}

// keySize is how many bytes a key has.
func (s *Set) keySize() int {
	n := 0
	for _, spec := range s.Key {
		n += spec.Bytes()
	}
	return n
}

// copyState copies a statement that keeps state, so that two rules that were
// written with one variable don't share it.
func copyState(s Stmt) Stmt {
	switch s := s.(type) {
	case *Counter:
		c := *s
		return &c
	case *Quota:
		c := *s
		return &c
	case *Limit:
		c := *s
		return &c
	case *Last:
		c := *s
		return &c
	case *CTCount:
		c := *s
		return &c
	default:
		return s
	}
}
