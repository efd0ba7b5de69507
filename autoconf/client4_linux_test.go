// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"strings"
	"testing"

	kt "sluice/test/kerneltest"
)

func TestUdhcpcIsConfigured(t *testing.T) {
	need(t, "udhcpc")
	k := newContainer(t, Config{DHCP4: full4()}, "10.44.0.20", "fd44::20")
	script := k.script("")
	k.runAlone("udhcpc -f -q -n -i eth0 -s " + script +
		" -O 121 -O search -O mtu -O ntpsrv -O hostname -O broadcast -O dns -O domain -O router 2>&1")
	wants(t, k.file("said"),
		"bound ip=10.44.0.20", "subnet=255.255.255.0", "router=10.44.0.1", "serverid=10.44.0.1", "lease=1200",
		"dns=10.44.0.53 10.44.0.54", "domain=blue.example", "search=blue.example example", "mtu=1400",
		"ntpsrv=10.44.0.123", "hostname=red", "broadcast=10.44.0.255",
		"staticroutes=192.0.2.0/24 10.44.0.1 198.51.100.0/24 10.44.0.9 203.0.113.7/32 0.0.0.0 0.0.0.0/0 10.44.0.1")
	k.check(Stats{Offers: 1, Acks: 1})
}

// check compares the counts and wants every message understood.
func (k *container) check(want Stats) {
	k.t.Helper()
	got := k.server.Stats()
	got.Adverts, got.Solicits = want.Adverts, want.Solicits
	if got != want {
		k.t.Errorf("counts %+v, want %+v", got, want)
	}
	if n := k.refusals(); n != 0 {
		k.t.Errorf("%d messages refused or malformed: %v", n, k.heard)
	}
}

// TestDhclientIsConfigured follows a lease through all of its life: it is renewed
// by unicast from the kernel's own socket, checked after a restart, and given
// back.
func TestDhclientIsConfigured(t *testing.T) {
	need(t, "dhclient")
	d := full4()
	d.Lease = 6
	k := newContainer(t, Config{DHCP4: d}, "10.44.0.20")
	script := k.script(`[ -z "$new_ip_address" ] || ip addr replace $new_ip_address/24 dev eth0`)
	k.write("conf", `
option rfc3442-routes code 121 = array of unsigned integer 8;
send dhcp-client-identifier "a name";
request subnet-mask, broadcast-address, routers, domain-name-servers, domain-name, domain-search,
	interface-mtu, ntp-servers, host-name, rfc3442-routes;
`)
	line := "dhclient -4 -d -v -sf " + script + " -cf conf -lf $PWD/leases -pf $PWD/pid eth0"
	stop := k.startAlone(line)
	await(t, "renewal", func() bool { return strings.Contains(k.file("said"), "RENEW reason=RENEW") })
	stop()
	wants(t, k.file("said"),
		"BOUND new_ip_address=10.44.0.20", "BOUND new_subnet_mask=255.255.255.0", "BOUND new_routers=10.44.0.1",
		"BOUND new_domain_name_servers=10.44.0.53 10.44.0.54", "BOUND new_domain_name=blue.example",
		"BOUND new_domain_search=blue.example. example.", "BOUND new_interface_mtu=1400",
		"BOUND new_ntp_servers=10.44.0.123", "BOUND new_host_name=red", "BOUND new_dhcp_server_identifier=10.44.0.1",
		"BOUND new_dhcp_lease_time=6", "BOUND new_dhcp_renewal_time=3", "BOUND new_dhcp_rebinding_time=5",
		"BOUND new_rfc3442_routes=24 192 0 2 10 44 0 1 24 198 51 100 10 44 0 9 32 203 0 113 7 0 0 0 0 0 10 44 0 1",
		"RENEW new_ip_address=10.44.0.20")
	naks := k.server.Stats()
	if naks.Offers != 1 || naks.Acks < 2 || naks.Naks != 0 {
		t.Errorf("counts %+v, want one offer, two acks at least, no nak", naks)
	}

	stop = k.startAlone(line)
	await(t, "reboot", func() bool { return strings.Contains(k.file("said"), "REBOOT reason=REBOOT") })
	stop()
	k.runAlone("dhclient -4 -r -v -sf " + script + " -cf conf -lf $PWD/leases -pf $PWD/none eth0")
	await(t, "release", func() bool { return k.server.Stats().Releases == 1 })
	if n := k.refusals(); n != 0 {
		t.Errorf("%d messages refused or malformed: %v", n, k.heard)
	}
}

// TestDhclientLearnsThatItMoved: a lease of another place is refused, and the
// right one taken.
func TestDhclientLearnsThatItMoved(t *testing.T) {
	need(t, "dhclient")
	k := newContainer(t, Config{DHCP4: full4()}, "10.44.0.20")
	script := k.script("")
	k.write("leases", `
lease {
  interface "eth0";
  fixed-address 192.0.2.77;
  option subnet-mask 255.255.255.0;
  option dhcp-lease-time 86400;
  option dhcp-server-identifier 192.0.2.1;
  renew never;
  rebind never;
  expire never;
}
`)
	stop := k.startAlone("dhclient -4 -d -v -sf " + script + " -cf /dev/null -lf $PWD/leases -pf $PWD/pid eth0")
	await(t, "a lease", func() bool { return strings.Contains(k.file("said"), "BOUND reason=BOUND") })
	stop()
	wants(t, k.file("said"), "BOUND new_ip_address=10.44.0.20")
	k.check(Stats{Naks: 1, Offers: 1, Acks: 1})
}

func TestDhcpcdIsConfigured(t *testing.T) {
	need(t, "dhcpcd")
	k := newContainer(t, Config{DHCP4: full4()}, "10.44.0.20")
	script := k.script("")
	k.write("conf", `
option domain_name_servers, domain_name, domain_search, classless_static_routes, interface_mtu, host_name, ntp_servers
require dhcp_server_identifier
noipv6rs
noarp
`)
	stop := k.startAlone("dhcpcd -4 -B -d -t 20 -f $PWD/conf -c " + script + " eth0")
	await(t, "a lease", func() bool { return strings.Contains(k.file("said"), "BOUND reason=BOUND") })
	wants(t, kt.Run(t, "ip", "-4", "route"), "default via 10.44.0.1", "192.0.2.0/24 via 10.44.0.1",
		"198.51.100.0/24 via 10.44.0.9", "203.0.113.7 ")
	stop()
	wants(t, k.file("said"),
		"BOUND new_ip_address=10.44.0.20", "BOUND new_subnet_cidr=24", "BOUND new_interface_mtu=1400",
		"BOUND new_domain_name_servers=10.44.0.53 10.44.0.54", "BOUND new_domain_name=blue.example",
		"BOUND new_domain_search=blue.example example", "BOUND new_host_name=red", "BOUND new_ntp_servers=10.44.0.123")
	k.check(Stats{Offers: 1, Acks: 1})
}
