// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
	"sluice/iproute"
	"sluice/routing"
)

// spacesOf are the namespaces that a query is about, with the state.
func (a *Agent) spacesOf(q query) (*state, []string, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, nil, err
	}
	if q.namespace == "" {
		return st, st.spaces(), nil
	}
	if st.namespace(q.namespace) == nil {
		return nil, nil, refuse(api.CodeNotFound, "namespace", "no namespace %q", q.namespace)
	}
	return st, []string{q.namespace}, nil
}

// badWords is the error of a query whose words make no sense.
func badWords(err error) error { return refuse(api.CodeInvalid, "words", "%s", wording(err)) }

func (a *Agent) namespaces(q query) ([]api.Namespace, error) {
	st, names, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.Namespace{}
	for _, name := range names {
		rec := st.namespace(name)
		ns := api.Namespace{
			Name: name, Networks: []string{}, Uplinks: []string{}, Links: []string{}, VRFs: []string{}, Tables: make(map[string]uint32),
			Routes: st.routes[name].len(), Rules: len(st.statedRules(rec)) + len(st.ownedRules(name, "")),
		}
		for _, n := range st.in(name) {
			if n.Uplink != nil {
				ns.Uplinks = append(ns.Uplinks, n.Name)
			} else {
				ns.Networks = append(ns.Networks, n.Name)
			}
		}
		for _, l := range rec.Links {
			ns.Links = append(ns.Links, l.Name)
		}
		for _, v := range rec.VRFs {
			ns.VRFs = append(ns.VRFs, v.Name)
		}
		for table, id := range rec.Tables {
			ns.Tables[table] = uint32(id)
		}
		out = append(out, ns)
	}
	return out, nil
}

// routeList is `ip route show`.
func (a *Agent) routeList(q query) ([]api.Route, error) {
	st, spaces, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.Route{}
	for i, space := range spaces {
		rec := st.namespace(space)
		f, err := rec.filter(q.words)
		if err != nil {
			return nil, badWords(err)
		}
		if i == 0 { // the device is the same for all
			if err := st.mustKnow(q, f.Dev); err != nil {
				return nil, err
			}
		}
		set, err := a.sets.of(st, space)
		if err != nil {
			return nil, err
		}
		for r := range set.Routes(f.Table) {
			if f.Matches(r) {
				out = append(out, publicRoute(space, rec.names(), r, f))
			}
		}
	}
	return out, nil
}

// filter reads what follows `ip route show`.
func (n *namespaceRecord) filter(words []string) (*routing.Filter, error) {
	words, err := iproute.ExpandVRF(words, n.vrfTable)
	if err != nil {
		return nil, err
	}
	f, err := n.names().ParseFilter(strings.Join(words, " "))
	if err == nil {
		withFamily(f)
	}
	return f, err
}

// withFamily completes a filter that says no family as ip(8) does it: IPv4, or both if
// all tables are meant.
func withFamily(f *routing.Filter) {
	if len(f.Families) == 0 && f.Table != 0 {
		f.Families = []routing.Family{routing.IPv4}
	}
}

func familyWord(v6 bool) string {
	if v6 {
		return "inet6"
	}
	return "inet"
}

// publicRoute is a route as ip(8) shows it to who asked with a filter: what the
// filter has fixed is not repeated in the line.
func publicRoute(space string, names *routing.Names, r *routing.Route, f *routing.Filter) api.Route {
	v6 := r.Prefix.Addr().Is6()
	out := api.Route{
		Namespace: space, Family: familyWord(v6), Type: r.Type.String(), Dst: destination(r.Prefix),
		Table: names.TableName(r.Table), Protocol: r.Proto.String(), Scope: r.Scope.String(),
		Metric: r.Metric, Flags: []string{}, Line: names.Route(shown(r, f)),
	}
	if r.Src.IsValid() {
		out.Prefsrc = r.Src.String()
	}
	if r.MTU != 0 || r.AdvMSS != 0 {
		out.Metrics = []api.RouteMetric{{MTU: r.MTU, Lock: r.MTULock, AdvMSS: r.AdvMSS}}
	}
	if v6 {
		out.Pref = "medium"
	}
	hops := make([]api.NextHop, len(r.NextHops))
	for i := range r.NextHops {
		hops[i] = publicHop(&r.NextHops[i], v6)
	}
	if len(hops) == 1 {
		out.Gateway, out.Via, out.Dev, out.Flags = hops[0].Gateway, hops[0].Via, hops[0].Dev, hops[0].Flags
	} else if len(hops) > 1 {
		out.NextHops = hops
	}
	return out
}

