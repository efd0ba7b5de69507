// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/iproute"
)

// MaxUplinks bounds those of a file.
const MaxUplinks = 64

// Uplink is a way out of a namespace.
type Uplink struct {
	// Type is one of those above; NIC is what UplinkNIC has, nil otherwise. What is said
	// of addresses and Masquerade is not for UplinkSocket, HostRoutes and Forward are for
	// UplinkHost only.
	Type string
	NIC  *NIC
	// Name is as that of a network, and no network's.
	Name string
	// Namespace is the one that the uplink is a device of. It is in the file.
	Namespace string
	// Addresses are those of Sluice's end, one of each family at most, with the length
	// of a prefix that only Peers, of the same place in the list, share with it. None:
	// they are to be picked, of the families that the namespace's networks have. Of a
	// nic's, they are any that the interface is to have.
	Addresses []netip.Prefix
	Peers     []netip.Addr
	// IfName is the host's interface.
	IfName string
	MTU    int
	VRF    string // one of the namespace's, or empty
	Device iproute.Settings

	// Queueing is that of the port; of UplinkSocket that of what is routed there, Egress
	// alone.
	Queueing Queueing

	// DefaultRoute: the namespace's default routes lead here. HostRoutes: the host has
	// routes to the namespace's networks. Masquerade, which needs them, hides those
	// behind the host's addresses beyond the host. Forward switches the host's
	// forwarding on.
	DefaultRoute, HostRoutes, Masquerade, Forward bool
}

type rawUplink struct {
	Name         string   `yaml:"name"`
	Namespace    string   `yaml:"namespace"`
	Type         string   `yaml:"type"`
	Addresses    []string `yaml:"addresses"`
	Peers        []string `yaml:"peers"`
	IfName       string   `yaml:"ifname"`
	MTU          *int     `yaml:"mtu"`
	DefaultRoute *bool    `yaml:"defaultRoute"`
	HostRoutes   *bool    `yaml:"hostRoutes"`
	Masquerade   bool     `yaml:"masquerade"`
	Forward      bool     `yaml:"forward"`
	VRF          string   `yaml:"vrf"`
	RPFilter     *string  `yaml:"rpFilter"`
	ClampMSS     *string  `yaml:"clampMSS"`
	Qdisc        []string `yaml:"qdisc"`
	Shares       []string `yaml:"tree"`

	// Of type nic only.
	Share    *string  `yaml:"share"`
	Gateways []string `yaml:"gateways"`
	DHCP     bool     `yaml:"dhcp"`
	SLAAC    bool     `yaml:"slaac"`
	DHCP6    bool     `yaml:"dhcp6"`
	DNS      []string `yaml:"dns"`
}

// spaces are the declared namespaces, and those of networks that an uplink names.
func spaces(f *rawFile) []rawNamespace {
	out := f.Namespaces
	declared := make(map[string]bool)
	for i := range out {
		declared[out[i].Name] = true
	}
	for i := range *f.Networks {
		n := &(*f.Networks)[i]
		own := orElse(n.Namespace, n.Name) == n.Name
		for j := range f.Uplinks {
			if own && !declared[n.Name] && spaceOf(f, &f.Uplinks[j]) == n.Name {
				declared[n.Name] = true
				out = append(slices.Clip(out), rawNamespace{Name: n.Name})
			}
		}
	}
	return out
}

// spaceOf is the namespace that an uplink is in: if it names none, the only one.
func spaceOf(f *rawFile, u *rawUplink) string {
	if u.Namespace != "" {
		return u.Namespace
	}
	all := make(map[string]bool)
	for i := range f.Namespaces {
		all[f.Namespaces[i].Name] = true
	}
	for i := range *f.Networks {
		all[orElse((*f.Networks)[i].Namespace, (*f.Networks)[i].Name)] = true
	}
	if len(all) == 1 {
		for name := range all {
			return name
		}
	}
	return ""
}

// plug makes the uplinks devices of their namespaces.
func (v *validator) plug(f *rawFile, scopes map[string]*scope) {
	if n := len(f.Uplinks); n > MaxUplinks {
		v.fault("uplinks", "%d uplinks; at most %d are supported", n, MaxUplinks)
		return
	}
	networks := make(map[string]int)
	for i := range *f.Networks {
		networks[(*f.Networks)[i].Name] = i
	}
	for i := range f.Uplinks {
		u, field := &f.Uplinks[i], fmt.Sprintf("uplinks[%d]", i)
		v.name(field+".name", u.Name)
		if j, taken := networks[u.Name]; taken {
			v.fault(field+".name", "%q is already the name of networks[%d]", u.Name, j)
		}
		for j := range i {
			if f.Uplinks[j].Name == u.Name {
				v.fault(field+".name", "%q is already the name of uplinks[%d]", u.Name, j)
			}
		}
		name := spaceOf(f, u)
		s := scopes[name]
		switch {
		case name == "":
			v.fault(field+".namespace", "missing; there is not just one")
		case s == nil:
			v.fault(field+".namespace", "no namespace %q", name)
		default:
			s.add(v, field+".name", u.Name)
			s.enslave(v, field+".vrf", u.Name, u.VRF)
		}
	}
}

