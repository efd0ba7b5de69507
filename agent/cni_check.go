// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/natspec"
)

// cniCheck compares what the runtime remembers with the record, and the record with the
// kernel and the dataplane. It changes nothing.
func (a *Agent) cniCheck(_ context.Context, r *api.CNICheckRequest) (*api.CNICheckReply, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	rec := st.byKey(r.CNIKey)
	if rec == nil {
		return nil, refuse(api.CodeNotFound, "container", "nothing is attached as %s of %s in %s", r.IfName, r.Container, r.Config)
	}
	c := &comparison{}
	c.remembered(r, rec)
	if rec.State != api.StateReady {
		c.say("its state is %s: %s", rec.State, rec.Fault)
	}
	if !a.plane.numbers()[rec.Port] {
		c.say("the dataplane does not have port %d", rec.Port)
	}
	c.published(st, rec)
	ns, same, err := sameNamespace(rec.Netns, rec.NS)
	switch {
	case err != nil:
		return nil, err
	case !same:
		c.say("%s is not the namespace that was attached", rec.Netns)
	default:
		defer ns.Close()
		if err := c.inside(ns, rec, st); err != nil {
			return nil, err
		}
	}
	return &api.CNICheckReply{Differences: c.all}, nil
}

// comparison collects what differs.
type comparison struct{ all []string }

func (c *comparison) say(format string, args ...any) {
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

// remembered compares the runtime's memory with the record.
func (c *comparison) remembered(r *api.CNICheckRequest, rec *attachmentRecord) {
	if r.Netns != "" && netnsPlace(r.Netns) != rec.Netns {
		c.say("it was attached in %s, not in %s", rec.Netns, r.Netns)
	}
	if r.MAC != "" && !strings.EqualFold(r.MAC, rec.MAC.String()) {
		c.say("its MAC address is %s, not %s", rec.MAC, r.MAC)
	}
	for _, p := range r.Addresses {
		if !slices.Contains(rec.Addresses, p) {
			c.say("it has no address %s", p)
		}
	}
}

// published looks for the ports of the host that the attachment was made with.
func (c *comparison) published(st *state, rec *attachmentRecord) {
	want, err := rec.CNI.published(rec.Name)
	n := st.network(rec.Network)
	if err != nil || n == nil {
		return
	}
	var have []natspec.Publish
	if space := st.namespace(n.space()); space != nil {
		have = space.Connections.Published
	}
	for _, p := range want {
		if !slices.Contains(have, p) {
			c.say("port %s is not published", p.Outside())
		}
	}
}

// inside compares the record with the interface in the container.
func (c *comparison) inside(ns netns.NsHandle, rec *attachmentRecord, st *state) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in the container: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(rec.IfName)
	if err != nil {
		c.say("there is no interface %s in the container", rec.IfName)
		return nil
	}
	at := link.Attrs()
	if at.HardwareAddr.String() != rec.MAC.String() {
		c.say("the interface's MAC address is %s, not %s", at.HardwareAddr, rec.MAC)
	}
	if at.MTU != rec.MTU {
		c.say("the interface's MTU is %d, not %d", at.MTU, rec.MTU)
	}
	if at.Flags&unix.IFF_UP == 0 {
		c.say("the interface is down")
	}
	if rec.Bare {
		return nil
	}
	return c.addressed(h, link, rec, st)
}

// addressed compares addresses and routes.
func (c *comparison) addressed(h *netlink.Handle, link netlink.Link, rec *attachmentRecord, st *state) error {
	have, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of the container: %w", err)
	}
	for _, p := range rec.Addresses {
		if !slices.ContainsFunc(have, func(a netlink.Addr) bool { return prefixIs(a.IPNet.String(), p) }) {
			c.say("the interface has no address %s", p)
		}
	}
	routes, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("routes of the container: %w", err)
	}
	for _, want := range st.cniReply(rec).Routes {
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return routeIs(&r, &want) }) {
			c.say("there is no route to %s via %s", want.Dst, want.GW)
		}
	}
	return nil
}

func prefixIs(text string, p netip.Prefix) bool {
	q, err := netip.ParsePrefix(text)
	return err == nil && q == p
}

// routeIs says whether a route of the kernel is one that was set.
func routeIs(r *netlink.Route, want *api.CNIRoute) bool {
	gw, _ := netip.AddrFromSlice(r.Gw)
	if r.Dst == nil {
		return want.Dst.Bits() == 0 && gw.Unmap() == want.GW
	}
	return prefixIs(r.Dst.String(), want.Dst) && gw.Unmap() == want.GW
}

// cniStatus says whether an ADD for a network could work now.
func (a *Agent) cniStatus(ctx context.Context, q query) (*api.CNIStatus, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	status, err := a.status(ctx)
	if err != nil {
		return nil, err
	}
	out := &api.CNIStatus{Dataplane: status.Dataplane.State == "running"}
	n := st.network(q.network)
	if n == nil || n.Uplink != nil {
		return out, nil
	}
	out.Network, out.Free = true, st.freePort() != 0
	used := n.taken(st.holder(n.Name), st.now)
	for i := range n.Subnets {
		if _, err := n.pool(i).Next(n.Last[i], used); err != nil {
			out.Free = false
		}
	}
	return out, nil
}
