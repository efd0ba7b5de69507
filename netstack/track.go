// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"

	"sluice/conntrack"
	"sluice/fragment"
	"sluice/nat"
	"sluice/neigh"
	"sluice/packet"
	"sluice/policy"
	"sluice/policy/nft"
	"sluice/router"
	"sluice/trace"
)

// Theory of operation.
//
// A namespace that tracks connections sees each packet twice, before its router does
// and after it, as netfilter's hooks do. Before: the connection is looked up, and the
// destination becomes what it is to be routed to. After: a new connection gets its
// source and enters the table, and the packet its source. What the router makes
// itself of a packet, it shows as well (router.Hooks).
//
// A remembered flow has the connection, the direction and what becomes of its
// addresses. Each packet of it is still seen by its connection, which has a lock of
// its own; the flow is forgotten with the connection.

// tracked is what a hop knows of the connection that its packets are of.
type tracked struct {
	conn conntrack.Conn
	dir  conntrack.Dir
	way  nat.Rewrite // both addresses and ports

	// Of a namespace with a ruleset: what it does for each packet, and how much of that
	// before it is routed.
	rules  *rules
	does   bool // there is something: a few actions, or else paths for both parts
	acts   []policy.Action
	routed int
	before *policy.Path
	after  *policy.Path
	stray  stray
}

// pass lets the connection see one more packet, and translates it. False: the packet
// is for the slow path, and unchanged.
func (t *turn) pass(h *hop, f *packet.Frame) bool {
	k := h.conn
	if k.stray.is {
		return t.passStray(h, f)
	}
	state := k.conn.Packet(k.dir, f, t.seconds)
	if state == conntrack.Gone || state == conntrack.Invalid {
		return false
	}
	if (k.does || h.framed != nil) && !t.again(h, state, f) {
		return false
	}
	if k.way.Translates() {
		t.ident++
		return k.way.Translate(f, t.ident)
	}
	return k.way.Apply(f)
}

// passing is one packet between the hooks of a namespace. A worker has one: a packet
// has left a namespace before it comes to the next.
type passing struct {
	space    *space
	conns    *Connections
	pending  conntrack.Pending
	flow     nat.Flow
	look     conntrack.Packet
	fresh    bool // the connection is pending
	isError  bool // the packet is an ICMP error about the connection
	moved    bool // it has another destination now
	local    bool // the host stack sends it
	bridged  bool // it stays in its network
	destined bool // it has the destination that the connection's packets get
	consults bool // chains of type nat see it, and do nothing to it
	seen     bool // conntrack has been asked, and
	said     conntrack.Verdict
	lasting  nat.Lasting // of what became of the destination
	mappings uint64      // when that was asked
	to       tracked
	told     router.Packet // whose sender is told something; scratch
	ruled
	out  conntrack.Tuple // of the packet as it leaves
	back nat.Rewrite     // of what goes the other way

	// Of one that changes its family, and is an error: the prefix, and the MTUs of the
	// devices that it came by and leaves by.
	prefix        netip.Prefix
	inMTU, outMTU int
}

var _ router.Hooks = (*passing)(nil)

// track lets the namespace of device at see frame i, before its router does. False:
// the frame has come to its end.
func (t *turn) track(c *crossing, at *port, i int) bool {
	c.passing, c.hooked, c.ported = false, false, c.ported && c.resumed
	c.resumed = false
	if at.space.conns == nil {
		return true
	}
	c.keep = c.keep && !c.tracks // a hop has room for one
	c.tracks = true
	if f := &t.frames[i]; f.View.Is(packet.ViewFrag) && !c.ported && !t.gather(c, at, i) {
		return false
	}
	reason := t.recognise(c, at, i)
	c.hooked = reason == trace.None
	p := &t.passing
	if reason == trace.None && c.passing && !p.apply(&t.frames[i], nat.Destination) {
		reason = trace.NATUntranslatable
	}
	if reason == trace.None {
		reason = p.ask(&t.frames[i], p.first(), atDstNAT, last)
		p.routed = p.record.Mark()
	}
	if reason != trace.None {
		t.dismiss(c, at, reason)
		drop(c.in, reason, 1)
		return false
	}
	return true
}