// shown is the part of a route that is printed: ip-route(8) leaves out the table
// and, of a single next hop, the device, if the filter states it.
func shown(r *routing.Route, f *routing.Filter) *routing.Route {
	if f == nil || f.Table == 0 && f.Dev == "" {
		return r
	}
	c := *r
	if f.Table != 0 {
		c.Table = 0
	}
	if f.Dev != "" && len(c.NextHops) == 1 {
		c.NextHops = slices.Clone(r.NextHops)
		c.NextHops[0].Dev = ""
	}
	return &c
}

func publicHop(h *routing.NextHop, v6 bool) api.NextHop {
	out := api.NextHop{Dev: h.Dev, Weight: int(max(h.Weight, 1)), Flags: []string{}}
	switch {
	case !h.Via.IsValid():
	case h.Via.Is6() == v6:
		out.Gateway = h.Via.String()
	default:
		out.Via = &api.Via{Family: familyWord(h.Via.Is6()), Host: h.Via.String()}
	}
	if h.Dead {
		out.Flags = append(out.Flags, "dead")
	}
	if h.Onlink {
		out.Flags = append(out.Flags, "onlink")
	}
	return out
}

// destination is a prefix as ip(8) writes it.
func destination(p netip.Prefix) string {
	switch {
	case p.Bits() == 0:
		return "default"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// ruleList is `ip rule show`: without a family, IPv4.
func (a *Agent) ruleList(q query) ([]api.Rule, error) {
	family, err := onlyFamily(q.words)
	if err != nil {
		return nil, badWords(err)
	}
	st, spaces, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.Rule{}
	for _, space := range spaces {
		set, err := a.sets.of(st, space)
		if err != nil {
			return nil, err
		}
		owners := st.owners(space)
		for _, r := range set.Rules(family) {
			pub := publicRule(space, st.namespace(space).names(), r)
			if r.Priority == ownedPriority && r.Origin == routing.ProtoKernel {
				pub.Attachment = owners[r.IIF]
			}
			out = append(out, pub)
		}
	}
	return out, nil
}

// onlyFamily reads words that may state a family and nothing else.
func onlyFamily(words []string) (f routing.Family, err error) {
	for _, w := range words {
		switch w {
		case "-4":
			f = routing.IPv4
		case "-6":
			f = routing.IPv6
		case "show", "list":
		default:
			return f, &routing.ParseError{Word: w, Reason: "unknown word"}
		}
	}
	return f, nil
}

// owners are the attachments of a namespace by the name that rules have for them.
func (s *state) owners(space string) map[string]string {
	out, devices := make(map[string]string), s.portDevices(space)
	for _, a := range s.attachedIn(space) {
		out[devices[a.ID]] = a.Name
	}
	return out
}

func publicRule(space string, names *routing.Names, r *routing.Rule) api.Rule {
	out := api.Rule{
		Namespace: space, Family: familyWord(r.Family == routing.IPv6), Priority: r.Priority, Not: r.Not,
		IIF: r.IIF, OIF: r.OIF, L3mdev: r.L3mdev, Line: names.Rule(r), Src: "all",
	}
	out.Src, out.SrcLen = selector(r.From, "all")
	out.Dst, out.DstLen = selector(r.To, "")
	if r.TOS != 0 {
		out.TOS = routing.Hex(uint32(r.TOS))
	}
	if r.Mask != 0 {
		out.FwMark = routing.Hex(r.Mark)
		if r.Mask != ^uint32(0) {
			out.FwMask = routing.Hex(r.Mask)
		}
	}
	if r.Proto != 0 {
		out.IPProto = routing.IPProtoName(r.Proto)
	}
	out.Sport, out.SportStart, out.SportEnd = portsOfRule(r.Sport)
	out.Dport, out.DportStart, out.DportEnd = portsOfRule(r.Dport)
	switch {
	case r.Action == routing.ActionGoto:
		out.Goto = &r.Goto
	case r.Action != routing.ActionLookup:
		out.Action = r.Action.String()
	case !r.L3mdev:
		out.Table = names.TableName(r.Table)
	}
	if r.Suppress {
		out.SuppressPrefix = &r.SuppressLen
	}
	if r.Origin != 0 {
		out.Protocol = r.Origin.String()
	}
	return out
}

func selector(p netip.Prefix, none string) (addr string, length int) {
	switch {
	case !p.IsValid():
		return none, 0
	case p.IsSingleIP():
		return p.Addr().String(), 0
	}
	return p.Addr().String(), p.Bits()
}

func portsOfRule(p routing.Ports) (one, from, to uint16) {
	if p.From == p.To {
		return p.From, 0, 0
	}
	return 0, p.From, p.To
}

// routeGet is `ip route get`: the tables answer, and the dataplane says what it knows
// of the neighbour.
func (a *Agent) routeGet(ctx context.Context, q query) (*api.RouteGet, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	space, err := st.onlySpace(q.namespace)
	if err != nil {
		return nil, err
	}
	rec := st.namespace(space)
	question, err := st.question(rec, q.words)
	if err != nil {
		return nil, badWords(err)
	}
	set, err := a.sets.of(st, space)
	if err != nil {
		return nil, err
	}
	_, res, err := set.Ask(question, st.flowSeed(space))
	if errors.Is(err, routing.ErrDevice) {
		return nil, refuse(api.CodeNotFound, "words", "%s", wording(err))
	}
	if err != nil {
		return nil, badWords(err)
	}
	live := a.live(ctx, st, space, &res, q.words)
	return publicAnswer(space, rec.names(), question, &res, live), nil
}

// question reads what follows `ip route get`. A VRF is told by one of its devices.
func (s *state) question(n *namespaceRecord, words []string) (*routing.Question, error) {
	words = slices.Clone(words)
	var device uint16
	if at := slices.Index(words, "vrf"); at >= 0 && at+1 < len(words) {
		name := words[at+1]
		words = slices.Delete(words, at, at+2)
		if n.vrf(name) == nil {
			return nil, &routing.ParseError{Word: name, Reason: "no VRF of that name"}
		}
		for _, dev := range s.slaves(n, name) {
			if net := s.network(dev); net != nil {
				device = net.Port
			} else if l := n.link(dev); l != nil {
				device = l.Index
			}
		}
		if device == 0 {
			return nil, &routing.ParseError{Word: name, Reason: "the VRF has no device"}
		}
	}
	q, err := routing.ParseQuestion(strings.Join(words, " "))
	if err == nil {
		q.L3mdev = device
	}
	return q, err
}

func publicAnswer(space string, names *routing.Names, q *routing.Question, res *routing.Result, l live) *api.RouteGet {
	out := &api.RouteGet{
		Namespace: space, Type: res.Type.String(), Dst: q.Dst.String(), IIF: q.From, MTU: l.mtu, Neighbour: l.neighbour,
		Line: names.Decision(q, res, l.src),
	}
	if res.Type == routing.TypeNone {
		out.Type = routing.Unreachable.String()
	}
	if q.Src.IsValid() {
		out.From = q.Src.String()
	}
	if res.Rule != nil {
		rule := publicRule(space, names, res.Rule)
		out.Rule = &rule
	}
	if l.src.IsValid() {
		out.Prefsrc = l.src.String()
	}
	if r := res.Route; r != nil {
		route := publicRoute(space, names, r, nil)
		out.Route, out.Table = &route, names.TableName(r.Table)
		if out.MTU == 0 {
			out.MTU = r.MTU
		}
		if r.Src.IsValid() {
			out.Prefsrc = r.Src.String()
		}
	}
	if h := res.NextHop; h != nil {
		out.Dev = h.Dev
		if h.Via.IsValid() {
			out.Gateway = h.Via.String()
		}
	}
	return out
}

// isOwn reports whether a namespace has an address itself.
func (s *state) isOwn(space string, a netip.Addr) bool {
	spec := s.namespaceSpec(space, "")
	for _, d := range wiring(&spec).Devices {
		if slices.ContainsFunc(d.Addrs, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return true
		}
	}
	return false
}
