// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/dataplane"
	"sluice/iproute"
	"sluice/routing"
)

// fdb is `bridge fdb show`: what the bridges know, learned and static.
func (a *Agent) fdb(ctx context.Context, q query) ([]api.FDBEntry, error) {
	sel, st, all, err := a.choose(q, "dev", "brport", "br", "vlan", "dynamic", "static", "permanent")
	if err != nil {
		return nil, err
	}
	names := st.portNames()
	out, err := ask(ctx, a.plane, all, (*networkRecord).maxFDB, (*dataplane.Client).FDB, func(n *networkRecord, e *dataplane.FDBEntry) api.FDBEntry {
		return publicFDB(n, names, e)
	})
	return slices.DeleteFunc(out, func(e api.FDBEntry) bool {
		return sel.name != "" && e.Link != sel.name || sel.master != "" && e.Network != sel.master ||
			sel.vid != 0 && e.VLAN != sel.vid || sel.state != "" && !stationIs(&e, sel.state)
	}), err
}

// stationIs compares the word of a selection with the kind of an entry.
func stationIs(e *api.FDBEntry, state string) bool {
	return e.Kind == state || e.Kind == "own" && state == "permanent"
}

// fdbLine is the entry as `bridge fdb show` writes it.
func fdbLine(e *api.FDBEntry) string {
	line := e.MAC + " dev " + e.Link
	if e.VLAN != 0 {
		line += fmt.Sprintf(" vlan %d", e.VLAN)
	}
	if e.Link != e.Network {
		line += " master " + e.Network
	}
	if e.EntryState != "" {
		line += " " + e.EntryState
	}
	return line
}

// neighbours is `ip neigh show`: what the namespaces know of who is on their networks.
func (a *Agent) neighbours(ctx context.Context, q query) ([]api.Neighbour, error) {
	sel, _, all, err := a.choose(q, "dev", "to", "nud", "state", "PREFIX")
	if err != nil {
		return nil, err
	}
	out, err := ask(ctx, a.plane, all, atMostTold, (*dataplane.Client).Neighbours, publicNeighbour)
	return slices.DeleteFunc(out, func(n api.Neighbour) bool { return !sel.hasNeighbour(&n) }), err
}

// hasNeighbour reports whether a neighbour is selected.
func (s *selection) hasNeighbour(n *api.Neighbour) bool {
	family := s.family == 0 || n.Addr.Is6() == (s.family == 6)
	return family && (s.name == "" || s.name == n.Dev) && (!s.to.IsValid() || s.to.Contains(n.Addr)) &&
		(s.state == "" || s.state == "all" || s.state == n.State)
}

// neighbourLine is the neighbour as `ip neigh show` writes it.
func neighbourLine(n *api.Neighbour) string {
	line := n.Dst + " dev " + n.Dev
	if n.LLAddr != "" {
		line += " lladdr " + n.LLAddr
	}
	return line + " " + strings.ToUpper(n.State)
}

// mdb is `bridge mdb show`: the members that snooping has heard, and static ones.
func (a *Agent) mdb(ctx context.Context, q query) ([]api.MDBEntry, error) {
	sel, st, all, err := a.choose(q, "dev", "vid")
	if err != nil {
		return nil, err
	}
	names := st.portNames()
	var snooping []*networkRecord
	for _, n := range all {
		if n.Snooping != nil {
			snooping = append(snooping, n)
		}
	}
	heard, err := ask(ctx, a.plane, snooping, atMostTold, (*dataplane.Client).Groups, func(n *networkRecord, e *dataplane.Group) api.MDBEntry {
		return publicGroup(n, names, e)
	})
	if err != nil {
		return nil, err
	}
	out := []api.MDBEntry{}
	for _, n := range all {
		out = append(out, st.staticGroups(n)...)
	}
	out = withHeard(out, heard)
	return slices.DeleteFunc(out, func(e api.MDBEntry) bool {
		return sel.name != "" && e.Dev != sel.name || sel.vid != 0 && e.VID != sel.vid
	}), nil
}