// uplinks checks the list, when its devices are known.
func (v *validator) uplinks(f *rawFile, c *Config, scopes map[string]*scope) {
	for i := range f.Uplinks {
		field := fmt.Sprintf("uplinks[%d]", i)
		u := v.uplink(field, &f.Uplinks[i])
		if u.Type == UplinkSocket {
			u.Queueing = v.routedQueueing(field+".qdisc", f.Uplinks[i].Qdisc)
		} else {
			u.Queueing = v.queueing(field+".qdisc", f.Uplinks[i].Qdisc)
		}
		u.Queueing.Shares = v.shares(field+".tree", f.Uplinks[i].Shares)
		u.Namespace = spaceOf(f, &f.Uplinks[i])
		if s := scopes[u.Namespace]; s != nil {
			u.VRF = s.vrfOf[u.Name]
		}
		v.apart(field, &u, c)
		v.inside(field, &u, c)
		v.partOf(field+".tree", u.Namespace, u.Queueing.Shares, c)
		c.Uplinks = append(c.Uplinks, u)
	}
}

func (v *validator) uplink(field string, r *rawUplink) Uplink {
	v.typed(field, r)
	if r.Type == UplinkNIC {
		return v.nicUplink(field, r)
	}
	u := Uplink{
		Name: r.Name, IfName: orElse(r.IfName, "sluice-"+r.Name), MTU: DefaultMTU, Device: iproute.Settings{},
		DefaultRoute: orTrue(r.DefaultRoute), HostRoutes: orTrue(r.HostRoutes), Masquerade: r.Masquerade, Forward: r.Forward,
		Type: orElse(r.Type, UplinkHost),
	}
	if r.MTU != nil {
		u.MTU = v.between(field+".mtu", r.MTU, MinMTU6, MaxMTU)
	}
	v.routed(field, nil, r.RPFilter, nil, r.ClampMSS, u.Device)
	switch u.Type {
	case UplinkHost:
		v.hostUplink(field, r, &u)
	case UplinkSocket:
		v.socketUplink(field, r)
		u.IfName, u.HostRoutes = "", false
	default:
		v.fault(field+".type", "%q is not supported; expected %s, %s or %s", r.Type, UplinkHost, UplinkNIC, UplinkSocket)
	}
	return u
}

// socketUplink refuses what has no meaning without an interface on the host.
func (v *validator) socketUplink(field string, r *rawUplink) {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"addresses", r.Addresses != nil},
		{"peers", len(r.Peers) > 0},
		{"ifname", r.IfName != ""},
		{"hostRoutes", r.HostRoutes != nil},
		{"masquerade", r.Masquerade},
		{"forward", r.Forward},
		{"tree", len(r.Shares) > 0},
	} {
		if f.given {
			v.fault(field+"."+f.name, "has no meaning for an uplink of type %s, which has no interface on the host", UplinkSocket)
		}
	}
}

// hostUplink checks what is said of the host's end.
func (v *validator) hostUplink(field string, r *rawUplink, u *Uplink) {
	v.hostIfName(field+".ifname", u.IfName)
	u.Addresses = v.ends(field+".addresses", r.Addresses)
	u.Peers = v.farEnds(field+".peers", r.Peers, u.Addresses)
	if u.Masquerade && !u.HostRoutes {
		v.fault(field+".masquerade", "needs hostRoutes: the host has no way back without them")
	}
}

func orTrue(b *bool) bool { return b == nil || *b }

// hostIfName is as narrow as what every program of a host copes with.
func (v *validator) hostIfName(field, name string) {
	odd := strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/:%"\{}*?,;`, r) })
	switch {
	case len(name) > 15:
		v.fault(field, "%q: longer than 15 characters; give a shorter one", name)
	case odd || name == "." || name == ".." || name == "all" || name == "default" || name == "lo":
		v.fault(field, "%q: not a name of an interface", name)
	}
}

// ends are Sluice's addresses.
func (v *validator) ends(field string, raw []string) (out []netip.Prefix) {
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			v.fault(at, "%q is not an address with a length, as 10.255.0.0/31", text)
			continue
		}
		v.end(at, p)
		for _, q := range out {
			if q.Addr().Is4() == p.Addr().Is4() {
				v.fault(at, "%s: a second %s address; one of each family at most", p, family(p.Addr()))
			}
		}
		out = append(out, p)
	}
	return out
}

// end wants room for two hosts and for no more.
func (v *validator) end(field string, p netip.Prefix) {
	for bad, why := range unusable() {
		if p.Overlaps(netip.MustParsePrefix(bad)) {
			v.fault(field, "%s overlaps %s (%s), which no uplink may have", p, bad, why)
		}
	}
	if p.Addr().Is4() && p.Addr().IsLinkLocalUnicast() {
		v.fault(field, "%s is link-local: no router forwards to it or from it (RFC 3927 §2.7), so containers and host would not meet", p)
	}
	if room := p.Addr().BitLen() - p.Bits(); room != 1 && room != 2 {
		v.fault(field, "%s: expected a prefix for two, /31 or /30 of IPv4, /127 or /126 of IPv6", p)
		return
	}
	v.between2(field, p, p.Addr())
}

