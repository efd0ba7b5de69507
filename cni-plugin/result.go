// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"sluice/api"
)

// result is what an ADD prints. Its one interface is the container's: the other end is
// in a namespace of the daemon's own, where no plugin of a chain could find it.
func (c *conf) result(r *api.CNIAddRequest, a *api.CNIAddReply, l *lease) types.Result {
	out := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: a.IfName, Mac: a.MAC, Mtu: a.MTU, Sandbox: r.Netns}},
		DNS:        c.DNS,
	}
	for i, p := range a.Addresses {
		ip := &current.IPConfig{Interface: new(0), Address: *ipNet(p)}
		if i < len(a.Gateways) {
			ip.Gateway = a.Gateways[i].AsSlice()
		}
		out.IPs = append(out.IPs, ip)
	}
	for _, route := range a.Routes {
		one := &types.Route{Dst: *ipNet(route.Dst), GW: route.GW.AsSlice(), MTU: route.MTU, AdvMSS: route.AdvMSS, Priority: route.Priority}
		if route.Table != 0 {
			one.Table = &route.Table
		}
		out.Routes = append(out.Routes, one)
	}
	switch {
	case c.RuntimeConfig.DNS != nil:
		out.DNS = *c.RuntimeConfig.DNS
	case out.DNS.IsEmpty() && l != nil && !l.dns.IsEmpty():
		out.DNS = l.dns
	case out.DNS.IsEmpty():
		out.DNS.Search = a.Search
		for _, server := range a.DNS {
			out.DNS.Nameservers = append(out.DNS.Nameservers, server.String())
		}
	}
	return out
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
