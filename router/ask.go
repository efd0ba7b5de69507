// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"

	"sluice/neigh"
	"sluice/routing"
	"sluice/trace"
)

// Answer is what a router says of a packet that nobody has sent: `ip route get`.
type Answer struct {
	Query  routing.Query
	Result routing.Result // what it points to must not be changed
	// Reason is why a packet like this would be dropped before it left; None if it
	// would be delivered or sent to its next hop.
	Reason trace.Reason
	// Src is the source that the namespace's own packets take, if the question is
	// about one and names none.
	Src       netip.Addr
	Gateway   netip.Addr  // whom to resolve; not valid if the packet goes nowhere
	Neighbour neigh.State // of Gateway
	MTU       int         // of the way; 0 if the packet goes nowhere
}

// Ask answers a question.
func (r *Router) Ask(q *routing.Question) (*Answer, error) {
	st := r.state.Load()
	query, res, err := st.set.Ask(q, st.seed)
	if err != nil {
		return nil, err
	}
	if res.NextHop != nil && len(res.Route.NextHops) > 1 {
		res = st.choose(&query)
	}
	a := &Answer{Query: query, Result: res, Reason: refusal(&res)}
	if a.Reason != trace.None || res.NextHop == nil {
		return a, nil
	}
	out := st.byIndex[res.NextHop.Index]
	if in := st.byIndex[query.IIF]; in != nil {
		a.Reason = st.sourceReason(&query, in, out)
	}
	if out != nil {
		a.way(r, st, out)
	}
	return a, nil
}

// way fills in what there is to say of a packet that goes somewhere.
func (a *Answer) way(r *Router, st *state, out *device) {
	dst := a.Query.Dst
	a.Gateway, a.MTU = a.Result.Gateway(dst), st.mtu(&a.Result, out, dst.Is6())
	if !out.PointToPoint {
		a.Neighbour = r.neigh.State(out.Index, a.Gateway)
	}
	switch {
	case a.Query.Src.IsValid() || a.Query.IIF != 0:
	case dst.Is4():
		a.Src = st.source4(&a.Result, a.Gateway)
	default:
		if a.Src = a.Result.Route.Src; !a.Src.IsValid() {
			a.Src = st.source6(out, dst)
		}
	}
}

// refusal is the reason of an answer that leads nowhere.
func refusal(res *routing.Result) trace.Reason {
	switch {
	case res.Type == routing.Blackhole:
		return trace.Blackhole
	case res.Type == routing.Prohibit:
		return trace.Prohibit
	case res.Type == routing.Unreachable && res.Route != nil:
		return trace.Unreachable
	case reject(res.Type):
		return trace.NoRoute
	}
	return trace.None
}

// sourceReason is what is wrong with the source of a question.
func (st *state) sourceReason(q *routing.Query, in, out *device) trace.Reason {
	if !q.Src.IsValid() {
		return trace.None
	}
	if reason := martian(q.Src, q.Dst); reason != trace.None {
		return reason
	}
	w := passage{Packet: new(Packet), st: st, in: in, src: q.Src, v6: q.Dst.Is6(), query: *q}
	return w.checkSource(out)
}

// Text is the answer as `ip route get` prints it, and below it the rule and the
// route that decide.
func (a *Answer) Text(n *routing.Names, q *routing.Question) string {
	return n.Decision(q, &a.Result, a.Src)
}
