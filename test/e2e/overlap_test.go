// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"testing"

	"sluice/test/lab"
)

// twins are two namespaces with the same 10.0.0.0/24.
const twins = `namespaces:
  - name: left
  - name: right
networks:
  - {name: lnet, namespace: left, subnets: [10.0.0.0/24, "fd00::/64"]}
  - {name: rnet, namespace: right, subnets: [10.0.0.0/24, "fd00::/64"]}
`

// TestOverlap: two namespaces with the same addresses, a container in each, and one
// in both, which has a routing table of its own for each way.
//
//	red   10.0.0.2 -- lnet (left)  -- 10.0.0.5 eth0 .
//	                                                 both
//	green 10.0.0.2 -- rnet (right) -- 10.0.0.6 eth1 '
func TestOverlap(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(twins)
	red := l.NS("red").Attach("--network", "lnet", "--ip", "10.0.0.2", "--ip6", "fd00::2")
	green := l.NS("green").Attach("--network", "rnet", "--ip", "10.0.0.2", "--ip6", "fd00::2")
	both2 := l.NS("both").Attach("--network", "lnet", "--ip", "10.0.0.5", "--ip6", "fd00::5", "--route-table", "101")
	both2.Attach("--network", "rnet", "--ifname", "eth1", "--ip", "10.0.0.6", "--ip6", "fd00::6", "--route-table", "102")
	both2.Try("ip", "rule").Expect(0, "from 10.0.0.5 lookup 101", "from 10.0.0.6 lookup 102")
	both2.Try("ip", "route", "show", "table", "101").Expect(0, "default via 10.0.0.1 dev eth0", "10.0.0.0/24 dev eth0")
	both2.Try("ip", "-6", "route", "show", "table", "102").Expect(0, "default via fd00::1 dev eth1", "fd00::/64 dev eth1")
	for way, ends := range map[string]struct {
		from4, from6 string
		host         *lab.NS
	}{"left": {"10.0.0.5", "fd00::5", red}, "right": {"10.0.0.6", "fd00::6", green}} {
		rec := ends.host.Record()
		for i, from := range []string{ends.from4, ends.from6} {
			to := ends.host.IP([]lab.Family{lab.V4, lab.V6}[i])
			both2.PingBy(3, to, "-i", "0.05", "-I", from)
		}
		// The other one of the same address has not heard a word: its own was asked.
		n := rec.Count(func(b []byte) bool { return len(b) > 34 && b[12] == 8 && b[13] == 0 && b[23] == 1 && b[34] == 8 })
		if n != 3 {
			t.Errorf("%s: %d echo requests came, want 3", way, n)
		}
		rec.Stop()
	}
	red.Ping(red.IP(lab.V4))
	if p := lab.TCP(red, red, lab.V4, 1<<16); !p.OK {
		t.Errorf("%+v", p)
	}
	d.CLI("-n", "left", "neigh").Expect(0, red.MAC())
	if r := d.CLI("-n", "right", "route"); r.Code != 0 || r.Out != d.CLI("-n", "left", "route").Out && len(r.Out) == 0 {
		t.Errorf("routes of right: %+v", r)
	}
}

// TestContainerTables: each container has a routing table in Sluice, and these
// choose different routers for the same destination.
//
//	red (table 10)   --.        .-- up1 -- 192.0.2.0/24, answers as 192.0.2.1
//	green (table 20) --+- core -+
//	                            `-- up2 -- 192.0.2.0/24 too
func TestContainerTables(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(`namespaces:
  - name: core
    routes:
      - 192.0.2.0/24 via 10.90.0.11 table 10
      - 192.0.2.0/24 via 10.90.0.12 table 20
      - fd0e::/64 via fd90::b table 10
      - fd0e::/64 via fd90::c table 20
networks:
  - {name: apps, namespace: core, subnets: [10.91.0.0/24, "fd91::/64"]}
  - {name: ups, namespace: core, subnets: [10.90.0.0/24, "fd90::/64"], rpFilter: "off"}
`)
	var ups []*lab.NS
	for i, name := range []string{"up1", "up2"} {
		n := l.NS(name).Attach("--network", "ups", "--ip", []string{"10.90.0.11", "10.90.0.12"}[i], "--ip6", []string{"fd90::b", "fd90::c"}[i],
			"--set", "guard_allow 192.0.2.0/24,fd0e::/64")
		n.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
		n.Run("ip", "addr", "add", "fd0e::1/128", "dev", "lo")
		ups = append(ups, n)
	}
	red := l.NS("red").Attach("--network", "apps", "--table", "10")
	green := l.NS("green").Attach("--network", "apps", "--table", "20")
	brown := l.NS("brown").Attach("--network", "apps")
	d.CLI("-n", "core", "rule").Expect(0, "iif "+red.Name()+" lookup 10", "iif "+green.Name()+" lookup 20")
	recs := []*lab.Recording{ups[0].Record(), ups[1].Record()}
	requests := func(from *lab.NS) [2]int {
		mac := from.IP(lab.V4).As4()
		var n [2]int
		for i, r := range recs {
			n[i] = r.Count(func(b []byte) bool {
				return len(b) > 34 && b[12] == 8 && b[13] == 0 && b[23] == 1 && b[34] == 8 && [4]byte(b[26:30]) == mac
			})
		}
		return n
	}
	ask := func(n *lab.NS) {
		n.Ping(netip.MustParseAddr("192.0.2.1"))
		n.Ping(netip.MustParseAddr("fd0e::1"))
	}
	ask(red)
	ask(green)
	brown.Try("ping", "-n", "-c", "1", "-W", "1", "192.0.2.1").Expect(1, "Destination Net Unreachable")
	if r, g := requests(red), requests(green); r != [2]int{3, 0} || g != [2]int{0, 3} {
		t.Errorf("red's requests reached the routers %v, green's %v", r, g)
	}
	// What is in a table for all stays reachable by the rules after it.
	red.Ping(green.IP(lab.V4))
	red.Ping(ups[1].IP(lab.V6))
	// The container changes its table while it talks.
	d.CLI("link", "set", red.Name(), "table", "20").Expect(0)
	ask(red)
	if r := requests(red); r != [2]int{3, 3} {
		t.Errorf("after the change red's requests reached the routers %v", r)
	}
	d.CLI("-n", "core", "route", "get", "192.0.2.1", "from", red.IP(lab.V4).String(), "iif", red.Name()).Expect(0, "via 10.90.0.12", "table 20", "iif "+red.Name())
}
