// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"sluice/autoconf"
	"sluice/packet"
)

// The services by which containers configure themselves, as the file has them.

type rawAdvertise struct {
	MinInterval   *string          `yaml:"minInterval"`
	MaxInterval   *string          `yaml:"maxInterval"`
	Lifetime      *string          `yaml:"lifetime"`
	DefaultRouter *bool            `yaml:"defaultRouter"`
	Preference    *string          `yaml:"preference"`
	Managed       bool             `yaml:"managed"`
	Other         bool             `yaml:"other"`
	HopLimit      *int             `yaml:"hopLimit"`
	Reachable     *string          `yaml:"reachable"`
	Retransmit    *string          `yaml:"retransmit"`
	MTU           *int             `yaml:"mtu"`
	Prefixes      []rawPrefix      `yaml:"prefixes"`
	Routes        []rawAdvertRoute `yaml:"routes"`
	DNS           []string         `yaml:"dns"`
	Search        []string         `yaml:"search"`
	DNSLifetime   *string          `yaml:"dnsLifetime"`
}

type rawPrefix struct {
	Prefix     string  `yaml:"prefix"`
	OnLink     *bool   `yaml:"onLink"`
	Autonomous bool    `yaml:"autonomous"`
	Valid      *string `yaml:"valid"`
	Preferred  *string `yaml:"preferred"`
	Deprecated bool    `yaml:"deprecated"`
}

type rawAdvertRoute struct {
	To         string  `yaml:"to"`
	Preference *string `yaml:"preference"`
	Lifetime   *string `yaml:"lifetime"`
}

type rawDHCP struct {
	Lease    *string        `yaml:"lease"`
	Router   *bool          `yaml:"router"`
	Routes   []rawDHCPRoute `yaml:"routes"`
	DNS      []string       `yaml:"dns"`
	Domain   string         `yaml:"domain"`
	Search   []string       `yaml:"search"`
	NTP      []string       `yaml:"ntp"`
	MTU      *int           `yaml:"mtu"`
	HostName bool           `yaml:"hostName"`
}

type rawDHCPRoute struct {
	To  string `yaml:"to"`
	Via string `yaml:"via"`
}

type rawDHCP6 struct {
	Stateless bool     `yaml:"stateless"`
	Preferred *string  `yaml:"preferred"`
	Valid     *string  `yaml:"valid"`
	DNS       []string `yaml:"dns"`
	Search    []string `yaml:"search"`
	NTP       []string `yaml:"ntp"`
	Refresh   *string  `yaml:"refresh"`
}

// services are those of a network, checked as a whole by who provides them.
func (v *validator) services(field string, r *rawNetwork, n *Network) autoconf.Config {
	c := autoconf.Config{
		Advert: v.advertise(field+".advertise", r.Advertise),
		DHCP4:  v.dhcp(field+".dhcp", r.DHCP),
		DHCP6:  v.dhcp6(field+".dhcp6", r.DHCP6),
	}
	if v.err != nil {
		return c
	}
	for _, one := range []struct {
		field string
		c     autoconf.Config
	}{
		{"advertise", autoconf.Config{Advert: c.Advert}}, {"dhcp", autoconf.Config{DHCP4: c.DHCP4}}, {"dhcp6", autoconf.Config{DHCP6: c.DHCP6}},
	} {
		if err := one.c.Validate(n.link()); err != nil {
			v.fault(field+"."+one.field, "%s", err)
		}
	}
	return c
}

// link is what the services depend on. The gateway's MAC is not known yet, and any
// does here.
func (n *Network) link() autoconf.Link {
	l := autoconf.Link{MAC: packet.MAC{2, 0, 0, 0, 0, 1}, MTU: n.MTU}
	for i, g := range n.Gateways {
		l.Addrs = append(l.Addrs, netip.PrefixFrom(g, n.Subnets[i].Bits()))
	}
	return l
}