// recognise finds the connection of frame i, or begins one.
func (t *turn) recognise(c *crossing, at *port, i int) (reason trace.Reason) {
	asked := t.packetAt(c, at, i, 0)
	p, conns := &t.passing, at.space.conns
	p.space, p.conns, p.outMTU = at.space, conns, 0
	p.fresh, p.isError, p.moved, p.destined, p.consults = false, false, false, false, false
	p.look = conntrack.Packet{
		Frame: asked.Frame, Zone: at.space.spec.Connections.Zone, Port: asked.Port, Now: t.seconds,
		SrcPort: c.ports.Src, DstPort: c.ports.Dst,
	}
	p.local, p.bridged, p.to, p.back, p.out = asked.Local, c.bridged, tracked{}, nat.Rewrite{}, conntrack.Tuple{}
	p.seen, p.said, p.lasting = false, conntrack.Verdict{}, nat.Ever
	t.beginRules(c, asked)
	f := asked.Frame
	attached := c.about != nil && c.links == 0
	var v conntrack.Verdict
	if attached {
		v = p.attach(c.about)
	}
	if reason := p.ask(f, p.first(), first, atTrack); reason != trace.None {
		return reason
	}
	if !attached {
		v = t.look()
		p.fresh = p.pending.Active()
	}
	p.to.conn = v.Conn
	if other := v.Dir.Other(); v.Conn != (conntrack.Conn{}) {
		p.back = nat.Of(v.Conn.Tuple(other), v.Conn.Out(other))
	}
	p.tracked(&v)
	if reason := p.ask(f, p.first(), atTrack, atDstNAT); reason != trace.None {
		return reason
	}
	switch {
	case attached:
		reason = p.goOnAbout(c.about)
	case v.State == conntrack.Invalid || v.State == conntrack.Untracked:
		// it is passed as it is, as Linux does
		if p.to64(f) {
			return trace.CTInvalid
		}
		return trace.None
	case v.Conn == (conntrack.Conn{}):
		reason = t.commence(c, at, asked)
	default:
		reason = p.goOn(&v)
		p.inMTU = at.mtu
	}
	c.passing = reason == trace.None
	p.destined = c.passing
	return reason
}

// look finds the connection, unless that is known, or rules want none.
func (t *turn) look() conntrack.Verdict {
	p := &t.passing
	switch {
	case t.isKnown:
		t.isKnown, p.seen, p.said = false, true, t.known
		if p.said.Conn != (conntrack.Conn{}) { // else it is what Look has filled in
			p.pending = conntrack.Pending{}
		}
		return p.said
	case p.eval != nil && p.packet.NoTrack:
		p.pending = conntrack.Pending{}
		return conntrack.Verdict{State: conntrack.Untracked}
	}
	p.seen, p.said = true, p.conns.table.Look(&p.look, &p.pending)
	return p.said
}

// goOn is for a packet of a connection that is there.
func (p *passing) goOn(v *conntrack.Verdict) trace.Reason {
	p.isError = v.Error
	p.out = v.Conn.Out(v.Dir)
	p.to = tracked{conn: v.Conn, dir: v.Dir, way: nat.Of(v.Conn.Tuple(v.Dir), p.out)}
	if p.isError && p.to.way.Translates() {
		p.prefix = p.conns.nat.Prefix64(p.look.Zone, v.Conn.Tuple(conntrack.Original).Dst)
	}
	if !v.Conn.Valid() { // ended meanwhile: what was read may be anything
		return trace.CTInvalid
	}
	return trace.None
}

