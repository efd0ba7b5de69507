// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"strings"
	"testing"

	kt "sluice/test/kerneltest"
)

func TestDhclient6IsConfigured(t *testing.T) {
	need(t, "dhclient")
	d := full6()
	d.Preferred, d.Valid = 6, 12
	k := newContainer(t, Config{DHCP6: d}, "10.44.0.20", "fd44::20", "fd45::20")
	script := k.script("")
	k.write("conf", "request dhcp6.name-servers, dhcp6.domain-search, dhcp6.sntp-servers;\n")
	line := "dhclient -6 -d -v -sf " + script + " -cf conf -lf $PWD/leases -pf $PWD/pid eth0"
	stop := k.startAlone(line)
	await(t, "renewal", func() bool { return strings.Contains(k.file("said"), "RENEW6 reason=RENEW6") })
	stop()
	wants(t, k.file("said"),
		"BOUND6 new_ip6_address=fd44::20", "BOUND6 new_ip6_address=fd45::20",
		"BOUND6 new_preferred_life=6", "BOUND6 new_max_life=12",
		"BOUND6 new_dhcp6_name_servers=fd44::53", "BOUND6 new_dhcp6_domain_search=blue.example. example.",
		"BOUND6 new_dhcp6_sntp_servers=fd44::123", "RENEW6 new_ip6_address=fd44::20")

	stop = k.startAlone(line)
	await(t, "confirmation", func() bool { return strings.Contains(k.file("log"), "message status code Success") })
	stop()
	k.runAlone("dhclient -6 -r -v -sf " + script + " -cf conf -lf $PWD/leases -pf $PWD/none eth0")
	await(t, "release", func() bool { return k.server.Stats().Releases == 1 })
	if n := k.refusals(); n != 0 {
		t.Errorf("%d messages refused or malformed: %v", n, k.heard)
	}
}

func TestDhclient6AsksForInformation(t *testing.T) {
	need(t, "dhclient")
	d := full6()
	d.Stateless = true
	k := newContainer(t, Config{DHCP6: d}, "fd44::20")
	script := k.script("")
	k.write("conf", "request dhcp6.name-servers, dhcp6.domain-search;\n")
	stop := k.startAlone("dhclient -6 -S -d -v -sf " + script + " -cf conf -lf $PWD/leases -pf $PWD/pid eth0")
	await(t, "answer", func() bool { return strings.Contains(k.file("said"), "new_dhcp6_domain_search=") })
	stop()
	wants(t, k.file("said"), "new_dhcp6_name_servers=fd44::53", "new_dhcp6_domain_search=blue.example. example.")
	k.check(Stats{Replies6: 1})
}

// TestDhcpcdFollowsTheAdvert: the advert says that addresses are managed, and a
// client that believes it asks, with rapid commit.
func TestDhcpcdFollowsTheAdvert(t *testing.T) {
	need(t, "dhcpcd")
	a := fullAdvert()
	a.Managed = true
	a.Prefixes[0].Autonomous = false
	k := newContainer(t, Config{Advert: a, DHCP6: full6()}, "fd44::20", "fd45::20")
	script := k.script("")
	k.write("conf", "option dhcp6_rapid_commit\noption dhcp6_name_servers\noption dhcp6_domain_search\nnodelay\n")
	stop := k.startAlone("dhcpcd -6 -B -d -t 20 -f $PWD/conf -c " + script + " eth0")
	await(t, "addresses", func() bool { return strings.Contains(k.file("said"), "BOUND6 reason=BOUND6") })
	wants(t, kt.Run(t, "ip", "-6", "addr", "show", "dev", "eth0"), "fd44::20/128", "fd45::20/128")
	stop()
	wants(t, k.file("said"),
		"BOUND6 new_dhcp6_name_servers=fd44::53", "BOUND6 new_dhcp6_domain_search=blue.example example")
	if s := k.server.Stats(); s.Replies6 == 0 || s.Advertises6 != 0 || s.Solicits == 0 {
		t.Errorf("counts %+v, want solicitations, and replies without advertise messages", s)
	}
	if n := k.refusals(); n != 0 {
		t.Errorf("%d messages refused or malformed: %v", n, k.heard)
	}
}
