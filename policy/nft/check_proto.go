// SPDX-License-Identifier: Apache-2.0

package nft

import "slices"

// Numbers that implied matches compare with.
const (
	arphrdEther = 1
	nfprotoIPv4 = 2
	nfprotoIPv6 = 10
)

// l4Table has the number of each header above IP.
var l4Table = map[string]uint64{
	"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "esp": 50, "ah": 51, "icmpv6": 58, "comp": 108, "sctp": 132, "udplite": 136,
}

// l3Table has the Ethernet type of each header above Ethernet.
var l3Table = map[string]uint64{"ip": 0x800, "ip6": 0x86dd, "arp": 0x806, "vlan": 0x8100}

func nameOfNumber(table map[string]uint64, n uint64) string {
	for name, number := range table {
		if number == n {
			return name
		}
	}
	return ""
}

// header sees to it that a header can be read: that what was said before does
// not forbid it, and that a packet without it does not match.
func (c *checker) header(p *Payload, pos Pos) {
	switch p.Proto {
	case "":
	case "ether":
		c.needEther()
	case "vlan":
		c.needEther()
		c.needVLAN(pos)
	case "arp", "ip", "ip6":
		c.needNetwork(p.Proto, pos)
	case "th":
	default:
		c.needTransport(p.Proto, pos)
	}
	if p.Proto != "" {
		c.hide(p.Base)
	}
	if p.Base == BaseTransport && c.onlyIP() || impliesNetwork(p.Proto) {
		c.hide(BaseNetwork)
	}
}

// impliesNetwork says whether a transport header has but one network header.
func impliesNetwork(proto string) bool {
	return proto == "icmp" || proto == "igmp" || proto == "icmpv6"
}

// hide leaves out of listings what said which header is at a base: the name of
// a field says it.
func (c *checker) hide(base Base) {
	if m := c.dep[base]; m != nil {
		m.Implied = true
		c.dep[base] = nil
	}
}

// imply adds a match that nobody wrote.
func (c *checker) imply(left Expr, spec Spec, n uint64) {
	c.out = append(c.out, &Match{Op: Eq, Left: left, Right: smallValue(n, spec), Implied: true})
}

func (c *checker) implyMeta(key string, n uint64) {
	spec := metaTable[key].spec
	c.imply(&Meta{Spec: spec, Key: key}, spec, n)
}

func (c *checker) needEther() {
	if c.proto[BaseLink] != "" {
		return
	}
	if c.family != FamilyBridge {
		key := "iiftype"
		if c.base != nil && (c.base.Hook == HookPostrouting || c.base.Hook == HookOutput || c.base.Hook == HookEgress) {
			key = "oiftype"
		}
		c.implyMeta(key, arphrdEther)
	}
	c.proto[BaseLink] = "ether"
}

func (c *checker) needVLAN(pos Pos) {
	if c.proto[BaseLink] == "vlan" {
		c.hide(BaseLink)
		return
	}
	if c.proto[BaseNetwork] != "" && c.family != FamilyIP && c.family != FamilyIP6 && c.family != FamilyARP && c.family != FamilyInet {
		fail(pos, "conflicting protocols specified: ether vs. vlan")
	}
	f, _ := headerTable["ether"].find("type")
	x := headerTable["ether"].payload(f)
	c.imply(x, x.Spec, l3Table["vlan"])
	c.proto[BaseLink] = "vlan"
}

// needNetwork sees that the network header is that of proto.
func (c *checker) needNetwork(proto string, pos Pos) {
	switch known := c.proto[BaseNetwork]; known {
	case proto:
		return
	case "":
	default:
		fail(pos, "conflicting protocols specified: %s vs. %s", known, proto)
	}
	c.implyNetwork(proto, pos)
	c.proto[BaseNetwork] = proto
}

func (c *checker) implyNetwork(proto string, pos Pos) {
	switch {
	case c.proto[BaseLink] == "vlan" || c.proto[BaseLink] == "ether" && c.family != FamilyBridge:
		h := headerTable[c.proto[BaseLink]]
		f, _ := h.find("type")
		x := h.payload(f)
		c.imply(x, x.Spec, l3Table[proto])
	case c.family == FamilyBridge && proto == "arp":
		c.implyEtherType(proto)
	case c.family == FamilyInet && proto == "arp":
		fail(pos, "conflicting protocols specified: inet vs. arp")
	case c.family == FamilyInet:
		c.implyMeta("nfproto", map[string]uint64{"ip": nfprotoIPv4, "ip6": nfprotoIPv6}[proto])
	default:
		c.implyMeta("protocol", l3Table[proto])
	}
}

// needNetworkOf is needNetwork for a transport header that implies it.
func (c *checker) needNetworkOf(proto string, pos Pos) {
	if c.family != FamilyBridge || c.proto[BaseLink] == "vlan" {
		c.needNetwork(proto, pos)
		return
	}
	c.implyEtherType(proto)
	c.proto[BaseNetwork] = proto
}

// implyEtherType asks what the frame has behind its addresses, as nft does in family
// bridge: what is behind a tag isn't that.
func (c *checker) implyEtherType(proto string) {
	f, _ := headerTable["ether"].find("type")
	x := headerTable["ether"].payload(f)
	c.imply(x, x.Spec, l3Table[proto])
}

