// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/goccy/go-yaml"
)

// The declaration of a network, in the language of the daemon's file.
type (
	fileText struct {
		Networks []fileNetwork `yaml:"networks"`
		Uplinks  []fileUplink  `yaml:"uplinks,omitempty"`
	}
	fileNetwork struct {
		Name      string      `yaml:"name"`
		Namespace string      `yaml:"namespace,omitempty"`
		Subnets   []string    `yaml:"subnets"`
		Gateways  []string    `yaml:"gateways,omitempty"`
		MTU       int         `yaml:"mtu,omitempty"`
		Leases    *fileLeases `yaml:"leases,omitempty"`
	}
	fileLeases struct {
		Ranges  []string `yaml:"ranges,omitempty"`
		Exclude []string `yaml:"exclude,omitempty"`
	}
	fileUplink struct {
		Name         string `yaml:"name"`
		IfName       string `yaml:"ifname,omitempty"`
		Namespace    string `yaml:"namespace"`
		Type         string `yaml:"type"`
		DefaultRoute bool   `yaml:"defaultRoute"`
		HostRoutes   bool   `yaml:"hostRoutes"`
		Forward      bool   `yaml:"forward"`
		Masquerade   bool   `yaml:"masquerade"`
	}
)

// subnet is one subnet of the network, with the part of it that is given out.
type subnet struct {
	prefix  netip.Prefix
	gateway netip.Addr // invalid: the first address
	ranges  []string   // none: all of it
}

// declaration is the text that declares the network of a configuration.
func (c *conf) declaration(subnets []subnet) (string, error) {
	n := fileNetwork{Name: c.network(), Namespace: c.Namespace, MTU: c.MTU}
	leases := fileLeases{Exclude: c.IPAM.Exclude}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, s.prefix.String())
		n.Gateways = append(n.Gateways, s.gateway.String())
		leases.Ranges = append(leases.Ranges, s.ranges...)
	}
	if len(leases.Ranges)+len(leases.Exclude) > 0 {
		n.Leases = &leases
	}
	f := fileText{Networks: []fileNetwork{n}}
	if c.Uplink != "none" {
		space := c.Namespace
		if space == "" {
			space = n.Name
		}
		f.Uplinks = []fileUplink{{
			Name: uplinkName(n.Name), IfName: uplinkIfName(n.Name), Namespace: space, Type: "host",
			DefaultRoute: true, HostRoutes: true, Forward: true, Masquerade: c.IPMasq,
		}}
	}
	text, err := yaml.Marshal(&f)
	return string(text), err
}

// The bounds of names, of a device of Sluice's and of an interface of the host's.
const (
	maxName   = 32
	maxIfName = 15
)

// uplinkName is the name of the way out of a network, another one for each network.
func uplinkName(network string) string {
	if name := "up-" + network; len(name) <= maxName {
		return name
	}
	return "up-" + digest(network)
}

// uplinkIfName is that of its interface on the host, empty if the usual one is short
// enough, which is made of the uplink's name.
func uplinkIfName(network string) string {
	if len("sluice-"+uplinkName(network)) <= maxIfName {
		return ""
	}
	return "sluice-" + digest(network)
}

// digest stands for a name that is too long.
func digest(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:4])
}

// subnets are those that the configuration asks for, at most one of each family, since
// that is what a network has.
func (c *conf) subnets() ([]subnet, error) {
	sets, field := c.IPAM.Ranges, "ipam.ranges"
	if one := c.IPAM.ipRange; one != (ipRange{}) || c.IPAM.Subnet != "" {
		if one.Subnet == "" {
			one.Subnet = c.IPAM.Subnet
		}
		sets = append([][]ipRange{{one}}, sets...)
	}
	if len(c.RuntimeConfig.IPRanges) > 0 {
		sets, field = c.RuntimeConfig.IPRanges, "runtimeConfig.ipRanges"
	}
	if len(sets) == 0 {
		return nil, refuse(types.ErrInvalidNetworkConfig, "ipam.ranges", "missing: the subnets of the network, or name one in `network` that the daemon's file declares")
	}
	var out []subnet
	for i, set := range sets {
		s, err := mergeRanges(fmt.Sprintf("%s[%d]", field, i), set)
		if err != nil {
			return nil, err
		}
		for _, other := range out {
			if other.prefix.Addr().Is4() == s.prefix.Addr().Is4() {
				return nil, refuse(types.ErrInvalidNetworkConfig, fmt.Sprintf("%s[%d]", field, i), "a network has at most one subnet of each family")
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// mergeRanges makes one subnet of a set of ranges, which must be of one.
func mergeRanges(field string, set []ipRange) (s subnet, err error) {
	for j, r := range set {
		at := fmt.Sprintf("%s[%d]", field, j)
		prefix, err := netip.ParsePrefix(r.Subnet)
		switch {
		case err != nil:
			return s, refuse(types.ErrInvalidNetworkConfig, at+".subnet", fmt.Sprintf("%q is not a prefix, as 10.1.0.0/16", r.Subnet))
		case s.prefix.IsValid() && s.prefix != prefix.Masked():
			return s, refuse(types.ErrInvalidNetworkConfig, at+".subnet", "the ranges of a set must be of one subnet")
		}
		s.prefix = prefix.Masked()
		if err := s.add(at, &r); err != nil {
			return s, err
		}
	}
	if !s.prefix.IsValid() {
		return s, refuse(types.ErrInvalidNetworkConfig, field, "a set without ranges")
	}
	if !s.gateway.IsValid() {
		s.gateway = s.prefix.Addr().Next()
	}
	return s, nil
}

// add takes the range and the gateway of one entry.
func (s *subnet) add(at string, r *ipRange) error {
	if r.Gateway != "" {
		gw, err := netip.ParseAddr(r.Gateway)
		if err != nil || !s.prefix.Contains(gw) {
			return refuse(types.ErrInvalidNetworkConfig, at+".gateway", fmt.Sprintf("%q is not an address of %s", r.Gateway, s.prefix))
		}
		s.gateway = gw
	}
	if r.RangeStart == "" && r.RangeEnd == "" {
		return nil
	}
	first, last := s.prefix.Addr(), lastAddr(s.prefix)
	for _, end := range []struct {
		field, text string
		to          *netip.Addr
	}{{"rangeStart", r.RangeStart, &first}, {"rangeEnd", r.RangeEnd, &last}} {
		if end.text == "" {
			continue
		}
		a, err := netip.ParseAddr(end.text)
		if err != nil || !s.prefix.Contains(a) {
			return refuse(types.ErrInvalidNetworkConfig, at+"."+end.field, fmt.Sprintf("%q is not an address of %s", end.text, s.prefix))
		}
		*end.to = a
	}
	if last.Less(first) {
		return refuse(types.ErrInvalidNetworkConfig, at+".rangeEnd", fmt.Sprintf("%s is before %s", last, first))
	}
	s.ranges = append(s.ranges, first.String()+"-"+last.String())
	return nil
}

// lastAddr is the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
