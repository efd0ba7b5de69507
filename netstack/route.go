// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/autoconf"
	"sluice/bridge"
	"sluice/fragment"
	"sluice/nat"
	"sluice/neigh"
	"sluice/packet"
	"sluice/router"
	"sluice/trace"
)

// Theory of operation.
//
// A frame for the gateway's own MAC is not for the host stack yet: its IP packet
// is shown to the namespace's router, which delivers, forwards, or keeps it. A
// packet that is forwarded is rewritten in its buffer (hop limit, MACs, MSS of a
// SYN) and enters the bridge of the network that it leaves by, as from that one's
// local port. By a link, it comes to the router of another namespace, and so on.
//
// What all of them said is one decision of the flow cache: a hop.

// maxCrossings bounds the links between namespaces that one packet may pass; each
// costs it a hop, and the worker time.
const maxCrossings = 8

// hop is what routers do to each packet of a flow.
type hop struct {
	epochs  [4]router.Epoch // of the routers that said so
	links   [3]transit      // between them
	neigh   neigh.Ref       // zero for what is delivered
	dst     packet.MAC
	src     packet.MAC
	mtu     uint16 // of forwarded packets: the largest
	mss     uint16 // for packet.Frame.ClampMSS; 0: none
	hops    uint8  // what the hop limit loses
	routers uint8  // epochs in use
	crossed uint8  // links in use
	untag   bool   // the tag comes off first
	rewrite bool   // MACs are written
	queued  bool   // it goes into the queue of the device that it leaves by

	conn   *tracked // of a namespace that tracks connections; nil: there is none
	framed *framed  // of rules that see frames; nil: they have nothing to do
}

// transit counts what passes a link, at both of its ends.
type transit struct{ out, in *trace.PortCounters }

func (x transit) count(f *packet.Frame) {
	n, bytes := f.Segments()
	x.out.AddTx(uint64(n), uint64(bytes))
	x.in.AddRx(uint64(n), uint64(bytes))
}

// valid reports whether the routers and the neighbour table would say the same.
func (h *hop) valid() bool {
	for i := range h.routers {
		if !h.epochs[i].Valid() {
			return false
		}
	}
	return !h.rewrite || h.neigh.Valid()
}

// fits reports whether a packet of the flow may go the way of the others. One that
// is too large, or has come to the end of its hops, is for the router to see.
func (h *hop) fits(f *packet.Frame) bool {
	return (h.hops == 0 || f.HopLimit() > h.hops) && (h.mtu == 0 || f.L3Len() <= int(h.mtu)) &&
		(h.conn == nil || !h.conn.way.Translates() || !nat.FragmentFirst(f))
}

// apply makes the packet what leaves the last router.
func (h *hop) apply(f *packet.Frame) {
	f.Trim()
	if h.untag {
		f.PopVLAN()
	}
	for range h.hops {
		f.DecrementTTL()
	}
	if h.rewrite {
		f.SetMACs(h.dst, h.src)
	}
	if h.mss != 0 {
		f.ClampMSS(h.mss)
	}
}

// rewrite does to frame i what the routers of a remembered flow did; false if this
// packet is not for them to let pass like the others.
func (t *turn) rewrite(d *decision, i int) bool {
	h, f := d.hop, &t.frames[i]
	switch {
	case h == nil:
		return true
	case !h.fits(f):
		return false
	case h.framed != nil:
		return t.reframe(d, i)
	}
	if h.conn != nil && !t.pass(h, f) {
		return false
	}
	t.rewritten(h, f)
	return true
}

// rewritten is the part of rewrite that changes the packet.
func (t *turn) rewritten(h *hop, f *packet.Frame) {
	h.neigh.Touch(neigh.Tick(t.now))
	h.apply(f)
	if h.conn != nil {
		t.afterwards(h.conn, f)
	}
	for i := range h.crossed {
		h.links[i].count(f)
	}
}

// routed reports whether a frame that the bridge sends to a local port, with this
// done to its tag, is for the router.
func routed(f *packet.Frame, tag bridge.Tag) bool {
	return f.View.Is(packet.ViewIP) && wants(&f.View, tag)
}

// answers reports whether a packet for a local port may be what its device has asked
// for: the address that it is for, and the way to its source, are not known before.
func answers(local *port, v *packet.View) bool { return local.learn != nil && autoconf.ForLearner(v) }

