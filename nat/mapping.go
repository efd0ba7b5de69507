// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/trace"
)

// mapped chooses a source as the RFCs want it: the mapping that the inside
// endpoint has, whatever its destination (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508
// REQ-1a), or a new one that is nobody else's (REQ-3).
func (c *choice) mapped() Verdict {
	t, ok := c.own()
	if !ok {
		if t, ok = c.newMapping(); !ok {
			return Verdict{Reason: trace.NATExhausted, Reject: Prohibited}
		}
	}
	c.f.Pending.Aux |= auxBound
	c.write(t)
	return Verdict{}
}

// own is the mapping that the inside endpoint has within the rule's range.
func (c *choice) own() (conntrack.Tuple, bool) {
	b := &c.m.bindings
	for i := b.inside[c.inside()]; i != 0; i = b.all[i].next {
		e := &b.all[i]
		out := e.outside.addrPort()
		if !e.owned || !c.to.Addrs.contains(out.Addr()) || c.to.Ports.given() && !c.to.Ports.contains(out.Port()) {
			continue
		}
		t := c.cur
		t.Src, t.SrcPort = out.Addr(), out.Port()
		return t, true
	}
	return conntrack.Tuple{}, false
}

// newMapping makes one. All of a host's have the same address (REQ-2, paired
// pooling); when that one is used up, its host has to wait, and not the others.
func (c *choice) newMapping() (conntrack.Tuple, bool) {
	t := c.cur
	if c.to.Addrs.given() {
		t.Src = c.to.Addrs.Min
		if c.to.Addrs.Min != c.to.Addrs.Max {
			t.Src = pick(c.to.Addrs, hash(c.n.seed, c.f.Pending.Original.Src))
		}
	}
	if !hasPort(t.Proto) {
		return t, !c.taken(&t)
	}
	in := c.inside()
	if c.z.PerHost > 0 && c.m.bindings.hosts[in.address()] >= c.z.PerHost {
		return t, false
	}
	port, ok := c.freeOutside(&t)
	if !ok {
		return t, false
	}
	t.SrcPort = port
	out := endpointOf(c.f.Pending.Zone, t.Proto, t.Src, port)
	return t, c.m.bindings.add(in, out, true, c.z.Linger, c.f.Now) != 0
}

// freeOutside is a port of the mapping's address that nobody has. It is the
// source's own, if that is free (port preservation), or the one beside that of its
// neighbour of the other parity, for RTP and RTCP; else one from a random place on
// (RFC 6056), of the same class and parity (REQ-3a, REQ-4), or at least of the
// class.
func (c *choice) freeOutside(t *conntrack.Tuple) (uint16, bool) {
	want := t.SrcPort
	ports := c.to.Ports
	if !ports.given() {
		ports = class4787(t.Proto, want)
	}
	if !c.random {
		if p, ok := c.besideNeighbour(t); ok && ports.contains(p) && c.freeEnd(t, p) {
			return p, true
		}
		if ports.contains(want) && c.freeEnd(t, want) {
			return want, true
		}
	}
	same, other := uint64(evenPorts), uint64(oddPorts)
	switch {
	case isICMP(t.Proto):
		same, other = anyPort, 0
	case want%2 != 0:
		same, other = oddPorts, evenPorts
	}
	if p, ok := c.search(t, ports, same); ok {
		return p, true
	}
	return c.search(t, ports, other)
}

// maxSearch bounds the ports that no mapping has and that are not free all the
// same: published ones, and those of connections of the namespace's own.
const maxSearch = 64

// search goes through the ports of the mask from a random one on.
func (c *choice) search(t *conntrack.Tuple, ports PortRange, mask uint64) (uint16, bool) {
	from := ports.Min + uint16(c.m.random.Uint32N(uint32(ports.Max-ports.Min)+1))
	set := c.m.bindings.ports[endpointOf(c.f.Pending.Zone, t.Proto, t.Src, 0)]
	if set == nil {
		set = &portSet{}
	}
	for range maxSearch {
		p, ok := set.next(ports, from, mask)
		if !ok {
			return 0, false
		}
		if c.freeEnd(t, p) {
			return p, true
		}
		if from = p + 1; p == ports.Max {
			from = ports.Min
		}
	}
	return 0, false
}

// class4787 is the range that a port stays in: REQ-3a of RFC 4787, REQ-7 of RFC
// 5382. Identifiers have none.
func class4787(proto uint8, port uint16) PortRange {
	switch {
	case isICMP(proto):
		return PortRange{0, 65535}
	case port < 1024:
		return PortRange{1, 1023}
	}
	return PortRange{1024, 65535}
}

