// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// containerOffloads are those that a virtio-net header can't describe: segments
// of a tunnel's inner flow, of SCTP, of ESP, and the CRC32c of SCTP. With them
// off the container's kernel does that work before the frame reaches the veth;
// with them on, the frame could not be read at all, or would be taken for what it
// is not. All other offloads stay as the kernel has them.
func containerOffloads() []feature {
	return []feature{
		{"tx-checksum-sctp", false},
		// Accurate ECN (RFC 9768) wants the CWR bit in all segments or none, the
		// header knows only the older rule: in the first.
		{"tx-tcp-accecn-segmentation", false},
		{"tx-sctp-segmentation", false},
		{"tx-esp-segmentation", false},
		{"tx-fcoe-segmentation", false},
		{"tx-gre-segmentation", false},
		{"tx-gre-csum-segmentation", false},
		{"tx-ipxip4-segmentation", false},
		{"tx-ipxip6-segmentation", false},
		{"tx-udp_tnl-segmentation", false},
		{"tx-udp_tnl-csum-segmentation", false},
		{"tx-tunnel-remcsum-segmentation", false},
		{"tx-gso-partial", false},
		{"tx-gso-list", false},
	}
}

// configureContainer sets up the container's end. What must be true before the
// interface comes up (no duplicate address detection) goes first, routes last,
// since the kernel takes them only on an interface that is up.
func (c *PairConfig) configureContainer(h *netlink.Handle) error {
	link, err := h.LinkByName(c.Name)
	if err != nil {
		return err
	}
	eui64 := false
	if err := Do(c.NS, func() (err error) {
		eui64, err = c.prepare()
		return err
	}); err != nil {
		return err
	}
	addresses := c.Addresses
	if eui64 {
		addresses = append([]netip.Prefix{linkLocal(link.Attrs().HardwareAddr)}, addresses...)
	}
	for _, a := range addresses {
		addr := nlAddr(a)
		if c.Table != 0 && !a.Addr().IsLinkLocalUnicast() {
			addr.Flags |= unix.IFA_F_NOPREFIXROUTE
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := c.addRoutes(h, link.Attrs().Index); err != nil {
		return err
	}
	return c.addRules(h)
}

// prepare runs in the container's namespace, before the interface is up.
//
// It switches duplicate address detection (RFC 4862 §5.4) off for the interface:
// the daemon gives out each address once, and the second that detection takes
// would be the container's start-up time. Where /proc/sys is read-only, the
// addresses that we add ourselves are still without it.
//
// eui64 says that the kernel will make a link-local address from the MAC, so that
// we may add it in its place: it is then usable at once, whatever the settings.
func (c *PairConfig) prepare() (eui64 bool, err error) {
	// Best effort: of the frames that these offloads would make, none is lost
	// silently, see Batch.Refused and packet.Frame.CheckVnet.
	_ = setFeatures(c.Name, containerOffloads())

	conf := "ipv6/conf/" + c.Name
	settings := []string{conf + "/accept_dad"}
	if c.hasIPv6() {
		// A container runtime may have IPv6 off by default; with an address it is
		// asked for.
		settings = append(settings, conf+"/disable_ipv6")
	}
	for _, name := range settings {
		if err := writeSysctl(name, "0"); err != nil && !sysctlRefused(err) {
			return false, err
		}
	}
	mode, err := os.ReadFile(filepath.Join(sysctlRoot, conf, "addr_gen_mode"))
	return err == nil && c.hasIPv6() && strings.TrimSpace(string(mode)) == "0", nil
}

func (c *PairConfig) hasIPv6() bool {
	for _, a := range c.Addresses {
		if a.Addr().Is6() {
			return true
		}
	}
	return false
}

// linkLocal is the address that the kernel would make from a MAC (RFC 4291
// appendix A). Added by us, and without detection, it is there before the kernel
// comes to make it.
func linkLocal(mac net.HardwareAddr) netip.Prefix {
	a := [16]byte{0: 0xfe, 1: 0x80, 11: 0xff, 12: 0xfe}
	copy(a[8:11], mac[:3])
	copy(a[13:], mac[3:])
	a[8] ^= 2 // universal/local bit
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// nlAddr is an address without duplicate address detection.
func nlAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
		if p.Addr().IsLinkLocalUnicast() {
			a.Scope = unix.RT_SCOPE_LINK
		}
	}
	return a
}

// ipNet keeps the host bits, as an interface address wants them.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// addRoutes adds the further routes first: a gateway may be reachable only by one
// of them.
func (c *PairConfig) addRoutes(h *netlink.Handle, index int) error {
	routes := slices.Clip(c.Routes) // the caller's array stays as it is
	if c.Table != 0 {
		for _, a := range c.Addresses {
			routes = slices.Insert(routes, 0, Route{Dst: a.Masked()})
		}
	}
	for _, gw := range c.Gateways {
		routes = append(routes, Route{Dst: defaultRoute(gw), Via: gw})
	}
	for _, r := range routes {
		if err := h.RouteAdd(c.nlRoute(r, index)); err != nil {
			return fmt.Errorf("route %s via %s: %w", r.Dst, r.Via, err)
		}
	}
	return nil
}

// defaultRoute is the destination 0/0 of a gateway's family.
func defaultRoute(gw netip.Addr) netip.Prefix {
	if gw.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// nlRoute is a route by the interface. A next hop outside the interface's
// subnets is taken to be on the link (ip-route(8), onlink), as a /32 address
// needs it.
func (c *PairConfig) nlRoute(r Route, index int) *netlink.Route {
	route := &netlink.Route{LinkIndex: index, Dst: ipNet(r.Dst.Masked()), Table: int(c.Table)}
	route.MTU, route.AdvMSS, route.Priority = r.MTU, r.AdvMSS, r.Metric
	if r.Table != 0 {
		route.Table = r.Table
	}
	if !r.Via.IsValid() {
		if r.Dst.Addr().Is4() {
			route.Scope = netlink.SCOPE_LINK
		}
		return route
	}
	route.Gw = r.Via.AsSlice()
	if !c.onSubnet(r.Via) {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	return route
}

func (c *PairConfig) onSubnet(a netip.Addr) bool {
	for _, p := range c.Addresses {
		if p.Contains(a) {
			return true
		}
	}
	return a.Is6() && a.IsLinkLocalUnicast()
}