func (v *validator) advertise(field string, r *rawAdvertise) *autoconf.Advert {
	if r == nil {
		return nil
	}
	a := &autoconf.Advert{
		MinInterval: uint16(v.seconds(field+".minInterval", r.MinInterval, math.MaxUint16)),
		MaxInterval: uint16(v.seconds(field+".maxInterval", r.MaxInterval, math.MaxUint16)),
		Lifetime:    uint16(v.seconds(field+".lifetime", r.Lifetime, math.MaxUint16)),
		NoDefault:   r.DefaultRouter != nil && !*r.DefaultRouter,
		Managed:     r.Managed, Other: r.Other, Search: r.Search,
		HopLimit:        uint8(v.between(field+".hopLimit", r.HopLimit, 1, 255)),
		ReachableMillis: v.millis(field+".reachable", r.Reachable),
		RetransMillis:   v.millis(field+".retransmit", r.Retransmit),
		MTU:             uint32(v.between(field+".mtu", r.MTU, MinMTU6, MaxMTU)),
		Preference:      v.preference(field+".preference", r.Preference),
		DNS:             v.servers(field+".dns", r.DNS),
		DNSLifetime:     v.seconds(field+".dnsLifetime", r.DNSLifetime, math.MaxUint32-1),
	}
	for i, p := range r.Prefixes {
		at := fmt.Sprintf("%s.prefixes[%d]", field, i)
		a.Prefixes = append(a.Prefixes, autoconf.Prefix{
			Prefix: v.prefix(at+".prefix", p.Prefix), OffLink: p.OnLink != nil && !*p.OnLink, Autonomous: p.Autonomous, Deprecated: p.Deprecated,
			Valid: v.seconds(at+".valid", p.Valid, math.MaxUint32-1), Preferred: v.seconds(at+".preferred", p.Preferred, math.MaxUint32-1),
		})
	}
	for i, route := range r.Routes {
		at := fmt.Sprintf("%s.routes[%d]", field, i)
		a.Routes = append(a.Routes, autoconf.AdvertRoute{
			Dst: v.prefix(at+".to", route.To), Preference: v.preference(at+".preference", route.Preference),
			Lifetime: v.seconds(at+".lifetime", route.Lifetime, math.MaxUint32-1),
		})
	}
	return a
}

func (v *validator) dhcp(field string, r *rawDHCP) *autoconf.DHCP4 {
	if r == nil {
		return nil
	}
	d := &autoconf.DHCP4{
		Lease: v.seconds(field+".lease", r.Lease, math.MaxUint32-1), NoRouter: r.Router != nil && !*r.Router,
		DNS: v.servers(field+".dns", r.DNS), Domain: r.Domain, Search: r.Search, NTP: v.servers(field+".ntp", r.NTP),
		MTU: uint16(v.between(field+".mtu", r.MTU, MinMTU, MaxMTU)), HostName: r.HostName,
	}
	for i, route := range r.Routes {
		at := fmt.Sprintf("%s.routes[%d]", field, i)
		out := autoconf.Route{Dst: v.prefix(at+".to", route.To)}
		if route.Via != "" {
			out.Via = v.address(at+".via", route.Via)
		}
		d.Routes = append(d.Routes, out)
	}
	return d
}

func (v *validator) dhcp6(field string, r *rawDHCP6) *autoconf.DHCP6 {
	if r == nil {
		return nil
	}
	return &autoconf.DHCP6{
		Stateless: r.Stateless,
		Preferred: v.seconds(field+".preferred", r.Preferred, math.MaxUint32-1),
		Valid:     v.seconds(field+".valid", r.Valid, math.MaxUint32-1),
		DNS:       v.servers(field+".dns", r.DNS), Search: r.Search, NTP: v.servers(field+".ntp", r.NTP),
		Refresh: v.seconds(field+".refresh", r.Refresh, math.MaxUint32-1),
	}
}

// seconds is a duration of whole seconds, 0 if it is not given; "forever" is what the
// protocols mean by all bits set, where they have room for it.
func (v *validator) seconds(field string, raw *string, most uint32) uint32 {
	if raw == nil {
		return 0
	}
	if *raw == "forever" && most > math.MaxUint16 {
		return autoconf.Forever
	}
	d, err := time.ParseDuration(*raw)
	if err != nil {
		v.fault(field, "%q is not a duration, as 10s or 2m", *raw)
		return 0
	}
	if d < time.Second || d%time.Second != 0 || d/time.Second > time.Duration(most) {
		v.fault(field, "%s is out of range; expected whole seconds, 1s to %s", *raw, time.Duration(most)*time.Second)
		return 0
	}
	return uint32(d / time.Second)
}

func (v *validator) millis(field string, raw *string) uint32 {
	return uint32(v.duration(field, raw, time.Millisecond, time.Hour) / time.Millisecond)
}

func (v *validator) preference(field string, raw *string) (p autoconf.Preference) {
	if raw != nil {
		if err := p.UnmarshalText([]byte(*raw)); err != nil {
			v.fault(field, "%s", err)
		}
	}
	return p
}

func (v *validator) servers(field string, raw []string) (out []netip.Addr) {
	for i, text := range raw {
		out = append(out, v.address(fmt.Sprintf("%s[%d]", field, i), text))
	}
	return out
}

func (v *validator) address(field, text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		v.fault(field, "%q is not an IP address", text)
		return netip.Addr{}
	}
	return a
}

func (v *validator) prefix(field, text string) netip.Prefix {
	p, err := netip.ParsePrefix(text)
	if err != nil || p != p.Masked() {
		v.fault(field, "%q is not a prefix, as 10.44.0.0/24 or fd44::/64", text)
		return netip.Prefix{}
	}
	return p
}