// between2 wants an address to be one of the two that a prefix for two has.
func (v *validator) between2(field string, p netip.Prefix, a netip.Addr) {
	if first, second := two(p); a != first && a != second {
		v.fault(field, "%s: expected %s or %s", a, first, second)
	}
}

// two are the two addresses of a prefix that leaves one bit, or two of which the lowest
// and the highest address are reserved.
func two(p netip.Prefix) (first, second netip.Addr) {
	first = p.Masked().Addr()
	if p.Addr().BitLen()-p.Bits() == 2 {
		first = first.Next()
	}
	return first, first.Next()
}

// Other is the other address of the prefix of an uplink's end.
func Other(p netip.Prefix) netip.Addr {
	first, second := two(p)
	if p.Addr() == first {
		return second
	}
	return first
}

// farEnds are the host's addresses: the other ones of the prefixes, which may be said.
func (v *validator) farEnds(field string, raw []string, ends []netip.Prefix) []netip.Addr {
	out := make([]netip.Addr, 0, len(ends))
	for _, p := range ends {
		out = append(out, Other(p))
	}
	if len(raw) > 0 && len(raw) != len(ends) {
		v.fault(field, "%d for %d addresses; expected one for each, or none at all", len(raw), len(ends))
		return out
	}
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		if a := v.address(at, text); a.IsValid() && a != out[i] {
			v.fault(at, "%s: expected %s, which is the other address of %s", a, out[i], ends[i].Masked())
		}
	}
	return out
}

// apart holds an uplink against those before it: on the host there is one table of
// routes for all namespaces.
func (v *validator) apart(field string, u *Uplink, c *Config) {
	for i := range c.Uplinks {
		o := &c.Uplinks[i]
		v.alike(field, i, u, o)
		if o.Namespace != u.Namespace && (o.NIC != nil || u.NIC != nil) {
			continue // what is not on the host is of its namespace alone
		}
		for _, p := range masked(u.Addresses) {
			v.clear(field+".addresses", p, masked(o.Addresses), "addresses of uplink "+o.Name)
			v.clear(field+".addresses", p, c.Behind(o), "a network behind uplink "+o.Name)
		}
		for _, n := range c.Behind(u) {
			v.clear(field+".hostRoutes", n, masked(o.Addresses), "addresses of uplink "+o.Name)
			v.clear(field+".hostRoutes", n, c.Behind(o), "a network behind uplink "+o.Name)
		}
	}
}

// alike refuses an uplink that wants what number i of them has.
func (v *validator) alike(field string, i int, u, o *Uplink) {
	same := o.Namespace == u.Namespace && o.VRF == u.VRF
	switch {
	case o.IfName == u.IfName && u.IfName != "" && (!shared(o) || !shared(u)):
		v.fault(field+".ifname", "%q is that of uplinks[%d]", u.IfName, i)
	case same && u.DefaultRoute && o.DefaultRoute:
		v.fault(field+".defaultRoute", "the default route of namespace %s is by uplink %s; give defaultRoute: false to one of them", u.Namespace, o.Name)
	case same && u.HostRoutes && o.HostRoutes:
		v.fault(field+".hostRoutes", "the host has its routes to namespace %s by uplink %s; give hostRoutes: false to one of them", u.Namespace, o.Name)
	}
}

// inside holds an uplink's addresses against those of its namespace.
func (v *validator) inside(field string, u *Uplink, c *Config) {
	for _, p := range masked(u.Addresses) {
		for i := range c.Networks {
			if n := &c.Networks[i]; n.Namespace == u.Namespace {
				v.clear(field+".addresses", p, n.Subnets, "network "+n.Name)
			}
		}
		for i := range c.Namespaces {
			if c.Namespaces[i].Name != u.Namespace {
				continue
			}
			for _, l := range c.Namespaces[i].Links {
				v.clear(field+".addresses", p, masked(l.Addresses), "addresses of link "+l.Name)
			}
		}
	}
}

func masked(all []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(all))
	for i, p := range all {
		out[i] = p.Masked()
	}
	return out
}

func (v *validator) clear(field string, p netip.Prefix, all []netip.Prefix, whose string) {
	for _, q := range all {
		if p.Overlaps(q) {
			v.fault(field, "%s overlaps %s, %s", p, q, whose)
		}
	}
}

// Behind are the subnets that the host has routes to because of an uplink.
func (c *Config) Behind(u *Uplink) (out []netip.Prefix) {
	for i := range c.Networks {
		n := &c.Networks[i]
		if u.HostRoutes && n.Namespace == u.Namespace && n.VRF == u.VRF {
			out = append(out, n.Subnets...)
		}
	}
	return out
}
