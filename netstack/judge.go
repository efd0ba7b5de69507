// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"hash/maphash"

	"sluice/bridge"
	"sluice/flow"
	"sluice/packet"
	"sluice/trace"
)

// decision is what the flow cache remembers: the output port and the entries of
// the FDB that it rests upon. It is right while both are valid and the view is
// the same, which is the cache's generation.
type decision struct {
	src, dst bridge.Ref
	out      uint16
	plain    bool // nothing of what follows
	drop     trace.Reason
	bare     bool // it rests upon no entry: rules drop the frame before it comes to the bridge
	tag      bridge.Tag
	mirror   uint16 // gets a copy of what leaves; 0: nobody
	mirrorIn uint16 // gets a copy of the frame as it came; 0: nobody
	hop      *hop   // what routers do before; nil for what is bridged
}

func (d *decision) valid() bool {
	return (d.src.Valid() && d.dst.Valid() || d.bare) && (d.hop == nil || d.hop.valid())
}

// train is the frame that the next one of the turn may join: it waits on an
// output list, and went there by this decision. Zero is none.
type train struct {
	flow  *decision
	frame int
}

// flows is a worker's flow cache and what look-ups in it need.
type flows struct {
	cache  *flow.Cache[decision]
	hops   []hop     // of the decisions in the slots of the cache that are routed
	conns  []tracked // of those whose connection is tracked; nil before the first one
	framed []framed  // of those for which rules of frames do something; nil before the first one
	seed   maphash.Seed
	key    flow.Key // of the frame at hand
	hash   uint64
}

// find returns the decision for a frame if there is one that is still right.
// cacheable says whether a new one may be remembered.
func (c *flows) find(f *packet.Frame, gen uint64) (d *decision, cacheable bool) {
	if !c.key.Set(f) {
		return nil, false
	}
	c.hash = c.key.Hash(c.seed)
	d = c.cache.Lookup(&c.key, c.hash, gen)
	if d != nil && !d.valid() {
		return nil, true
	}
	return d, true
}

// keep remembers a decision for the frame that find was called for.
func (c *flows) keep(d *decision, gen uint64) { *c.cache.Insert(&c.key, c.hash, gen) = *d }

// keepHop is keep for one that rests upon routers. What they do lies apart: the
// slots of the cache stay small, which is what a look-up is fast by.
func (c *flows) keepHop(d *decision, x *crossing, gen uint64) {
	v := c.cache.Insert(&c.key, c.hash, gen)
	slot := c.cache.Slot()
	*v = *d
	v.plain, v.hop = false, &c.hops[slot]
	*v.hop = x.hop
	if !x.tracks {
		return
	}
	if c.conns == nil {
		c.conns = make([]tracked, c.cache.Cap())
	}
	k := &c.conns[slot]
	acts := append(k.acts[:0], x.conn.acts...)
	*k = x.conn
	k.acts, v.hop.conn = acts, k
}

// decisionOf is what is remembered of a verdict.
func decisionOf(v *bridge.Verdict) decision {
	return decision{
		src: v.Src, dst: v.Dst, out: v.Port,
		drop: v.Reason, tag: v.Tag, mirror: v.Mirror, mirrorIn: v.MirrorIn,
		plain: v.Action == bridge.Forward && v.Tag == bridge.Tag{} && v.Mirror|v.MirrorIn == 0,
	}
}

// judge decides what becomes of frame i, which came from port in, and puts it on
// the way: on the output lists, or nowhere.
func (t *turn) judge(in *port, i int) {
	f := &t.frames[i]
	f.InPort = in.index
	if reason := inspect(f); reason != trace.None {
		t.tally.refused(f)
		drop(in, reason, 1)
		return
	}
	t.tally.frame(f)
	d, cacheable := t.flows.find(f, t.view.gen)
	if d != nil {
		t.replay(in, d, i)
		return
	}
	t.examine(in, i, cacheable)
}

