// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"
	"slices"

	"sluice/routing"
)

const (
	metricPrefix6 = 256 // of what an IPv6 address brings beside itself (IP6_RT_PRIO_ADDRCONF)
	subnetAnycast = 127 // prefixes this long and longer have no subnet-router anycast address (RFC 6164)
	noBroadcast   = 31  // the same for broadcast (RFC 3021)
	loopback      = "lo"
)

// Connected are the routes that a device's addresses bring, as Linux makes them
// (fib_add_ifaddr; addrconf_prefix_route, addrconf_join_anycast, addrconf_add_mroute).
func Connected(d *Device) []routing.Route {
	c := connected{d: d}
	for _, p := range d.Addrs {
		if p.Addr().Is4() {
			c.address4(p)
		} else {
			c.address6(p)
		}
	}
	groups := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8)
	c.add(routing.Route{Prefix: groups, Type: routing.Multicast, Table: routing.TableLocal, Metric: metricPrefix6})
	return c.routes
}

// connected collects the routes of one device.
type connected struct {
	d      *Device
	routes []routing.Route
}

// add completes a route that leads over the device.
func (c *connected) add(r routing.Route) {
	r.Proto = routing.ProtoKernel
	r.NextHops = []routing.NextHop{{Dev: c.d.Name}}
	if c.d.VRF != 0 {
		r.Table = c.d.VRF
	}
	c.routes = append(c.routes, r)
}

// address4 adds what an IPv4 address brings. The source is the first address of
// the subnet, whose other addresses bring only themselves.
func (c *connected) address4(p netip.Prefix) {
	subnet := p.Masked()
	at := slices.IndexFunc(primaries(c.d.Addrs), func(o netip.Prefix) bool { return o.Masked() == subnet })
	src := p.Addr()
	if at >= 0 {
		src = primaries(c.d.Addrs)[at].Addr()
	}
	c.add(routing.Route{Prefix: single(p.Addr()), Type: routing.Local, Src: src})
	if src != p.Addr() || subnet.Addr().IsUnspecified() || p.Bits() == 32 {
		return
	}
	c.add(routing.Route{Prefix: subnet, Type: routing.Unicast, Src: src})
	if p.Bits() < noBroadcast {
		c.add(routing.Route{Prefix: single(lastOf(subnet)), Type: routing.Broadcast, Src: src})
	}
}

// address6 adds what an IPv6 address brings.
func (c *connected) address6(p netip.Prefix) {
	subnet := p.Masked()
	c.once(routing.Route{Prefix: single(p.Addr()), Type: routing.Local})
	c.once(routing.Route{Prefix: subnet, Type: routing.Unicast, Metric: metricPrefix6})
	if p.Bits() < subnetAnycast && !c.d.NoForward && !subnet.Addr().IsUnspecified() {
		c.once(routing.Route{Prefix: single(subnet.Addr()), Type: routing.Anycast})
	}
}

// once adds an IPv6 route unless there is one with its key. An address that is also
// the anycast address of a subnet stays what it was first.
func (c *connected) once(r routing.Route) {
	same := func(o routing.Route) bool { return o.Prefix == r.Prefix && o.Metric == r.Metric }
	if !slices.ContainsFunc(c.routes, same) {
		c.add(r)
	}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// lastOf is the highest address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := range b {
		keep := min(8, max(0, p.Bits()-8*i))
		b[i] |= byte(0xff >> keep)
	}
	return netip.AddrFrom4(b)
}

// ownRoutes are those of the loopback device, which needs no entry in a Set.
func ownRoutes() []routing.Route {
	c := connected{d: &Device{Name: loopback}}
	c.address4(netip.MustParsePrefix("127.0.0.1/8"))
	c.add(routing.Route{Prefix: single(netip.IPv6Loopback()), Type: routing.Local})
	for i := range c.routes {
		if r := &c.routes[i]; r.Type == routing.Unicast {
			r.Type, r.Scope = routing.Local, routing.ScopeHost
		}
	}
	return c.routes
}
