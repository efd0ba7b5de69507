// SPDX-License-Identifier: Apache-2.0

package nft

import "slices"

// nat checks a NAT statement.
func (c *checker) nat(s *natLit) {
	c.natChain(s)
	n := s.NAT
	switch n.Kind {
	case SNAT, DNAT:
		if n.Addr == nil && n.Port == nil {
			fail(s.pos, "%s needs an address or a port", natNames[n.Kind])
		}
		c.natFamily(s, &n)
	default:
		if c.family != FamilyIP && c.family != FamilyIP6 && c.family != FamilyInet {
			fail(s.pos, "NAT is only supported in the ip, ip6 and inet families")
		}
	}
	if n.Addr != nil {
		c.natAddr(s, &n)
	}
	if n.Port != nil {
		c.natPort(s, &n)
	}
	c.add(&n)
}

// natChain sees that the chain is for NAT; jumps into other chains are checked
// at the end of a transaction.
func (c *checker) natChain(s *natLit) {
	if c.base != nil && !natHook(s.Kind, c.base) {
		refuse(s.pos, NotSupported, "Could not process rule: %s", NotSupported)
	}
}

// natHook says whether a chain can translate so.
func natHook(k NATKind, c *Chain) bool {
	if c.Type != ChainNAT {
		return false
	}
	switch k {
	case SNAT:
		return c.Hook == HookPostrouting || c.Hook == HookInput
	case Masquerade:
		return c.Hook == HookPostrouting
	default:
		return c.Hook == HookPrerouting || c.Hook == HookOutput
	}
}

// natFamily finds the family of the address.
func (c *checker) natFamily(s *natLit, n *NAT) {
	switch c.family {
	case FamilyIP, FamilyIP6:
		if n.Named && n.Family != c.family {
			fail(s.pos, "conflicting protocols specified: %s vs. %s. You must specify ip or ip6 family in tables of family inet", n.Family, c.family)
		}
		n.Family, n.Named = c.family, false
	case FamilyInet:
		if n.Family == FamilyNone {
			n.Family = c.impliedNATFamily(s, n)
		}
		n.Named = n.Family != FamilyNone
	default:
		fail(s.pos, "NAT is only supported in the ip, ip6 and inet families")
	}
}

// impliedNATFamily is what the rule says by itself.
func (c *checker) impliedNATFamily(s *natLit, n *NAT) Family {
	if n.Addr == nil {
		return FamilyNone
	}
	switch c.proto[BaseNetwork] {
	case "ip":
		return FamilyIP
	case "ip6":
		return FamilyIP6
	}
	fail(s.pos, "specify `%s ip' or '%s ip6' in inet table to disambiguate", natNames[n.Kind], natNames[n.Kind])
	return FamilyNone
}

var natNames = [...]string{SNAT: "snat", DNAT: "dnat", Masquerade: "masquerade", Redirect: "redirect"}

// portSpec is the type of a port.
func portSpec() Spec { return Spec{Type: TypeInetService, Bits: 16} }

// natAddr checks the address: a constant, a map or an expression.
func (c *checker) natAddr(s *natLit, n *NAT) {
	spec := rtNexthop(n.Family)
	switch x := n.Addr.(type) {
	case *mapLit:
		c.natMap(s, n, x, spec)
	case *setLit, *setName:
		fail(c.at(x), "expecting an address or a map of addresses")
	default:
		if hasSelector(x) {
			n.Addr = c.assigned(x, []Spec{spec})
			return
		}
		n.Addr = c.constant(x, spec)
		if x, ok := n.Addr.(*Prefix); ok && !n.Netmap {
			lo, hi := bounds(x)
			n.Addr = &Range{From: &Value{Spec: spec, Data: lo}, To: &Value{Spec: spec, Data: hi}}
		}
	}
}

// natMap checks a map: of addresses, or of addresses with ports.
func (c *checker) natMap(s *natLit, n *NAT, x *mapLit, spec Spec) {
	key := c.key(x.key)
	want := []Spec{spec}
	if s.addrPort || c.hasPorts(x.of) {
		want = append(want, portSpec())
		n.AddrPort = true
		c.needPorts(s)
	}
	of := c.setOf(x.of, key, &setShape{isMap: true, data: want, dataInterval: true})
	m := &Map{Spec: spec, Key: key, Of: of}
	set := of.Set
	if set == nil {
		set = c.table.set(of.Name)
	}
	if set.DataInterval {
		n.Interval = !n.Netmap
	}
	n.Addr = m
}

// hasPorts says whether the values of a map are addresses with ports.
func (c *checker) hasPorts(x Expr) bool {
	switch x := x.(type) {
	case *setName:
		set := c.table.set(x.name)
		return set != nil && len(set.Data) == 2
	case *setLit:
		if len(x.elems) > 0 {
			_, ok := x.elems[0].data.(*Concat)
			return ok
		}
	}
	return false
}

// natPort checks the port.
func (c *checker) natPort(s *natLit, n *NAT) {
	c.needPorts(s)
	x := n.Port
	if m, ok := x.(*mapLit); ok {
		n.Port = c.mapOf(m, []Spec{portSpec()})
		return
	}
	if hasSelector(x) {
		n.Port = c.assigned(x, []Spec{portSpec()})
		return
	}
	n.Port = c.constant(x, portSpec())
	if _, ok := n.Port.(*Prefix); ok {
		fail(c.at(x), "expecting a port or a range of ports")
	}
}

// needPorts sees that the packet has ports.
func (c *checker) needPorts(s *natLit) {
	if c.proto[BaseTransport] != "" {
		return
	}
	for _, st := range c.out {
		if m, ok := st.(*Match); ok && isTransport(m.Left) {
			return
		}
	}
	fail(s.pos, "transport protocol mapping is only valid after transport protocol match")
}

// isTransport says whether an expression says something of the transport protocol.
func isTransport(x Expr) bool {
	switch x := x.(type) {
	case *Meta:
		return x.Key == "l4proto"
	case *Payload:
		return x.Base == BaseTransport || x.Field == "protocol" || x.Field == "nexthdr"
	case *Concat:
		return slices.ContainsFunc(x.Parts, isTransport)
	}
	return false
}
