// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/netstack"
	"sluice/routing"
)

// bySocket reports whether the network is that of a socket uplink. It has no bridge,
// no address and no attachment.
func (n *networkRecord) bySocket() bool {
	return n.Uplink != nil && n.Uplink.Type == config.UplinkSocket
}

// bySocket are the socket uplinks, by name.
func (s *state) bySocket() (out []*networkRecord) {
	for i := range s.networks {
		if s.networks[i].bySocket() {
			out = append(out, &s.networks[i])
		}
	}
	return out
}

func socketSpec(n *networkRecord) netstack.SocketSpec {
	return netstack.SocketSpec{
		Name: n.Name, Index: n.Port, MTU: n.MTU, VRF: n.VRF, Device: deviceSpec(n.Device, routing.ReverseOff), Egress: n.Queue.spec(),
	}
}

// socketRoutes are the default routes by a socket uplink, of the families that the
// namespace's networks have.
func (d *declaration) socketRoutes(c *config.Uplink, rec *namespaceRecord) (out []routing.Change) {
	table, _ := rec.vrfTable(c.VRF)
	for _, v6 := range d.families(c.Namespace) {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if v6 {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		out = append(out, routing.Change{Route: &routing.Route{
			Prefix: all, Table: table, Proto: routing.ProtoStatic, NextHops: []routing.NextHop{{Dev: c.Name}},
		}})
	}
	return out
}

// socketLine is a socket uplink in the words of `sluice uplink`.
func socketLine(n *networkRecord) string {
	w := []string{n.Name, "type", config.UplinkSocket, "mtu", fmt.Sprint(n.MTU)}
	if n.VRF != "" {
		w = append(w, "vrf", n.VRF)
	}
	w = append(w, "default_route", onOff(n.Uplink.DefaultRoute))
	return strings.Join(append(w, n.Device.Words()...), " ")
}

// publicSocket is a socket uplink as the API shows it.
func (a *Agent) publicSocket(n *networkRecord, stats bool) api.Uplink {
	up := api.Uplink{
		Name: n.Name, Namespace: n.space(), Type: config.UplinkSocket, IfIndex: n.Port, Port: n.Port, MTU: n.MTU, VRF: n.VRF,
		Addresses: []netip.Prefix{}, Peers: []netip.Addr{}, HostRoutes: []netip.Prefix{},
		DefaultRoute: n.Uplink.DefaultRoute, State: api.StateReady,
	}
	if faults := a.unheld.Load(); faults != nil {
		up.Fault = (*faults)[n.space()]
	}
	if stats {
		up.Stats = a.stats(n.Port)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s: <POINTOPOINT,UP,LOWER_UP> mtu %d", up.IfIndex, up.Name, up.MTU)
	if up.VRF != "" {
		fmt.Fprintf(&b, " master %s", up.VRF)
	}
	fmt.Fprintf(&b, " state %s\n    type %s default_route %s", strings.ToUpper(string(up.State)), up.Type, onOff(up.DefaultRoute))
	if up.Fault != "" {
		fmt.Fprintf(&b, "\n    fault %q", up.Fault)
	}
	up.Line = b.String()
	return up
}
