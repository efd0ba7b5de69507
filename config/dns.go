// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice/dns"
)

// Ways of DNS queries to their upstreams.
const (
	ViaHost      = "host"
	ViaNamespace = "namespace"
	ViaNone      = "none"
)

// DNS is how the names of a namespace's containers, and others, are answered.
type DNS struct {
	// Domain is without a dot at its end; empty: dns.DefaultDomain.
	Domain string `json:"domain,omitempty"`
	// Upstreams are asked for all else; none: those of the host. Via is one of ViaHost
	// and so on; with ViaNamespace there is an upstream.
	Upstreams []netip.AddrPort `json:"upstreams,omitempty"`
	Via       string           `json:"via,omitempty"`
	// Prefix64 is what DNS64 makes addresses with; not valid: nothing was said, or with
	// NoDNS64 that there is none.
	Prefix64 netip.Prefix `json:"prefix64,omitzero"`
	NoDNS64  bool         `json:"no_dns64,omitempty"`
	// CacheEntries and CacheBytes are as in dns.Config.
	CacheEntries int `json:"cache_entries,omitempty"`
	CacheBytes   int `json:"cache_bytes,omitempty"`
}

type rawDNS struct {
	Domain    string      `yaml:"domain"`
	Upstreams []string    `yaml:"upstreams"`
	Via       *string     `yaml:"via"`
	DNS64     *string     `yaml:"dns64"`
	Cache     rawDNSCache `yaml:"cache"`
}

type rawDNSCache struct {
	Entries *int `yaml:"entries"`
	Bytes   *int `yaml:"bytes"`
}

func (v *validator) dns(field string, r *rawDNS) *DNS {
	if r == nil {
		return nil
	}
	d := &DNS{Domain: strings.ToLower(strings.TrimSuffix(r.Domain, "."))}
	if r.Domain != "" {
		if err := dns.CheckDomain(d.Domain); err != nil {
			v.fault(field+".domain", "%s", err)
		}
	}
	if n := len(r.Upstreams); n > dns.MaxUpstreams {
		v.fault(field+".upstreams", "%d upstreams; at most %d are asked", n, dns.MaxUpstreams)
		return d
	}
	for i, text := range r.Upstreams {
		d.Upstreams = append(d.Upstreams, v.upstream(fmt.Sprintf("%s.upstreams[%d]", field, i), text))
	}
	d.Via = v.oneOf(field+".via", r.Via, ViaHost, ViaNamespace, ViaNone)
	switch {
	case d.Via == ViaNamespace && len(d.Upstreams) == 0:
		v.fault(field+".via", "namespace, but there are no upstreams: the host's can't be reached from there")
	case d.Via == ViaNone && len(d.Upstreams) > 0:
		v.fault(field+".via", "none, but there are upstreams: leave one of both out")
	}
	d.Prefix64, d.NoDNS64 = v.dns64(field+".dns64", r.DNS64)
	d.CacheEntries = v.sized(field+".cache.entries", r.Cache.Entries, dns.MaxCacheEntries)
	d.CacheBytes = v.sized(field+".cache.bytes", r.Cache.Bytes, dns.MaxCacheBytes)
	return d
}

// sized reads a bound of the cache, of which 0 switches it off.
func (v *validator) sized(field string, raw *int, most int) int {
	if raw == nil {
		return 0
	}
	if n := v.between(field, raw, 0, most); n > 0 {
		return n
	}
	return -1
}

// upstream reads an address, with or without a port.
func (v *validator) upstream(field, text string) netip.AddrPort {
	p, err := netip.ParseAddrPort(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			v.fault(field, "%q is not an address of a resolver, as 192.0.2.53 or [2001:db8::53]:5353", text)
			return p
		}
		p = netip.AddrPortFrom(a, 53)
	}
	if err := dns.CheckUpstream(p); err != nil {
		v.fault(field, "%s", err)
	}
	if p.Addr().Zone() != "" {
		v.fault(field, "%q: link-local addresses are not supported", text)
	}
	return p
}

// dns64 reads a prefix, or "off".
func (v *validator) dns64(field string, raw *string) (p netip.Prefix, off bool) {
	if raw == nil || *raw == "off" {
		return p, raw != nil
	}
	p, err := netip.ParsePrefix(*raw)
	if err == nil {
		err = dns.CheckPrefix64(p)
	}
	if err != nil {
		v.fault(field, "%q: want off, or a prefix of IPv6 with 32, 40, 48, 56, 64 or 96 bits, of which 64 to 71 are zero, as 64:ff9b::/96", *raw)
	}
	return p, false
}
