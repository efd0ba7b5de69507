// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"

	"sluice/routing"
	"sluice/trace"
)

// checkSource asks whether a packet with this source may come in where it did:
// fib_validate_source. out is where it is about to leave, nil for the own stack.
// IPv6 has no such check in Linux; here it has that of the device.
func (w *passage) checkSource(out *device) trace.Reason {
	q := w.original()
	q.OIF = 0
	if out != nil {
		q.OIF = out.Index
	}
	if w.v6 {
		// Where a link-local source is, no route says.
		if !w.src.IsLinkLocalUnicast() && !w.src.IsUnspecified() && !w.st.set.ReversePath(&q, w.in.ReversePath) {
			return trace.ReversePath
		}
		return trace.None
	}
	back := w.st.set.Back(&q)
	switch {
	case back.Type == routing.Unicast:
		return w.checkWayBack(&q, &back, out)
	case !reject(back.Type): // an own address, a broadcast address
		return trace.MartianSource
	case w.in.ReversePath != routing.ReverseOff:
		return trace.ReversePath
	}
	return trace.None
}

// checkWayBack is the check of an IPv4 source to which a route leads. It notes
// whether the sender could use the next hop itself.
func (w *passage) checkWayBack(q *routing.Query, back *routing.Result, out *device) trace.Reason {
	here := *back
	if !back.Route.Uses(w.in.Index) {
		if w.in.ReversePath == routing.ReverseStrict {
			return trace.ReversePath
		}
		answer := q.Answer()
		answer.OIF = w.in.Index
		here = w.st.set.Lookup(&answer)
	}
	w.redirect = out == w.in && onLink(&here) && w.in.redirects() && !w.Translated
	return trace.None
}

// redirects reports whether a device tells its neighbours of shorter ways.
func (d *device) redirects() bool { return !d.NoRedirects && !d.PointToPoint }

// martian is the reason to drop a packet whose addresses no packet on a link has.
func martian(src, dst netip.Addr) trace.Reason {
	switch routing.MartianInput(src, dst) {
	case routing.MartianSource:
		return trace.MartianSource
	case routing.MartianDestination:
		return trace.MartianDestination
	case routing.NotMartian, routing.LinkLocal, routing.NotUnicast:
	}
	return trace.None
}

// reject reports whether there is no route, or one that refuses.
func reject(t routing.Type) bool { return t == routing.TypeNone || t >= routing.Blackhole }

// onLink reports whether a route leads to a neighbour and not to a gateway.
func onLink(res *routing.Result) bool {
	return res.Type == routing.Unicast && !res.Route.NextHops[0].Via.IsValid()
}

// source4 is the source address of what the namespace sends by a route to dst:
// the route's own, or one of the device's, best in the subnet of the next hop, or
// any (fib_result_prefsrc, inet_select_addr). Not valid if there is none.
func (st *state) source4(res *routing.Result, via netip.Addr) netip.Addr {
	if res.Route.Src.IsValid() {
		return res.Route.Src
	}
	out := st.byIndex[res.NextHop.Index]
	if out == nil {
		return netip.Addr{}
	}
	return st.address4(out, via)
}

// address4 is an IPv4 address of a device, best in the subnet of the next hop, or
// else one of another device in the same VRF.
func (st *state) address4(d *device, near netip.Addr) netip.Addr {
	for _, p := range d.primary {
		if p.Contains(near) {
			return p.Addr()
		}
	}
	if len(d.primary) > 0 {
		return d.primary[0].Addr()
	}
	for _, o := range st.ordered {
		if o.VRF == d.VRF && len(o.primary) > 0 {
			return o.primary[0].Addr()
		}
	}
	return netip.Addr{}
}

// isOwn reports whether an address is one of the namespace's, as seen from a
// device; nil is the namespace itself.
func (st *state) isOwn(a netip.Addr, d *device) bool {
	q := routing.Query{Dst: a}
	if d != nil {
		q.L3mdev = d.Index
		if a.Is6() && a.IsLinkLocalUnicast() {
			q.OIF = d.Index
		}
	}
	return st.set.Lookup(&q).Type == routing.Local
}
