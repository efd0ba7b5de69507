// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"math"
	"net/netip"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	"sluice/policy"
	"sluice/policy/nft"
	"sluice/router"
	"sluice/routing"
	"sluice/trace"
)

// Theory of operation.
//
// A namespace that tracks connections has netfilter's five hooks. What is done at
// one of them is in the order of nft(8)'s priorities:
//
//	prerouting   chains below -200, conntrack, chains, dstnat -100, chains, then the router
//	output       the same, of what the host stack sends
//	forward      chains, of what the router sends on, with its hop limit decremented
//	input        chains below 100, srcnat 100, chains, of what the router delivers
//	postrouting  the same, of what leaves; then the connection is confirmed
//
// Before is what the sender wrote, from dstnat on where it goes, from srcnat on where
// it comes from. What the router makes itself of a packet (fragments, what waits for
// a neighbour) passes forward and postrouting; a bridged one, where those are asked
// about, prerouting, forward and postrouting. A packet of no connection passes as well,
// as invalid or untracked.
//
// What the ruleset says of the first packet of a remembered flow holds for the others,
// if it says so; what it does for each of them, as to count, is remembered with the flow.

// The priorities at which something else than chains has its turn.
const (
	first    = math.MinInt32
	atTrack  = -200
	atDstNAT = -100
	atSrcNAT = 100
	last     = math.MaxInt32 + 1
)

// ruled is what the hooks of a namespace with a ruleset need of a packet.
type ruled struct {
	eval   *policy.Evaluator // nil: it has none
	packet policy.Packet
	record policy.Record
	family nft.Family
	routed policy.Mark   // what was recorded before it was routed
	asked  router.Packet // as it came
	rule   nat.Rule
	from   uint16 // on whose account it is refused
	by     *port  // that one
	turn   *turn
}

// begin prepares for a packet's way through the hooks.
func (t *turn) beginRules(c *crossing, asked *router.Packet) {
	p := &t.passing
	r := &p.ruled
	r.asked, r.from, r.by, r.turn = *asked, c.in.index, c.in, t
	rules := p.space.rules
	if rules == nil {
		r.eval = nil
		return
	}
	f := asked.Frame
	r.eval, r.family, r.routed = t.evaluator(rules), familyOf(f), policy.Mark{}
	r.eval.Begin(&r.record)
	r.packet = policy.Packet{
		Frame: f, Env: rules.env, Now: int64(t.out.clock.time()), Wall: t.out.clock.wall(), CPU: uint32(t.worker),
		Ported: c.ported, SrcPort: c.ports.Src, DstPort: c.ports.Dst, PktType: pktType(f, c.bridged),
	}
	if c.links == 0 { // a mark doesn't leave its namespace
		r.packet.Mark, r.packet.RouteMark, r.packet.Priority = f.Mark, f.Mark, f.Priority
		r.packet.Trace = t.framing.asked && t.framing.packet.Trace
	}
	if asked.Local {
		r.packet.Out = rules.device(p.space.leavesBy(asked))
	} else {
		r.packet.In = rules.device(asked.Device)
	}
	t.tracks(rules, r.packet.Now)
}

// leavesBy is the device by which a packet of the host stack leaves, as far as the routes
// know before any rule has changed it. The stack answers by the one that was asked.
func (s *space) leavesBy(p *router.Packet) uint16 {
	v, b := &p.Frame.View, p.Frame.Bytes()
	q := routing.Query{Src: v.SrcAddr(b), Dst: v.DstAddr(b), L3mdev: p.Device}
	if q.Dst.IsLinkLocalUnicast() || q.Dst.IsMulticast() {
		return p.Device
	}
	res := s.router.Set().Lookup(&q)
	switch {
	case res.Type == routing.Local:
		return loopback // until it is translated
	case res.Type != routing.Unicast || res.NextHop == nil:
		return p.Device
	}
	return res.NextHop.Index
}

func familyOf(f *packet.Frame) nft.Family {
	if f.View.Is(packet.ViewIPv6) {
		return nft.FamilyIP6
	}
	return nft.FamilyIP
}

// pktType says how the frame was addressed.
func pktType(f *packet.Frame, bridged bool) uint8 {
	switch dst := f.DstMAC(); {
	case dst.IsBroadcast():
		return policy.PacketBroadcast
	case dst.IsMulticast():
		return policy.PacketMulticast
	case bridged:
		return policy.PacketOther
	}
	return policy.PacketHost
}