// besideNeighbour is the outside port beside that of the odd or even neighbour of
// the source's port, if that has a mapping to this address: what RFC 4787 §4.2.3
// calls contiguity, and leaves open.
func (c *choice) besideNeighbour(t *conntrack.Tuple) (uint16, bool) {
	if t.Proto != packet.ProtoUDP {
		return 0, false
	}
	in := c.inside()
	in.port ^= 1
	b := &c.m.bindings
	for i := b.inside[in]; i != 0; i = b.all[i].next {
		if out := b.all[i].outside.addrPort(); out.Addr() == t.Src {
			return out.Port() ^ 1, true
		}
	}
	return 0, false
}

// freeEnd reports whether a port of t's source is nobody's: no mapping's, no
// published one, and no connection's to this destination.
func (c *choice) freeEnd(t *conntrack.Tuple, port uint16) bool {
	if port == 0 && !isICMP(t.Proto) {
		return false
	}
	if c.m.bindings.outside[endpointOf(c.f.Pending.Zone, t.Proto, t.Src, port)] != 0 {
		return false
	}
	if c.z.Rules.publishes(t.Proto, netip.AddrPortFrom(t.Src, port)) {
		return false
	}
	u := *t
	u.SrcPort = port
	return !c.taken(&u)
}

// inbound takes what comes for a mapping to its source, as far as the zone's
// filtering lets it: RFC 4787 REQ-8, RFC 5382 REQ-3. An ICMP query is nobody's.
func (c *choice) inbound() Verdict {
	if !transport(c.cur.Proto) {
		return Verdict{}
	}
	b := &c.m.bindings
	i := b.outside[endpointOf(c.f.Pending.Zone, c.cur.Proto, c.cur.Dst, c.cur.DstPort)]
	lasting := Once
	if i == 0 {
		lasting = WhileUnmapped
	}
	if i == 0 || !c.admits(i) {
		return Verdict{Lasting: lasting}
	}
	in := b.all[i].inside.addrPort()
	if in.Addr().Is4() != c.cur.Dst.Is4() {
		return Verdict{Lasting: Once} // of NAT64
	}
	if c.z.Rules.translating(c.f, &c.cur) != nil {
		c.f.Pending.Aux |= auxHairpin
	}
	t := c.cur
	t.Dst, t.DstPort = in.Addr(), in.Port()
	c.write(t)
	return Verdict{Lasting: Once}
}

// admits reports whether a mapping's filtering lets the packet in. From inside it
// is its sender's own mapping that would be filtered; what comes by way of it has
// an outside address, so that the same holds.
func (c *choice) admits(i uint32) bool {
	switch c.z.Filtering {
	case Endpoint:
		return true
	case Address:
		b := &c.m.bindings
		if b.remotes[remote{c.cur.Src.As16(), i}] > 0 {
			return true
		}
		out, ok := c.outsideOf()
		return ok && b.remotes[remote{out.addr, i}] > 0
	case AddressAndPort:
	}
	if out, ok := c.outsideOf(); ok { // hairpin: both must have spoken to the other
		u := c.cur
		u.Src, u.SrcPort = out.addrPort().Addr(), out.port
		return c.spoken(i, u)
	}
	return false
}

// spoken reports whether the source behind mapping i has a connection to the
// other end u.
func (c *choice) spoken(i uint32, u conntrack.Tuple) bool {
	in := c.m.bindings.all[i].inside.addrPort()
	original := conntrack.Tuple{Src: in.Addr(), SrcPort: in.Port(), Dst: u.Src, DstPort: u.SrcPort, Proto: u.Proto}
	return c.n.table.Taken(c.f.Pending.Zone, original)
}

// outsideOf is the mapping of the packet's own source.
func (c *choice) outsideOf() (endpoint, bool) {
	b := &c.m.bindings
	i := b.inside[endpointOf(c.f.Pending.Zone, c.cur.Proto, c.cur.Src, c.cur.SrcPort)]
	if i == 0 {
		return endpoint{}, false
	}
	return b.all[i].outside, true
}

// hairpin gives a packet that goes from one inside source to the mapping of
// another the outside address of its own (RFC 4787 REQ-9a): its mapping, or a new
// one as if it left by the way that its source's packets do.
func (c *choice) hairpin() Verdict {
	before := c.f.Pending.Original
	r := c.z.Rules.translating(c.f, &before)
	if r == nil || r.Kind == Masquerade {
		c.to.Addrs = One(before.Dst)
	} else {
		c.to = r.Target
	}
	c.pool = true
	return c.mapped()
}

// transport reports whether a protocol has ports.
func transport(proto uint8) bool {
	return proto == packet.ProtoTCP || proto == packet.ProtoUDP || proto == packet.ProtoSCTP
}

// hasPort reports whether a protocol has ports or identifiers.
func hasPort(proto uint8) bool { return transport(proto) || isICMP(proto) }
