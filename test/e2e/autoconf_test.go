// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/lab"
)

// served is a network whose gateway configures its containers.
const served = `networks:
  - name: blue
    subnets: [10.44.0.0/24, fd44::/64]
    mtu: 1480
    advertise:
      maxInterval: 4s
      minInterval: 3s
      managed: true
      mtu: 1440
      routes:
        - {to: "fd99::/48"}
      dns: ["fd44::53"]
      search: [shop.example]
    dhcp:
      lease: 1h
      routes:
        - {to: 10.60.0.0/24, via: 10.44.0.9}
      dns: [10.44.0.53]
      domain: shop.example
      mtu: 1460
      hostName: true
    dhcp6:
      dns: ["fd44::53"]
      search: [shop.example]
`

// bare attaches a container that has to configure itself, and brings its interface
// up. Its own kernel waits for nothing.
func bare(t *testing.T, l *lab.Lab, name string, args ...string) *lab.NS {
	t.Helper()
	n := l.NS(name)
	n.Run("sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.accept_ra=2",
		"net.ipv6.conf.default.accept_ra_rt_info_max_plen=64", "net.ipv6.conf.default.router_solicitation_delay=0")
	n.Attach(append([]string{"--network", "blue", "--configure", "none"}, args...)...)
	if out := n.Run("ip", "-4", "addr", "show", "dev", "eth0"); out != "" {
		t.Errorf("attached to configure itself, and has\n%s", out)
	}
	n.Run("ip", "link", "set", "eth0", "up")
	return n
}

// TestSLAAC has the kernel of a container configure itself by router
// advertisements: address, default route, another route, MTU.
func TestSLAAC(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(strings.Replace(served, "managed: true", "managed: false\n      prefixes:\n        - {prefix: \"fd44::/64\", autonomous: true}", 1))
	green := l.NS("green").Attach("--network", "blue")
	red := bare(t, l, "red", "--set", "guard_allow fd44::/64")
	l.Eventually("an address by SLAAC", patience, func() bool {
		return strings.Contains(red.Run("ip", "-6", "addr", "show", "dev", "eth0"), "inet6 fd44::")
	})
	l.Eventually("a default route", patience, func() bool {
		return strings.Contains(red.Run("ip", "-6", "route", "show", "default"), "proto ra")
	})
	red.Try("ip", "-6", "route").Expect(0, "fd44::/64 dev eth0 proto kernel", "fd99::/48 via fe80::", "mtu 1440", "proto ra")
	red.Ping(green.IP(lab.V6))
	red.Ping(d.Gateway(lab.V6))
	out := red.Run("rdisc6", "-1", "eth0")
	for _, want := range []string{"Recursive DNS server", "fd44::53", "DNS search list", "shop.example", "1440", "fd99::/48"} {
		if !strings.Contains(out, want) {
			t.Errorf("rdisc6 doesn't tell %q:\n%s", want, out)
		}
	}
}

// TestDHCP has real clients ask for address, routes, DNS and MTU.
func TestDHCP(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(served)
	green := l.NS("green").Attach("--network", "blue")
	t.Run("udhcpc", func(t *testing.T) { busyboxDHCP(t, l, d, green) })
	t.Run("dhclient", func(t *testing.T) { dhclient(t, l, green) })
}

// busyboxDHCP runs udhcpc(8), whose script does what the answer says.
func busyboxDHCP(t *testing.T, l *lab.Lab, d *lab.Daemon, green *lab.NS) {
	t.Helper()
	red := bare(t, l, "red", "--ip", "10.44.0.77")
	told := filepath.Join(l.Dir(), "udhcpc.told")
	script := l.File("udhcpc.sh", `#!/bin/sh
[ "$1" = bound ] || exit 0
env > `+told+`
ip addr add "$ip/$mask" dev "$interface"
ip link set "$interface" mtu "$mtu"
set -- $staticroutes
while [ $# -ge 2 ]; do
  if [ "$2" = 0.0.0.0 ]; then ip route add "$1" dev "$interface"; else ip route add "$1" via "$2"; fi
  shift 2
done
`)
	l.Run("chmod", "0755", script)
	red.Run("udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "5", "-T", "1", "-s", script,
		"-O", "mtu", "-O", "staticroutes", "-O", "search", "-O", "hostname")
	red.Try("ip", "addr", "show", "dev", "eth0").Expect(0, "inet 10.44.0.77/24", "mtu 1460")
	red.Try("ip", "route").Expect(0, "default via 10.44.0.1", "10.60.0.0/24 via 10.44.0.9")
	l.Try("cat", told).Expect(0, "dns=10.44.0.53", "domain=shop.example", "lease=3600", "serverid=10.44.0.1", "hostname=")
	red.Ping(d.Gateway(lab.V4))
	red.Ping(green.IP(lab.V4))
}

// dhclient runs dhclient(8) for both families.
func dhclient(t *testing.T, l *lab.Lab, green *lab.NS) {
	t.Helper()
	brown := bare(t, l, "brown", "--ip", "10.44.0.88", "--ip6", "fd44::88")
	l.Eventually("a link-local address", patience, func() bool {
		return strings.Contains(brown.Run("ip", "-6", "addr", "show", "dev", "eth0"), "inet6 fe80")
	})
	for family, want := range map[string]string{"-4": "inet 10.44.0.88/24", "-6": "inet6 fd44::88/"} {
		leases := filepath.Join(l.Dir(), "leases"+family)
		r := brown.Try("timeout", "20", "dhclient", family, "-1", "-v", "-lf", leases, "-pf", filepath.Join(l.Dir(), "pid"+family), "-sf", dhclientScript(l), "eth0")
		r.Expect(0)
		brown.Try("ip", "addr", "show", "dev", "eth0").Expect(0, want)
		l.Try("cat", leases).Expect(0, "shop.example")
		brown.Try("timeout", "20", "dhclient", family, "-x", "-lf", leases, "-pf", filepath.Join(l.Dir(), "pid"+family), "-sf", dhclientScript(l), "eth0").Expect(0)
	}
	l.Eventually("answers", patience, func() bool { return brown.TryPing(green.IP(lab.V4), 1).Code == 0 })
}

// dhclientScript sets addresses, and leaves the host's files alone.
func dhclientScript(l *lab.Lab) string {
	script := l.File("dhclient.sh", `#!/bin/sh
case $reason in
BOUND) ip addr add "$new_ip_address/$new_subnet_mask" dev "$interface" ;;
BOUND6) ip -6 addr add "$new_ip6_address/$new_ip6_prefixlen" dev "$interface" nodad ;;
esac
`)
	l.Run("chmod", "0755", script)
	return script
}