// enter takes frame i, which the bridge sends to the local port, to the router.
func (t *turn) enter(in *port, v *bridge.Verdict, i int, keep bool) {
	t.note(in, v, i)
	t.mirror(v.Mirror, v.Tag, i)
	t.alone()
	f := &t.frames[i]
	untag := v.Tag.Op == bridge.TagPop
	if untag {
		f.PopVLAN()
	}
	priority := f.View.Tags > 0 // see wants
	if priority {
		f.PopVLAN()
	}
	if t.view.framed {
		if reason := t.hears(in, in.local, i); reason != trace.None {
			if keep {
				t.ends(&decision{src: v.Src, dst: v.Dst, mirror: v.Mirror, mirrorIn: v.MirrorIn}, reason, nil)
			}
			drop(in, reason, 1)
			return
		}
	}
	c := crossing{in: in, src: v.Src, keep: keep && !priority && v.Mirror|v.MirrorIn == 0, hop: hop{untag: untag}}
	t.ask(&c, in.local, i)
}

// heeds reports whether the host stack behind out is to hear of frame i, which is for
// everybody: the router has no objections to its source, or it may be what makes that
// known, as a client of DHCP hears it.
func (t *turn) heeds(in, out *port, i int) bool {
	if v := &t.frames[i].View; !v.Is(packet.ViewIP) || answers(out, v) {
		return true
	}
	c := crossing{in: in}
	v := t.input(&c, out.space, t.packetAt(&c, out, i, 0))
	if v.Action == router.Drop {
		drop(in, v.Reason, 1)
	}
	return v.Action == router.Deliver
}

// route shows frame i, which the host stack behind in has sent, to the router.
func (t *turn) route(in *port, i int, keep bool) {
	c := crossing{in: in, keep: keep}
	t.ask(&c, in, i)
}

// crossing is the way of one packet through routers.
type crossing struct {
	in    *port      // where the frame came from
	src   bridge.Ref // its station's entry; zero for what the host stack sends
	dst   bridge.Ref // of what is bridged: that of who it is for
	keep  bool       // the decision may be remembered
	links int        // passed
	// ration is that of a host stack, if not the port that the frame came from has one.
	ration *bucket
	hop    hop
	grown  int // by so much its packets have become longer

	said  bool   // the router of in has made it, to be sent as its stack's, on account of
	cause uint16 // this port, about
	about *about // that

	// Of the namespaces that track connections:
	tracks  bool           // it has been in one
	hooked  bool           // it is in one
	passing bool           // with a connection, see there
	bridged bool           // it stays in its network
	resumed bool           // it was held, and ports are known
	ported  bool           // it is a fragment, with
	ports   fragment.Ports // of its flow
	conn    tracked        // of the one that it has been in
}

// add joins what one router said to the hop.
func (c *crossing) add(v *router.Verdict) {
	h := &c.hop
	c.keep = c.keep && v.Cacheable && int(h.routers) < len(h.epochs)
	if c.keep {
		h.epochs[h.routers] = v.Epoch
		h.routers++
	}
	if v.MTU == 0 { // it isn't sent on
		return
	}
	if v.TTL {
		h.hops++
	}
	c.grown += v.Growth
	if mtu := min(v.MTU-c.grown, maxMTU); h.mtu == 0 || mtu < int(h.mtu) {
		h.mtu = uint16(mtu)
	}
	if v.MSS != 0 && (h.mss == 0 || v.MSS < h.mss) {
		h.mss = v.MSS
	}
	h.dst, h.src, h.neigh, h.rewrite = v.Dst, v.Src, v.Neigh, !v.Link
}

// packetAt is frame i as it comes to the router by device at. limit is the MTU of
// what is behind its next hop; 0: not known. It is good for one question.
func (t *turn) packetAt(c *crossing, at *port, i, limit int) *router.Packet {
	p := &t.out.asked
	*p = router.Packet{
		Frame: &t.frames[i], Device: at.index, Limit: limit,
		Now: neigh.Tick(t.now), Nanos: int64(t.out.clock.time()),
	}
	switch {
	case c.said && c.links == 0:
		p.Local, p.Said, p.Port = true, true, c.cause
	case c.links > 0 || at.outside != nil && c.in == at:
		p.Port = at.index // what comes by one link has an account of its own
	case c.in == at:
		p.Local = true
	default:
		p.Port = c.in.index
	}
	p.Tracked, p.Ports = c.ported, c.ports
	if c.hooked {
		p.Mark = t.passing.mark()
		p.Hooks, p.As = &t.passing, t.passing.as(p.Frame)
		p.Translated = t.passing.moved || p.As.Turns()
	}
	return p
}

// ask does what the router of device at says.
func (t *turn) ask(c *crossing, at *port, i int) {
	if !t.affords(c.in, routeWork) {
		return
	}
	if !t.track(c, at, i) {
		return
	}
	v := t.input(c, at.space, t.packetAt(c, at, i, 0))
	t.follow(c, at, &v, i)
}

