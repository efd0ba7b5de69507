// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"net/netip"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func mac(s string) packet.MAC { return pt.HW(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

const (
	gatewayMAC   = "02:00:00:00:00:01"
	gatewayLocal = "fe80::ff:fe00:1"
	clientLocal  = "fe80::ff:fe00:11"
)

// testLink is a network with two subnets of each family.
func testLink() Link {
	return Link{
		MAC: mac(gatewayMAC),
		MTU: 1500,
		Addrs: []netip.Prefix{
			prefix("10.44.0.1/24"), prefix("fd44::1/64"),
			prefix("10.45.0.1/16"), prefix("fd45::1/64"),
		},
	}
}

// testClient has addresses in one subnet of each family.
func testClient() *Client {
	return &Client{MAC: mac(clientMAC), Addrs: addrs("10.44.0.20", "fd44::20"), Name: "red"}
}

// newServer is a Server with a configuration that must be right.
func newServer(tb testing.TB, c Config) *Server {
	tb.Helper()
	s := New(1)
	apply(tb, s, testLink(), c)
	return s
}

func apply(tb testing.TB, s *Server, l Link, c Config) {
	tb.Helper()
	change, err := s.Prepare(l, c)
	if err != nil {
		tb.Fatal(err)
	}
	change.Commit()
}

// full4 and full6 tell all that can be told.
func full4() *DHCP4 {
	return &DHCP4{
		Lease: 1200, DNS: addrs("10.44.0.53", "10.44.0.54"), Domain: "blue.example",
		Search: []string{"blue.example", "example"}, NTP: addrs("10.44.0.123"), MTU: 1400, HostName: true,
		Routes: []Route{
			{Dst: prefix("192.0.2.0/24")},
			{Dst: prefix("198.51.100.0/24"), Via: netip.MustParseAddr("10.44.0.9")},
			{Dst: prefix("203.0.113.7/32"), Via: netip.IPv4Unspecified()},
		},
	}
}

func full6() *DHCP6 {
	return &DHCP6{
		Preferred: 1200, Valid: 2400, DNS: addrs("fd44::53"), Search: []string{"blue.example", "example"},
		NTP: addrs("fd44::123"), Refresh: 7200,
	}
}

func fullAdvert() *Advert {
	return &Advert{
		Preference: High, Other: true, MTU: 1400, Lifetime: 1800, HopLimit: 63, ReachableMillis: 20000, RetransMillis: 500,
		Prefixes: []Prefix{{Prefix: prefix("fd44::/64"), Autonomous: true, Valid: 3600, Preferred: 1800}},
		Routes:   []AdvertRoute{{Dst: prefix("2001:db8:1::/48"), Preference: Low, Lifetime: 900}},
		DNS:      addrs("fd44::53"), Search: []string{"blue.example"},
	}
}