// tracked tells the rules of the packet's connection. Before that it has none, pending or
// not.
func (p *passing) tracked(v *conntrack.Verdict) {
	if p.eval != nil {
		q := &p.packet
		q.Tracked, q.Conn, q.Pending, q.Dir, q.State = true, v.Conn, &p.pending, v.Dir, v.State
	}
}

// first is the hook by which a packet comes.
func (p *passing) first() nft.Hook {
	if p.local {
		return nft.HookOutput
	}
	return nft.HookPrerouting
}

// ask shows the packet to the chains of a hook with priorities from lo up to but not hi.
func (p *passing) ask(f *packet.Frame, at nft.Hook, lo, hi int) trace.Reason {
	if p.eval == nil || !p.eval.Has(p.family, at, lo, hi) {
		return trace.None
	}
	p.packet.Frame, p.packet.Fault = f, packet.FaultNone
	p.eval.Continue(&p.record)
	v := p.eval.Hook(&p.packet, p.family, at, lo, hi)
	if p.packet.Logs {
		p.turn.tell(p.space.rules, &p.packet)
	}
	if p.packet.Fault != packet.FaultNone {
		return trace.NFTFault
	}
	return p.obey(f, v, at)
}

func (p *passing) obey(f *packet.Frame, v *policy.Verdict, at nft.Hook) trace.Reason {
	switch v.Code {
	case policy.Drop:
		p.by.culprits().note(p.space.rules, false, v)
		return trace.NFTDrop
	case policy.Reject:
		p.by.culprits().note(p.space.rules, false, v)
		p.reject(f, v, at)
		return trace.NFTReject
	default:
		return trace.None
	}
}

// reject tells the sender of a packet why it goes no further. Who sent one with a wrong
// checksum isn't told, since it may be from another.
func (p *passing) reject(f *packet.Frame, v *policy.Verdict, at nft.Hook) {
	if f.Vnet.Flags&(packet.FlagNeedsCsum|packet.FlagDataValid) == 0 && !packet.VerifyL4(f.Bytes(), &f.View) {
		return
	}
	q := p.asked
	q.Frame, q.Hooks = f, p
	sink := p.turn.out.sink(p.space, p.from)
	if v.Reject == policy.RejectICMP {
		e := packet.ICMPError{Type: v.Type, Code: v.ICMP}
		if at == nft.HookInput {
			p.space.router.RefuseOwn(&q, e, sink)
		} else {
			p.space.router.Refuse(&q, e, e, sink)
		}
		return
	}
	if f.View.Proto != packet.ProtoTCP {
		return
	}
	if p.moved && p.local { // the reset comes from whom the segment was sent to
		undo := nat.Of(p.out, p.original()).Only(nat.Destination)
		undo.Apply(f)
	}
	p.space.router.Reset(&q, sink)
	if !p.fresh && !packet.IsReset(f) {
		p.to.conn.CloseTCP(p.turn.seconds)
	}
}

// original is the packet's tuple as its sender wrote it.
func (p *passing) original() conntrack.Tuple {
	if p.fresh {
		return p.pending.Original
	}
	return p.to.conn.Tuple(p.to.dir)
}

// translated asks the chains of type nat about a new connection, and does what they
// say. Without done nobody said anything.
func (p *passing) translated(f *packet.Frame, at nft.Hook, hook nat.Hook) (v nat.Verdict, done bool) {
	if p.eval == nil || !p.eval.Has(p.family, at, first, last) {
		return v, false
	}
	p.packet.Frame = f
	p.eval.Continue(&p.record)
	w := p.eval.NAT(&p.packet, p.family, at)
	if p.packet.Logs {
		p.turn.tell(p.space.rules, &p.packet)
	}
	switch w.Code {
	case policy.Drop, policy.Reject:
		return nat.Verdict{Reason: p.obey(f, w, at)}, true
	case policy.Translate:
	default:
		return v, false
	}
	p.rule = natRule(hook, &w.NAT)
	return p.conns.nat.TranslateBy(hook, &p.flow, &p.rule), true
}

// natRule is what a rule wants, in the words of the NAT.
func natRule(hook nat.Hook, q *policy.NATRequest) nat.Rule {
	r := nat.Rule{Hook: hook, Random: q.Random || q.FullyRandom, Persistent: q.Persistent}
	if q.MinAddr.IsValid() {
		r.Target.Addrs = nat.AddrRange{Min: q.MinAddr, Max: q.MaxAddr}
	}
	r.Target.Ports = nat.PortRange{Min: q.MinPort, Max: q.MaxPort}
	switch q.Kind {
	case nft.SNAT:
		r.Kind = nat.SNAT
	case nft.DNAT:
		r.Kind = nat.DNAT
	case nft.Masquerade:
		r.Kind = nat.Masquerade
	case nft.Redirect:
		r.Kind = nat.Redirect
	}
	if q.Netmap && q.MinAddr.IsValid() {
		r.Kind, r.Prefix = nat.Netmap, prefixOf(q.MinAddr, q.MaxAddr)
	}
	return r
}

