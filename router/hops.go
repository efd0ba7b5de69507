// SPDX-License-Identifier: Apache-2.0

package router

import (
	"maps"

	"sluice/neigh"
	"sluice/packet"
	"sluice/trace"
)

// Theory of operation.
//
// Of a route with several next hops, one that does not answer is passed over. It is
// noted as dead when its resolution fails, which ends the epoch of all decisions,
// so that its flows find another next hop and only they. While it is dead it gets
// no packet, so the router asks for it now and then itself; once it answers, its
// flows return. Without other next hops there is nothing to pass over to, and its
// packets end in host unreachable, as in Linux.

// probeDead is how often a dead next hop is asked, in seconds.
const probeDead = 5

// Hear tells the router of an ARP or neighbour discovery message that reached the
// local port of a device. What is none is of no interest.
func (r *Router) Hear(device uint16, f *packet.Frame, now neigh.Tick, sink Sink) {
	if d := r.state.Load().byIndex[device]; d != nil && !d.PointToPoint {
		r.neigh.Input(device, f, d.own, now, sink)
	}
}

// Tick does what has become due: it asks neighbours again, gives up those that
// don't answer, with an error to whoever wanted them, and forgets fragments whose
// first one never came. One goroutine calls it once a second. nanos is as in Packet.
func (r *Router) Tick(now neigh.Tick, nanos int64, sink Sink) {
	r.neigh.Tick(now, sink, func(f neigh.Failure) { r.failed(&f, now, nanos, sink) })
	r.fragments.Expire(uint32(now), func(in uint16, frames int) { sink.Drop(in, trace.FragLimit, frames) })
	r.revive(now, sink)
}

// failed reports the packets that waited in vain.
func (r *Router) failed(f *neigh.Failure, now neigh.Tick, nanos int64, sink Sink) {
	r.bury(hop{f.Device, f.Addr}, f.Reason)
	for i := range f.Held {
		r.lost(f, &f.Held[i], now, nanos, sink)
	}
}

// lost tells the sender of one of them, and counts it.
func (r *Router) lost(f *neigh.Failure, h *neigh.Held, now neigh.Tick, nanos int64, sink Sink) {
	ws := r.space()
	defer r.spaces.Put(ws)
	frame, ok := ws.load(h.Frame, h.Vnet)
	st := r.state.Load()
	if !ok || st.byIndex[f.Device] == nil {
		sink.Drop(h.Port, f.Reason, 1)
		return
	}
	p := Packet{Frame: frame, Device: f.Device, Port: h.Port, Now: now, Nanos: nanos}
	w := passage{Packet: &p, r: r, st: st, sink: sink}
	w.src, w.dst, w.v6 = frame.View.SrcAddr(frame.Bytes()), frame.View.DstAddr(frame.Bytes()), frame.View.Is(packet.ViewIPv6)
	own := st.isOwn(w.src, st.byIndex[f.Device])
	w.Local = own && h.Port == 0
	e := w.family(
		packet.ICMPError{Type: packet.ICMPUnreach, Code: packet.ICMPHostUnreach},
		packet.ICMPError{Type: packet.ICMP6Unreach, Code: packet.ICMP6AddrUnreach},
	)
	switch {
	case own && !w.Local && !packet.MayAnswerWithICMP(frame, e):
		return // an error of the router's own was not the port's
	case f.Reason != trace.NeighFailed:
	case own && !w.Local:
		w.reportTranslated(e)
	default:
		w.report(e)
	}
	sink.Drop(h.Port, f.Reason, 1)
}

// reportTranslated is report for a packet that has left as the namespace's own, but is a
// container's: its connection knows whose.
func (w *passage) reportTranslated(e packet.ICMPError) {
	if rates := &w.r.rates; !w.st.icmp.Off && (!rates.mayReport(w) || !rates.mayReportTo(w)) {
		return
	}
	e.ID, e.MTU = uint16(w.r.ident.Add(1)), w.st.byIndex[w.Device].MTU
	w.sink.Say(w.Device, nil, w.appendError(nil, e, w.src))
}

// bury notes a next hop as dead.
func (r *Router) bury(h hop, reason trace.Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state.Load()
	if reason == trace.NeighFailed && st.hops[h] && !st.dead[h] {
		dead := maps.Clone(st.dead)
		if dead == nil {
			dead = map[hop]bool{}
		}
		dead[h] = true
		r.withDead(st, dead)
	}
}

// withDead makes a state that differs in its dead next hops only.
//
// +checklocks:r.mu
func (r *Router) withDead(st *state, dead map[hop]bool) {
	next := *st
	next.dead = dead
	r.install(&next)
}

// revive asks dead next hops whether they are back, and notes those that are.
func (r *Router) revive(now neigh.Tick, sink Sink) {
	for _, h := range r.buried(now) {
		r.neigh.Resolve(h.dev, h.via, neigh.Held{}, now, sink)
	}
}

// buried takes those that are back from the dead, and returns the others when it
// is time to ask them.
func (r *Router) buried(now neigh.Tick) (ask []hop) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state.Load()
	if len(st.dead) == 0 {
		return nil
	}
	dead := maps.Clone(st.dead)
	maps.DeleteFunc(dead, func(h hop, _ bool) bool { return r.neigh.State(h.dev, h.via).Usable() })
	if len(dead) < len(st.dead) {
		r.withDead(st, dead)
	}
	if now-r.probed < probeDead {
		return nil
	}
	r.probed = now
	for h := range dead {
		ask = append(ask, h)
	}
	return ask
}
