// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	"sluice/policy/nft"
	"sluice/trace"
)

// Theory of operation.
//
// What a router says because of a packet, an ICMP error, a redirect, a reset, is a packet
// of the namespace's own: in a namespace that tracks connections it passes output and
// postrouting, and the router is asked for its way. Its limits come before all that: what
// a container may not have said costs no rule.
//
// It waits in the ring of the device by which the packet came, and goes on from there on
// the worker that has the host stack's packets: a packet's hooks are not asked while
// they are being asked about another. With it goes what is known of the packet's
// connection, which nobody else may know of yet, and which has ended with the packet if
// that was the first one (nf_conntrack_attach). Rules see it as one that is related, in
// the other direction.

// about is what the packet was that the router says something about.
type about struct {
	conn    conntrack.Conn
	pending conntrack.Pending // if that is not there yet
	dir     conntrack.Dir     // of what is said
	way     nat.Rewrite       // what becomes of that
	asked   bool              // chains of type nat were, what its destination becomes
}

// about is what is known of the packet; nil if that has no connection. What is said of
// one that changes its family is of its sender's, and about what that sent.
func (p *passing) about() *about {
	if p.to.conn == (conntrack.Conn{}) && !p.fresh {
		return nil
	}
	a := &about{conn: p.to.conn, dir: p.said.Dir.Other(), way: p.back, asked: p.destined}
	if p.fresh {
		a.pending, a.dir = p.pending, conntrack.Reply
	}
	if a.way.Translates() || !p.destined && p.fresh {
		a.way = nat.Rewrite{}
	}
	return a
}

// isReset reports whether a frame of the router is a reset: no other segment is of it.
func isReset(frame []byte) bool {
	var v packet.View
	return v.Parse(frame) == packet.FaultNone && v.Proto == packet.ProtoTCP
}

// say takes frame i, which the router behind device p has made, on its way.
func (t *turn) say(p *port, w *waiting, i int) {
	f := &t.frames[i]
	f.InPort = p.index
	f.SetMACs(p.mac, p.mac)
	if reason := inspect(f); reason != trace.None {
		drop(p, reason, 1)
		return
	}
	if p.bridge != nil {
		t.tally.frame(f)
	}
	t.tally.work += missWork
	t.examined++
	t.last = train{}
	t.framing.begin(t)
	c := crossing{in: p, said: true, cause: w.from, about: w.about}
	if p.sock == nil && p.bridge == nil {
		c.ration = &p.link.released
	}
	t.ask(&c, p, i)
}

// attach gives a packet of the router's own the connection of the packet that it is about.
func (p *passing) attach(a *about) conntrack.Verdict {
	p.fresh, p.pending = false, a.pending
	p.seen = true
	p.said = conntrack.Verdict{State: conntrack.Related, Dir: a.dir, Conn: a.conn}
	p.tracked(&p.said)
	return p.said
}

// goOnAbout is goOn for such a packet.
func (p *passing) goOnAbout(a *about) trace.Reason {
	f := p.packet.Frame
	if p.eval == nil {
		f = p.look.Frame
	}
	p.isError = f.View.Proto != packet.ProtoTCP
	p.to = tracked{conn: a.conn, dir: a.dir, way: a.way}
	p.out = p.pending.Original
	if a.conn != (conntrack.Conn{}) {
		p.out = a.conn.Out(a.dir)
		if !a.conn.Valid() {
			return trace.CTInvalid
		}
	}
	if redirects(f) && p.pending.Active() && p.eval != nil && p.eval.Translates(p.family) {
		return trace.NATUntranslatable // it is not known yet what the packet becomes (nf_nat_icmp_reply_translation)
	}
	p.consults = !p.isError && p.pending.Active()
	if p.consults && !a.asked {
		return p.consulted(f, nft.HookOutput)
	}
	return trace.None
}

// loop is the rest of the way of what the router says, and its namespace is told, since
// the connection that it is about leads there: it leaves by lo, and comes by that.
func (p *passing) loop(f *packet.Frame) trace.Reason {
	if p.eval != nil {
		p.packet.Out = p.space.rules.device(loopback)
	}
	if reason := p.ask(f, nft.HookPostrouting, first, atSrcNAT); reason != trace.None {
		return reason
	}
	if reason := p.end(f, nft.HookPostrouting, nat.Postrouting); reason != trace.None {
		return reason
	}
	p.packet.In, p.packet.Out = p.packet.Out, nil
	if reason := p.ask(f, nft.HookPrerouting, first, last); reason != trace.None {
		return reason
	}
	return p.ask(f, nft.HookInput, first, last)
}

// redirects reports whether a packet is a redirect of IPv4.
func redirects(f *packet.Frame) bool {
	v := &f.View
	return v.Proto == packet.ProtoICMP && v.Is(packet.ViewHasL4) && v.SrcPort>>8 == packet.ICMPRedirect
}

// consulted shows a reset of a connection that is not there yet to chains of type nat,
// as the kernel does, if the connection's packet did not come to those: they may count it,
// and drop it. The reset stays as it is, but what the connection would become is what
// later rules see of it.
func (p *passing) consulted(f *packet.Frame, at nft.Hook) trace.Reason {
	if p.eval == nil {
		return trace.None
	}
	hook := nat.Output
	p.flow = nat.Flow{Pending: &p.pending, Now: p.turn.seconds, Devices: p.space.router, InAddr: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if p.pending.Original.Dst.Is6() {
		p.flow.InAddr = netip.IPv6Loopback()
	}
	if at == nft.HookPostrouting {
		hook = nat.Postrouting
		if out := p.packet.Out; out != nil {
			p.flow.Out = uint16(out.Index)
			p.flow.OutAddr = p.space.router.Address(p.flow.Out, netip.Addr{}, f.View.DstAddr(f.Bytes()))
		}
	}
	v, done := p.translated(f, at, hook)
	switch {
	case !done && !p.space.spec.Connections.rfc(): // which keeps what it gives away
		p.conns.nat.TranslateBy(hook, &p.flow, &nat.Rule{Hook: hook, Kind: nat.Accept})
	case v.Reason != trace.NATExhausted: // of which the kernel learns when it confirms
		return v.Reason
	}
	return trace.None
}
