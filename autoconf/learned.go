// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sluice/packet"
)

// Learn is what a device asks of the link that it is on, as a host does. Zero: nothing.
type Learn struct {
	DHCP  bool `json:"dhcp,omitempty"`  // RFC 2131
	SLAAC bool `json:"slaac,omitempty"` // router advertisements, RFC 4861 §6.3 and RFC 4862
	DHCP6 bool `json:"dhcp6,omitempty"` // RFC 8415: addresses of an IA_NA, servers of names
	// Again is another number when the link was interrupted: what is held is confirmed.
	Again uint32 `json:"again,omitempty"`
	// Held is what another Learner of this device knew. Only a new one looks at it.
	Held *Learned `json:"held,omitempty"`
}

// On reports whether anything is asked.
func (c *Learn) On() bool { return c.DHCP || c.SLAAC || c.DHCP6 }

// Learned is what the link has told. Times are seconds of the clock that Input and Tick
// are given. It is inert and travels as JSON.
type Learned struct {
	DHCP     *Lease4         `json:"dhcp,omitempty"`
	Routers  []LearnedRouter `json:"routers,omitempty"`
	Prefixes []LearnedPrefix `json:"prefixes,omitempty"`
	Routes   []LearnedMore   `json:"routes,omitempty"`
	DHCP6    *Lease6         `json:"dhcp6,omitempty"`
	DNS      []LearnedServer `json:"dns,omitempty"`
}

// Lease4 is a lease of DHCP.
type Lease4 struct {
	Address   netip.Prefix   `json:"address"`
	Server    netip.Addr     `json:"server"`
	ServerMAC packet.MAC     `json:"serverMAC"`
	Routes    []LearnedRoute `json:"routes,omitempty"`
	DNS       []netip.Addr   `json:"dns,omitempty"`
	Renew     int64          `json:"renew"`
	Rebind    int64          `json:"rebind"`
	End       int64          `json:"end"`
}

// Lease6 is what a server of DHCPv6 gave.
type Lease6 struct {
	Server []byte          `json:"server"` // its DUID
	Addrs  []LearnedServer `json:"addrs,omitempty"`
	DNS    []netip.Addr    `json:"dns,omitempty"`
	Renew  int64           `json:"renew"`
	Rebind int64           `json:"rebind"`
	End    int64           `json:"end"`
}

// LearnedRouter is a default router.
type LearnedRouter struct {
	Addr       netip.Addr `json:"addr"`
	Preference int8       `json:"preference,omitempty"` // RFC 4191 §2.1: -1, 0, 1
	End        int64      `json:"end"`
}

// LearnedPrefix is a prefix of the link, with the address that is made of it.
type LearnedPrefix struct {
	Prefix  netip.Prefix `json:"prefix"`
	Address netip.Addr   `json:"address,omitzero"` // not valid: none
	OnLink  bool         `json:"onLink,omitempty"`
	End     int64        `json:"end"`
	// Link is until when it is on the link.
	Link int64 `json:"link,omitempty"`
}

// LearnedMore is a more specific route, RFC 4191.
type LearnedMore struct {
	Dst        netip.Prefix `json:"dst"`
	Via        netip.Addr   `json:"via"`
	Preference int8         `json:"preference,omitempty"`
	End        int64        `json:"end"`
}

// LearnedServer is an address with a lifetime.
type LearnedServer struct {
	Addr netip.Addr `json:"addr"`
	End  int64      `json:"end"`
}

// LearnedRoute is a route that follows from what was learned. Via is not valid if Dst is
// on the link.
type LearnedRoute struct {
	Dst  netip.Prefix `json:"dst"`
	Via  netip.Addr   `json:"via,omitzero"`
	DHCP bool         `json:"dhcp,omitempty"` // else of router advertisements
}

// Addresses are those that the device has because of it.
func (l *Learned) Addresses() (out []netip.Prefix) {
	if l == nil {
		return nil
	}
	if l.DHCP != nil {
		out = append(out, l.DHCP.Address)
	}
	for _, p := range l.Prefixes {
		if p.Address.IsValid() {
			bits := p.Prefix.Bits()
			if !p.OnLink {
				bits = 128
			}
			out = append(out, netip.PrefixFrom(p.Address, bits))
		}
	}
	if l.DHCP6 != nil {
		for _, a := range l.DHCP6.Addrs {
			if p := netip.PrefixFrom(a.Addr, 128); !slices.ContainsFunc(out, func(q netip.Prefix) bool { return q.Addr() == a.Addr }) {
				out = append(out, p)
			}
		}
	}
	return out
}

