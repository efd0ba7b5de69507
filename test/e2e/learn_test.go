// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
)

const learning = "{name: wan, type: nic, ifname: wan0, masquerade: true, dhcp: true, slaac: true, dhcp6: true}"

// serveBoth has dnsmasq(8) advertise the world as the router, and lease addresses of
// both families. The world must not listen to itself: with an address of its own
// prefix it would answer datagrams from that one.
func (w *wire) serveBoth() *lab.Proc {
	w.world.Run("sysctl", "-q", "-w", "net.ipv6.conf.wan0.accept_ra=0")
	p := w.world.Start("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--interface=wan0", "--bind-dynamic",
		"--dhcp-leasefile="+w.File("leases", ""), "--no-ping", "--no-resolv", "--no-hosts", "--address=/world.test/192.0.2.2", "--dhcp-authoritative", "--user=root",
		"--dhcp-range=192.0.2.100,192.0.2.100,255.255.255.0,2m", "--dhcp-option=option:router,192.0.2.2", "--dhcp-option=option:dns-server,192.0.2.2",
		"--enable-ra", "--dhcp-range=2001:db8::100,2001:db8::100,slaac,64,4m", "--dhcp-option=option6:dns-server,[2001:db8::53]", "--ra-param=wan0,5,30")
	time.Sleep(200 * time.Millisecond) // it says nothing when it is ready
	return p
}

// serve4 has udhcpd(8) lease one address for some seconds.
func (w *wire) serve4(seconds int, addr string) *lab.Proc {
	conf := w.File(fmt.Sprintf("udhcpd-%s.conf", addr), fmt.Sprintf(`start %s
end %s
interface wan0
lease_file %s
min_lease 1
max_leases 1
option subnet 255.255.255.0
option router 192.0.2.2
option dns 192.0.2.53
option lease %d
`, addr, addr, w.File("leases-"+addr, ""), seconds))
	return w.world.Start("udhcpd", "-f", conf)
}

// learned waits until the uplink has exactly these addresses.
func (w *wire) learned(want ...string) {
	w.Eventually("addresses "+strings.Join(want, " "), 40*time.Second, func() bool {
		var has []string
		for _, p := range w.uplinks()[0].Addresses {
			has = append(has, p.String())
		}
		slices.Sort(has)
		slices.Sort(want)
		return slices.Equal(has, want)
	})
	if len(want) > 0 { // what is shown is what is written down; the dataplane hears of it next
		w.reaches(w.red, lab.V4)
	}
}

// slaac is the address that the uplink makes of the world's prefix.
func (w *wire) slaac() string {
	m := lab.MAC(w.uplinks()[0].MAC)
	a := netip.MustParseAddr("2001:db8::").As16()
	copy(a[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(a).String() + "/64"
}

// TestNICLearns gets addresses, default routes and servers of names of the link, and
// keeps them over kills.
func TestNICLearns(t *testing.T) {
	w := newWire(t, 1500)
	w.serveBoth()
	w.d.Apply(strings.Replace(shopYAML(learning), "[{name: shop}]", "[{name: shop, dns: {}}]", 1))
	w.learned("192.0.2.100/24", w.slaac(), "2001:db8::100/128")
	w.works(t)
	w.goesOut(t, w.red)
	w.d.CLI("-n", "shop", "route").Expect(0, "default via 192.0.2.2 dev wan proto dhcp")
	w.d.CLI("-n", "shop", "-6", "route").Expect(0, "default via fe80::", "dev wan proto ra")
	w.d.CLI("uplink").Expect(0, "type nic dhcp on slaac on dhcp6 on", "gateway 192.0.2.2", "dns 192.0.2.2", "dns 2001:db8::53")

	w.red.Try("dig", "+short", "+tries=3", "@10.44.0.1", "world.test").Expect(0, "192.0.2.2")

	x := lab.StartTCP(w.red, w.world, lab.V6, "-seconds", "3")
	before := w.uplinks()[0].Addresses
	kept := func(what string) {
		t.Helper()
		if after := w.uplinks()[0].Addresses; !slices.Equal(before, after) {
			t.Errorf("%s: addresses were %v and are %v", what, before, after)
		}
		w.works(t)
	}
	w.d.AwaitDataplane(w.d.KillDataplane())
	kept("dataplane killed")
	w.d.KillAgent()
	w.d.Start()
	kept("agent killed")
	w.d.KillBoth()
	w.d.Start()
	kept("both killed")
	x.Wait(time.Minute).Expect(0)
	w.gone(t, func() { w.d.Apply(shopYAML()) })
}

// TestNICLeaseEnds: a lease is renewed, and the address goes when it ends; a link that
// was interrupted has it confirmed, and gets what the server has now.
func TestNICLeaseEnds(t *testing.T) {
	w := newWire(t, 1500)
	server := w.serve4(6, "192.0.2.100")
	w.d.Apply(shopYAML("{name: wan, type: nic, ifname: wan0, masquerade: true, dhcp: true}"))
	w.learned("192.0.2.100/24")
	renewed := time.Now()
	for time.Since(renewed) < 7*time.Second { // longer than a lease
		w.reaches(w.red, lab.V4)
		time.Sleep(500 * time.Millisecond)
	}
	server.Stop()
	w.learned() // it ends
	if r := w.red.TryPing(w.world.IP(lab.V4), 1); r.Code == 0 {
		t.Error("without an address, the world is reached")
	}
	w.d.CLI("-n", "shop", "route").Expect(0)
	if out := w.d.CLI("-n", "shop", "route").Out; strings.Contains(out, "default") {
		t.Errorf("the route is there without the lease:\n%s", out)
	}
	server = w.serve4(600, "192.0.2.100")
	w.learned("192.0.2.100/24")
	server.Stop()

	w.serve4(600, "192.0.2.120")
	w.world.Run("ip", "link", "set", "wan0", "down")
	time.Sleep(1500 * time.Millisecond) // the kernel tells of shorter ones once a second
	w.world.Run("ip", "link", "set", "wan0", "up")
	w.learned("192.0.2.120/24")
	w.reaches(w.red, lab.V4)
}

// TestNICComesBackAndLearns: the interface vanishes with its lease, and comes again.
func TestNICComesBackAndLearns(t *testing.T) {
	w := newWire(t, 1500)
	w.serve4(600, "192.0.2.100")
	w.d.Apply(shopYAML("{name: wan, type: nic, ifname: wan0, masquerade: true, dhcp: true}"))
	w.learned("192.0.2.100/24")
	w.world.Run("ip", "link", "del", "wan0")
	w.Eventually("the uplink fails", patience, func() bool { return w.uplinks()[0].State == api.StateFailed })
	w.Cable(w.host, w.world, "wan0", 1500)
	w.address("192.0.2.2/24")
	w.serve4(600, "192.0.2.130")
	w.Eventually("the uplink is back", 20*time.Second, func() bool { return w.uplinks()[0].State == api.StateReady })
	w.learned("192.0.2.130/24")
	w.reaches(w.red, lab.V4)
}

// TestNICRefusesAClash: a server gives an address of a network of the namespace,
// RFC 4787 REQ-7.
func TestNICRefusesAClash(t *testing.T) {
	w := newWire(t, 1500)
	w.serve4(600, "10.44.0.99")
	w.address("10.44.0.77/24")
	w.d.Apply(shopYAML("{name: wan, type: nic, ifname: wan0, masquerade: true, dhcp: true}"))
	w.Eventually("a fault", 20*time.Second, func() bool { return strings.Contains(w.uplinks()[0].Fault, "overlaps network web") })
	w.learned()
	w.red.Ping(w.green.IP(lab.V4))
}
