// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"

	"sluice/neigh"
	"sluice/packet"
	"sluice/routing"
	"sluice/trace"
)

const minMTU6 = 1280 // of every link, RFC 8200 §5

// onward sends a packet to its next hop: ip_forward, ip6_forward, and without what
// only a router does, the output of the own stack.
func (w *passage) onward() Verdict {
	if w.out = w.st.byIndex[w.res.NextHop.Index]; w.out == nil {
		return drop(trace.NoRoute) // over lo
	}
	w.via = w.res.Gateway(w.query.Dst)
	if !w.Local {
		if verdict, done := w.mayForward(); done {
			return verdict
		}
	}
	mtu := w.st.mtu(&w.res, w.out, w.as6())
	if w.Limit != 0 {
		mtu = min(mtu, w.Limit)
	}
	switch n := w.length(); {
	case n > mtu:
		return w.tooBig(mtu)
	case w.mustCut(n):
		return w.fragment(minMTU6)
	}
	if w.redirect && !w.v6 {
		w.redirect4()
	}
	return w.toNeighbour(mtu)
}

// mayForward is what a router asks of a packet before its MTU.
func (w *passage) mayForward() (_ Verdict, done bool) {
	if reason := w.checkSource(w.out); reason != trace.None {
		return drop(reason), true
	}
	if fault := w.options(); fault != nil {
		return w.optionFault(fault), true
	}
	if !w.v6 && routing.MartianForward(w.src, w.dst) != routing.NotMartian ||
		w.As.Dst.Is4() && routing.MartianForward(w.As.Src, w.As.Dst) != routing.NotMartian {
		return drop(trace.LinkScope), true
	}
	if w.Frame.HopLimit() <= 1 {
		w.report(w.family(packet.ICMPError{Type: packet.ICMPTimeExceeded}, packet.ICMPError{Type: packet.ICMP6TimeExceeded}))
		return drop(trace.TTLExceeded), true
	}
	if w.v6 {
		return w.scope6()
	}
	return Verdict{}, false
}

// family is the error of the packet's family.
func (w *passage) family(e4, e6 packet.ICMPError) packet.ICMPError {
	if w.v6 {
		return e6
	}
	return e4
}

// scope6 keeps link-local sources on their link, and tells a sender on the link
// that there is a shorter way.
func (w *passage) scope6() (_ Verdict, done bool) {
	switch {
	case w.src.IsUnspecified():
		return drop(trace.MartianSource), true
	case w.As.Turns() && w.src.IsLinkLocalUnicast():
		return drop(trace.LinkScope), true
	case w.out == w.in:
		w.redirect = w.in.redirects() && !w.Translated
		w.redirect6()
	case w.src.IsLinkLocalUnicast():
		w.report(packet.ICMPError{Type: packet.ICMP6Unreach, Code: packet.ICMP6BeyondScope})
		return drop(trace.LinkScope), true
	}
	return Verdict{}, false
}

// mtu is what fits on the way that a look-up found.
func (st *state) mtu(res *routing.Result, out *device, v6 bool) int {
	mtu := out.MTU
	if res.Route.MTU != 0 {
		mtu = min(mtu, int(res.Route.MTU))
	}
	if v6 {
		mtu = max(mtu, minMTU6)
	}
	return mtu
}

// tooBig reports a packet that doesn't fit, or fragments it if that is allowed.
func (w *passage) tooBig(mtu int) Verdict {
	if w.mayCut() {
		if w.As.Turns() && !w.v6 {
			mtu = minMTU6
		}
		return w.fragment(mtu)
	}
	mtu -= w.growth()
	w.report(w.family(
		packet.ICMPError{Type: packet.ICMPUnreach, Code: packet.ICMPFragNeeded, Info: uint32(mtu)},
		packet.ICMPError{Type: packet.ICMP6TooBig, Info: uint32(max(mtu, minMTU6))},
	))
	return drop(trace.FragNeeded)
}

// toNeighbour ends the way of a packet that may leave.
func (w *passage) toNeighbour(mtu int) Verdict {
	if w.recordsRoute() {
		return w.recorded()
	}
	v := Verdict{
		Action: Forward, Device: w.out.Index, Via: w.via, Src: w.out.MAC, MTU: mtu, Growth: w.growth(),
		MSS: w.mss(mtu), TTL: !w.Local,
		Epoch: Epoch{w.st.epoch}, Cacheable: w.cacheable() && !w.redirect, Ports: w.flow,
	}
	if w.out.PointToPoint {
		v.Link, v.Src = true, packet.MAC{}
		return v
	}
	var ok bool
	if v.Dst, v.Neigh, ok = w.r.neigh.Lookup(w.out.Index, w.via, w.Now); ok {
		return v
	}
	return w.resolve(&v)
}

