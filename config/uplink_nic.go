// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/iproute"
)

// The types of uplinks.
const (
	// UplinkHost is a veth to the host's own network namespace.
	UplinkHost = "host"
	// UplinkNIC is an interface of the host's.
	UplinkNIC = "nic"
	// UplinkSocket ends connections and goes on with sockets of the host.
	UplinkSocket = "socket"
)

// MaxUplinkAddrs bounds the addresses of a nic uplink, MaxNameservers its servers of
// names.
const (
	MaxUplinkAddrs = 16
	MaxNameservers = 8
)

// NIC is what an uplink of type nic has beside what all have: the interface of the
// host, IfName, is Sluice's.
type NIC struct {
	// Share is the mode of the macvlan that shares the interface with the host: bridge,
	// private or passthru. Empty: the interface is moved.
	Share string
	// Gateways are those of the static addresses, one of each family at most.
	Gateways []netip.Addr
	// DHCP, SLAAC and DHCP6 are how it gets further addresses, routes and servers of
	// names.
	DHCP, SLAAC, DHCP6 bool
	// DNS are servers of names, before those that it learns.
	DNS []netip.Addr
	// MTU is to be set; 0: as the interface has it.
	MTU int
}

// Learns reports whether anything is asked of the link.
func (n *NIC) Learns() bool { return n.DHCP || n.SLAAC || n.DHCP6 }

// shared reports whether others can share the uplink's interface, too.
func shared(u *Uplink) bool {
	return u.NIC != nil && (u.NIC.Share == "bridge" || u.NIC.Share == "private")
}

// typed refuses what is of another type than an uplink's.
func (v *validator) typed(field string, r *rawUplink) {
	type given struct {
		field string
		is    bool
	}
	var foreign []given
	switch r.Type {
	case UplinkNIC:
		foreign = []given{{"peers", r.Peers != nil}, {"hostRoutes", r.HostRoutes != nil}, {"forward", r.Forward}}
	default:
		foreign = []given{
			{"share", r.Share != nil}, {"gateways", r.Gateways != nil}, {"dhcp", r.DHCP}, {"slaac", r.SLAAC}, {"dhcp6", r.DHCP6}, {"dns", r.DNS != nil},
		}
	}
	other := map[bool]string{true: UplinkHost, false: UplinkNIC}[r.Type == UplinkNIC]
	for _, g := range foreign {
		if g.is {
			v.fault(field+"."+g.field, "is of uplinks of type %s", other)
		}
	}
}

// nicUplink checks one of type nic.
func (v *validator) nicUplink(field string, r *rawUplink) Uplink {
	n := &NIC{DHCP: r.DHCP, SLAAC: r.SLAAC, DHCP6: r.DHCP6}
	u := Uplink{
		Name: r.Name, Type: UplinkNIC, IfName: r.IfName, MTU: DefaultMTU, Device: iproute.Settings{},
		DefaultRoute: orTrue(r.DefaultRoute), Masquerade: r.Masquerade, NIC: n,
	}
	if r.IfName == "" {
		v.fault(field+".ifname", "missing: the host's interface that is to be Sluice's")
	}
	v.hostIfName(field+".ifname", r.IfName)
	n.Share = v.oneOf(field+".share", r.Share, "bridge", "private", "passthru")
	u.Addresses = v.nicAddresses(field+".addresses", r.Addresses)
	n.Gateways = v.nicGateways(field+".gateways", r.Gateways, u.Addresses)
	if len(u.Addresses) == 0 && !n.Learns() {
		v.fault(field+".addresses", "missing; give addresses, dhcp: true, slaac: true or dhcp6: true")
	}
	if r.MTU != nil {
		u.MTU = v.between(field+".mtu", r.MTU, MinMTU6, MaxMTU)
		n.MTU = u.MTU
	}
	if len(r.DNS) > MaxNameservers {
		v.fault(field+".dns", "%d servers; at most %d are supported", len(r.DNS), MaxNameservers)
	}
	for i, text := range r.DNS {
		if a := v.address(fmt.Sprintf("%s.dns[%d]", field, i), text); a.IsValid() {
			n.DNS = append(n.DNS, a)
		}
	}
	v.routed(field, nil, r.RPFilter, nil, r.ClampMSS, u.Device)
	return u
}

// nicAddresses are addresses with the length of their subnet.
func (v *validator) nicAddresses(field string, raw []string) (out []netip.Prefix) {
	if len(raw) > MaxUplinkAddrs {
		v.fault(field, "%d addresses; at most %d are supported", len(raw), MaxUplinkAddrs)
		return nil
	}
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			v.fault(at, "%q is not an address with a length, as 192.0.2.10/24", text)
			continue
		}
		v.nicAddress(at, p)
		if slices.ContainsFunc(out, func(q netip.Prefix) bool { return q.Addr() == p.Addr() }) {
			v.fault(at, "%s: given twice", p.Addr())
		}
		out = append(out, p)
	}
	return out
}

func (v *validator) nicAddress(at string, p netip.Prefix) {
	for bad, why := range unusable() {
		if p.Overlaps(netip.MustParsePrefix(bad)) {
			v.fault(at, "%s overlaps %s (%s), which no uplink may have", p, bad, why)
		}
	}
	a, room := p.Addr(), p.Addr().BitLen()-p.Bits()
	switch {
	case p.Bits() == 0:
		v.fault(at, "%s: a subnet without a length", p)
	case a.Is4() && room > 1 && (a == p.Masked().Addr() || a == lastOf(p)):
		v.fault(at, "%s: network and broadcast addresses of a subnet are no host's", p)
	}
}

// lastOf is the highest address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

// nicGateways are next hops: each on one of the subnets, or link-local.
func (v *validator) nicGateways(field string, raw []string, addrs []netip.Prefix) (out []netip.Addr) {
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		g := v.address(at, text)
		if !g.IsValid() {
			continue
		}
		onLink := slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Contains(g) && p.Addr() != g })
		switch {
		case slices.ContainsFunc(out, func(o netip.Addr) bool { return o.Is4() == g.Is4() }):
			v.fault(at, "%s: a second %s gateway; one of each family at most", g, family(g))
		case !onLink && (g.Is4() || !g.IsLinkLocalUnicast()):
			v.fault(at, "%s is on none of the subnets of addresses", g)
		}
		out = append(out, g)
	}
	return out
}
