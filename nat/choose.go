// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/trace"
)

// choice is the search for what a connection's source or destination becomes.
type choice struct {
	n      *NAT
	m      *memory // n's: its lock is held
	z      *ZoneConfig
	f      *Flow
	cur    conntrack.Tuple // the packet as it is at this hook
	to     Target
	source bool

	pool       bool // by a rule that translates sources: the RFC profile has a say
	random     bool
	persistent bool
	shift      bool
	base       uint16
}

// set chooses, and writes what it chose into the connection.
func (c *choice) set() Verdict {
	if c.pool && c.z.Profile == RFC {
		return c.mapped()
	}
	t, ok := c.unique()
	if !ok {
		return Verdict{Reason: trace.NATExhausted}
	}
	if c.source && !c.random && hasPort(t.Proto) && (t.SrcPort != c.cur.SrcPort || c.to.Addrs.Min != c.to.Addrs.Max || c.m.bindings.inside[c.inside()] != 0) {
		c.f.Pending.Aux |= auxBound // for earlier to find
	}
	c.write(t)
	return Verdict{Lasting: c.lasting()}
}

// lasting is how long what set chooses stays the same: what it does not take the
// connections of others into account for.
func (c *choice) lasting() Lasting {
	switch {
	case c.source:
		return Ever
	case c.random || c.shift || c.to.Ports.Min != c.to.Ports.Max:
		return Once
	case !isICMP(c.cur.Proto):
		return Ever
	case c.to.Ports.given() || c.to.Addrs != One(c.cur.Dst):
		return Once
	}
	return WhileFree
}

// write makes t what the packet looks like from here on.
func (c *choice) write(t conntrack.Tuple) {
	if t == c.cur {
		return
	}
	p := c.f.Pending
	p.Reply, _ = t.Inverse() // of a query that was answerable before
	if c.source {
		p.Status |= conntrack.SrcNAT
	} else {
		p.Status |= conntrack.DstNAT
	}
}

// taken reports whether some connection has t's reply already.
func (c *choice) taken(t *conntrack.Tuple) bool {
	reply, ok := t.Inverse()
	return !ok || c.n.table.Taken(c.f.Pending.Zone, reply)
}

// unique is Linux's get_unique_tuple (nf_nat_core.c), step by step.
func (c *choice) unique() (conntrack.Tuple, bool) {
	if c.source && !c.random {
		if c.inRange(&c.cur) {
			if !c.taken(&c.cur) {
				return c.cur, true
			}
		} else if t, ok := c.earlier(); ok && !c.taken(&t) {
			return t, true
		}
	}
	t := c.cur
	c.bestAddress(&t)
	if !c.random && c.fine(&t) {
		return t, true
	}
	return c.freePort(t)
}

// fine reports whether the port may stay as it is.
func (c *choice) fine(t *conntrack.Tuple) bool {
	p := c.to.Ports
	if !p.given() {
		return !c.taken(t)
	}
	return !c.shift && p.contains(c.portOf(t)) && (p.Min == p.Max || !c.taken(t))
}

// inRange reports whether a source is within what the rule translates to.
func (c *choice) inRange(t *conntrack.Tuple) bool {
	if a := c.to.Addrs; a.given() && !a.contains(t.Src) {
		return false
	}
	return !c.to.Ports.given() || c.to.Ports.contains(c.portOf(t))
}

// earlier is the mapping that another connection of the same source has, the latest
// first, if it is within the rule's range: find_appropriate_src.
func (c *choice) earlier() (conntrack.Tuple, bool) {
	b := &c.m.bindings
	for i := b.inside[c.inside()]; i != 0; i = b.all[i].next {
		t := c.cur
		out := b.all[i].outside.addrPort()
		t.Src = out.Addr()
		c.setPort(&t, out.Port())
		if c.inRange(&t) {
			return t, true
		}
	}
	return conntrack.Tuple{}, false
}

// inside is the end whose packets are translated.
func (c *choice) inside() endpoint {
	o := &c.f.Pending.Original
	return endpointOf(c.f.Pending.Zone, c.cur.Proto, o.Src, o.SrcPort)
}

