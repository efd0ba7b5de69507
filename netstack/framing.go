// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"

	"sluice/bridge"
	"sluice/packet"
	"sluice/policy"
	"sluice/policy/nft"
	"sluice/trace"
)

// Theory of operation.
//
// Beside netfilter's hooks of IP (hooks.go) there are those that see frames: of the
// families netdev (and inet, at ingress), bridge and arp. In the order of a frame's way,
// with the steps of it that are described elsewhere in brackets:
//
//	ingress      of the port by which it comes: the port's own ruleset, the namespace's
//	prerouting   of the bridge
//	[guards, VLANs, learning, where it goes]
//	forward      of the bridge, if it goes to a port; or
//	input        if it is for the gateway: then arp's input, or [the router and its hooks]
//	output       of the bridge, for what comes from there (arp's output before it)
//	postrouting  of the bridge
//	egress       of the port by which it leaves: the namespace's ruleset, the port's own
//	[the port's queueing discipline]
//
// The part of each ruleset is recorded by itself, and kept beside the decision of the
// flow if there is something to be done for each packet: a hit costs that much, however
// long the rulesets are. A frame that goes to several ports is shown to the hooks of each.

// ownDevice is what the ruleset of a port calls it.
const ownDevice = "port"

// The parts of a frame's way, each of one ruleset.
const (
	partOwnIn  = iota // the port's own, at ingress
	partIn            // the namespace's, up to where the bridge decides
	partOut           // the same, from there on
	partEgress        // the same, at egress: its lengths are others
	partOwnOut        // the port's own, at egress
	numParts
)

// framing is a frame on its way through these hooks. A worker has one.
type framing struct {
	packet  policy.Packet
	records [numParts]policy.Record
	rules   [numParts]*rules // that were asked
	paths   [numParts]*policy.Path
	asked   bool // somebody was
	writes  bool // something was written before the bridge decided

	before, after copied // of a frame that is flooded
}

// begin prepares for a frame that passed no hook yet, or was kept since.
func (fr *framing) begin(t *turn) {
	fr.rules, fr.asked, fr.writes = [numParts]*rules{}, false, false
	fr.packet = policy.Packet{Now: int64(t.out.clock.time()), Wall: t.out.clock.wall(), CPU: uint32(t.worker), PktType: policy.PacketHost}
}

// framed is what they do for each packet of a remembered flow.
type framed struct {
	parts [numParts]part
}

type part struct {
	rules *rules
	acts  []policy.Action // a few, or else
	path  *policy.Path
}

// frames reports whether some hook of frames may be there for the port.
func (p *port) frames() bool { return p.framed != nil || p.own != nil }

// arrives shows frame i to the hooks of the port that it comes by, and of its bridge.
func (t *turn) arrives(in *port, i int) trace.Reason {
	fr, f := &t.framing, &t.frames[i]
	fr.begin(t)
	if in.sock == nil {
		return t.says(in, f)
	}
	fr.packet.PktType = addressedAs(f)
	if in.own != nil {
		if reason := t.shown(in, in.own, partOwnIn, f, hookAt{nft.FamilyNetdev, nft.HookIngress, in.own.self, nil}); reason != trace.None {
			return reason
		}
	}
	var dev *policy.Device
	if in.framed != nil {
		dev = in.framed.device(in.index)
		if reason := t.shown(in, in.framed, partIn, f, hookAt{nft.FamilyNetdev, nft.HookIngress, dev, nil}); reason != trace.None {
			return reason
		}
	}
	if fr.packet.PktType == policy.PacketOther && f.DstMAC() == in.local.mac {
		fr.packet.PktType = policy.PacketHost // from here on, as in br_handle_frame
	}
	if in.framed == nil {
		return trace.None
	}
	reason := t.shown(in, in.framed, partIn, f, hookAt{nft.FamilyBridge, nft.HookPrerouting, dev, nil})
	fr.writes = fr.records[partOwnIn].Writes() && fr.rules[partOwnIn] != nil || fr.records[partIn].Writes() && fr.rules[partIn] != nil
	return reason
}

