// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"

	"sluice/fragment"
	"sluice/packet"
	"sluice/routing"
	"sluice/trace"
)

// passage is one packet's way through the router: what is known of it so far.
type passage struct {
	*Packet
	r     *Router
	st    *state
	sink  Sink
	in    *device // nil if the namespace's own stack sends it
	src   netip.Addr
	dst   netip.Addr
	v6    bool
	query routing.Query
	res   routing.Result
	out   *device    // of a packet that leads somewhere
	via   netip.Addr // its next hop

	flow     fragment.Ports // of a fragment that was followed
	redirect bool           // its sender has a shorter way
}

// Input decides what becomes of a packet. It never changes the frame, allocates
// nothing and takes no lock for one that is forwarded to a neighbour that is
// known, or delivered.
func (r *Router) Input(p *Packet, sink Sink) Verdict {
	w := passage{Packet: p, r: r, st: r.state.Load(), sink: sink}
	return w.judge()
}

// judge is ip_rcv and ip_route_input_slow, ip6_rcv and ip6_route_input, or the
// output half of both.
func (w *passage) judge() Verdict {
	if reason := w.admit(); reason != trace.None {
		return drop(reason)
	}
	if w.toGroup() {
		return w.deliverGroup()
	}
	w.ask()
	if w.toEverybody() && !own(w.res.Type) {
		return drop(trace.NoForward)
	}
	if v := &w.Frame.View; !w.Tracked && !own(w.res.Type) && v.Is(packet.ViewFrag) && w.st.set.NeedsPorts(w.query.Family()) {
		if verdict, done := w.trackFragment(); done {
			return verdict
		}
	}
	return w.byType()
}

func drop(reason trace.Reason) Verdict { return Verdict{Action: Drop, Reason: reason} }

// admit reads the packet's addresses and refuses what no host would take.
func (w *passage) admit() trace.Reason {
	f, v := w.Frame, &w.Frame.View
	w.src, w.dst, w.v6 = v.SrcAddr(f.Bytes()), v.DstAddr(f.Bytes()), v.Is(packet.ViewIPv6)
	if w.Local {
		return trace.None
	}
	if w.in = w.st.byIndex[w.Device]; w.in == nil {
		return trace.PortRemoved
	}
	if reason := martian(w.src, w.dst); reason != trace.None {
		return reason
	}
	if w.As.Turns() {
		if reason := martian(w.As.Src, w.As.Dst); reason != trace.None {
			return reason
		}
	}
	if !packet.VerifyL3(f.Bytes(), v) {
		return trace.IPChecksum
	}
	return trace.None
}

// toGroup reports whether the destination is a group, or everybody on the link.
func (w *passage) toGroup() bool {
	return w.dst.IsMulticast() || !w.v6 && (w.dst.IsUnspecified() || w.dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}))
}

// toEverybody reports whether the frame was sent to more than the router, which then
// is not the one to forward it (ip_forward and ip6_forward want PACKET_HOST).
func (w *passage) toEverybody() bool { return !w.Local && w.Frame.DstMAC().IsMulticast() }

// own reports whether packets are for the namespace itself.
func own(t routing.Type) bool {
	return t == routing.Local || t == routing.Broadcast || t == routing.Anycast
}

// deliverGroup gives a packet for a group to the own stack, which knows the groups
// it has joined. There is no multicast routing, and what the stack sends to a
// group doesn't come this way.
func (w *passage) deliverGroup() Verdict {
	if w.Local {
		return drop(trace.NoRoute)
	}
	w.query = routing.Query{Src: w.src, IIF: w.Device, Dst: w.dst}
	if reason := w.checkSource(nil); reason != trace.None && !w.src.IsUnspecified() {
		return drop(reason)
	}
	if fault := w.options(); fault != nil {
		return drop(fault.reason)
	}
	return w.deliver(w.Device)
}

// deliver is the verdict for the own stack. The stack of a device that a route
// doesn't name is that of the one it came in by.
func (w *passage) deliver(device uint16) Verdict {
	if w.st.byIndex[device] == nil {
		device = w.Device
	}
	return Verdict{Action: Deliver, Device: device, Epoch: Epoch{w.st.epoch}, Cacheable: w.cacheable()}
}

// cacheable reports whether the decision holds for all packets with the same
// addresses and ports from the same port.
func (w *passage) cacheable() bool {
	const single = packet.ViewFrag | packet.ViewIPOptions
	return !w.Frame.View.Is(single) && !w.st.set.NeedsTOS(w.query.Family())
}

