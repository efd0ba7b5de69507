// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strings"
)

// spec is the type of an expression that is embedded with one.
func (s Spec) spec() Spec { return s }

// specOf is the type of an expression; of a concatenation that of its first part.
func specOf(x Expr) Spec {
	switch x := x.(type) {
	case interface{ spec() Spec }:
		return x.spec()
	case *Range:
		return x.From.Spec
	case *Prefix:
		return x.Addr.Spec
	case *Concat:
		return specOf(x.Parts[0])
	default:
		return Spec{}
	}
}

// specs are the types of the parts of an expression.
func specs(x Expr) []Spec {
	c, ok := x.(*Concat)
	if !ok {
		return []Spec{specOf(x)}
	}
	var list []Spec
	for _, part := range c.Parts {
		list = append(list, specOf(part))
	}
	return list
}

// key checks an expression of the packet.
func (c *checker) key(x Expr) Expr {
	switch x := x.(type) {
	case *Concat:
		out := &Concat{}
		for _, part := range x.Parts {
			out.Parts = append(out.Parts, c.key(part))
		}
		return out
	case *Binary:
		return c.binary(x)
	case *mapLit:
		return c.mapOf(x, nil)
	case *symbol:
		if _, ok := parseNumber(x.text); ok {
			fail(x.pos, "Can't use a constant as the left of a comparison")
		}
		fail(x.pos, "syntax error, unexpected '%s', expecting an expression of a packet, or a statement", x.text)
	case nil:
		fail(c.pos, "expecting an expression")
	}
	if out := c.bytes(x); out != nil {
		return out
	}
	if out := c.about(x); out != nil {
		return out
	}
	fail(c.at(x), "expecting an expression of a packet")
	return nil
}

// bytes checks an expression that reads bytes, nil if it is another.
func (c *checker) bytes(x Expr) Expr {
	switch x := x.(type) {
	case *Payload:
		return c.payload(x)
	case *ExtHdr:
		return c.extension(x)
	case *TCPOption:
		c.needTransport("tcp", c.at(x))
		c.hide(BaseTransport)
		return x
	case *IPOption:
		c.needNetwork("ip", c.at(x))
		c.hide(BaseNetwork)
		return x
	}
	return nil
}

// about checks an expression of what is known besides the bytes, nil if it is
// another.
func (c *checker) about(x Expr) Expr {
	switch x := x.(type) {
	case *CT:
		return c.ctKey(x)
	case *RT:
		return c.rtKey(x)
	case *Meta:
		return c.metaKey(x)
	case *FIB:
		return c.fibKey(x)
	case *Hash:
		h := *x
		if h.Of != nil {
			h.Of = c.key(h.Of)
		}
		return &h
	case *Numgen:
		n := *x
		return &n
	}
	return nil
}

func (c *checker) extension(x *ExtHdr) Expr {
	pos := c.at(x)
	if c.family == FamilyIP || c.family == FamilyARP {
		fail(pos, "cannot use exthdr with %s", c.family)
	}
	c.needNetwork("ip6", pos)
	c.hide(BaseNetwork)
	if rest, ok := strings.CutPrefix(x.Field, "addr["); ok {
		sid := *x
		sid.Header, sid.Field = "srh", "sid["+rest
		return &sid
	}
	return x
}

func (c *checker) fibKey(x *FIB) Expr {
	if c.family == FamilyARP || c.family == FamilyBridge {
		refuse(c.at(x), NotSupported, "Could not process rule: fib is not supported in family %s", c.family)
	}
	f := *x
	return &f
}

func (c *checker) metaKey(x *Meta) Expr {
	switch {
	case x.Key == "nfproto" && c.family != FamilyInet:
		fail(c.at(x), "meta nfproto is only useful in the inet family")
	case x.Key == "nftrace":
		refuse(c.at(x), NotSupported, "Could not process rule: %s", NotSupported)
	}
	return x
}