// needTransport sees that the transport header is that of proto.
func (c *checker) needTransport(proto string, pos Pos) {
	if known := c.proto[BaseTransport]; known != "" {
		if known != proto {
			fail(pos, "conflicting protocols specified: %s vs. %s", known, proto)
		}
		return
	}
	if c.proto[BaseNetwork] == "arp" {
		fail(pos, "conflicting protocols specified: arp vs. %s", proto)
	}
	if c.proto[BaseNetwork] == "" {
		switch proto {
		case "icmp", "igmp":
			c.needNetworkOf("ip", pos)
		case "icmpv6":
			c.needNetworkOf("ip6", pos)
		}
	}
	c.implyMeta("l4proto", l4Table[proto])
	c.proto[BaseTransport] = proto
}

// learn draws the consequences of a comparison with one value.
func (c *checker) learn(m *Match) {
	v, ok := m.Right.(*Value)
	if !ok || m.Op != Eq || v.Type.stringy() {
		return
	}
	base, proto := tells(m.Left, v.Uint())
	if proto == "vlan" {
		base = BaseLink
	}
	switch x, _ := m.Left.(*Meta); {
	case proto == "" && x != nil && x.Key == "l4proto":
		c.dep[BaseTransport] = m
		return
	case proto == "":
		return
	case c.onlyIP() && base == BaseNetwork && c.proto[base] != proto:
		return // never true; let it stand
	}
	c.proto[base] = proto
	if mayHide(m.Left, c.family) {
		c.dep[base] = m
	}
}

// onlyIP says whether the family has but one network header.
func (c *checker) onlyIP() bool { return c.family == FamilyIP || c.family == FamilyIP6 }

// mayHide says whether listing leaves out such a comparison if a field says it.
func mayHide(left Expr, f Family) bool {
	p, ok := left.(*Payload)
	if !ok {
		_, ct := left.(*CT)
		return !ct
	}
	if p.Field == "type" {
		return true
	}
	return p.Proto == "ip" && f == FamilyIP || p.Proto == "ip6" && f == FamilyIP6
}

// tells says which header is at which base if left is n.
func tells(left Expr, n uint64) (Base, string) {
	switch x := left.(type) {
	case *Meta:
		return metaTells(x.Key, n)
	case *CT:
		if x.Key == "protocol" {
			return BaseTransport, nameOfNumber(l4Table, n)
		}
	case *Payload:
		switch {
		case x.Field == "type" && x.Base == BaseLink:
			return BaseNetwork, nameOfNumber(l3Table, n)
		case x.Proto == "ip" && x.Field == "protocol", x.Proto == "ip6" && x.Field == "nexthdr":
			return BaseTransport, nameOfNumber(l4Table, n)
		}
	}
	return 0, ""
}

func metaTells(key string, n uint64) (Base, string) {
	switch key {
	case "iiftype", "oiftype":
		return BaseLink, map[uint64]string{arphrdEther: "ether"}[n]
	case "nfproto":
		return BaseNetwork, map[uint64]string{nfprotoIPv4: "ip", nfprotoIPv6: "ip6"}[n]
	case "protocol":
		return BaseNetwork, nameOfNumber(l3Table, n)
	case "l4proto":
		return BaseTransport, nameOfNumber(l4Table, n)
	}
	return 0, ""
}

// icmpNeeds are the types of ICMP that have a field; the others mean something
// else by those bytes.
func icmpNeeds(p *Payload) []uint64 {
	switch p.Proto + " " + p.Field {
	case "icmp id", "icmp sequence":
		return []uint64{0, 8}
	case "icmp mtu":
		return []uint64{3}
	case "icmp gateway":
		return []uint64{5}
	case "icmpv6 id", "icmpv6 sequence":
		return []uint64{128, 129}
	case "icmpv6 mtu":
		return []uint64{2}
	case "icmpv6 parameter-problem":
		return []uint64{4}
	case "icmpv6 max-delay":
		return []uint64{130}
	default:
		return nil
	}
}

// needICMPType adds the type that a field needs, unless a comparison said it.
func (c *checker) needICMPType(p *Payload, pos Pos) {
	want := icmpNeeds(p)
	if want == nil {
		return
	}
	f, _ := headerTable[p.Proto].find("type")
	left := headerTable[p.Proto].payload(f)
	for _, s := range c.out {
		m, ok := s.(*Match)
		if !ok || m.Op != Eq || !sameExpr(m.Left, left) {
			continue
		}
		if v, ok := m.Right.(*Value); ok && !slices.Contains(want, v.Uint()) {
			fail(pos, "incompatible icmp match: rule has %d, need %d", v.Uint(), want[0])
		}
		if len(want) == 1 {
			m.Implied = true
		}
		return
	}
	if len(want) == 1 {
		c.imply(left, left.Spec, want[0])
		return
	}
	set := &Set{Key: []Spec{left.Spec}, Constant: true}
	for _, n := range want {
		v := smallValue(n, left.Spec)
		set.Elems = set.Elems.With(&Elem{Key: v.Data, End: v.Data})
	}
	c.out = append(c.out, &Match{Op: Eq, Left: left, Right: &SetRef{Set: set}})
}
