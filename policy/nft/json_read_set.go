// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strings"
)

// set reads a set or a map; its elements are a command of their own.
func (r *reader) set(c *Command, f fields) []*Command {
	c.Handle = 0
	s := &setSpec{
		isMap: c.Kind == KindMap, timeout: r.seconds(f, "timeout"), gc: r.seconds(f, "gc-interval"), size: r.uint(f, "size", 32),
		autoMerge: r.bool(f, "auto-merge"), comment: r.text(f, "comment"), flags: r.symbols(f["flags"], "flags"), pos: r.pos,
	}
	c.set = s
	s.key, s.typeof = r.types(f["type"])
	s.hasKey = s.key != nil
	if s.isMap {
		r.mapType(s, f["map"])
	}
	if p := r.text(f, "policy"); p != "" {
		s.policy = r.symbol(p)
	}
	for _, v := range items(f["stmt"]) {
		s.stmts = append(s.stmts, r.state(v))
	}
	if f["elem"] == nil {
		return []*Command{c}
	}
	e := *c
	e.Op, e.Kind, e.set, e.elems = OpAdd, KindElement, nil, r.elems(f["elem"])
	s.dataInterval = slices.ContainsFunc(e.elems.elems, func(e *elemLit) bool { return isInterval(e.data) })
	return []*Command{c, &e}
}

// types reads the types of a key: names, or an expression that has them.
func (r *reader) types(v any) (out []Expr, typeof bool) {
	if f, ok := v.(map[string]any); ok {
		if x, ok := f["typeof"]; ok {
			v = x
		}
		x := r.expr(v)
		if c, ok := x.(*Concat); ok {
			return c.Parts, true
		}
		return []Expr{x}, true
	}
	for _, x := range items(v) {
		s, ok := x.(string)
		if !ok {
			r.fail("type: expecting names of types, or an expression")
		}
		for name := range strings.SplitSeq(s, " . ") {
			out = append(out, r.symbol(name))
		}
	}
	return out, false
}

// mapType reads what a map has for values.
func (r *reader) mapType(s *setSpec, v any) {
	if name, ok := v.(string); ok && objectKind(name) != ObjNone {
		s.objKind = objectKind(name)
		return
	}
	s.data, s.typeofData = r.types(v)
}

// isInterval says whether a value is a range or a prefix.
func isInterval(x Expr) bool {
	switch x := x.(type) {
	case *rangeLit, *prefixLit:
		return true
	case *Concat:
		return slices.ContainsFunc(x.Parts, isInterval)
	}
	return false
}

// elems reads elements; of a map they are pairs.
func (r *reader) elems(v any) *setLit {
	defer r.enter()()
	s := &setLit{pos: r.pos}
	for _, x := range items(v) {
		s.elems = append(s.elems, r.elem(x))
	}
	return s
}

// elem reads an element: a value, one with options, or a pair.
func (r *reader) elem(v any) *elemLit {
	if pair, ok := v.([]any); ok {
		if len(pair) != 2 {
			r.fail("an element of a map is a pair")
		}
		e := r.elem(pair[0])
		e.data = r.data(pair[1])
		return e
	}
	e := &elemLit{pos: r.pos}
	f, _ := v.(map[string]any)
	inner, ok := f["elem"]
	if !ok {
		e.key = r.keyExpr(v)
		return e
	}
	o := r.object(inner, "elem")
	e.key = r.keyExpr(o["val"])
	e.timeout, e.expires, e.comment = r.seconds(o, "timeout"), r.seconds(o, "expires"), r.text(o, "comment")
	_, e.hasTimeout = o["timeout"]
	for _, name := range []string{"counter", "quota", "limit", "last", "ct count"} {
		if x, ok := o[name]; ok {
			e.stmts = append(e.stmts, r.state(map[string]any{name: x}))
		}
	}
	return e
}

// keyExpr reads the key of an element; "*" is the catch-all.
func (r *reader) keyExpr(v any) Expr {
	if s, ok := v.(string); ok && s == "*" {
		return &starLit{pos: r.pos}
	}
	return r.expr(v)
}

// data reads the value of a map's element.
func (r *reader) data(v any) Expr {
	if f, ok := v.(map[string]any); ok && len(f) == 1 {
		for name, x := range f {
			if _, ok := verdictKind(name); ok {
				return r.verdict(name, x)
			}
		}
	}
	return r.expr(v)
}

// verdict reads a verdict.
func (r *reader) verdict(name string, v any) *verdictLit {
	kind, _ := verdictKind(name)
	l := &verdictLit{kind: kind, pos: r.pos}
	if kind != Jump && kind != Goto {
		return l
	}
	if rules, ok := r.object(v, name)["chain"]; ok {
		for _, x := range items(rules) {
			l.body = append(l.body, r.ruleLit(r.object(x, "chain")))
		}
		return l
	}
	l.chain = r.needText(r.object(v, name), "target")
	return l
}

// state reads a statement that keeps state.
func (r *reader) state(v any) Stmt {
	s, ok := r.stmt(v).(*simpleLit)
	if ok {
		switch s.Stmt.(type) {
		case *Counter, *Quota, *Limit, *Last, *CTCount:
			return s.Stmt
		}
	}
	r.fail("expecting a counter, quota, limit, last or ct count")
	return nil
}