// admitted reports whether rules let frame i come to the bridge; if not, it has ended.
func (t *turn) admitted(in *port, i int, keep bool) bool {
	if !t.view.framed {
		t.framing.asked = false
		return true
	}
	reason := t.arrives(in, i)
	if reason == trace.None {
		return true
	}
	if keep {
		t.ends(&decision{bare: true}, reason, nil)
	}
	drop(in, reason, 1)
	return false
}

// carryOut does what the bridge says of a frame that is for no router, by the hooks on
// its way.
func (t *turn) carryOut(in *port, v *bridge.Verdict, i int, keep bool) {
	switch {
	case !t.view.framed || v.Action != bridge.Forward:
	case v.Port == in.local.index:
		t.lands(in, v, i)
		return
	default:
		t.forwards(in, v, i, nil, keep)
		return
	}
	if keep {
		d := decisionOf(v)
		t.keep(&d, nil)
	}
	t.apply(in, v, i)
}

// addressedAs is the frame's type as a network card has it that is nobody's.
func addressedAs(f *packet.Frame) uint8 {
	switch dst := f.DstMAC(); {
	case dst.IsBroadcast():
		return policy.PacketBroadcast
	case dst.IsMulticast():
		return policy.PacketMulticast
	}
	return policy.PacketOther
}

// says shows ARP that the gateway sends to arp's output.
func (t *turn) says(in *port, f *packet.Frame) trace.Reason {
	if in.framed == nil || !f.View.Is(packet.ViewARP) {
		return trace.None
	}
	return t.shown(in, in.framed, partIn, f, hookAt{nft.FamilyARP, nft.HookOutput, nil, in.framed.device(in.index)})
}

// hears shows frame i, which is for the host stack behind local port at, to the hooks
// before that.
func (t *turn) hears(in, at *port, i int) trace.Reason {
	if at.framed == nil {
		return trace.None
	}
	f := &t.frames[i]
	if in.sock != nil {
		reason := t.shown(in, at.framed, partIn, f, hookAt{nft.FamilyBridge, nft.HookInput, at.framed.device(in.index), nil})
		if reason != trace.None {
			return reason
		}
	}
	if !f.View.Is(packet.ViewARP) {
		return trace.None
	}
	return t.shown(in, at.framed, partIn, f, hookAt{nft.FamilyARP, nft.HookInput, at.framed.device(at.index), nil})
}

// crosses shows a frame that goes from port in to port out to the bridge's forward or
// output.
func (t *turn) crosses(in, out *port, f *packet.Frame) trace.Reason {
	if out.framed == nil {
		return trace.None
	}
	at := hookAt{nft.FamilyBridge, nft.HookOutput, nil, out.framed.device(out.index)}
	if in.sock != nil {
		at.hook, at.in = nft.HookForward, out.framed.device(in.index)
	}
	return t.shown(in, out.framed, partOut, f, at)
}

// leavesBy shows a frame to what is left of the way out by a port: postrouting, and the
// port's egress.
func (t *turn) leavesBy(in, out *port, f *packet.Frame) trace.Reason {
	if out.framed != nil {
		dev := out.framed.device(out.index)
		reason := t.shown(in, out.framed, partOut, f, hookAt{nft.FamilyBridge, nft.HookPostrouting, nil, dev})
		if reason == trace.None {
			reason = t.shown(in, out.framed, partEgress, f, hookAt{nft.FamilyNetdev, nft.HookEgress, nil, dev})
		}
		if reason != trace.None {
			return reason
		}
	}
	if out.own == nil {
		return trace.None
	}
	return t.shown(in, out.own, partOwnOut, f, hookAt{nft.FamilyNetdev, nft.HookEgress, nil, out.own.self})
}

// hookAt is a hook, and the devices that rules see there.
type hookAt struct {
	family  nft.Family
	hook    nft.Hook
	in, out *policy.Device
}

