// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strings"
)

// mangle checks "key set value".
func (c *checker) mangle(s *mangleLit) {
	c.settable(s)
	key := c.mangleKey(s.key)
	c.add(&Mangle{Key: key, Value: c.assigned(s.value, []Spec{specOf(key)})})
}

// mangleKey checks what is set; nftrace can only be set.
func (c *checker) mangleKey(x Expr) Expr {
	if m, ok := x.(*Meta); ok {
		return m
	}
	return c.key(x)
}

// settable refuses keys that can only be read.
func (c *checker) settable(s *mangleLit) {
	ok, name := false, "expression"
	switch k := s.key.(type) {
	case *Payload, *TCPOption:
		ok = true
	case *ExtHdr:
		ok = k.Field != ""
	case *Meta:
		ok, name = metaTable[k.Key].set, "meta "+k.Key
		prerouting := c.base != nil && c.base.Hook == HookPrerouting
		if k.Key == "pkttype" && !prerouting && c.family != FamilyNetdev {
			refuse(s.pos, NotSupported, "Could not process rule: %s", NotSupported)
		}
	case *CT:
		ok, name = ctTable[k.Key].set, "ct "+k.Key
		if k.Key == "helper" {
			fail(s.pos, "ct helper set is not supported")
		}
	}
	if !ok {
		fail(s.pos, "%s cannot be set", name)
	}
}

// assigned checks what something is set to: constants, or an expression of the
// packet of the same type.
func (c *checker) assigned(x Expr, want []Spec) Expr {
	if lit, ok := x.(*Concat); ok && len(want) > 1 {
		if len(lit.Parts) != len(want) {
			fail(c.at(x), "datatype mismatch, expected concatenation of %d parts", len(want))
		}
		out := &Concat{}
		for i, part := range lit.Parts {
			out.Parts = append(out.Parts, c.assigned(part, want[i:i+1]))
		}
		return out
	}
	if len(want) > 1 {
		fail(c.at(x), "datatype mismatch, expected concatenation of %d parts", len(want))
	}
	if m, ok := x.(*mapLit); ok {
		return c.mapOf(m, want)
	}
	if !hasSelector(x) {
		v := c.constant(x, want[0])
		if _, ok := v.(*Value); !ok {
			fail(c.at(x), "expecting one value")
		}
		return v
	}
	out := c.key(x)
	c.compatible(x, specOf(out), want[0])
	return out
}

func hasSelector(x Expr) bool {
	if b, ok := x.(*Binary); ok {
		return hasSelector(b.Left) || hasSelector(b.Right)
	}
	return isSelector(x)
}

// compatible refuses to mix types.
func (c *checker) compatible(x Expr, have, want Spec) {
	if have.Type == want.Type || have.Type == TypeInteger || want.Type == TypeInteger {
		return
	}
	if have.Type.stringy() && want.Type.stringy() {
		return
	}
	fail(c.at(x), "datatype mismatch: expected %s, expression has type %s", want.Type.info().desc, have.Type.info().desc)
}

// sameTypes refuses a key that has not the types of a set.
func (c *checker) sameTypes(x, key Expr, want []Spec) {
	have := specs(key)
	if len(have) != len(want) {
		fail(c.at(x), "datatype mismatch, expected %s, expression has type %s", describe(want), describe(have))
	}
	for i := range have {
		if !fits(have[i], want[i]) {
			fail(c.at(x), "datatype mismatch, expected %s, expression has type %s", describe(want), describe(have))
		}
	}
}

// fits says whether a value of one type can be a key of the other.
func fits(have, want Spec) bool {
	if have.Type.stringy() && want.Type.stringy() {
		return true
	}
	if have.Type == TypeInteger && have.Bytes() <= want.Bytes() {
		return true
	}
	return have.Bytes() == want.Bytes() && (have.Type == want.Type || want.Type == TypeInteger)
}

// describe names types for an error.
func describe(list []Spec) string {
	if len(list) == 1 {
		return list[0].Type.info().desc
	}
	var names []string
	for _, spec := range list {
		names = append(names, spec.Type.info().desc)
	}
	return "concatenation of (" + strings.Join(names, ", ") + ")"
}