// ask looks the packet up in rules and tables.
func (w *passage) ask() {
	w.query = routing.Query{Src: w.src, Dst: w.dst, TOS: w.tos(), Proto: w.protocol(), Port: w.Port, Mark: w.Mark}
	if w.Said {
		w.query.Port = 0 // on whose account it is, it didn't come by
	}
	if w.As.Turns() {
		w.query.Src, w.query.Dst = w.As.Src, w.As.Dst
	}
	if w.Local {
		w.query.L3mdev = w.Device // what leaves by a VRF's device is looked up in its table
	} else {
		w.query.IIF = w.Device
	}
	if w.v6 && w.dst.IsLinkLocalUnicast() && !w.As.Turns() {
		w.query.OIF = w.Device // it means a host of this link, and no other (rt6_need_strict)
	}
	if v := &w.Frame.View; !v.Is(packet.ViewFrag) {
		w.ports(fragment.Ports{Src: v.SrcPort, Dst: v.DstPort})
	} else if w.Tracked {
		w.flow = w.Ports
		w.ports(w.Ports)
	}
	w.lookup()
}

// ports makes the ports part of the query. Those of ICMP are none, as for the
// kernel's flow dissector.
func (w *passage) ports(p fragment.Ports) {
	switch w.Frame.View.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		w.query.Sport, w.query.Dport = p.Src, p.Dst
	}
}

// lookup decides on the query, with a next hop that is alive if there are several.
func (w *passage) lookup() {
	if w.st.set.NeedsPorts(w.query.Family()) {
		w.query.Hash = w.query.FlowHash(w.st.seed)
	}
	w.res = w.st.choose(&w.query)
}

// choose is Set.Lookup, but for next hops that are dead.
func (st *state) choose(q *routing.Query) routing.Result {
	res := st.set.Lookup(q)
	if len(st.dead) > 0 && res.NextHop != nil && len(res.Route.NextHops) > 1 {
		res.NextHop = res.Route.Choose(q, func(h *routing.NextHop) bool { return st.dead[hop{h.Index, h.Via}] })
	}
	return res
}

// tos is the type of service or the traffic class.
func (w *passage) tos() uint8 {
	h := w.Frame.Bytes()[w.Frame.View.L3:]
	if w.v6 {
		return h[0]<<4 | h[1]>>4
	}
	return h[1]
}

// byType does what the type of the route says.
func (w *passage) byType() Verdict {
	if own(w.res.Type) {
		return w.toOwn()
	}
	forward := w.in == nil || !w.in.NoForward
	if forward && w.res.Type == routing.Unicast {
		return w.onward()
	}
	if fault := w.options(); fault != nil {
		return w.optionFault(fault)
	}
	if !forward {
		return drop(trace.NoForward)
	}
	return w.refuse()
}

// toOwn delivers to an own address, if the source may be there.
func (w *passage) toOwn() Verdict {
	if !w.Local {
		if reason := w.checkSource(nil); reason != trace.None {
			return drop(reason)
		}
		if fault := w.options(); fault != nil && w.res.Type == routing.Broadcast {
			return drop(fault.reason) // all who heard it would answer
		} else if fault != nil {
			return w.optionFault(fault)
		}
	}
	if w.res.NextHop == nil {
		return w.deliver(w.Device)
	}
	return w.deliver(w.res.NextHop.Index)
}

// refuse answers for a route that leads nowhere: ip_error, ip6_pkt_drop.
func (w *passage) refuse() Verdict {
	e, reason := packet.ICMPError{Type: packet.ICMPUnreach}, trace.NoRoute
	code6 := uint8(packet.ICMP6NoRoute)
	switch {
	case w.res.Type == routing.Blackhole:
		return drop(trace.Blackhole)
	case w.res.Type == routing.Prohibit:
		e.Code, code6, reason = packet.ICMPAdminProhib, packet.ICMP6Prohibited, trace.Prohibit
	case w.res.Type == routing.Unreachable && w.res.Route != nil:
		e.Code, reason = packet.ICMPHostUnreach, trace.Unreachable
	case w.res.Type == routing.Multicast:
		return drop(trace.MartianDestination)
	default:
		e.Code = packet.ICMPNetUnreach
	}
	if w.v6 {
		e = packet.ICMPError{Type: packet.ICMP6Unreach, Code: code6}
	}
	if w.v6 || w.Local || w.r.rates.mayRefuse(w) {
		w.report(e)
	}
	return drop(reason)
}