// shown shows a frame to the chains of one hook.
func (t *turn) shown(from *port, r *rules, part int, f *packet.Frame, at hookAt) trace.Reason {
	fr := &t.framing
	e := t.evaluator(r)
	if !e.Has(at.family, at.hook, first, last) {
		return trace.None
	}
	fr.asked = true
	t.tally.work++
	rec := &fr.records[part]
	if fr.rules[part] == r {
		e.Continue(rec)
	} else {
		fr.rules[part] = r
		e.Begin(rec)
	}
	p := &fr.packet
	p.Frame, p.Env, p.In, p.Out, p.Fault = f, r.env, at.in, at.out, packet.FaultNone
	p.Mark, p.Priority, p.Logs = f.Mark, f.Priority, false
	t.tracks(r, p.Now)
	v := e.Hook(p, at.family, at.hook, first, last)
	f.Mark, f.Priority = p.Mark, p.Priority
	if p.Logs {
		t.tell(r, p)
	}
	switch {
	case p.Fault != packet.FaultNone:
		return trace.NFTFault
	case v.Code == policy.Drop:
		from.culprits().note(r, r.self != nil, v)
		return trace.NFTDrop
	case v.Code == policy.Reject:
		from.culprits().note(r, r.self != nil, v)
		t.refuseFrame(from, f, v)
		return trace.NFTReject
	}
	return trace.None
}

// refuseFrame tells the sender of a frame, which came by a port, that it goes no
// further: in the name of who it was sent to, by the same port (nft_reject_bridge).
func (t *turn) refuseFrame(from *port, f *packet.Frame, v *policy.Verdict) {
	b := f.Bytes()
	if from.sock == nil || !f.View.Is(packet.ViewIP) || f.DstMAC().IsMulticast() {
		return
	}
	e := packet.ICMPError{Type: v.Type, Code: v.ICMP}
	answer := packet.AppendEthernet(nil, f.SrcMAC(), f.DstMAC(), f.View.EtherType)
	switch dst := f.View.DstAddr(b); {
	case v.Reject == policy.RejectTCP:
		answer = packet.AppendReset(answer, f)
	case !packet.MayAnswerWithICMP(f, e):
	case dst.Is4():
		answer = packet.AppendICMP4(answer, f, dst, e)
	default:
		answer = packet.AppendICMP6(answer, f, dst, e)
	}
	if len(answer) == packet.EthernetLen {
		return
	}
	w := waiting{frame: answer, to: toPort, port: from.index, tag: tagOf(&f.View), from: from.index}
	t.tally.work += routeWork
	if !from.local.link.emit(w) {
		drop(from, trace.LocalFull, 1)
	}
}

// knows tells the rules of the connection that the namespace's hooks have found, and
// whether the packet is traced.
func (fr *framing) knows(p *passing) {
	q, c := &fr.packet, &p.packet
	if p.eval != nil {
		q.Tracked, q.NoTrack, q.Conn, q.Pending, q.Dir, q.State = c.Tracked, c.NoTrack, c.Conn, c.Pending, c.Dir, c.State
		q.Trace = c.Trace
	}
}

// remembers reports whether the flow of the frame at hand may be remembered, and whether
// something is to be done for each packet of it.
func (t *turn) remembers() (may, acts bool) {
	fr := &t.framing
	for i := range fr.rules {
		if fr.rules[i] == nil {
			continue
		}
		r := &fr.records[i]
		if !r.Cacheable() || r.Routes {
			return false, false
		}
		acts = acts || r.Len() > 0
		if r.Len() > policy.Few {
			if fr.paths[i] = t.evaluator(fr.rules[i]).Path(r, policy.Mark{}, r.Mark()); fr.paths[i] == nil {
				return false, false
			}
		}
	}
	return !fr.packet.Trace, acts
}

