// SPDX-License-Identifier: Apache-2.0

package router

import (
	"sluice/fragment"
	"sluice/packet"
	"sluice/trace"
)

// trackFragment gives a fragment the ports of its flow, which decide together with
// the rest; or it has to wait for them, or is one that nobody should get.
func (w *passage) trackFragment() (_ Verdict, done bool) {
	if w.Limit != 0 {
		w.follow(w.Ports)
		return Verdict{}, false
	}
	ports, v := w.r.fragments.Track(w.Port, w.Device, w.Frame, uint32(w.Now))
	switch v.Outcome {
	case fragment.Hold:
		return Verdict{Action: Consumed}, true
	case fragment.Refused:
		return drop(v.Reason), true
	case fragment.Known:
	}
	w.follow(ports)
	for i := range v.Held {
		w.release(&v.Held[i])
	}
	return Verdict{}, false
}

// follow decides on a fragment by the ports of its flow.
func (w *passage) follow(p fragment.Ports) {
	w.flow = p
	w.ports(p)
	w.lookup()
}

// release sends a fragment on that has waited for the first one, which is w.
func (w *passage) release(h *fragment.Held) {
	ws := w.r.space()
	defer w.r.spaces.Put(ws)
	f, ok := ws.load(h.Frame, h.Vnet)
	p := *w.Packet
	p.Frame = f
	late := passage{Packet: &p, r: w.r, st: w.st, sink: w.sink, query: w.query, res: w.res}
	v := drop(trace.FragMalformed)
	if ok {
		f.Label = h.Label
		v.Reason = late.admit()
	}
	if v.Reason == trace.None {
		v = late.byType()
	}
	switch v.Action {
	case Drop:
		w.sink.Drop(w.Port, v.Reason, 1)
	case Deliver:
		w.sink.Local(v.Device, f.Vnet, f.Bytes())
	case Forward:
		rewrite(f, &v)
		w.sink.Emit(v.Device, f.Vnet, f.Label, f.Bytes())
	case Consumed:
	}
}

// fragment sends a packet of IPv4 that doesn't fit in pieces.
func (w *passage) fragment(mtu int) Verdict {
	ws := w.r.space()
	defer w.r.spaces.Put(ws)
	f := ws.copyOf(w.Frame)
	rewrite(f, &Verdict{TTL: !w.Local, MSS: w.mss(mtu)})
	if w.recordsRoute() {
		w.recordRoute(f)
	}
	id := w.fragmentID()
	if reason := w.leave(f); reason != trace.None {
		return drop(reason)
	}
	if w.redirect {
		w.redirect4()
	}
	if !f.Vnet.IsGSO() {
		return w.pieces(ws, f, mtu, id, f.Label)
	}
	if !ws.segmenter.Init(f) {
		return drop(trace.NotSegmentable)
	}
	verdict := Verdict{Action: Consumed}
	for ; ws.segmenter.Next(&ws.segment); id = (id + 1) & 0xffff { // each is a datagram
		if v := w.pieces(ws, &ws.segment, mtu, id, f.Label); v.Action == Drop {
			verdict = v
		}
	}
	return verdict
}

// cut begins to cut a frame. id is for fragments of IPv6, which only what was IPv4 is
// cut into here.
func (ws *workspace) cut(f *packet.Frame, mtu int, id uint32) bool {
	if f.View.Is(packet.ViewIPv6) {
		return ws.fragmenter.Init6(f, mtu, id)
	}
	return ws.fragmenter.Init(f, mtu)
}

// pieces sends what a frame is cut into, each with what rules said of the whole.
func (w *passage) pieces(ws *workspace, f *packet.Frame, mtu int, id uint32, label packet.Label) Verdict {
	if !ws.cut(f, mtu, id) {
		return drop(trace.FragNeeded)
	}
	for ws.fragmenter.Next(&ws.piece) {
		if reason := w.r.emit(w, w.out, w.via, ws.piece.Bytes(), packet.Vnet{}, label); reason != trace.None {
			return drop(reason)
		}
	}
	return Verdict{Action: Consumed}
}
