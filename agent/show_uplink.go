// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
)

// uplinkList is `uplink show`.
func (a *Agent) uplinkList(ctx context.Context, q query) ([]api.Uplink, error) {
	sel, err := readSelection(q.words, "dev", "NAME")
	if err != nil {
		return nil, badWords(err)
	}
	st, spaces, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	if q.stats {
		a.plane.sockets.countOverruns(a.counters)
	}
	out, err := a.uplinksWithPort(st, func(n *networkRecord, rec *attachmentRecord) bool {
		return slices.Contains(spaces, n.space()) && isNamed(sel.name, n.Name, rec.IfName)
	}, q.stats)
	if err != nil {
		return nil, err
	}
	ports := make(map[uint16]*api.Stats)
	for i := range out {
		ports[out[i].Port] = out[i].Stats
	}
	a.blame(ctx, ports)
	for _, n := range st.bySocket() {
		if slices.Contains(spaces, n.space()) && isNamed(sel.name, n.Name) {
			out = append(out, a.publicSocket(n, q.stats))
		}
	}
	if sel.name != "" && len(out) == 0 {
		return nil, refuse(api.CodeNotFound, "words", "Uplink \"%s\" does not exist.", sel.name)
	}
	return out, nil
}

// uplinksWithPort are those uplinks that are an interface, if they are wanted.
func (a *Agent) uplinksWithPort(st *state, wanted func(*networkRecord, *attachmentRecord) bool, stats bool) ([]api.Uplink, error) {
	out := []api.Uplink{}
	all := st.uplinks()
	if len(all) == 0 {
		return out, nil
	}
	v4, v6, err := a.host.Forwards()
	if err != nil {
		return nil, err
	}
	for _, rec := range all {
		n := st.network(rec.Network)
		if n == nil || rec.State == api.StateDeleting || !wanted(n, rec) {
			continue
		}
		up := a.publicUplink(st, n, rec)
		up.HostForwards = up.NIC == nil && forwarded(up.Addresses, v4, v6)
		if stats {
			up.Stats = a.stats(rec.Port)
		}
		if up.NIC == nil {
			up.Line = uplinkText(&up)
		} else {
			up.Line = nicText(&up)
		}
		out = append(out, up)
	}
	return out, nil
}

// isNamed reports whether a name is one of some; none means all.
func isNamed(name string, of ...string) bool { return name == "" || slices.Contains(of, name) }

// forwarded reports whether the host forwards packets of all families of the addresses.
func forwarded(addrs []netip.Prefix, v4, v6 bool) bool {
	return !slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is4() && !v4 || p.Addr().Is6() && !v6 })
}

func (a *Agent) publicUplink(st *state, n *networkRecord, rec *attachmentRecord) api.Uplink {
	up := api.Uplink{
		Name: n.Name, Namespace: n.space(), Type: "host", IfIndex: n.Port, Port: rec.Port, IfName: rec.IfName, HostIfName: rec.hostIfName(),
		MTU: n.MTU, VRF: n.VRF, MAC: n.MAC.String(), Addresses: n.ends(), PeerMAC: rec.MAC.String(), Peers: rec.addrs(),
		DefaultRoute: n.Uplink.DefaultRoute, HostRoutes: []netip.Prefix{}, Masquerade: n.Uplink.Masquerade, Forward: n.Uplink.Forward,
		State: rec.State, Fault: rec.Fault,
	}
	if nic := n.Uplink.NIC; nic != nil {
		up.Type, up.Peers, up.PeerMAC, up.NIC = "nic", nil, "", n.publicNIC()
		if up.Fault == "" {
			up.Fault = nic.Clash
		}
	}
	if n.Uplink.HostRoutes {
		up.HostRoutes = append(up.HostRoutes, st.behind(n)...)
	}
	if faults := a.undressed.Load(); faults != nil && up.Fault == "" {
		up.Fault = (*faults)[rec.ID]
	}
	if faults := a.unheld.Load(); faults != nil && up.Fault == "" && n.Uplink.NIC == nil {
		up.Fault = (*faults)[n.space()]
	}
	return up
}

// uplinkText is an uplink in the manner of `ip -d address`: Sluice's end, then the
// host's.
func uplinkText(up *api.Uplink) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s@%s: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu %d", up.IfIndex, up.Name, up.IfName, up.MTU)
	if up.VRF != "" {
		fmt.Fprintf(&b, " master %s", up.VRF)
	}
	fmt.Fprintf(&b, " state %s\n", strings.ToUpper(string(up.State)))
	fmt.Fprintf(&b, "    link/ether %s peer %s\n", up.MAC, up.PeerMAC)
	for i, p := range up.Addresses {
		family := "inet"
		if p.Addr().Is6() {
			family = "inet6"
		}
		fmt.Fprintf(&b, "    %s %s peer %s/%d\n", family, p.Addr(), up.Peers[i], p.Bits())
	}
	fmt.Fprintf(&b, "    type host default_route %s masquerade %s forwarding %s", onOff(up.DefaultRoute), onOff(up.Masquerade), onOff(up.HostForwards))
	for _, p := range up.HostRoutes {
		fmt.Fprintf(&b, "\n    host_route %s dev %s", p, up.IfName)
	}
	if up.Fault != "" {
		fmt.Fprintf(&b, "\n    fault %q", up.Fault)
	}
	return b.String()
}