// commence is for the first packet of a connection.
func (t *turn) commence(c *crossing, at *port, asked *router.Packet) trace.Reason {
	p := &t.passing
	n := &p.pending
	if p.eval == nil && p.conns.table.Refuses(p.look.Port) { // a ruleset may have more to say
		return trace.CTQuota
	}
	t.tally.work += beginWork
	p.flow = nat.Flow{Pending: n, Now: t.seconds, Devices: at.space.router}
	hook := nat.Output
	if !asked.Local {
		hook = nat.Prerouting
		p.flow.In = at.index
	}
	if len(at.space.spec.Connections.Rules) > 0 || p.eval != nil {
		p.flow.Own = at.space.router.Own(n.Original.Dst, at.index)
		p.flow.InAddr = at.space.router.Address(at.index, netip.Addr{}, n.Original.Src)
	}
	if c.links == 0 && c.in.tenure != 0 {
		n.Origin = conntrack.Bind{ID: c.in.index, Gen: c.in.tenure}
	}
	p.mappings = p.conns.nat.Mappings()
	v, done := p.translated(asked.Frame, p.first(), hook)
	if !done {
		v = p.conns.nat.Translate(hook, &p.flow)
	}
	p.lasting = v.Lasting
	p.ways()
	if v.Reason == trace.None && p.to.way.Translates() {
		v = p.hairpin(at)
	}
	if v.Reason != trace.None {
		p.refuse(asked.Frame, v.Reject, nil)
	}
	return v.Reason
}

// ways notes what the pending connection's packets become.
func (p *passing) ways() {
	n := &p.pending
	if n.Status&(conntrack.SrcNAT|conntrack.DstNAT) == 0 {
		p.out = n.Original
		p.to = tracked{way: nat.Of(p.out, p.out)}
		p.back = p.to.way
		return
	}
	p.out = n.Out()
	p.to = tracked{way: nat.Of(n.Original, p.out)}
	answer, _ := n.Original.Inverse()
	p.back = nat.Of(n.Reply, answer)
}

// refuse tells the sender of a packet that is dropped as much as the NAT wants. Hooks
// turn back what was changed of it; nil: nothing was.
func (p *passing) refuse(f *packet.Frame, how nat.Reject, hooks router.Hooks) {
	q, sink := &p.told, p.turn.out.sink(p.space, p.from)
	*q = p.asked
	q.Frame, q.Hooks = f, hooks
	e4, e6 := packet.ICMPError{Type: packet.ICMPUnreach}, packet.ICMPError{Type: packet.ICMP6Unreach}
	switch how {
	case nat.Silent:
		return
	case nat.Prohibited:
		e4.Code, e6.Code = packet.ICMPAdminProhib, packet.ICMP6Prohibited
	case nat.PortUnreachable:
		if f.View.Proto == packet.ProtoTCP {
			p.space.router.Reset(q, sink)
			return
		}
		e4.Code, e6.Code = packet.ICMPPortUnreach, packet.ICMP6PortUnreach
	}
	p.space.router.Refuse(q, e4, e6, sink)
}

// apply rewrites a part of the packet.
func (p *passing) apply(f *packet.Frame, parts nat.Parts) bool {
	if p.to.way.Translates() {
		return parts == nat.Destination || p.translate(f)
	}
	named := p.isError && p.to.way != (nat.Rewrite{}) && p.named(p.to.dir)
	if p.to.way.Parts() == 0 && !named {
		return true
	}
	r := p.part(f, parts)
	if r.Parts()&nat.Destination != 0 {
		p.packet.RouteMark = p.packet.Mark // its way is looked up again (nf_nat_ipv4_local_fn)
		p.moved = p.moved || !p.isError
	}
	if p.isError {
		return r.ApplyError(f, named && parts == nat.Source)
	}
	return r.Apply(f)
}

// part is what one hook does of the rewriting: an identifier, which is of both ends, is
// rewritten by the first that translates anything.
func (p *passing) part(f *packet.Frame, parts nat.Parts) nat.Rewrite {
	isQuery := f.View.Proto == packet.ProtoICMP || f.View.Proto == packet.ProtoICMPv6
	if isQuery && parts == nat.Destination && p.named(p.to.dir.Other()) {
		parts |= nat.SrcPort
	}
	return p.to.way.Only(parts)
}

// named reports whether the sources of the connection's packets are translated in a
// direction, be it in their port or identifier only: what is said about those of the
// other one then comes from the connection's end (nf_nat_icmp_reply_translation).
func (p *passing) named(d conntrack.Dir) bool {
	status := p.pending.Status
	if p.to.conn != (conntrack.Conn{}) {
		status = p.to.conn.Status()
	}
	return namedBy(status, d)
}

func namedBy(s conntrack.Status, d conntrack.Dir) bool {
	if d == conntrack.Reply {
		return s&conntrack.DstNAT != 0
	}
	return s&conntrack.SrcNAT != 0
}