func (t *turn) input(c *crossing, s *space, p *router.Packet) router.Verdict {
	return s.router.Input(p, t.out.sink(s, c.in.index))
}

func (t *turn) follow(c *crossing, at *port, v *router.Verdict, i int) {
	switch v.Action {
	case router.Drop:
		if c.hooked && v.Reason == trace.NFTDrop {
			c.add(v)
			t.dismiss(c, nil, v.Reason)
		}
		drop(c.in, v.Reason, 1)
	case router.Deliver:
		c.add(v)
		if t.leaves(c, v, i) {
			t.deliver(c, t.view.port(v.Device), i)
		}
	case router.Forward:
		t.forwardBy(c, at, v, i)
	case router.Consumed: // it was copied, and may have been cut
		n, bytes := t.frames[i].Segments()
		t.tally.work += n + bytes/minMTU
	}
}

// deliver gives the packet to the host stack at the device that has the address.
func (t *turn) deliver(c *crossing, out *port, i int) {
	if out == nil {
		drop(c.in, trace.PortRemoved, 1)
		return
	}
	if c.ration != nil && !c.ration.take(price(&t.frames[i]), &t.out.clock) {
		drop(c.in, trace.LocalRate, 1)
		return
	}
	if c.keep && c.src.Valid() {
		t.keep(&decision{src: c.src, dst: c.src, out: out.index}, c)
	}
	t.send(c.in, out, i)
}

// forwardBy makes the packet what leaves by a device, and takes it there.
func (t *turn) forwardBy(c *crossing, at *port, v *router.Verdict, i int) {
	out, f := t.view.port(v.Device), &t.frames[i]
	if out == nil {
		drop(c.in, trace.PortRemoved, 1)
		return
	}
	to := t.behind(out, v)
	if to != nil && to.mtu < v.MTU {
		if v.MTU = to.mtu; f.L3Len() > to.mtu-v.Growth {
			p := t.packetAt(c, at, i, to.mtu)
			p.Ports = v.Ports
			again := t.input(c, at.space, p)
			if again.Action != router.Forward {
				t.follow(c, at, &again, i)
				return
			}
		}
	}
	if f.View.Proto == packet.ProtoTCP {
		clamp(c, at, out, to, v, f)
	}
	c.add(v)
	h := step(v)
	if c.hooked && h.hops > 0 && t.passing.eval != nil { // as the chains of forward are to see it
		f.DecrementTTL()
		h.hops = 0
	}
	if !t.leaves(c, v, i) {
		return
	}
	h.apply(f)
	if v.Link {
		t.cross(c, out, i)
	} else {
		t.emerge(c, out, i)
	}
}

// behind is the port of the bridge where a packet's next hop is; nil if that is not
// known, or there is no bridge.
func (t *turn) behind(out *port, v *router.Verdict) *port {
	if v.Link {
		return nil
	}
	index, _, ok := out.bridge.Lookup(v.Dst, out.pvid)
	if !ok {
		return nil
	}
	return t.view.port(index)
}

// clamp adds the limits that ports set to TCP's MSS to those of the routers, which
// know devices only. What fits the way is what fits its ports.
func clamp(c *crossing, at, out, to *port, v *router.Verdict, f *packet.Frame) {
	fits := v.MTU - headersOf(f, v.Growth)
	ports := [...]*port{c.in, at, out, to}
	if c.in == at && (c.said || at.outside == nil) { // the host stack's: it came in nowhere
		ports[0], ports[1] = nil, nil
	} else if c.in.sock != nil {
		fits = min(fits, c.in.mtu-headersOf(f, 0)) // of what comes back
	}
	for _, p := range ports {
		if p == nil || p.clamp == 0 {
			continue
		}
		limit := p.clamp
		if limit == clampToMTU {
			limit = uint16(max(1, fits))
		}
		if v.MSS == 0 || limit < v.MSS {
			v.MSS = limit
		}
	}
}

// headersOf is the length of a TCP packet's headers, when it has grown by so much.
func headersOf(f *packet.Frame, growth int) int {
	if f.View.Is(packet.ViewIPv6) {
		return packet.IPv6Len + packet.TCPMinLen + growth
	}
	return packet.IPv4MinLen + packet.TCPMinLen + growth
}

// clampToMTU as ClampMSS means what fits the way.
const clampToMTU = 1

