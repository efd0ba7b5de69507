// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"math/big"
	"math/bits"
	"strings"
)

// match checks a comparison.
func (c *checker) match(s *matchLit) {
	left := c.key(s.left)
	if x, ok := left.(*CT); ok && c.proto[BaseTransport] == "" && strings.HasPrefix(x.Key, "proto-") {
		fail(s.pos, "Can't parse symbolic invalid expressions: ct %s needs a transport protocol before it", x.Key)
	}
	fold(s, left)
	if set, ok := s.right.(*setLit); ok {
		c.matchSet(s, left, set)
		return
	}
	if set, ok := s.right.(*setName); ok {
		c.matchSet(s, left, set)
		return
	}
	m := &Match{Op: s.op, Left: left}
	if s.mask != nil {
		c.masked(s, m)
	} else {
		c.wraps = m.Op == Eq || m.Op == Ne
		m.Right = c.right(s.right, left)
		c.wraps = false
	}
	if c.wrapped {
		c.wrapped = false
		m.Op = map[Op]Op{Eq: Ne, Ne: Eq}[m.Op]
	}
	c.operator(s, m)
	if b, ok := left.(*Binary); ok && b.Op > BinXor {
		fail(s.pos, "datatype mismatch, expected %s, expression has type integer", b.Type.info().desc)
	}
	m = c.whole(c.simplify(m))
	c.existence(m)
	c.out = append(c.out, m)
	c.learn(m)
}

// fold takes the only element out of a set, as nft does.
func fold(s *matchLit, left Expr) {
	set, ok := s.right.(*setLit)
	if !ok || len(set.elems) != 1 {
		return
	}
	e := set.elems[0]
	_, star := e.key.(*starLit)
	if _, concat := left.(*Concat); concat || star || e.data != nil || e.comment != "" || len(e.stmts) > 0 {
		return
	}
	s.right = e.key
}

// right checks the constant that left is compared with.
func (c *checker) right(x Expr, left Expr) Expr {
	parts := specs(left)
	if len(parts) == 1 {
		return c.constant(x, c.boolean(x, left, parts[0]))
	}
	lit, ok := x.(*Concat)
	if !ok || len(lit.Parts) != len(parts) {
		fail(c.at(x), "datatype mismatch, expected concatenation of %d parts", len(parts))
	}
	out := &Concat{}
	for i, part := range lit.Parts {
		out.Parts = append(out.Parts, c.constant(part, parts[i]))
	}
	return out
}

// boolean lets "exists" and "missing" stand for what fib finds.
func (c *checker) boolean(x Expr, left Expr, spec Spec) Spec {
	f, ok := left.(*FIB)
	if s, isSymbol := x.(*symbol); ok && isSymbol && f.Result != "type" && (s.text == "exists" || s.text == "missing") {
		f.Exists = true
		f.Spec = Spec{Type: TypeBoolean, Bits: 8, Host: true}
		return f.Spec
	}
	if spec.Type == TypeBoolean {
		spec.Bits = 8
	}
	return spec
}

// existence lets only 0 and 1 be compared with whether something exists.
func (c *checker) existence(m *Match) {
	if v, ok := m.Right.(*Value); ok && v.Type == TypeBoolean {
		if v.Uint() > 1 {
			fail(c.pos, "Value %d exceeds valid range 0-1", v.Uint())
		}
		spec := specOf(m.Left)
		m.Right = smallValue(v.Uint(), spec)
	}
}

// masked reads "tcp flags syn / syn,ack".
func (c *checker) masked(s *matchLit, m *Match) {
	spec := specOf(m.Left)
	mask, ok1 := c.constant(s.mask, spec).(*Value)
	value, ok2 := c.constant(s.right, spec).(*Value)
	if !ok1 || !ok2 || !spec.Type.info().flag || !s.implicit && s.op != Eq && s.op != Ne {
		fail(s.pos, "syntax error: value / mask is for flags, with == or !=")
	}
	m.Left = &Binary{Spec: spec, Op: BinAnd, Left: m.Left, Right: mask}
	m.Right = value
}

