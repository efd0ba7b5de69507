// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
)

// The longest prefixes that leave room for the gateway and one container beside
// the reserved addresses: network and broadcast (IPv4), subnet-router anycast
// (IPv6, RFC 4291 §2.6.1).
const (
	maxBits4 = 30
	maxBits6 = 126
)

// unusable are the ranges that no interface may have an address from, by the
// special-purpose registries (RFC 6890) and, for link-local, because every
// interface has one of these already.
func unusable() map[string]string {
	return map[string]string{
		"0.0.0.0/8":     "this network",
		"127.0.0.0/8":   "loopback",
		"224.0.0.0/4":   "multicast",
		"240.0.0.0/4":   "reserved",
		"::/128":        "unspecified",
		"::1/128":       "loopback",
		"::ffff:0:0/96": "IPv4-mapped",
		"fe80::/10":     "link-local",
		"ff00::/8":      "multicast",
	}
}

// subnets checks the list as a whole: one or two, of different families.
func (v *validator) subnets(field string, raw []string) []netip.Prefix {
	if len(raw) == 0 {
		v.fault(field, "missing; expected an IPv4 prefix, an IPv6 prefix or both")
	}
	var out []netip.Prefix
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		p := v.subnet(at, text)
		if !p.IsValid() {
			continue
		}
		for _, q := range out {
			if q.Addr().Is4() == p.Addr().Is4() {
				v.fault(at, "%s: a second %s subnet; at most one of each family is supported", p, family(p.Addr()))
			}
		}
		out = append(out, p)
	}
	return out
}

// subnet checks one prefix. The zero Prefix means that it was faulty.
func (v *validator) subnet(field, text string) netip.Prefix {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		v.fault(field, "%q is not a prefix, as 10.44.0.0/24 or fd44::/64", text)
		return netip.Prefix{}
	}
	for bad, why := range unusable() {
		if p.Overlaps(netip.MustParsePrefix(bad)) {
			v.fault(field, "%s overlaps %s (%s), which no container may have", p, bad, why)
			return netip.Prefix{}
		}
	}
	if p != p.Masked() {
		v.fault(field, "%s has host bits set; did you mean %s?", p, p.Masked())
	}
	limit := maxBits6
	if p.Addr().Is4() {
		limit = maxBits4
	}
	if p.Bits() > limit {
		v.fault(field, "%s is too small for a gateway and a container; the longest prefix is /%d", p, limit)
	}
	return p.Masked()
}

// gateways puts one gateway beside each subnet: the one given for its family,
// else the first usable address.
func (v *validator) gateways(field string, raw []string, subnets []netip.Prefix) []netip.Addr {
	out := make([]netip.Addr, len(subnets))
	for i, text := range raw {
		v.gateway(fmt.Sprintf("%s[%d]", field, i), text, subnets, out)
	}
	for i, s := range subnets {
		if !out[i].IsValid() {
			out[i] = FirstUsable(s)
		}
	}
	return out
}

// gateway checks one address and sets it in out beside its subnet.
func (v *validator) gateway(field, text string, subnets []netip.Prefix, out []netip.Addr) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		v.fault(field, "%q is not an IP address", text)
		return
	}
	for i, s := range subnets {
		if s.Addr().Is4() != a.Is4() {
			continue
		}
		v.gatewayIn(field, a, s)
		if out[i].IsValid() {
			v.fault(field, "%s: a second %s gateway", a, family(a))
		}
		out[i] = a
		return
	}
	v.fault(field, "%s: the network has no %s subnet", a, family(a))
}

func (v *validator) gatewayIn(field string, a netip.Addr, s netip.Prefix) {
	switch {
	case !s.Contains(a):
		v.fault(field, "%s is outside the subnet %s", a, s)
	case a == s.Addr() && a.Is4():
		v.fault(field, "%s is the network address of %s", a, s)
	case a == s.Addr():
		v.fault(field, "%s is the subnet-router anycast address of %s", a, s)
	case a.Is4() && !s.Contains(a.Next()):
		v.fault(field, "%s is the broadcast address of %s", a, s)
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