// step is what one router does to a packet.
func step(v *router.Verdict) hop {
	h := hop{dst: v.Dst, src: v.Src, mss: v.MSS, rewrite: !v.Link}
	if v.TTL {
		h.hops = 1
	}
	return h
}

// cross takes the packet over a link, to the router of another namespace.
func (t *turn) cross(c *crossing, out *port, i int) {
	if out.queues[egress] != nil {
		t.wait(c, out, i)
		return
	}
	t.over(c, out, i)
}

// over is cross behind the queue of the device.
func (t *turn) over(c *crossing, out *port, i int) {
	if out.outside != nil {
		t.exit(c, out, i)
		return
	}
	peer := t.view.port(out.peer)
	if c.links++; peer == nil || c.links > maxCrossings {
		drop(c.in, trace.LinkLoop, 1)
		return
	}
	x := transit{out.counters, peer.counters}
	x.count(&t.frames[i])
	if h := &c.hop; int(h.crossed) < len(h.links) {
		h.links[h.crossed] = x
		h.crossed++
	}
	t.ask(c, peer, i)
}

// emerge lets the packet into the bridge of the network that it leaves by.
func (t *turn) emerge(c *crossing, out *port, i int) {
	if out.queues[egress] != nil {
		t.wait(c, out, i)
		return
	}
	v := decide(out, &t.frames[i], t.now, &t.out.clock)
	keep := c.keep && v.Action == bridge.Forward && v.Src.Valid() && v.Dst.Valid()
	if t.view.framed && v.Action == bridge.Forward {
		if c.tracks && t.passing.space == out.space {
			t.framing.knows(&t.passing)
		}
		t.forwards(out, &v, i, c, keep)
		return
	}
	if keep {
		d := decisionOf(&v)
		if c.in.sock != nil {
			d.src = c.src
		}
		t.keep(&d, c)
	}
	t.apply(out, &v, i)
}

// tooBig ends a frame that is larger than the MTU of a port. An IP packet is not
// lost without a word, as it would be on a bridge: its sender hears of the MTU from
// the gateway, or it is fragmented.
func (t *turn) tooBig(in, out *port, tag bridge.Tag, i int) {
	f := &t.frames[i]
	if in.sock == nil || !f.View.Is(packet.ViewIP) {
		drop(in, trace.TooBig, 1)
		return
	}
	t.tally.work += routeWork
	p := t.packetAt(&crossing{in: in}, in.local, i, out.mtu)
	sink := t.out.sink(in.space, in.index)
	sink.back, sink.tag = true, tagOf(&f.View)
	if in.space.router.TooBig(p, out.mtu, sink) {
		drop(in, trace.TooBig, 1)
		return
	}
	t.fragment(in, out, tag, f)
}

// tagOf is what puts the outer tag of a frame on an answer to it, in whichever VLAN
// that was.
func tagOf(v *packet.View) bridge.Tag {
	if v.Tags == 0 {
		return bridge.Tag{}
	}
	return bridge.Tag{Op: bridge.TagPush, TPID: v.TPID[0], TCI: v.TCI[0]}
}

// fragment sends the fragments of a frame, which may be, to a port of its bridge,
// each datagram of a train by itself.
func (t *turn) fragment(in, out *port, tag bridge.Tag, f *packet.Frame) {
	if n := f.Len() / out.mtu * 2; t.tally.work+n > maxWork {
		drop(in, trace.OutputBudget, 1)
		return
	}
	t.flush() // the buffers for segments are free
	if !f.Vnet.IsGSO() {
		t.pieces(in, out, tag, f)
		return
	}
	if !t.out.cutter.Init(f) {
		drop(in, trace.NotSegmentable, 1)
		return
	}
	for s := &t.out.cut.Frames[0]; t.out.cutter.Next(s); {
		t.pieces(in, out, tag, s)
	}
}

// pieces sends the fragments of one packet. Preconditions: the send list is empty,
// and so are the buffers for segments behind the first.
func (t *turn) pieces(in, out *port, tag bridge.Tag, f *packet.Frame) {
	var g packet.Fragmenter
	if !g.Init(f, out.mtu) {
		drop(in, trace.TooBig, 1)
		return
	}
	o, n := &t.out, 1
	if out.queues[egress] != nil {
		for s := &o.cut.Frames[n]; g.Next(s); t.tally.work++ {
			s.Label = f.Label
			o.lone(out, s, tag)
		}
		return
	}
	for ; g.Next(&o.cut.Frames[n]); t.tally.work++ {
		o.appendAs(out, &o.cut.Frames[n], tag)
		if n++; n == len(o.cut.Frames) {
			o.push(out)
			n = 1
		}
	}
	o.push(out)
}
