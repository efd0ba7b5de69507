// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	"sluice/policy"
	"sluice/router"
	"sluice/trace"
)

// Theory of operation.
//
// A flow that rules drop at one of netfilter's hooks is remembered, as one that they let
// pass: so that who sends what policy forbids costs as much as who sends what it allows.
// The decision says that its packets are dropped; the hop, up to where that is, is for
// the routers' epochs and for what is counted on the way.
//
// What differs is conntrack. Of a packet that is dropped it has no connection, unless
// there was one before: nothing can be referred to, and a connection of the same tuple may
// come to be at any time, by the other direction, by a rule of NAT, or by hand. So conntrack is
// asked about each packet as it was about the first one, and has to say the same: that it is
// new, invalid, or not for it. The destination that a new one got is still the same, as
// nat.Lasting has it.

// stray is what is known of a flow that rules drop and that has no connection.
type stray struct {
	is       bool
	seen     bool // conntrack was asked
	noTrack  bool // it was not, since rules said so
	state    conntrack.State
	lasting  nat.Lasting
	zone     uint16
	port     uint16           // on whose account it was asked
	status   conntrack.Status // from NAT
	mappings uint64
}

// dismiss remembers that rules drop the flow of a packet on its way through routers. at is
// the device whose router has not been asked yet; nil: it has.
func (t *turn) dismiss(c *crossing, at *port, reason trace.Reason) {
	d := decision{src: c.src, dst: c.src, bare: c.in.sock == nil}
	if c.bridged {
		d.dst = c.dst // or the bridge would do something else
	}
	t.dismissed(c, at, &d, reason)
}

// dismissed is dismiss for a decision that was begun.
func (t *turn) dismissed(c *crossing, at *port, d *decision, reason trace.Reason) {
	p, h := &t.passing, &c.hop
	if reason != trace.NFTDrop || !c.keep || p.isError || p.lasting == nat.Once || p.to.way.Translates() {
		return
	}
	if p.eval != nil && p.fresh {
		p.record.EachIsFirst()
	}
	if !p.keeps() {
		return
	}
	if at != nil { // rules may have asked the routes
		c.add(&router.Verdict{Epoch: at.space.router.Epoch(), Cacheable: true})
	}
	if !c.keep {
		return
	}
	h.rewrite, h.mss = false, 0
	c.conn = p.to
	c.conn.dir = p.said.Dir
	if c.conn.conn == (conntrack.Conn{}) {
		c.conn.stray = p.stray()
	} else {
		same := c.conn.conn.Tuple(p.said.Dir)
		c.conn.way = nat.Of(same, same)
	}
	d.drop, d.plain = reason, false
	t.keep(d, c)
}

// stray is what is known of the packet, if it has no connection.
func (p *passing) stray() stray {
	const byNAT = conntrack.SrcNAT | conntrack.DstNAT | conntrack.SrcNATDone | conntrack.DstNATDone
	s := stray{
		is: true, seen: p.seen, noTrack: p.packet.NoTrack && !p.seen, state: p.said.State, lasting: p.lasting,
		zone: p.look.Zone, port: p.look.Port, mappings: p.mappings,
	}
	if p.fresh {
		s.status = p.pending.Status & byNAT
	}
	return s
}

// passStray lets conntrack see one more packet of such a flow, and does for it what the
// rules did for the first. False: the packet is for the slow path.
func (t *turn) passStray(h *hop, f *packet.Frame) bool {
	s, p, n := &h.conn.stray, &t.replayed, &t.passing.pending
	*p = policy.Packet{Frame: f, Now: int64(t.out.clock.time()), NoTrack: s.noTrack}
	if !s.seen {
		p.Tracked = s.noTrack
		if s.noTrack {
			p.State = conntrack.Untracked
		}
		return t.repeats(h, f)
	}
	conns := t.net.conns.Load()
	look := &t.passing.look
	*look = conntrack.Packet{Frame: f, Zone: s.zone, Port: s.port, Now: t.seconds}
	v := conns.table.Look(look, n)
	t.known, t.isKnown = v, true
	if v.State != s.state || v.Conn != (conntrack.Conn{}) || !s.lasts(conns, n) {
		return false
	}
	p.Tracked, p.State, p.Pending = true, v.State, n
	n.Status |= s.status
	if !t.repeats(h, f) {
		n.Status &^= s.status
		return false
	}
	t.isKnown = false
	return true
}

// lasts reports whether the destination of a new connection would become the same.
func (s *stray) lasts(c *Connections, n *conntrack.Pending) bool {
	switch s.lasting {
	case nat.WhileFree:
		return !c.table.Taken(s.zone, n.Reply)
	case nat.WhileUnmapped:
		return c.nat.Mappings() == s.mappings
	default:
		return true
	}
}
