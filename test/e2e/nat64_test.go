// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// sixYAML is a namespace whose containers have no IPv4, and get to that by an uplink.
const sixYAML = `namespaces:
  - name: shop
    nat64: {masquerade: out}
networks:
  - {name: web, namespace: shop, subnets: ["fd44::/64"]}
uplinks:
  - {name: out, masquerade: true, forward: true}
`

// newSix makes a container without IPv4, and a world without IPv6 behind the host, with
// an MTU between those two. The world is called by its address in the prefix of NAT64.
//
//	red (IPv6) -- web -- shop (NAT64) ==== host ---- world (IPv4)
func newSix(t *testing.T, mtu int) (d *lab.Daemon, red, world *lab.NS) {
	t.Helper()
	l := lab.New(t)
	host := l.NS("host")
	world, red = l.NS("world"), l.NS("red")
	l.Cable(host, world, "wan", mtu, "192.0.2.0/24")
	d = l.DaemonIn(host, sixYAML)
	red.Attach("--network", "web", "--name", "red")
	world.Use(netip.MustParseAddr("64:ff9b::192.0.2.2"))
	red.Ping(world.IP(lab.V6))
	return d, red, world
}

// TestNAT64 reaches the IPv4 world from a container that has no IPv4, by all that people
// try.
func TestNAT64(t *testing.T) {
	d, red, world := newSix(t, 1500)
	at := world.IP(lab.V6)
	caps := []*lab.Capture{red.Capture(), world.Capture("-i", "wan")}
	red.Ping(at)
	red.PingBy(2, at, "-i", "0.2", "-s", "1400")
	red.Offload(true)
	for _, on := range []bool{true, false} {
		red.Offload(on)
		lab.TCP(red, world, lab.V6, 8<<20)
		for _, args := range [][]string{{"-bytes", "2000000", "-size", "1400"}, {"-bytes", "2000000", "-size", "1400", "-gso"}, {"-bytes", "500000", "-size", "6000"}} {
			r := lab.Report[report.Datagrams](red.Traffic(append([]string{"udp", "-to", world.At(lab.V6)}, args...)...), time.Minute)
			if r.Lost+r.Bad > 0 {
				t.Errorf("UDP %v: %+v", args, r)
			}
		}
	}
	d.Lab().Eventually("round trips of UDP", patience, func() bool { // fewer on a busy machine
		rr := lab.Report[report.RoundTrips](red.Traffic("pingpong", "-udp", "-seconds", "0.3", "-to", world.At(lab.V6)), time.Minute)
		return rr.Count >= 50
	})
	for _, c := range caps {
		c.ExpectClean()
	}
	// The hops behind the namespace seem to be in the prefix.
	for _, how := range []string{"-U", "-I", "-T"} {
		red.Try("traceroute", "-6", "-n", "-q", "1", "-w", "1", how, at.String()).Expect(0, " fd44::1 ", " 64:ff9b::647f:", " 64:ff9b::c000:202 ")
	}
	red.Try("tracepath", "-6", "-n", at.String()).Expect(0, "fd44::1", "64:ff9b::c000:202", "Resume: pmtu 1500")
	if r := red.TryPing(netip.MustParseAddr("64:ff9b::203.0.113.7"), 1); r.Code == 0 || !strings.Contains(r.Out, "From 64:ff9b::") {
		t.Errorf("who is nowhere: %s", r.Out)
	}
	for _, proto := range []string{"tcp", "udp", "icmpv6"} {
		all := conntrack(t, d, "-p", proto, "-d", at.String())
		if len(all) == 0 || !all[0].Original.Src.Is6() || !all[0].Reply.Src.Is4() {
			t.Errorf("connections of %s: %+v", proto, all)
		}
	}
	d.CLI("nat").Expect(0, "prerouting ip6 daddr 64:ff9b::/96 nat64 masquerade out")
	d.CLI("nat", "bindings").Expect(0, "udp [fd44::", " -> 100.127.")
	for _, l := range d.Links() {
		if l.Name == "red" && l.Stats.FlowHits < l.Stats.FlowMisses {
			t.Errorf("red: %d hits of the flow cache, %d misses", l.Stats.FlowHits, l.Stats.FlowMisses)
		}
	}
}