// keep remembers a decision about frame i's flow, as far as rules allow it.
func (t *turn) keep(d *decision, c *crossing) {
	fr := &t.framing
	if !fr.asked {
		t.flows.keepAny(d, c, t.view.gen)
		return
	}
	may, acts := t.remembers()
	switch routed := c != nil; {
	case !may || d.mirrorIn != 0 || routed && fr.writes:
		return
	case !acts:
		t.flows.keepAny(d, c, t.view.gen)
		return
	case !routed:
		c = &crossing{}
	}
	t.flows.keepHop(d, c, t.view.gen)
	t.flows.keepFramed(fr)
}

// keepAny is keep, or keepHop if there is a crossing.
func (c *flows) keepAny(d *decision, x *crossing, gen uint64) {
	if x == nil {
		c.keep(d, gen)
	} else {
		c.keepHop(d, x, gen)
	}
}

// keepFramed adds to the decision that was kept last what rules do for each packet.
func (c *flows) keepFramed(fr *framing) {
	if c.framed == nil {
		c.framed = make([]framed, c.cache.Cap())
	}
	slot := c.cache.Slot()
	k := &c.framed[slot]
	for i := range k.parts {
		p := &k.parts[i]
		p.rules, p.path, p.acts = nil, nil, p.acts[:0]
		switch r := &fr.records[i]; {
		case fr.rules[i] == nil || r.Len() == 0:
		case r.Len() > policy.Few:
			p.rules, p.path = fr.rules[i], fr.paths[i]
		default:
			p.rules, p.acts = fr.rules[i], append(p.acts, r.Actions()...)
		}
	}
	c.hops[slot].framed = k
}

// stands reports whether parts of what a flow's decision rests upon are as they were.
func (t *turn) stands(k *framed, from, to int, p *policy.Packet) bool {
	for i := from; i < to; i++ {
		x := &k.parts[i]
		if x.rules == nil {
			continue
		}
		t.evaluator(x.rules)
		if x.path != nil && !x.path.Hold(p) || !policy.Hold(x.acts, p) {
			return false
		}
	}
	return true
}

// repeat does parts of what rules do for each packet of a flow.
func (t *turn) repeat(k *framed, from, to int, f *packet.Frame, p *policy.Packet) {
	p.Frame, p.Mark, p.Priority = f, f.Mark, f.Priority
	for i := from; i < to; i++ {
		x := &k.parts[i]
		if x.rules == nil {
			continue
		}
		t.evaluator(x.rules)
		length := frameLen(f)
		if i >= partEgress {
			length += packet.EthernetLen
		}
		if x.path != nil {
			x.path.Replay(p, 1, uint64(length))
		}
		policy.Replay(x.acts, p, 1, uint64(length))
	}
	f.Mark, f.Priority = p.Mark, p.Priority
}

// frameLen is for how many bytes a frame counts at the hooks of frames: without the
// headers of the link, one tag included.
func frameLen(f *packet.Frame) int {
	n := f.Len() - packet.EthernetLen
	if f.View.Tags > 0 {
		n -= packet.VLANLen
	}
	return n
}

// reframe does to frame i what routers and rules did to the first of a remembered flow,
// for each packet of which rules of frames do something: as rewrite.
func (t *turn) reframe(d *decision, i int) bool {
	h, k, f := d.hop, d.hop.framed, &t.frames[i]
	p := &t.framing.packet
	*p = policy.Packet{Frame: f, Now: int64(t.out.clock.time())}
	if h.conn == nil {
		if !t.stands(k, 0, numParts, p) {
			return false
		}
		t.repeat(k, 0, partOut, f, p)
	} else if !t.stands(k, 0, partOut, p) || !t.pass(h, f) {
		return false
	}
	if h.routers > 0 || h.conn != nil {
		t.rewritten(h, f)
	}
	if h.conn != nil {
		p = &t.replayed
	}
	if d.tag.Op != bridge.TagKeep {
		t.alone()
		if !d.tag.Apply(f) {
			return false
		}
	}
	t.repeat(k, partOut, numParts, f, p)
	return true
}