// examine is the slow path: the bridge decides about frame i, and the router about
// what is for the MAC of the local port. keep says that what they decide may be
// remembered.
func (t *turn) examine(in *port, i int, keep bool) {
	t.tally.misses++
	t.tally.work += missWork
	t.examined++
	t.last = train{} // the place of its decision may get another one
	f := &t.frames[i]
	if !t.admitted(in, i, keep) {
		return
	}
	if in.link != nil && f.DstMAC() == f.SrcMAC() && f.View.Is(packet.ViewIP) {
		t.route(in, i, keep)
		return
	}
	if in.bridge == nil { // a link has no one but its other end
		drop(in, trace.NoPort, 1)
		return
	}
	v := decide(in, f, t.now, &t.out.clock)
	keep = keep && v.Src.Valid() && v.Dst.Valid() // of Verdict: a drop by this, or a Forward
	if v.Action == bridge.Forward && v.Port == in.local.index && routed(f, v.Tag) && !answers(in.local, &f.View) {
		t.enter(in, &v, i, keep)
		return
	}
	if t.bridges(in, &v, i) {
		t.bridged(in, &v, i, keep)
		return
	}
	t.carryOut(in, &v, i, keep)
}

// replay does what the flow cache remembers. A datagram that continues the one
// before it joins its frame, as GRO would have it: from here on the train is one
// frame, for which the way to the receiver's socket is gone only once.
func (t *turn) replay(in *port, d *decision, i int) {
	if !d.plain && !t.rewrite(d, i) {
		t.examine(in, i, true)
		t.isKnown = false
		return
	}
	d.src.Touch(t.now)
	t.tally.hits++
	if d == t.last.flow && t.frames[t.last.frame].Absorb(&t.frames[i]) {
		return
	}
	t.last = train{}
	switch {
	case !d.plain:
		t.replayMore(in, d, i)
	case t.send(in, t.view.port(d.out), i):
		t.last = train{flow: d, frame: i}
	}
}

// replayMore is replay for what is not simply sent. What is mirrored forms no
// trains, so that the copies are complete.
func (t *turn) replayMore(in *port, d *decision, i int) {
	t.mirror(d.mirrorIn, bridge.Tag{}, i)
	if d.drop != trace.None {
		drop(in, d.drop, 1)
		return
	}
	if d.hop != nil && d.hop.queued {
		t.toDevice(in, t.view.port(d.out), i)
		return
	}
	tag := d.tag
	if d.hop != nil && d.hop.framed != nil {
		tag = bridge.Tag{} // reframe has put it on
	}
	if t.forward(in, bridge.Output{Port: d.out, Mirror: d.mirror, Tag: tag}, i) && d.mirror|d.mirrorIn == 0 {
		t.last = train{flow: d, frame: i}
	}
}

// inspect parses the frame and refuses what no step behind it should have to
// expect: headers that contradict themselves, and offload metadata that
// contradicts the headers.
func inspect(f *packet.Frame) trace.Reason {
	if f.Len() == 0 {
		return trace.Truncated
	}
	if r := faultReason(f.View.Parse(f.Bytes())); r != trace.None {
		return r
	}
	if !f.CheckVnet() {
		return trace.BadOffload
	}
	return trace.None
}

// faultReason names the drop reason of a parse fault.
func faultReason(f packet.Fault) trace.Reason {
	switch f {
	case packet.FaultNone:
		return trace.None
	case packet.FaultEthernet:
	case packet.FaultVLAN:
		return trace.MalformedVLAN
	case packet.FaultARP:
		return trace.MalformedARP
	case packet.FaultIPv4:
		return trace.MalformedIPv4
	case packet.FaultIPv6:
		return trace.MalformedIPv6
	case packet.FaultExtHdr:
		return trace.MalformedExtHdr
	case packet.FaultL4:
		return trace.MalformedL4
	}
	return trace.MalformedEthernet
}

// decide is the slow path: one function of the view (through its port), the
// tables of the bridge, the frame and the clock. It sends and counts nothing;
// its result is all that happens. The fast path replays it. A storm limit needs a
// finer time than the round's, which is read once a round.
func decide(in *port, f *packet.Frame, now bridge.Tick, c *clock) bridge.Verdict {
	if in.metered {
		return in.bridge.InputAt(in.index, f, now, int64(c.time()))
	}
	return in.bridge.Input(in.index, f, now)
}

// apply does what a verdict of the slow path says.
func (t *turn) apply(in *port, v *bridge.Verdict, i int) {
	t.note(in, v, i)
	t.act(in, v, i)
}