// bestAddress chooses an address of the range: find_best_ips_proto. Linux has a
// hash of both ends too, and only of the source if it is to be persistent.
func (c *choice) bestAddress(t *conntrack.Tuple) {
	a := c.to.Addrs
	if !a.given() {
		return
	}
	to := a.Min
	if a.Min != a.Max {
		h := hash(c.n.seed, t.Src)
		if !c.persistent {
			h = hash(h, t.Dst)
		}
		to = pick(a, h)
	}
	if c.source {
		t.Src = to
	} else {
		t.Dst = to
	}
}

// pick is an address of a range, each as likely as the others.
func pick(a AddrRange, h uint64) netip.Addr {
	from, to := a.Min.As16(), a.Max.As16()
	lo, hi := binary.BigEndian.Uint64(from[8:]), binary.BigEndian.Uint64(to[8:])
	if binary.BigEndian.Uint64(from[:]) != binary.BigEndian.Uint64(to[:]) {
		hi = ^uint64(0) // of a larger range, its first part
	}
	if size := hi - lo + 1; size == 0 {
		lo = h
	} else {
		n, _ := bits.Mul64(h, size)
		lo += n
	}
	binary.BigEndian.PutUint64(from[8:], lo)
	if a.Min.Is4() {
		return netip.AddrFrom16(from).Unmap()
	}
	return netip.AddrFrom16(from)
}

// hash mixes an address into a seed: splitmix64's finish, twice.
func hash(seed uint64, a netip.Addr) uint64 {
	b := a.As16()
	return mix(mix(seed^binary.LittleEndian.Uint64(b[:])) ^ binary.LittleEndian.Uint64(b[8:]))
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// maxTries bounds the search for a free port, NF_NAT_MAX_ATTEMPTS, and minTries
// ends it. The lastTries of it take the port of a closed connection too,
// NF_NAT_HARDER_THRESH.
const (
	maxTries  = 128
	minTries  = 16
	lastTries = maxTries / 4
)

// displaced reports whether the connection that has t's reply made room.
func (c *choice) displaced(t *conntrack.Tuple) bool {
	reply, ok := t.Inverse()
	return ok && c.n.table.Displace(c.f.Pending, reply, c.f.Now)
}

// freePort searches the range of ports for one that is free, from a random place
// and then from others, for ever shorter: nf_nat_l4proto_unique_tuple.
func (c *choice) freePort(t conntrack.Tuple) (conntrack.Tuple, bool) {
	ports, ok := c.portRange(&t)
	if !ok {
		return t, !c.source // a destination stays, whatever its source has to become then
	}
	size := uint32(ports.Max-ports.Min) + 1
	off := c.m.random.Uint32N(1 << 16)
	switch {
	case c.shift:
		off = uint32(c.portOf(&t) - c.base)
	case !c.source && !c.random:
		off = 0
	}
	for tries := min(size, maxTries); ; tries /= 2 {
		for left := tries; left > 0; left-- {
			c.setPort(&t, ports.Min+uint16(off%size))
			if !c.taken(&t) || left <= lastTries && c.displaced(&t) {
				return t, true
			}
			off++
		}
		if tries >= size || tries < minTries {
			return t, !c.source
		}
		off = c.m.random.Uint32N(1 << 16)
	}
}

// portRange is where a port may be searched; false if the packet has none that
// may change. Without a range given, a source's stays in its class.
func (c *choice) portRange(t *conntrack.Tuple) (PortRange, bool) {
	switch t.Proto {
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if !c.to.Ports.given() {
			return PortRange{0, 65535}, true
		}
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		if !c.to.Ports.given() {
			return class(c.portOf(t)), c.source
		}
	default:
		return PortRange{}, false
	}
	return c.to.Ports, true
}

// class is the range that a source port stays in, as Linux has it: below 512 is
// for passing credentials, of those below 1024 the first are left out.
func class(port uint16) PortRange {
	switch {
	case port < 512:
		return PortRange{1, 511}
	case port < 1024:
		return PortRange{600, 1023}
	}
	return PortRange{1024, 65535}
}

// portOf is the port that is translated, or a query's identifier.
func (c *choice) portOf(t *conntrack.Tuple) uint16 {
	if c.source || isICMP(t.Proto) {
		return t.SrcPort
	}
	return t.DstPort
}

func (c *choice) setPort(t *conntrack.Tuple, port uint16) {
	if c.source || isICMP(t.Proto) {
		t.SrcPort = port
	} else {
		t.DstPort = port
	}
}