// payload checks a field of a header.
func (c *checker) payload(x *Payload) Expr {
	if x.Proto == "" {
		return c.named(x)
	}
	pos := c.at(x)
	if x.Proto == "th" {
		if known := headerTable[c.proto[BaseTransport]]; known != nil {
			if f, ok := known.find(x.Field); ok {
				x = known.payload(f)
			}
		}
	}
	c.header(x, pos)
	c.needICMPType(x, pos)
	if x.Field == "cfi" {
		f, _ := headerTable["vlan"].find("dei")
		return headerTable["vlan"].payload(f)
	}
	return x
}

// named gives raw bytes the name of their field, if the header is known.
func (c *checker) named(x *Payload) Expr {
	proto := c.proto[x.Base]
	if proto == "" && x.Base == BaseTransport {
		proto = "th"
	}
	h := headerTable[proto]
	if h == nil {
		return x
	}
	for _, f := range h.fields {
		if f.offset == x.Offset && f.bits == x.Bits {
			c.hide(x.Base)
			c.raw = true
			return h.payload(f)
		}
	}
	return x
}

// ctKey checks a key of a connection.
func (c *checker) ctKey(x *CT) Expr {
	pos := c.at(x)
	k := ctTable[x.Key]
	switch {
	case k.must && x.Dir == DirNone:
		fail(pos, "ct %s: need a direction, original or reply", x.Key)
	case !k.dir && x.Dir != DirNone:
		fail(pos, "ct %s has no direction", x.Key)
	}
	out := *x
	switch x.Key {
	case "saddr", "daddr":
		out.Family = c.addrFamily(x.Family, pos)
		c.needNetwork(map[Family]string{FamilyIP: "ip", FamilyIP6: "ip6"}[out.Family], pos)
		c.hide(BaseNetwork)
		out.Spec = rtNexthop(out.Family)
	case "protocol":
		out.Dir = DirNone
		c.hide(BaseNetwork)
	}
	return &out
}

// addrFamily is the family of an address of which only that much is said.
func (c *checker) addrFamily(f Family, pos Pos) Family {
	if f != FamilyNone {
		return f
	}
	switch c.proto[BaseNetwork] {
	case "ip":
		return FamilyIP
	case "ip6":
		return FamilyIP6
	}
	fail(pos, "Can't parse symbolic invalid expressions: say ip or ip6")
	return FamilyNone
}

func (c *checker) rtKey(x *RT) Expr {
	pos := c.at(x)
	if c.family != FamilyIP && c.family != FamilyIP6 && c.family != FamilyInet {
		fail(pos, "rt expressions are only useful in the ip, ip6 and inet families")
	}
	out := *x
	if x.Key == "nexthop" {
		out.Family = c.addrFamily(x.Family, pos)
		if c.family != FamilyInet && c.family != out.Family {
			fail(pos, "%s nexthop will not match", out.Family)
		}
		out.Spec = rtNexthop(out.Family)
	}
	return &out
}

// binary checks an operation on bits; its right side is constant.
func (c *checker) binary(x *Binary) Expr {
	left := c.key(x.Left)
	spec := specOf(left)
	if spec.Type.stringy() {
		fail(c.at(x), "Binary operation is undefined for %s types", spec.Type.info().desc)
	}
	rs := spec
	if x.Op == BinShl || x.Op == BinShr {
		rs = Spec{Type: TypeInteger, Bits: 32, Host: true}
	}
	right, ok := c.constant(x.Right, rs).(*Value)
	if !ok {
		fail(c.at(x.Right), "Right hand side of a binary operation must be one constant")
	}
	return foldBits(&Binary{Spec: spec, Op: x.Op, Left: left, Right: right})
}