// act is apply for a verdict that was noted.
func (t *turn) act(in *port, v *bridge.Verdict, i int) {
	switch v.Action {
	case bridge.Forward:
		t.forward(in, bridge.Output{Port: v.Port, Mirror: v.Mirror, Tag: v.Tag}, i)
	case bridge.Flood:
		t.flood(in, v, i)
	case bridge.Answer:
		t.answer(in, v, i)
	default:
		drop(in, v.Reason, 1)
	}
}

// note does what a verdict asks for whatever becomes of the frame.
func (t *turn) note(in *port, v *bridge.Verdict, i int) {
	if v.Learned {
		t.tally.learned++
	}
	if v.Due {
		in.local.link.ask()
	}
	t.mirror(v.MirrorIn, bridge.Tag{}, i)
}

// forward sends frame i by its only output. What is for the host stack, or for who
// stands before it, gets its tag in the buffer, and so comes without one from the
// PVID of the local port. It reports whether the frame is on its way.
func (t *turn) forward(in *port, o bridge.Output, i int) bool {
	if out := t.view.port(o.Port); out != nil && out.link != nil && o.Tag.Op != bridge.TagKeep {
		t.alone()
		if !o.Tag.Apply(&t.frames[i]) {
			drop(in, trace.VLANEgress, 1)
			return false
		}
		o.Tag = bridge.Tag{}
	}
	return t.leave(in, o, i)
}

// leave sends frame i by one output. It reports whether it is on its way.
func (t *turn) leave(in *port, o bridge.Output, i int) bool {
	if !t.sendAs(in, t.view.port(o.Port), o.Tag, i) {
		return false
	}
	t.mirror(o.Mirror, o.Tag, i)
	return true
}

// flood sends frame i to the ports that the bridge says. All of them get the same
// buffer, whatever their tags: a flood copies nothing, and what must be cut is cut
// once for all ports without offload. The host stack gets only what it can have a
// use for, as a network card filters for its host.
func (t *turn) flood(in *port, v *bridge.Verdict, i int) {
	t.tally.flooded++
	f := &t.frames[i]
	var c bridge.Cursor
	for o, ok := v.Next(&c); ok; o, ok = v.Next(&c) {
		out := t.view.port(o.Port)
		switch {
		case out != nil && out.frames():
			t.floods(in, out, o, i)
		case out == nil || f.Vnet.IsGSO() && !out.offload && out.queues[egress] == nil:
			if t.admits(in, out, o.Tag, i) {
				t.out.share = append(t.out.share, departure{out, o.Tag})
				t.mirror(o.Mirror, o.Tag, i)
			}
		case out.link == nil || wants(&f.View, o.Tag) && t.heeds(in, out, i):
			t.leave(in, o, i)
		}
	}
	if len(t.out.share) > 0 {
		t.flush() // what is before it goes first
		t.out.scatter(&t.frames[i])
	}
}

// send puts frame i on the list of an output port. It reports whether the frame
// is on the list.
func (t *turn) send(in, out *port, i int) bool {
	if !t.admits(in, out, bridge.Tag{}, i) {
		return false
	}
	if t.out.full() {
		t.flush()
	}
	t.out.add(out.index, i)
	return true
}

// sendAs is send for a frame that leaves with another tag.
func (t *turn) sendAs(in, out *port, tag bridge.Tag, i int) bool {
	if !t.admits(in, out, tag, i) {
		return false
	}
	if t.out.full() {
		t.flush()
	}
	t.out.addAs(out.index, i, tag)
	return true
}

// flush sends what waits for the end of the turn now.
func (t *turn) flush() {
	t.out.flush(t.view, t.frames)
	t.last, t.watched = train{}, false // they have left
}

// admits reports whether frame i may leave by an output port; if not, it is
// dropped, and counted at the input port, once for each output port. The bridge's
// tables change together with the view, so that out exists; nil would be a
// defect, and costs the frame but not the process.
func (t *turn) admits(in, out *port, tag bridge.Tag, i int) bool {
	f := &t.frames[i]
	if out == nil {
		drop(in, trace.PortRemoved, 1)
		return false
	}
	if out.link == nil && ipLen(f) > out.mtu { // of the host stack it limits what that sends
		t.tooBig(in, out, tag, i)
		return false
	}
	return t.affords(in, work(f, out))
}

// ipLen is what an MTU limits: the largest IP packet that the frame stands for,
// or the payload of what is not IP.
func ipLen(f *packet.Frame) int {
	if n := f.L3Len(); n != 0 {
		return n
	}
	return f.Len() - f.View.L3
}