// mapOf checks "key map of"; want are the types of its values, nil if any will do.
func (c *checker) mapOf(x *mapLit, want []Spec) Expr {
	key := c.key(x.key)
	of := c.setOf(x.of, key, &setShape{isMap: true, data: want})
	m := &Map{Key: key, Of: of}
	switch {
	case of.Set != nil:
		m.Spec = of.Set.Data[0]
	default:
		m.Spec = c.table.set(of.Name).Data[0]
	}
	return m
}

// reject checks a reject, and fills in what it does by default.
func (c *checker) reject(s *rejectLit) {
	if c.family == FamilyARP {
		fail(s.pos, "reject is not supported in family arp")
	}
	if known := c.proto[BaseNetwork]; known == "arp" {
		fail(s.pos, "cannot reject this network family")
	}
	r := &Reject{}
	switch s.with {
	case "":
		c.defaultReject(r)
	case "tcp reset":
		c.rejectTCP(s, r)
	case "icmp":
		c.rejectNet(s, "ip")
		r.Code = c.rejectCode(s, TypeICMPCode)
	case "icmpv6":
		c.rejectNet(s, "ip6")
		r.Kind, r.Code = RejectICMPv6, c.rejectCode(s, TypeICMPv6Code)
	case "icmpx":
		if c.family == FamilyIP || c.family == FamilyIP6 {
			fail(s.pos, "icmpx abstraction not supported in family %s", c.family)
		}
		r.Kind, r.Code = RejectICMPX, c.rejectCode(s, TypeICMPXCode)
	}
	c.add(r)
}

// defaultReject is "port unreachable" in the language of the packet.
func (c *checker) defaultReject(r *Reject) {
	c.hide(BaseNetwork)
	switch c.proto[BaseNetwork] {
	case "ip":
		r.Kind, r.Code = RejectICMP, 3
	case "ip6":
		r.Kind, r.Code = RejectICMPv6, 4
	default:
		r.Kind, r.Code = RejectICMPX, 1
	}
}

func (c *checker) rejectTCP(s *rejectLit, r *Reject) {
	r.Kind = RejectTCP
	switch known := c.proto[BaseTransport]; known {
	case "tcp":
		if c.family == FamilyIP || c.family == FamilyIP6 {
			c.hide(BaseTransport)
		}
	case "":
		c.implyMeta("l4proto", l4Table["tcp"])
		n := len(c.out) - 1
		m, _ := c.out[n].(*Match)
		m.Implied = (c.family == FamilyIP || c.family == FamilyIP6) && onlyMatches(c.out)
		c.out = slices.Insert(c.out[:n:n], 0, Stmt(m))
		c.proto[BaseTransport] = "tcp"
	default:
		fail(s.pos, "you cannot use tcp reset with %s protocol", known)
	}
}

// onlyMatches says whether no statement does anything but compare.
func onlyMatches(list []Stmt) bool {
	return !slices.ContainsFunc(list, func(s Stmt) bool {
		switch s.(type) {
		case *Match, *VMap:
			return false
		}
		return true
	})
}

// rejectNet sees that the packet is of the family of the answer.
func (c *checker) rejectNet(s *rejectLit, proto string) {
	known := c.proto[BaseNetwork]
	if known != "" && known != proto {
		fail(s.pos, "conflicting protocols specified: %s vs %s", proto, known)
	}
	c.needNetwork(proto, s.pos)
	c.hide(BaseNetwork)
}

func (c *checker) rejectCode(s *rejectLit, t Type) uint8 {
	v, ok := c.constant(s.code, Spec{Type: t, Bits: 8}).(*Value)
	if !ok {
		fail(s.pos, "expecting a code")
	}
	if t == TypeICMPXCode && v.Uint() > 3 {
		fail(s.pos, "Value %d exceeds valid range 0-3", v.Uint())
	}
	return uint8(v.Uint())
}