// TestNAT64MTU discovers a path in IPv4 that is narrower than the container's, and one
// that is narrower than IPv6 can be.
func TestNAT64MTU(t *testing.T) {
	_, red, world := newSix(t, 1400)
	at := world.IP(lab.V6)
	red.Try("ping", "-n", "-c", "2", "-i", "0.2", "-M", "do", "-s", "1440", at.String()).Expect(1, "mtu=1420")
	red.PingBy(2, at, "-i", "0.2", "-M", "do", "-s", "1372")
	lab.TCP(red, world, lab.V6, 4<<20)
	red.Try("tracepath", "-6", "-n", at.String()).Expect(0, "pmtu 1420")
	_, red, world = newSix(t, 1000)
	lab.TCP(red, world, lab.V6, 1<<20)
	r := lab.Report[report.Datagrams](red.Traffic("udp", "-to", world.At(lab.V6), "-bytes", "200000", "-size", "1200"), time.Minute)
	if r.Lost+r.Bad > 0 {
		t.Errorf("UDP: %+v", r)
	}
}

// TestNAT64OutlivesKills: the connection of a container without IPv4 goes on.
func TestNAT64OutlivesKills(t *testing.T) {
	d, red, world := newSix(t, 1500)
	tcp := lab.StartTCP(red, world, lab.V6, "-seconds", "2")
	time.Sleep(500 * time.Millisecond)
	d.AwaitDataplane(d.KillDataplane())
	if r := lab.Report[report.Stream](tcp, time.Minute); !r.OK {
		t.Errorf("%+v", r)
	}
}

// TestNAT64ByOtherWays: an interface of the host's own, and its sockets.
func TestNAT64ByOtherWays(t *testing.T) {
	six := func(uplink string) string {
		return "namespaces:\n  - name: shop\n    nat64: {masquerade: out}\n    dns: {via: none}\n" +
			"networks:\n  - {name: web, namespace: shop, subnets: [\"fd44::/64\"]}\nuplinks:\n  - " + uplink + "\n"
	}
	t.Run("nic", func(t *testing.T) {
		l := lab.New(t)
		host, world, red := l.NS("host"), l.NS("world"), l.NS("red")
		l.Cable(host, world, "wan0", 1500)
		world.Run("ip", "addr", "add", "192.0.2.2/24", "dev", "wan0")
		d := l.DaemonIn(host, six("{name: out, type: nic, ifname: wan0, addresses: [192.0.2.1/24]}"))
		red.Attach("--network", "web", "--name", "red")
		world.Use(netip.MustParseAddr("64:ff9b::192.0.2.2"), netip.MustParseAddr("192.0.2.2"))
		red.Ping(world.IP(lab.V6))
		lab.TCP(red, world, lab.V6, 8<<20)
		if all := conntrack(t, d, "-p", "tcp"); len(all) == 0 || all[0].Reply.Dst != netip.MustParseAddr("192.0.2.1") {
			t.Errorf("connections: %+v", all)
		}
		digger{red, "fd44::1"}.wants(t, "64:ff9b::c000:aa 64:ff9b::c000:ab", "ipv4only.arpa", "AAAA")
	})
	t.Run("socket", func(t *testing.T) {
		l := lab.New(t)
		host, world, red := l.NS("host"), l.NS("world"), l.NS("red")
		l.Cable(host, world, "wan", 1500, "192.0.2.0/24")
		l.DaemonIn(host, six("{name: out, type: socket}"))
		red.Attach("--network", "web", "--name", "red")
		world.Use(netip.MustParseAddr("64:ff9b::192.0.2.2"))
		lab.TCP(red, world, lab.V6, 8<<20)
		l.Eventually("round trips of UDP", patience, func() bool {
			rr := lab.Report[report.RoundTrips](red.Traffic("pingpong", "-udp", "-seconds", "0.3", "-to", world.At(lab.V6)), time.Minute)
			return rr.Count >= 20
		})
	})
}
