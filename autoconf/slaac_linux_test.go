// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"os"
	"strings"
	"testing"

	kt "sluice/test/kerneltest"
)

const slaacAddr = "fd44::ff:fe00:11/64" // of clientMAC, RFC 4291 Appendix A

// TestKernelConfiguresItself is stateless address autoconfiguration by the
// kernel: it solicits when its interface comes up.
func TestKernelConfiguresItself(t *testing.T) {
	k := newContainer(t, Config{Advert: fullAdvert()}, "10.44.0.20")
	await(t, "address", func() bool { return strings.Contains(kt.Run(t, "ip", "-6", "addr", "show", "dev", "eth0"), slaacAddr) })
	wants(t, kt.Run(t, "ip", "-6", "addr", "show", "dev", "eth0"), "dynamic mngtmpaddr", "valid_lft 3", "preferred_lft 1")
	route := kt.Run(t, "ip", "-6", "route", "show", "dev", "eth0")
	wants(t, route, "fd44::/64 proto kernel", "default via "+gatewayLocal+" proto ra")
	wants(t, kt.Run(t, "ip", "-6", "route", "show", "default"), "mtu 1400", "hoplimit 63", "pref high")
	wants(t, kt.Run(t, "ip", "-6", "route", "show", "2001:db8:1::/48"), "via "+gatewayLocal+" dev eth0 proto ra", "pref low")
	for name, want := range map[string]string{
		"conf/eth0/mtu": "1400", "conf/eth0/hop_limit": "63",
		"neigh/eth0/base_reachable_time_ms": "20000", "neigh/eth0/retrans_time_ms": "500",
	} {
		text, err := os.ReadFile("/proc/sys/net/ipv6/" + name)
		if err != nil || strings.TrimSpace(string(text)) != want {
			t.Errorf("%s is %q, %v, want %s", name, text, err, want)
		}
	}
	if n := k.refusals(); n != 0 {
		t.Errorf("%d messages refused or malformed: %v", n, k.heard)
	}
}

// TestKernelForgets: what is taken out of the advert, or ends with it, is gone
// from the container, and not only when its time is up.
func TestKernelForgets(t *testing.T) {
	k := newContainer(t, Config{Advert: fullAdvert()}, "10.44.0.20")
	routes := func() string { return kt.Run(t, "ip", "-6", "route", "show", "dev", "eth0") }
	await(t, "route", func() bool { return strings.Contains(routes(), "2001:db8:1::/48") })

	less := fullAdvert()
	less.Routes, less.Prefixes = nil, []Prefix{{Prefix: prefix("fd46::/64"), Autonomous: true}}
	apply(t, k.server, testLink(), Config{Advert: less})
	await(t, "renumbering", func() bool {
		r := routes()
		return strings.Contains(r, "fd46::/64") && !strings.Contains(r, "2001:db8:1::/48") && !strings.Contains(r, "fd44::/64")
	})
	wants(t, kt.Run(t, "ip", "-6", "addr", "show", "dev", "eth0", "deprecated"), slaacAddr)
	wants(t, routes(), "default via")

	apply(t, k.server, testLink(), Config{})
	await(t, "end of the default route", func() bool { return !strings.Contains(routes(), "default") })
	wants(t, routes(), "fd46::/64")
}

// TestRdisc6ReadsTheAdvert has every option read by another program.
func TestRdisc6ReadsTheAdvert(t *testing.T) {
	need(t, "rdisc6")
	newContainer(t, Config{Advert: fullAdvert()}, "10.44.0.20")
	said := strings.Join(strings.Fields(kt.Run(t, "rdisc6", "-1", "eth0")), " ")
	wants(t, said,
		"Hop limit : 63", "Stateful address conf. : No", "Stateful other conf. : Yes", "Mobile home agent : No",
		"Router preference : high", "Router lifetime : 1800", "Reachable time : 20000", "Retransmit time : 500",
		"Source link-layer address: 02:00:00:00:00:01", "MTU : 1400 bytes (valid)",
		"Prefix : fd44::/64", "On-link : Yes", "Autonomous address conf.: Yes", "Valid time : 3600", "Pref. time : 1800",
		"Route : 2001:db8:1::/48", "Route preference : low", "Route lifetime : 900",
		"Recursive DNS server : fd44::53", "DNS server lifetime : 1800",
		"DNS search list : blue.example", "from "+gatewayLocal)
}
