// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/veth"
)

// Protocol marks the routes that are ours (rtm_protocol, rtnetlink(7)). It is nobody's
// in rtnetlink.h.
const Protocol = 83

// Host is the host's network namespace. Its methods are for one goroutine at a time.
type Host struct {
	ns netns.NsHandle // stays the caller's
	// tables are the rules as they were put last, by the name of the table; empty: it
	// was seen that there is none.
	tables map[string]string
}

// NewHost is the host whose network namespace this is.
func NewHost(ns netns.NsHandle) *Host { return &Host{ns: ns, tables: make(map[string]string)} }

// Apply makes the host agree with a Config, as far as it does not yet. What it can't
// do it says, and has done the rest of what comes before.
func (h *Host) Apply(ctx context.Context, c *Config) error {
	err := h.within(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(c.IfName)
		if err != nil {
			return fmt.Errorf("interface %s: %w", c.IfName, err)
		}
		if !c.localnet() {
			if err := localnet(c); err != nil && !refused(err) {
				return err
			}
		}
		for _, step := range []func(*netlink.Handle, netlink.Link, *Config) error{settle, addresses, neighbours, routes} {
			if err := step(nl, link, c); err != nil {
				return fmt.Errorf("interface %s: %w", c.IfName, err)
			}
		}
		if c.Forward {
			return forward(nl, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := h.table(ctx, c); err != nil || !c.localnet() {
		return err
	}
	return h.within(func(*netlink.Handle) error { return localnet(c) })
}

// within runs f with a route socket, on a thread, of the host's namespace.
func (h *Host) within(f func(*netlink.Handle) error) error {
	return veth.Do(h.ns, func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer nl.Close()
		return f(nl)
	})
}

// settle sets the interface up, which somebody may have set down, and keeps it from
// listening to routers: nobody but the other end is there, which advertises nothing.
func settle(nl *netlink.Handle, link netlink.Link, c *Config) error {
	if err := writeSysctl("ipv6/conf/"+c.IfName+"/accept_ra", "0"); err != nil && !refused(err) {
		return err
	}
	if link.Attrs().RawFlags&unix.IFF_UP != 0 {
		return nil
	}
	return nl.LinkSetUp(link)
}

// addresses adds those that are missing: IPv6 ones go when an interface is set down.
func addresses(nl *netlink.Handle, link netlink.Link, c *Config) error {
	all, err := nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	for _, p := range c.Addresses {
		if slices.ContainsFunc(all, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == p }) {
			continue
		}
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // there are two on the link, and both are ours
		}
		if err := nl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
	}
	return nil
}

// neighbours says where the other end is, so that the host need not ask: it would with
// whatever address of its own a packet has (arp_announce), which a guard refuses.
func neighbours(nl *netlink.Handle, link netlink.Link, c *Config) error {
	for _, a := range c.Ends {
		n := &netlink.Neigh{
			LinkIndex: link.Attrs().Index, Family: family(a), State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: c.MAC[:],
		}
		if err := nl.NeighSet(n); err != nil {
			return fmt.Errorf("neighbour %s: %w", a, err)
		}
	}
	return nil
}

// routes adds what is missing and removes what is ours and should not be.
func routes(nl *netlink.Handle, link netlink.Link, c *Config) error {
	want := make(map[netip.Prefix]netip.Addr)
	for _, s := range c.routed() {
		if c.Routes {
			want[s] = c.end(s.Addr().Is6())
		}
	}
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Protocol: Protocol}
	all, err := nl.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for i := range all {
		dst, via := prefixOf(all[i].Dst), addrOf(all[i].Gw)
		if want[dst].IsValid() && want[dst] == via {
			delete(want, dst)
			continue
		}
		if err := nl.RouteDel(&all[i]); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("route to %s: %w", dst, err)
		}
	}
	for dst, via := range want {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Protocol: Protocol, Dst: ipNet(dst), Gw: via.AsSlice()}
		if err := nl.RouteAdd(r); err != nil {
			return fmt.Errorf("route to %s via %s: %w", dst, via, err)
		}
	}
	return nil
}

// Has reports whether the host has an interface of a name whose other end has an index
// in its own namespace.
func (h *Host) Has(ifname string, peer int) (bool, error) {
	has := false
	err := h.within(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(ifname)
		if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
			return nil
		}
		if err != nil {
			return fmt.Errorf("interface %s: %w", ifname, err)
		}
		has = link.Type() == "veth" && link.Attrs().ParentIndex == peer
		return nil
	})
	return has, err
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is not valid for nil, which stands for a default route.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