// withHeard adds to the static members those that were heard and are not among
// them, and gives all their lines.
func withHeard(out, heard []api.MDBEntry) []api.MDBEntry {
	there := make(map[membership]bool)
	for i := range out {
		there[membershipOf(&out[i])] = true
	}
	for _, e := range heard {
		if !there[membershipOf(&e)] {
			out = append(out, e)
		}
	}
	for i := range out {
		out[i].Line = groupLine(&out[i])
	}
	return out
}

// membership is what an entry is about.
type membership struct {
	dev, port, group string
	vid              uint16
}

func membershipOf(e *api.MDBEntry) membership { return membership{e.Dev, e.Port, e.Group, e.VID} }

// staticGroups are the static members of a network.
func (s *state) staticGroups(n *networkRecord) (out []api.MDBEntry) {
	add := func(port string, g iproute.Group) {
		out = append(out, api.MDBEntry{Namespace: n.space(), Dev: n.Name, Port: port, Group: g.Group.String(), VID: g.VLAN, State: "permanent"})
	}
	for _, g := range n.Groups {
		add(g.Port, g)
	}
	for _, a := range s.of(n.Name) {
		for _, g := range a.Groups {
			add(a.Name, g)
		}
	}
	return out
}

// publicGroup writes anew what the dataplane tells.
func publicGroup(n *networkRecord, names map[uint16]string, e *dataplane.Group) api.MDBEntry {
	out := api.MDBEntry{
		Namespace: n.space(), Dev: n.Name, Port: names[e.Port], VID: e.VLAN, State: "temp", TimerSeconds: e.LeftSeconds,
	}
	if e.Group.IsMulticast() {
		out.Group = e.Group.WithZone("").String()
	} else {
		out.Router = true
	}
	return out
}

// groupLine is the entry as `bridge mdb show` writes it.
func groupLine(e *api.MDBEntry) string {
	line := "dev " + e.Dev + " port " + e.Port
	if e.Router {
		return "router ports on " + e.Dev + ": " + e.Port
	}
	line += " grp " + e.Group + " " + e.State
	if e.VID != 0 {
		line += fmt.Sprintf(" vid %d", e.VID)
	}
	return line
}

// live is what only the dataplane knows of an answer. Zero: nothing.
type live struct {
	src       netip.Addr
	mtu       uint32
	neighbour *api.Neighbour
}

// live asks the dataplane, and puts the next hop of its choice into the result, if
// the route has it: another may be dead. Its silence is no fault.
func (a *Agent) live(ctx context.Context, st *state, space string, res *routing.Result, words []string) (out live) {
	c := a.plane.client.Load()
	if c == nil || res.NextHop == nil || res.Type != routing.Unicast || slices.Contains(words, "vrf") {
		return live{}
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	r, err := c.Route(ctx, space, strings.Join(words, " "))
	if err != nil {
		return live{}
	}
	out.chosen(res, &r)
	if src := r.Src.WithZone(""); st.isOwn(space, src) {
		out.src = src
	}
	if r.MTU > 0 && r.MTU <= config.MaxMTU {
		out.mtu = uint32(r.MTU)
	}
	return out
}

// chosen takes over the next hop, and what is known of its neighbour.
func (l *live) chosen(res *routing.Result, r *dataplane.Route) {
	for i := range res.Route.NextHops {
		h := &res.Route.NextHops[i]
		if h.Index == r.Device && (!h.Via.IsValid() || h.Via == r.Gateway) {
			res.NextHop = h
		}
	}
	state := word(r.Neighbour, neighStates())
	if state == "none" || state == unknownWord || !r.Gateway.IsValid() {
		return
	}
	n := api.Neighbour{Network: res.NextHop.Dev, Addr: r.Gateway.WithZone(""), State: state}
	n.Dst, n.Dev = n.Addr.String(), n.Network
	n.Line = neighbourLine(&n)
	l.neighbour = &n
}
