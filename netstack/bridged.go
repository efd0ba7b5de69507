// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/bridge"
	"sluice/packet"
	"sluice/trace"
)

// bridges reports whether frame i, which the bridge forwards within its network, is
// shown to the hooks first, as br_netfilter does: an IP packet without a VLAN tag, in a
// namespace that asks for it.
func (t *turn) bridges(in *port, v *bridge.Verdict, i int) bool {
	view := &t.frames[i].View
	return v.Action == bridge.Forward && in.sock != nil && in.space.conns != nil && in.space.spec.Connections.Bridged &&
		view.Is(packet.ViewIP) && view.Tags == 0
}

// bridged lets the namespace see frame i on its way from a port to another one of its
// network.
func (t *turn) bridged(in *port, v *bridge.Verdict, i int, keep bool) {
	t.alone()
	c := crossing{in: in, src: v.Src, dst: v.Dst, keep: keep && v.Mirror|v.MirrorIn == 0, bridged: true}
	t.passBridged(&c, v, i)
}

// passBridged is bridged for a crossing that has begun. A packet with another
// destination now goes to the router, which knows where that is.
func (t *turn) passBridged(c *crossing, v *bridge.Verdict, i int) {
	in := c.in
	if !t.affords(in, routeWork) {
		return
	}
	if !t.track(c, in.local, i) {
		return
	}
	p := &t.passing
	if c.passing && (p.moved || p.to.way.Translates()) {
		t.note(in, v, i)
		r := t.input(c, in.space, t.packetAt(c, in.local, i, 0))
		t.follow(c, in.local, &r, i)
		return
	}
	d := decisionOf(v)
	if reason := t.leaveBridged(in, v, &t.frames[i]); reason != trace.None {
		t.dismissed(c, in.local, &d, reason)
		drop(in, reason, 1)
		return
	}
	if p.keeps() && !p.record.Routes && c.keep && c.passing && !p.isError {
		c.conn = p.to
		t.keep(&d, c)
	}
	c.passing = false
	t.apply(in, v, i)
}

// leaveBridged shows a bridged frame to the hooks from forward on, those of frames and
// those of IP. They see it with the tag that it leaves with.
func (t *turn) leaveBridged(in *port, v *bridge.Verdict, f *packet.Frame) trace.Reason {
	p, fr := &t.passing, &t.framing
	out := t.view.port(v.Port)
	framed := out != nil && out.frames()
	if framed {
		if !v.Tag.Apply(f) {
			return trace.VLANEgress
		}
		v.Tag = bridge.Tag{}
		fr.knows(p)
		if reason := t.crosses(in, out, f); reason != trace.None {
			return reason
		}
		p.take(f)
	}
	if reason := p.Leave(f, in.local.index, f.View.DstAddr(f.Bytes())); reason != trace.None || !framed {
		return reason
	}
	fr.knows(p)
	return t.leavesBy(in, out, f)
}
