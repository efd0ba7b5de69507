// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"

	"sluice/api"
)

func dnsNames(bool) []api.DNSName {
	return []api.DNSName{
		{Namespace: "shop", Name: "red.web.sluice.internal", Addresses: []netip.Addr{netip.MustParseAddr("10.44.0.2")}, Line: "red.web.sluice.internal 10.44.0.2"},
		{Namespace: "shop", Name: "www.web.sluice.internal", Addresses: []netip.Addr{netip.MustParseAddr("10.44.0.2")}, Line: "www.web.sluice.internal 10.44.0.2"},
	}
}

func dnsStats(bool) []api.DNSStats {
	return []api.DNSStats{{
		Namespace: "shop", Domain: "sluice.internal", DNS64: "64:ff9b::/96", Queries: 10, Local: 4, Hits: 3, Forwarded: 3, Failed: 1, Sent: 6,
		CacheEntries: 2, CacheMaxEntries: 4096, CacheBytes: 700, CacheMaxBytes: 4 << 20,
		Upstreams: []api.DNSUpstream{{Address: "192.0.2.53:53", Via: "host"}, {Address: "[2001:db8::53]:53", Via: "namespace", Down: true}},
	}}
}