// operator finds what a comparison without an operator does, and refuses those
// that have no sense.
func (c *checker) operator(s *matchLit, m *Match) {
	_, isValue := m.Right.(*Value)
	spec := specOf(m.Left)
	_, masked := m.Left.(*Binary)
	flag := spec.Type.info().flag && isValue && !masked
	switch {
	case s.implicit && flag:
		m.Op = AnyBit
	case s.op == NoBit && !flag:
		fail(s.pos, "operator ! is for flags")
	case s.op >= Lt && s.op <= Ge:
		c.order(s, m)
	}
	if r, ok := m.Right.(*Range); ok && s.op != Eq && s.op != Ne {
		fail(s.pos, "Range of %s needs == or !=", r.From.Type.info().desc)
	}
}

// order sees that values can be greater than one another.
func (c *checker) order(s *matchLit, m *Match) {
	v, ok := m.Right.(*Value)
	switch {
	case !ok:
		fail(s.pos, "Relational expression (%s) is undefined for prefix, range and concatenation", opNames[s.op])
	case v.Type.stringy():
		fail(s.pos, "Relational expression (%s) is undefined for %s types", opNames[s.op], v.Type.info().desc)
	}
}

var opNames = [...]string{Eq: "==", Ne: "!=", Lt: "<", Gt: ">", Le: "<=", Ge: ">=", AnyBit: "in", NoBit: "!"}

// simplify writes a comparison with a mask as the kernel's listing does.
func (c *checker) simplify(m *Match) *Match {
	b, ok := m.Left.(*Binary)
	v, isValue := m.Right.(*Value)
	if !ok || !isValue || m.Op != Eq && m.Op != Ne {
		return m
	}
	mask, ok := b.Right.(*Value)
	switch {
	case !ok:
		return m
	case b.Op == BinXor:
		return c.simplify(&Match{Op: m.Op, Left: b.Left, Right: &Value{Spec: v.Spec, Data: xorBits(v.Data, mask.Data)}})
	case b.Op != BinAnd:
		return m
	case mask.Data == allOnes(mask.Spec):
		return &Match{Op: m.Op, Left: b.Left, Right: v}
	case v.Type.info().flag:
		return someFlags(m, b, v, mask)
	}
	n := prefixLen(mask)
	if n > 0 && !rawLoad(b.Left) && andBits(v.Data, mask.Data) == v.Data {
		return &Match{Op: m.Op, Left: b.Left, Right: &Prefix{Addr: v, Len: n}}
	}
	return m
}

// someFlags is "flags & mask != 0" in fewer words.
func someFlags(m *Match, b *Binary, v, mask *Value) *Match {
	switch {
	case !isZero(v.Data):
		return m
	case m.Op == Ne:
		return &Match{Op: AnyBit, Left: b.Left, Right: mask}
	default:
		return &Match{Op: NoBit, Left: b.Left, Right: mask}
	}
}

// whole reads raw bits as whole bytes with a mask, as the kernel does.
func (c *checker) whole(m *Match) *Match {
	p, ok := m.Left.(*Payload)
	v, isValue := m.Right.(*Value)
	if !ok || !isValue || p.Proto != "" || p.Offset%8 == 0 && p.Bits%8 == 0 {
		return m
	}
	from, to := p.Offset/8*8, (p.Offset+int(p.Bits)+7)/8*8
	wide := *p
	wide.Offset, wide.Bits = from, uint16(to-from)
	shift := uint(to - p.Offset - int(p.Bits))
	place := func(data string) *Value {
		n := big.NewInt(0).SetBytes([]byte(data))
		return &Value{Spec: wide.Spec, Data: string(n.Lsh(n, shift).FillBytes(make([]byte, wide.Bytes())))}
	}
	left := &Binary{Spec: wide.Spec, Op: BinAnd, Left: &wide, Right: place(allOnes(p.Spec))}
	return &Match{Op: m.Op, Left: left, Right: place(v.Data)}
}

// prefixLen is how many bits at the front of a mask are set, if no others are;
// otherwise 0.
func prefixLen(mask *Value) int {
	n := 0
	for i := range len(mask.Data) {
		n += bits.OnesCount8(mask.Data[i])
	}
	if prefixMask(mask.Spec, n) != mask.Data {
		return 0
	}
	return n
}

// matchSet checks a look-up in a set.
func (c *checker) matchSet(s *matchLit, left, right Expr) {
	if s.op != Eq && s.op != Ne {
		fail(s.pos, "a set is looked up with == or !=")
	}
	of := c.setOf(right, left, &setShape{})
	c.out = append(c.out, &Match{Op: s.op, Left: left, Right: of})
}
