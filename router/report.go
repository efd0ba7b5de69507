// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"

	"sluice/packet"
	"sluice/routing"
	"sluice/trace"
)

// wayBack is how an error gets to the sender of the packet that it is about.
type wayBack struct {
	res routing.Result
	out *device
	via netip.Addr
	src netip.Addr // of the error
}

// report sends an ICMP error about the packet to its sender, if there may be one
// and the rates allow it: icmp_send, icmp6_send.
func (w *passage) report(e packet.ICMPError) {
	if w.Said || w.res.Type == routing.Broadcast || !packet.MayAnswerWithICMP(w.Frame, e) {
		return
	}
	limited := !w.st.icmp.Off && w.limited(e)
	if limited && !w.r.rates.mayReport(w) {
		return
	}
	if w.Local {
		w.reportToSelf(e)
		return
	}
	b, ok := w.back()
	if !ok || limited && !w.r.rates.mayReportTo(w) {
		return
	}
	w.sendError(e, &b)
}

// limited reports whether a kind of error is: icmp_ratemask (6168) and
// icmpv6_mask_allow spare redirects and what discovers the MTU of a path.
func (w *passage) limited(e packet.ICMPError) bool {
	if w.v6 {
		return e.Type != packet.ICMP6TooBig
	}
	return e.Type != packet.ICMPRedirect && (e.Type != packet.ICMPUnreach || e.Code != packet.ICMPFragNeeded)
}

// back finds the way to the sender.
func (w *passage) back() (b wayBack, ok bool) {
	if w.res.Type == routing.Local {
		b.src = w.dst
	}
	q := routing.Query{Dst: w.src, Src: b.src, Proto: packet.ProtoICMP, L3mdev: w.Device}
	if w.v6 {
		q.Proto = packet.ProtoICMPv6
		if w.src.IsLinkLocalUnicast() {
			q.OIF = w.Device
		}
	} else {
		q.TOS = w.tos()&0x1e | 0xc0
	}
	if !b.find(w, &q) {
		return b, false
	}
	if b.src.IsValid() {
		return b, true
	}
	if !w.v6 {
		b.source4(w)
		return b, true
	}
	b.source6(w)
	q.Src = b.src // which rules may ask for
	return b, b.src.IsValid() && b.find(w, &q)
}

// find looks the way up.
func (b *wayBack) find(w *passage, q *routing.Query) bool {
	if w.st.set.NeedsPorts(q.Family()) {
		q.Hash = q.FlowHash(w.st.seed)
	}
	b.res = w.st.choose(q)
	if b.res.Type != routing.Unicast {
		return false
	}
	b.out, b.via = w.st.byIndex[b.res.NextHop.Index], b.res.Gateway(q.Dst)
	return b.out != nil
}

// source4 is that of whatever is sent this way. A router without an address has
// one that stands for it (RFC 7600 §4.8).
func (b *wayBack) source4(w *passage) {
	b.src = w.st.source4(&b.res, b.via)
	if !b.src.IsValid() {
		b.src = netip.AddrFrom4([4]byte{192, 0, 0, 8})
	}
}

// source6 is an address of the device that the packet came in by, which says more
// than one of the way back does.
func (b *wayBack) source6(w *passage) {
	from := w.in
	if from == nil {
		from = b.out
	}
	if b.src = b.res.Route.Src; !b.src.IsValid() {
		b.src = w.st.source6(from, w.src)
	}
}

// sendError makes the error and sends it.
func (w *passage) sendError(e packet.ICMPError, b *wayBack) {
	ws := w.r.space()
	defer w.r.spaces.Put(ws)
	e.ID = uint16(w.r.ident.Add(1))
	e.MTU = w.st.mtu(&b.res, b.out, w.v6)
	ws.buf = w.appendError(ws.buf[:0], e, b.src)
	w.say(b, w.Hooks, ws.buf)
}

// say sends what the router has made because of the packet: as a packet of the namespace's
// own, if somebody is to see those, who looks up its way once more; else by the way that
// was found.
func (w *passage) say(b *wayBack, about Hooks, f []byte) {
	if !w.sink.Say(w.Device, about, f) {
		w.r.emit(w, b.out, b.via, f, packet.Vnet{}, packet.Label{})
	}
}

// tell lets who translates addresses see an error, or a reset, that is for the own stack.
func (w *passage) tell(ws *workspace) {
	if w.Hooks == nil {
		return
	}
	if f, ok := ws.load(ws.buf, packet.Vnet{}); ok {
		w.Hooks.Tell(f)
		ws.buf = append(ws.buf[:0], f.Bytes()...)
	}
}

// appendError appends an Ethernet header to fill in, and the error.
func (w *passage) appendError(dst []byte, e packet.ICMPError, src netip.Addr) []byte {
	if w.v6 {
		dst = packet.AppendEthernet(dst, packet.MAC{}, packet.MAC{}, packet.EtherTypeIPv6)
		return packet.AppendICMP6(dst, w.Frame, src, e)
	}
	dst = packet.AppendEthernet(dst, packet.MAC{}, packet.MAC{}, packet.EtherTypeIPv4)
	return packet.AppendICMP4(dst, w.Frame, src, e)
}

