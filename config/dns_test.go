// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/config"
)

// withDNS is a file of a namespace that says something of its DNS.
func withDNS(text string) string {
	return "namespaces:\n  - name: shop\n    dns: " + text + "\nnetworks:\n  - {name: web, namespace: shop, subnets: [10.50.0.0/24], dns: false}\n"
}

func TestDNS(t *testing.T) {
	for text, want := range map[string]config.DNS{
		"{}": {},
		`{domain: Shop.Example., upstreams: [192.0.2.1, "[2001:db8::1]:5353", "2001:db8::2"], via: namespace, dns64: "64:ff9b::/96", cache: {entries: 10, bytes: 0}}`: {
			Domain: "shop.example", Via: "namespace", Prefix64: netip.MustParsePrefix("64:ff9b::/96"), CacheEntries: 10, CacheBytes: -1,
			Upstreams: []netip.AddrPort{
				netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:5353"), netip.MustParseAddrPort("[2001:db8::2]:53"),
			},
		},
		"{via: none, dns64: off}": {Via: "none", NoDNS64: true},
	} {
		c, err := config.Parse([]byte(withDNS(text)))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(&want, c.Namespaces[0].DNS, cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		if on := c.Networks[0].DNS; on == nil || *on {
			t.Errorf("the network's: %v", on)
		}
	}
}

func TestDNSFaults(t *testing.T) {
	for text, want := range map[string]string{
		"{domain: a..b}":                      `line 3: namespaces[0].dns.domain: domain "a..b": "" is no label`,
		"{upstreams: [ten]}":                  `line 3: namespaces[0].dns.upstreams[0]: "ten" is not an address of a resolver`,
		"{upstreams: [224.0.0.1]}":            "line 3: namespaces[0].dns.upstreams[0]: upstream 224.0.0.1:53: not the address of a resolver",
		"{upstreams: [fe80::1%eth0]}":         `line 3: namespaces[0].dns.upstreams[0]: "fe80::1%eth0": link-local`,
		"{via: nowhere}":                      `line 3: namespaces[0].dns.via: "nowhere": want one of`,
		"{via: namespace}":                    "line 3: namespaces[0].dns.via: namespace, but there are no upstreams",
		"{via: none, upstreams: [192.0.2.1]}": "line 3: namespaces[0].dns.via: none, but there are upstreams",
		"{dns64: 10.0.0.0/8}":                 `line 3: namespaces[0].dns.dns64: "10.0.0.0/8": want off, or a prefix of IPv6`,
		"{cache: {entries: -1}}":              "line 3: namespaces[0].dns.cache.entries: -1",
		"{upstreams: [192.0.2.1, 192.0.2.1, 192.0.2.1, 192.0.2.1, 192.0.2.1, 192.0.2.1, 192.0.2.1, 192.0.2.1, 192.0.2.1]}": "line 3: namespaces[0].dns.upstreams: 9 upstreams",
		"true": "line 3: namespaces[0].dns: must be a mapping",
	} {
		_, err := config.Parse([]byte(withDNS(text)))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