// Leave implements router.Hooks, and is what follows the router's word too:
// postrouting.
func (p *passing) Leave(f *packet.Frame, out uint16, via netip.Addr) trace.Reason {
	if p.eval != nil {
		p.packet.Out = p.space.rules.device(out)
	}
	if !p.local {
		if reason := p.ask(f, nft.HookForward, first, last); reason != trace.None {
			return reason
		}
	}
	if reason := p.ask(f, nft.HookPostrouting, first, atSrcNAT); reason != trace.None {
		return reason
	}
	if p.fresh {
		p.flow.Out = out
		p.flow.OutAddr = p.space.router.Address(out, via, p.pending.Out().Dst)
		if to := p.space.owners[p.pending.Out().Dst]; to.Gen != 0 {
			p.pending.Target = to
		}
	}
	if p.isError {
		if d := p.space.devices[out]; d != nil {
			p.outMTU = d.mtu
		}
	}
	return p.end(f, nft.HookPostrouting, nat.Postrouting)
}

// Tell implements router.Hooks: an error quotes the packet with its destination
// translated, which is not what its sender wrote.
func (p *passing) Tell(f *packet.Frame) {
	if packet.IsReset(f) {
		p.tellReset(f)
		return
	}
	if p.to.conn == (conntrack.Conn{}) && !p.fresh {
		p.tellStranger(f)
		return
	}
	if r, named := p.back.Only(nat.Source), p.named(p.said.Dir.Other()); (r.Parts() != 0 || named) && !p.isError {
		r.ApplyError(f, named)
	}
}

// tellStranger is Tell for a packet of no connection, or before it is known of which: what
// is said about it may yet be about one, whose tuple it has, and is translated as an error
// that came would be.
func (p *passing) tellStranger(f *packet.Frame) {
	p.look.Frame = f
	v := p.conns.table.Look(&p.look, &p.pending)
	if !v.Error {
		return
	}
	r, named := nat.Of(v.Conn.Tuple(v.Dir), v.Conn.Out(v.Dir)), namedBy(v.Conn.Status(), v.Dir)
	if v.Conn.Valid() && (r.Parts() != 0 || named) {
		r.ApplyError(f, named)
	}
}

// tellReset is Tell for a reset. That of a segment of no connection may be of the one that
// the segment was no good for, which it ends.
func (p *passing) tellReset(f *packet.Frame) {
	if p.fresh || p.to.conn != (conntrack.Conn{}) {
		return
	}
	look := conntrack.Packet{Frame: f, Zone: p.look.Zone, Now: p.look.Now}
	v := p.conns.table.Look(&look, &p.pending)
	if v.Conn == (conntrack.Conn{}) || v.Error || !v.Conn.Valid() {
		return
	}
	if r := nat.Of(v.Conn.Tuple(v.Dir), v.Conn.Out(v.Dir)); r.Parts() != 0 && !r.Translates() {
		r.Apply(f)
	}
}

// end is the last hook: a new connection enters the table, the source is translated.
func (p *passing) end(f *packet.Frame, at nft.Hook, hook nat.Hook) trace.Reason {
	if p.fresh {
		v, done := p.translated(f, at, hook)
		if !done {
			v = p.conns.nat.Translate(hook, &p.flow)
		}
		if v.Reason != trace.None {
			p.refuse(f, v.Reject, p)
			return v.Reason
		}
		conn, v := p.conns.nat.Confirm(&p.flow)
		switch {
		case v.Reason != trace.None:
			return v.Reason
		case conn == (conntrack.Conn{}): // by another way, another was first
			return trace.CTClash
		}
		p.fresh = false
		p.ways()
		p.to.conn, p.packet.Conn = conn, conn
	} else if p.consults {
		if reason := p.consulted(f, at); reason != trace.None {
			return reason
		}
	}
	if !p.apply(f, nat.Source) {
		return trace.NATUntranslatable
	}
	reason := p.ask(f, at, atSrcNAT, last)
	p.label(f)
	return reason
}