// constant checks a constant of a type: a value, a range, a prefix.
func (c *checker) constant(x Expr, spec Spec) Expr {
	switch x := x.(type) {
	case *symbol:
		return c.value(x, spec)
	case *rangeLit:
		return c.rangeOf(x, spec)
	case *prefixLit:
		return c.prefix(x, spec)
	case *listLit:
		return c.flags(x, spec)
	case *Binary:
		return c.foldConstant(x, spec)
	case *starLit:
		fail(x.pos, "the catch-all element can't be here")
	case *verdictLit:
		fail(x.pos, "datatype mismatch: expected %s, expression has type netfilter verdict", spec.Type.info().desc)
	case *Concat:
		fail(c.at(x), "Unexpected concatenation, expected %s", spec.Type.info().desc)
	case *setLit, *setName, *mapLit:
		fail(c.at(x), "Set expression is undefined here")
	default:
		if isSelector(x) {
			fail(c.at(x), "Right hand side of relational expression must be constant")
		}
		fail(c.at(x), "expecting a constant")
	}
	return nil
}

func isSelector(x Expr) bool {
	switch x.(type) {
	case *Payload, *Meta, *CT, *FIB, *RT, *Numgen, *Hash, *ExtHdr, *TCPOption, *IPOption, *Map, *mapLit:
		return true
	}
	return false
}

// value is the value of a word.
func (c *checker) value(s *symbol, spec Spec) *Value {
	if spec.Type == TypeInvalid {
		fail(s.pos, "Can't parse symbolic invalid expressions")
	}
	v, err := constant(s.text, spec, c.env)
	if err != nil && c.raw {
		v, err = constant(s.text, Spec{Type: TypeInteger, Bits: spec.Bits}, c.env)
	}
	if err != nil {
		fail(s.pos, "%v", err)
	}
	v.Spec = spec
	if spec.Type.stringy() && v.Bits == 0 {
		v.Bits = 128
	}
	return v
}

func (c *checker) rangeOf(x *rangeLit, spec Spec) Expr {
	from, ok1 := c.constant(x.from, spec).(*Value)
	to, ok2 := c.constant(x.to, spec).(*Value)
	if !ok1 || !ok2 {
		fail(c.at(x), "a range goes from a value to a value")
	}
	if from.Data > to.Data && spec.Type == TypeTimeHour && c.wraps {
		c.wrapped = true
		return &Range{From: to, To: from}
	}
	if from.Data > to.Data {
		fail(c.at(x), "Range has zero or negative size")
	}
	return &Range{From: from, To: to}
}

func (c *checker) prefix(x *prefixLit, spec Spec) Expr {
	if spec.Type.stringy() || spec.Type == TypeVerdict {
		fail(c.at(x), "Prefix expression is undefined for %s types", spec.Type.info().desc)
	}
	v, ok := c.constant(x.addr, spec).(*Value)
	if !ok {
		fail(c.at(x), "a prefix is of an address")
	}
	if x.len > int(spec.Bits) {
		fail(c.at(x), "Prefix length %d is invalid for type of %d bits width", x.len, spec.Bits)
	}
	masked := &Value{Spec: spec, Data: andBits(v.Data, prefixMask(spec, x.len))}
	if x.len == int(spec.Bits) {
		return masked
	}
	return &Prefix{Addr: masked, Len: x.len}
}

// prefixMask has the first n of a type's bits set.
func prefixMask(spec Spec, n int) string {
	size := spec.Bytes()
	b := make([]byte, size)
	for i := size*8 - int(spec.Bits); i < size*8-int(spec.Bits)+n; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return string(b)
}

// allOnes has all bits of a type set.
func allOnes(spec Spec) string { return prefixMask(spec, int(spec.Bits)) }

func bitwise(a, b string, op func(x, y byte) byte) string {
	out := make([]byte, len(a))
	for i := range out {
		out[i] = op(a[i], b[i])
	}
	return string(out)
}

func andBits(a, b string) string { return bitwise(a, b, func(x, y byte) byte { return x & y }) }
func orBits(a, b string) string  { return bitwise(a, b, func(x, y byte) byte { return x | y }) }
func xorBits(a, b string) string { return bitwise(a, b, func(x, y byte) byte { return x ^ y }) }

func isZero(data string) bool {
	for i := range len(data) {
		if data[i] != 0 {
			return false
		}
	}
	return true
}