// forwards takes frame i from port in to the one port that the bridge has found, by the
// hooks in between; c is of what has come by routers, keep says that the decision may be
// remembered.
func (t *turn) forwards(in *port, v *bridge.Verdict, i int, c *crossing, keep bool) {
	t.note(in, v, i)
	t.alone()
	d := decisionOf(v)
	if c != nil && c.in.sock != nil {
		d.src = c.src
	}
	out := t.view.port(v.Port)
	reason := trace.None
	if out != nil && out.frames() {
		reason = t.goesOut(in, out, &v.Tag, &t.frames[i])
	}
	if keep {
		t.ends(&d, reason, c)
	}
	switch {
	case reason == trace.None:
		t.act(in, v, i)
	case c != nil:
		drop(c.in, reason, 1)
	default:
		drop(in, reason, 1)
	}
}

// goesOut shows a frame to all hooks on its way from port in to port out, as it is to
// leave: with its tag.
func (t *turn) goesOut(in, out *port, tag *bridge.Tag, f *packet.Frame) trace.Reason {
	if !tag.Apply(f) {
		return trace.VLANEgress
	}
	*tag = bridge.Tag{}
	if reason := t.crosses(in, out, f); reason != trace.None {
		return reason
	}
	return t.leavesBy(in, out, f)
}

// ends remembers a decision, or that rules drop the flow.
func (t *turn) ends(d *decision, reason trace.Reason, c *crossing) {
	switch reason { // what else ends a frame isn't remembered
	case trace.NFTDrop:
		d.drop, d.plain = reason, false
	case trace.None:
	default:
		return
	}
	t.keep(d, c)
}

// lands takes frame i, which is for the host stack and not for its router, there.
func (t *turn) lands(in *port, v *bridge.Verdict, i int) {
	t.note(in, v, i)
	t.alone()
	if reason := t.hears(in, in.local, i); reason != trace.None {
		drop(in, reason, 1)
		return
	}
	t.act(in, v, i)
}

// floods is the part of a flood that goes to a port with hooks. Others have the same
// buffer, and get the frame as it is.
func (t *turn) floods(in, out *port, o bridge.Output, i int) {
	f, fr := &t.frames[i], &t.framing
	if out.link != nil && (!wants(&f.View, o.Tag) || !t.heeds(in, out, i)) {
		return
	}
	if t.tally.work > maxWork {
		drop(in, trace.OutputBudget, 1)
		return
	}
	fr.before.save(f)
	var reason trace.Reason
	tag := o.Tag
	switch {
	case out.link == nil:
		reason = t.goesOut(in, out, &tag, f)
	case !tag.Apply(f):
		reason = trace.VLANEgress
	default:
		tag = bridge.Tag{}
		reason = t.hears(in, out, i)
	}
	switch {
	case reason != trace.None:
		drop(in, reason, 1)
		fr.before.restore(f)
	case fr.before.is(f):
		t.leave(in, o, i)
	default: // what waits to be sent is sent as it was
		fr.after.save(f)
		fr.before.restore(f)
		t.flush()
		fr.after.restore(f)
		t.leave(in, bridge.Output{Port: o.Port, Mirror: o.Mirror, Tag: tag}, i)
		t.flush()
		fr.before.restore(f)
	}
}

// emits shows a frame that goes from the gateway to one port, past the bridge, to the
// hooks on its way.
func (t *turn) emits(in, out *port, tag *bridge.Tag, f *packet.Frame) trace.Reason {
	t.framing.begin(t)
	if out == nil || !out.frames() {
		return trace.None
	}
	return t.goesOut(in, out, tag, f)
}

// copied is a copy of a frame.
type copied struct {
	frame packet.Frame
	bytes []byte
}

func (c *copied) save(f *packet.Frame) {
	c.frame = *f
	c.bytes = append(c.bytes[:0], f.Bytes()...)
}

func (c *copied) restore(f *packet.Frame) {
	*f = c.frame
	copy(f.Bytes(), c.bytes)
}

// is reports whether the frame is as it was.
func (c *copied) is(f *packet.Frame) bool {
	return c.frame.Mark == f.Mark && c.frame.Priority == f.Priority && bytes.Equal(c.bytes, f.Bytes())
}