// leaves lets the namespace that frame i has passed see it once more; false if it has
// come to its end.
func (t *turn) leaves(c *crossing, v *router.Verdict, i int) bool {
	if !c.hooked {
		return true
	}
	p, f := &t.passing, &t.frames[i]
	var reason trace.Reason
	p.asked.Delivered = v.Action == router.Deliver
	switch {
	case v.Action == router.Forward:
		reason = p.Leave(f, v.Device, v.Via)
	case p.asked.Said:
		reason = p.loop(f)
	default:
		if reason = p.ask(f, nft.HookInput, first, atSrcNAT); reason == trace.None {
			if p.unsolicited() && p.conns.nat.Hold(&p.flow, f) {
				return false // answered later, if at all
			}
			reason = p.end(f, nft.HookInput, nat.Input)
		}
	}
	if reason != trace.None {
		t.dismiss(c, nil, reason)
		drop(c.in, reason, 1)
		return false
	}
	c.keep = p.keeps() && c.keep && c.passing && !p.isError
	c.passing, c.hooked = false, false
	c.conn = p.to
	return true
}

// unsolicited reports whether the packet, which is for the namespace's own stack, begins
// a connection that nobody there waits for.
func (p *passing) unsolicited() bool {
	n := &p.pending
	return p.fresh && p.flow.In != 0 && n.Original.Proto == packet.ProtoTCP && p.space.spec.Connections.rfc() &&
		!p.space.ns.host.listens(n.Out())
}

// unanswered tells the senders of SYNs that were held in vain.
func (v *view) unanswered(conns *Connections, now neigh.Tick, since int64) {
	conns.nat.Unanswered(conns.Now(), func(held nat.HeldSYN) {
		for _, s := range v.spaces {
			if s.conns == nil || s.spec.Connections.Zone != held.Zone {
				continue
			}
			var f packet.Frame
			f.SetBuf(make([]byte, packet.BufLen))
			f.Reset(packet.Headroom, len(held.Frame))
			copy(f.Bytes(), held.Frame)
			if f.View.Parse(f.Bytes()) != packet.FaultNone {
				return
			}
			s.router.Refuse(&router.Packet{Frame: &f, Device: held.In, Port: held.In, Now: now, Nanos: since},
				packet.ICMPError{Type: packet.ICMPUnreach, Code: packet.ICMPPortUnreach},
				packet.ICMPError{Type: packet.ICMP6Unreach, Code: packet.ICMP6PortUnreach}, &outlet{space: s})
			return
		}
	})
}

// gather finds out of which flow fragment i is. False: it waits for the first one, or
// has come to its end.
func (t *turn) gather(c *crossing, at *port, i int) bool {
	ports, v := at.space.router.Fragment(t.packetAt(c, at, i, 0))
	if v.Lost > 0 {
		drop(c.in, v.LostFor, v.Lost)
	}
	switch v.Outcome {
	case fragment.Hold:
		return false
	case fragment.Refused:
		drop(c.in, v.Reason, 1)
		return false
	case fragment.Known:
	}
	c.ports, c.ported = ports, true
	in := c.in.index
	if c.links > 0 {
		in = at.index
	}
	for _, h := range v.Held {
		w := waiting{frame: h.Frame, vnet: h.Vnet, label: h.Label, to: toRouter, port: in, ports: ports, from: in}
		if !at.link.emit(w) {
			drop(c.in, trace.LocalFull, 1)
		}
	}
	return true
}

// resume takes frame i, a fragment that has waited for the first one of its packet,
// to the router behind device at.
func (t *turn) resume(at *port, w *waiting, i int) {
	f, in := &t.frames[i], t.view.port(w.port)
	if in == nil || in.space != at.space {
		drop(at, trace.PortRemoved, 1)
		return
	}
	f.InPort = in.index
	if reason := inspect(f); reason != trace.None {
		drop(in, reason, 1)
		return
	}
	t.framing.begin(t)
	c := crossing{in: in, ports: w.ports, ported: true, resumed: true}
	if in.sock != nil && in.local == at {
		v := decide(in, f, t.now, &t.out.clock)
		if t.bridges(in, &v, i) && v.Port != at.index {
			c.bridged = true
			t.passBridged(&c, &v, i)
			return
		}
	}
	if at.peer != 0 || at.outside != nil && c.in == at {
		c.links = 1
	}
	t.ask(&c, at, i)
}
