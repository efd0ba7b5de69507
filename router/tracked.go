// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"

	"sluice/fragment"
	"sluice/packet"
	"sluice/routing"
	"sluice/trace"
)

// What those ask a router who track connections and translate addresses: they see a
// packet before Input does, and what leaves after it.

// Fragment tells which flow a fragment is of, before Input is asked about it. The
// verdict's Held are fragments that are to be judged after this one, with its ports.
func (r *Router) Fragment(p *Packet) (fragment.Ports, fragment.Verdict) {
	return r.fragments.Track(p.Port, p.Device, p.Frame, uint32(p.Now))
}

// Refuse tells the sender of a packet, which the caller drops, why: with e4 or e6, if
// there may be an answer at all. What was for one of the namespace's addresses is
// refused by that; of IPv4, if it had been found by a route, as the kernel does.
func (r *Router) Refuse(p *Packet, e4, e6 packet.ICMPError, sink Sink) {
	w := passage{Packet: p, r: r, st: r.state.Load(), sink: sink}
	if w.admit() == trace.None {
		if p.Delivered || w.v6 && w.st.isOwn(w.dst, w.st.byIndex[p.Device]) {
			w.res.Type = routing.Local
		}
		w.report(w.family(e4, e6))
	}
}

// RefuseOwn is Refuse for a packet that was to be delivered: the error comes from the
// address that it was sent to.
func (r *Router) RefuseOwn(p *Packet, e packet.ICMPError, sink Sink) {
	w := passage{Packet: p, r: r, st: r.state.Load(), sink: sink}
	if w.admit() == trace.None {
		w.res = w.st.set.Lookup(&routing.Query{Dst: w.dst, L3mdev: w.Device})
		w.report(e)
	}
}

// Reset refuses a segment of TCP, which the caller drops, in the name of who it was
// sent to. It counts as an ICMP error.
func (r *Router) Reset(p *Packet, sink Sink) {
	w := passage{Packet: p, r: r, st: r.state.Load(), sink: sink}
	if w.Said || w.admit() != trace.None || w.toGroup() || w.toEverybody() || !w.st.icmp.Off && !r.rates.mayReport(&w) {
		return
	}
	ws := r.space()
	defer r.spaces.Put(ws)
	ws.buf = packet.AppendEthernet(ws.buf[:0], packet.MAC{}, packet.MAC{}, p.Frame.View.EtherType)
	if ws.buf = packet.AppendReset(ws.buf, p.Frame); len(ws.buf) == packet.EthernetLen {
		return
	}
	if w.Local {
		w.tell(ws)
		w.toSelf(ws.buf)
		return
	}
	w.sendBack(ws.buf)
}

// sendBack sends a frame to the packet's sender, in the name of who it was sent to.
func (w *passage) sendBack(f []byte) {
	b := wayBack{src: w.dst}
	q := routing.Query{Dst: w.src, Src: w.dst, Proto: packet.ProtoTCP, L3mdev: w.Device}
	if w.v6 && w.src.IsLinkLocalUnicast() {
		q.OIF = w.Device
	}
	if b.find(w, &q) && (w.st.icmp.Off || w.r.rates.mayReportTo(w)) {
		w.say(&b, w.Hooks, f)
	}
}

// Own reports whether an address is one of the namespace's, as seen from a device.
func (r *Router) Own(a netip.Addr, device uint16) bool {
	st := r.state.Load()
	return st.isOwn(a, st.byIndex[device])
}

// Address is the source that a packet to a next hop has which leaves by a device
// with one of its addresses (inet_select_addr, ipv6_dev_get_saddr). Not valid if
// there is none.
func (r *Router) Address(device uint16, via, dst netip.Addr) netip.Addr {
	st := r.state.Load()
	d := st.byIndex[device]
	switch {
	case d == nil:
		return netip.Addr{}
	case dst.Is6():
		return st.source6(d, dst)
	}
	return st.address4(d, via)
}