// reportToSelf tells the own stack about what it sent. It would not believe an
// error that comes from itself, so the destination stands as its source.
func (w *passage) reportToSelf(e packet.ICMPError) {
	ws := w.r.space()
	defer w.r.spaces.Put(ws)
	ws.buf = w.appendError(ws.buf[:0], e, w.dst)
	w.tell(ws)
	w.toSelf(ws.buf)
}

// toSelf gives a frame to the own stack, at the device that has the packet's source.
func (w *passage) toSelf(f []byte) {
	d := w.st.byIndex[w.Device]
	if owner := w.st.set.Lookup(&routing.Query{Dst: w.src, L3mdev: w.Device}); owner.Type == routing.Local && owner.NextHop != nil {
		d = w.st.byIndex[owner.NextHop.Index]
	}
	if d == nil {
		return
	}
	copy(f[:6], d.MAC[:])
	copy(f[6:12], d.MAC[:])
	w.sink.Local(d.Index, packet.Vnet{}, f)
}

// redirect4 tells the sender of the router that it could use itself:
// ip_rt_send_redirect. It quotes the packet as it goes on, as Linux does.
func (w *passage) redirect4() {
	gateway := w.via
	if !gateway.Is4() {
		gateway = w.dst
	}
	e := packet.Redirect4(packet.ICMPRedirectHost, gateway)
	if !packet.MayAnswerWithICMP(w.Frame, e) || !w.r.rates.mayRedirect(w) {
		return
	}
	b, ok := w.back()
	if !ok {
		return
	}
	ws := w.r.space()
	defer w.r.spaces.Put(ws)
	p := *w.Packet
	p.Frame = ws.copyOf(w.Frame)
	p.Frame.DecrementTTL()
	onward := *w
	onward.Packet = &p
	onward.sendError(e, &b)
}

// redirect6 is the same for IPv6, where only a neighbour is told, and only by
// link-local addresses (RFC 4861 §8.2): ndisc_send_redirect.
func (w *passage) redirect6() {
	if !w.redirect || !w.in.link.IsValid() || w.via != w.dst && !w.via.IsLinkLocalUnicast() {
		return
	}
	b := wayBack{src: w.in.link}
	q := routing.Query{Dst: w.src, Src: b.src, Proto: packet.ProtoICMPv6, L3mdev: w.in.Index}
	if w.src.IsLinkLocalUnicast() {
		q.OIF = w.in.Index
	}
	if !b.find(w, &q) || b.out != w.in || b.res.NextHop.Via.IsValid() || !w.r.rates.mayRedirect6(w) {
		return
	}
	mac, _, _ := w.r.neigh.Lookup(w.out.Index, w.via, w.Now)
	ws := w.r.space()
	defer w.r.spaces.Put(ws)
	ws.buf = packet.AppendEthernet(ws.buf[:0], packet.MAC{}, packet.MAC{}, packet.EtherTypeIPv6)
	ws.buf = packet.AppendRedirect6(ws.buf, w.Frame, b.src, w.via, mac)
	w.say(&b, nil, ws.buf)
}

// TooBig answers for a bridge to a packet that it would send to a port with a
// smaller MTU: with the ICMP error that path MTU discovery needs, from the address
// of the device whose bridge it is, straight to the station that sent it. False if
// the packet is one to be fragmented instead, IPv4 without DF.
//
// Whoever is on a bridge without IPv4 addresses hears of it from 192.0.0.8 (RFC
// 7600 §4.8), without IPv6 ones from nobody.
func (r *Router) TooBig(p *Packet, mtu int, sink Sink) bool {
	w := passage{Packet: p, r: r, st: r.state.Load(), sink: sink}
	if w.admit() != trace.None {
		return true
	}
	if !w.v6 && !dontFragment(w.Frame) {
		return false
	}
	e := w.family(
		packet.ICMPError{Type: packet.ICMPUnreach, Code: packet.ICMPFragNeeded, Info: uint32(mtu)},
		packet.ICMPError{Type: packet.ICMP6TooBig, Info: uint32(max(mtu, minMTU6))},
	)
	if !packet.MayAnswerWithICMP(w.Frame, e) || w.in == nil {
		return true
	}
	src := w.bridgeSource()
	if !src.IsValid() {
		return true
	}
	ws := r.space()
	defer r.spaces.Put(ws)
	e.ID, e.MTU = uint16(r.ident.Add(1)), w.in.MTU
	ws.buf = w.appendError(ws.buf[:0], e, src)
	to := w.Frame.SrcMAC()
	copy(ws.buf[:6], to[:])
	copy(ws.buf[6:12], w.in.MAC[:])
	sink.Emit(w.in.Index, packet.Vnet{}, packet.Label{}, ws.buf)
	return true
}

// bridgeSource is the address that a bridge's device has for a station on it.
func (w *passage) bridgeSource() netip.Addr {
	if w.v6 {
		return w.st.source6(w.in, w.src)
	}
	if a := w.st.address4(w.in, w.src); a.IsValid() {
		return a
	}
	return netip.AddrFrom4([4]byte{192, 0, 0, 8})
}

// dontFragment reports the DF bit of an IPv4 packet.
func dontFragment(f *packet.Frame) bool { return f.Bytes()[f.View.L3+6]&0x40 != 0 }