// AllRoutes are those that the device has because of it, one for each destination.
func (l *Learned) AllRoutes() (out []LearnedRoute) {
	if l == nil {
		return nil
	}
	add := func(r LearnedRoute) {
		if !slices.ContainsFunc(out, func(o LearnedRoute) bool { return o.Dst == r.Dst }) {
			out = append(out, r)
		}
	}
	if l.DHCP != nil {
		for _, r := range l.DHCP.Routes {
			add(r)
		}
	}
	for _, p := range l.Prefixes {
		if p.OnLink && !p.Address.IsValid() {
			add(LearnedRoute{Dst: p.Prefix})
		}
	}
	// The best router of several; sort is stable, the first that was heard stays.
	routers := slices.Clone(l.Routers)
	slices.SortStableFunc(routers, func(a, b LearnedRouter) int { return cmp.Compare(b.Preference, a.Preference) })
	for _, r := range routers {
		add(LearnedRoute{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: r.Addr})
	}
	more := slices.Clone(l.Routes)
	slices.SortStableFunc(more, func(a, b LearnedMore) int { return cmp.Compare(b.Preference, a.Preference) })
	for _, r := range more {
		add(LearnedRoute{Dst: r.Dst, Via: r.Via})
	}
	return out
}

// Nameservers are the servers of names, without doubles.
func (l *Learned) Nameservers() (out []netip.Addr) {
	if l == nil {
		return nil
	}
	add := func(a netip.Addr) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	if l.DHCP != nil {
		for _, a := range l.DHCP.DNS {
			add(a)
		}
	}
	for _, s := range l.DNS {
		add(s.Addr)
	}
	if l.DHCP6 != nil {
		for _, a := range l.DHCP6.DNS {
			add(a)
		}
	}
	return out
}

// Same reports whether the same follows from both, times apart.
func (l *Learned) Same(o *Learned) bool {
	return slices.Equal(l.Addresses(), o.Addresses()) && slices.Equal(l.AllRoutes(), o.AllRoutes()) &&
		slices.Equal(l.Nameservers(), o.Nameservers())
}

// end is when the first of it ends; 0: never, or there is nothing.
func (l *Learned) end() (end int64) {
	first := func(t int64) {
		if t != 0 && (end == 0 || t < end) {
			end = t
		}
	}
	if l.DHCP != nil {
		first(l.DHCP.End)
	}
	for _, r := range l.Routers {
		first(r.End)
	}
	for _, p := range l.Prefixes {
		first(p.End)
	}
	for _, r := range l.Routes {
		first(r.End)
	}
	for _, s := range l.DNS {
		first(s.End)
	}
	if l.DHCP6 != nil {
		first(l.DHCP6.End)
	}
	return end
}

// clone is a copy that shares nothing that changes: the lists are replaced as wholes,
// and leases are never changed.
func (l *Learned) clone() Learned {
	c := *l
	c.Routers, c.Prefixes, c.Routes = slices.Clone(l.Routers), slices.Clone(l.Prefixes), slices.Clone(l.Routes)
	c.DNS = slices.Clone(l.DNS)
	return c
}

// ErrLearned is wrapped by what Check returns.
var ErrLearned = errors.New("what was learned is not usable")

// Check reports what is not as a Learner has it: more than it keeps, or what is no
// address. It is for who is given it by somebody less trusted.
func (l *Learned) Check() error {
	addrs, routes, servers := l.Addresses(), l.AllRoutes(), l.Nameservers()
	if len(addrs) > 1+2*maxPrefixes || len(routes) > 2*maxLearnedRoutes+maxPrefixes+1 || len(servers) > 3*maxDNS {
		return fmt.Errorf("%w: %d addresses, %d routes, %d servers", ErrLearned, len(addrs), len(routes), len(servers))
	}
	if i := slices.IndexFunc(addrs, unfit); i >= 0 {
		return fmt.Errorf("%w: address %s", ErrLearned, addrs[i])
	}
	if i := slices.IndexFunc(routes, LearnedRoute.unfit); i >= 0 {
		return fmt.Errorf("%w: route to %s via %s", ErrLearned, routes[i].Dst, routes[i].Via)
	}
	if i := slices.IndexFunc(servers, func(a netip.Addr) bool { return !isHost(a) }); i >= 0 {
		return fmt.Errorf("%w: server %s", ErrLearned, servers[i])
	}
	return nil
}

// unfit reports whether a device can't have an address.
func unfit(p netip.Prefix) bool {
	return !p.IsValid() || p.Bits() == 0 || !isHost(p.Addr()) || p.Addr().IsLinkLocalUnicast() && p.Addr().Is6()
}

// unfit reports whether it can be no route.
func (r LearnedRoute) unfit() bool {
	return !r.Dst.IsValid() || r.Via.IsValid() && (!isHost(r.Via) || r.Via.Is4() != r.Dst.Addr().Is4())
}

// isHost reports whether an address can be that of one host of a link.
func isHost(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