// flags is a list of flags: their bits together.
func (c *checker) flags(x *listLit, spec Spec) Expr {
	if !spec.Type.info().flag && spec.Type != TypeBitmask {
		fail(c.at(x), "Basetype of type %s is not bitmask", spec.Type.info().desc)
	}
	sum := smallValue(0, spec)
	for _, item := range x.items {
		v, ok := c.constant(item, spec).(*Value)
		if !ok {
			fail(c.at(item), "expecting a flag")
		}
		sum.Data = orBits(sum.Data, v.Data)
	}
	return sum
}

// foldConstant computes an operation on two constants.
func (c *checker) foldConstant(x *Binary, spec Spec) Expr {
	a, ok1 := c.constant(x.Left, spec).(*Value)
	rs := spec
	if x.Op == BinShl || x.Op == BinShr {
		rs = Spec{Type: TypeInteger, Bits: 32}
	}
	b, ok2 := c.constant(x.Right, rs).(*Value)
	if !ok1 || !ok2 {
		fail(c.at(x), "expecting constants")
	}
	out := &Value{Spec: spec}
	switch x.Op {
	case BinAnd:
		out.Data = andBits(a.Data, b.Data)
	case BinOr:
		out.Data = orBits(a.Data, b.Data)
	case BinXor:
		out.Data = xorBits(a.Data, b.Data)
	default:
		return c.foldShift(x, a, b.Uint())
	}
	return out
}

func (c *checker) foldShift(x *Binary, a *Value, n uint64) Expr {
	if a.Bits > 64 || n >= uint64(a.Bits) {
		fail(c.at(x), "shift by %d bits is undefined for a type of %d bits", n, a.Bits)
	}
	u := a.Uint()
	if x.Op == BinShl {
		u = u << n & uintOf(allOnes(a.Spec))
	} else {
		u >>= n
	}
	return smallValue(u, a.Spec)
}

// foldBits puts a chain of operations on bits with constants into the form that
// the kernel has: one mask, then one "exclusive or"; and back into the words
// that nft lists it with.
func foldBits(b *Binary) Expr {
	inner, ok := b.Left.(*Binary)
	if !ok || b.Op > BinXor || inner.Op > BinXor {
		return b
	}
	var chain []*Binary
	var x Expr = b
	for {
		n, ok := x.(*Binary)
		if !ok || n.Op > BinXor {
			break
		}
		chain = append(chain, n)
		x = n.Left
	}
	mask, xor := allOnes(b.Spec), smallValue(0, b.Spec).Data
	for _, n := range slices.Backward(chain) {
		v := n.Right.(*Value).Data
		switch n.Op {
		case BinAnd:
			mask, xor = andBits(mask, v), andBits(xor, v)
		case BinOr:
			mask = andBits(mask, xorBits(v, allOnes(b.Spec)))
			xor = orBits(andBits(xor, xorBits(v, allOnes(b.Spec))), v)
		default:
			xor = xorBits(xor, v)
		}
	}
	return bitsInWords(x, b.Spec, mask, xor)
}

// bitsInWords is (x & mask) ^ xor with the fewest operations.
func bitsInWords(x Expr, spec Spec, mask, xor string) Expr {
	ones := allOnes(spec)
	or := andBits(xor, xorBits(mask, ones))
	xor = andBits(xor, mask)
	mask = orBits(mask, or)
	for _, step := range []struct {
		op   BinOp
		data string
		skip bool
	}{{BinAnd, mask, mask == ones}, {BinXor, xor, isZero(xor)}, {BinOr, or, isZero(or)}} {
		if !step.skip {
			x = &Binary{Spec: spec, Op: step.op, Left: x, Right: &Value{Spec: spec, Data: step.data}}
		}
	}
	return x
}

// sameExpr says whether two expressions of the packet are the same.
func sameExpr(a, b Expr) bool {
	switch x := a.(type) {
	case *Payload:
		y, ok := b.(*Payload)
		return ok && *x == *y
	case *Meta:
		y, ok := b.(*Meta)
		return ok && *x == *y
	default:
		return a == b
	}
}