// prefixOf is the prefix that goes from one address to another.
func prefixOf(from, to netip.Addr) netip.Prefix {
	n := from.BitLen()
	for n > 0 && !netip.PrefixFrom(from, n).Contains(to) {
		n--
	}
	return netip.PrefixFrom(from, n)
}

// mark is that by which the packet is routed.
func (p *passing) mark() uint32 {
	switch {
	case p.eval == nil:
		return 0
	case p.local:
		return p.packet.RouteMark
	}
	return p.packet.Mark
}

// take lets the rules know what others have said of the packet.
func (p *passing) take(f *packet.Frame) {
	if p.eval != nil {
		p.packet.Mark, p.packet.Priority = f.Mark, f.Priority
	}
}

// label tells the queues what the rules said of the packet.
func (p *passing) label(f *packet.Frame) {
	if p.eval != nil {
		f.Mark, f.Priority = p.packet.Mark, p.packet.Priority
	}
}

// keeps reports whether the rules have nothing against remembering the flow, and notes
// what is to be done for each packet of it.
func (p *passing) keeps() bool {
	k := &p.to
	k.does, k.acts, k.before, k.after = false, nil, nil, nil
	if k.conn != (conntrack.Conn{}) && p.begins() {
		return false
	}
	if p.eval == nil {
		return true
	}
	if !p.record.Cacheable() || p.packet.Trace {
		return false
	}
	r, n := &p.record, p.record.Len()
	if k.rules, k.does = p.space.rules, n > 0; n <= policy.Few {
		k.acts, k.routed = r.Actions(), p.routed.Actions
		return true
	}
	k.before, k.after = p.eval.Path(r, policy.Mark{}, p.routed), p.eval.Path(r, p.routed, r.Mark())
	return k.before != nil && k.after != nil
}

// begins reports whether the packet is the first of a connection of which both directions
// look the same: those behind it, which do so too, are answers.
func (p *passing) begins() bool {
	answer, _ := p.out.Inverse()
	return p.to.dir == conntrack.Original && answer == p.to.conn.Tuple(conntrack.Original)
}

// holds reports whether all that the rules' verdict rested upon is as it was.
func (k *tracked) holds(p *policy.Packet) bool {
	if k.before != nil {
		return k.before.Hold(p) && k.after.Hold(p)
	}
	return policy.Hold(k.acts, p)
}

// again does for a packet of a remembered flow what the rules did for the first. False:
// the rules are to be asked about it.
func (t *turn) again(h *hop, state conntrack.State, f *packet.Frame) bool {
	k := h.conn
	t.replayed = policy.Packet{Frame: f, Now: int64(t.out.clock.time()), Conn: k.conn, Dir: k.dir, State: state, Tracked: true}
	if !t.repeats(h, f) {
		t.known, t.isKnown = conntrack.Verdict{State: state, Dir: k.dir, Conn: k.conn}, true
		return false
	}
	return true
}

// repeats is again for a packet of which t.replayed says what is known.
func (t *turn) repeats(h *hop, f *packet.Frame) bool {
	k, p := h.conn, &t.replayed
	if k.rules != nil {
		t.evaluator(k.rules)
	}
	if !k.holds(p) || h.framed != nil && !t.stands(h.framed, partOut, numParts, p) {
		return false
	}
	if h.framed != nil {
		t.repeat(h.framed, 0, partOut, f, &t.framing.packet)
	}
	p.Mark, p.Priority = f.Mark, f.Priority
	if k.before != nil {
		k.before.Replay(p, 1, wholeLen(f))
	} else {
		policy.Replay(k.acts[:k.routed], p, 1, wholeLen(f))
	}
	return true
}

// wholeLen is for how many bytes a frame counts: an offload frame is one packet.
func wholeLen(f *packet.Frame) uint64 { return uint64(f.View.End - f.View.L3) }

// afterwards does the rest of it.
func (t *turn) afterwards(k *tracked, f *packet.Frame) {
	switch {
	case !k.does:
		return
	case k.after != nil:
		k.after.Replay(&t.replayed, 1, wholeLen(f))
	default:
		policy.Replay(k.acts[k.routed:], &t.replayed, 1, wholeLen(f))
	}
	f.Mark, f.Priority = t.replayed.Mark, t.replayed.Priority
}