// resolve gives a copy of the packet, rewritten but for the next hop's MAC, to
// the neighbour table.
func (w *passage) resolve(v *Verdict) Verdict {
	ws := w.r.space()
	defer w.r.spaces.Put(ws)
	f := ws.copyOf(w.Frame)
	rewrite(f, v)
	if reason := w.leave(f); reason != trace.None {
		v.Action, v.Reason = Drop, reason // whoever the next hop is
		return *v
	}
	if reason := w.r.hold(w, w.out, w.via, f.Vnet, f.Label, f.Bytes()); reason != trace.None {
		return drop(reason)
	}
	return Verdict{Action: Consumed}
}

// leave lets who translates addresses see a copy before it leaves.
func (w *passage) leave(f *packet.Frame) trace.Reason {
	if w.Hooks == nil {
		return trace.None
	}
	return w.Hooks.Leave(f, w.out.Index, w.via)
}

// rewrite makes of a copy what leaves.
func rewrite(f *packet.Frame, v *Verdict) {
	f.SetMACs(v.Dst, v.Src)
	if v.TTL {
		f.DecrementTTL()
	}
	if v.MSS != 0 {
		f.ClampMSS(v.MSS)
	}
}

// hold lets a frame wait for its next hop to be resolved.
func (r *Router) hold(w *passage, out *device, via netip.Addr, vnet packet.Vnet, label packet.Label, frame []byte) trace.Reason {
	held := neigh.Held{Port: w.Port, Vnet: vnet, Label: label, Frame: frame}
	res := r.neigh.Resolve(out.Index, via, held, w.Now, w.sink)
	for _, port := range res.Pushed {
		w.sink.Drop(port, trace.NeighQueue, 1)
	}
	return res.Reason
}

// emit sends a frame that the router made, or holds it.
func (r *Router) emit(w *passage, out *device, via netip.Addr, f []byte, vnet packet.Vnet, label packet.Label) trace.Reason {
	if out.PointToPoint {
		clear(f[:12])
		w.sink.Emit(out.Index, vnet, label, f)
		return trace.None
	}
	copy(f[6:12], out.MAC[:])
	mac, _, ok := r.neigh.Lookup(out.Index, via, w.Now)
	if !ok {
		return r.hold(w, out, via, vnet, label, f)
	}
	copy(f[:6], mac[:])
	w.sink.Emit(out.Index, vnet, label, f)
	return trace.None
}

// clampToMTU as Device.ClampMSS means what fits the way, in both directions.
const clampToMTU = 1

// mss is the limit that the route and the devices of the way set to the MSS of TCP.
// Linux has `advmss` for its own connections only; a router's are those that it
// forwards.
func (w *passage) mss(mtu int) uint16 {
	if w.Frame.View.Proto != packet.ProtoTCP {
		return 0
	}
	limit := uint16(min(w.res.Route.AdvMSS, 0xffff))
	for _, d := range [...]*device{w.in, w.out} {
		if d == nil || d.ClampMSS == 0 {
			continue
		}
		l := d.ClampMSS
		if l == clampToMTU {
			l = w.mssOfMTU(mtu)
		}
		if limit == 0 || l < limit {
			limit = l
		}
	}
	return limit
}

// mssOfMTU is what TCP has room for on the way on and on the way back.
func (w *passage) mssOfMTU(mtu int) uint16 {
	if w.in != nil && !w.As.Turns() {
		back := w.st.set.Back(&w.query)
		if back.Type == routing.Unicast {
			if d := w.st.byIndex[back.NextHop.Index]; d != nil {
				mtu = min(mtu, w.st.mtu(&back, d, w.v6))
			}
		}
	}
	fits := mtu - headersOf(w.as6())
	if w.As.Turns() && w.in != nil {
		fits = min(fits, w.in.MTU-headersOf(w.v6))
	}
	return uint16(max(1, min(fits, 0xffff)))
}

// headersOf is the length of the headers of TCP in a family.
func headersOf(v6 bool) int {
	if v6 {
		return packet.IPv6Len + packet.TCPMinLen
	}
	return packet.IPv4MinLen + packet.TCPMinLen
}
