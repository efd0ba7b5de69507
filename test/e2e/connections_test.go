// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// natted is a namespace with a network of containers, and one that leads to the
// world, which must not hear of the containers' addresses.
const natted = `namespaces:
  - name: shop
    nat:
      - postrouting oifname wan masquerade
networks:
  - {name: wan, namespace: shop, subnets: [192.0.2.0/24, "fd02::/64"]}
  - {name: web, namespace: shop, subnets: [10.50.0.0/24, "fd50::/64"]}
`

// toWorld starts a daemon with two containers and the world. The world has no route
// but to its own subnet, so that it can answer translated packets only.
//
//	red, green -- web 10.50.0.0/24 -- shop (masquerade) -- wan 192.0.2.0/24 -- world
func toWorld(t *testing.T) (d *lab.Daemon, world, red, green *lab.NS) {
	t.Helper()
	l := lab.New(t)
	d = l.Daemon(natted)
	world = l.NS("world").Attach("--network", "wan", "--ip", "192.0.2.99", "--ip6", "fd02::99")
	world.Run("ip", "route", "del", "default")
	world.Run("ip", "-6", "route", "del", "default")
	red = l.NS("red").Attach("--network", "web", "--name", "red")
	green = l.NS("green").Attach("--network", "web", "--name", "green")
	return d, world, red, green
}

// outside is the address of the namespace on a network.
func outside(d *lab.Daemon, network string, f lab.Family) netip.Addr {
	for _, n := range d.Networks() {
		for _, g := range n.Gateways {
			if n.Name == network && g.Is4() == (f == lab.V4) {
				return g
			}
		}
	}
	return netip.Addr{}
}

// conntrack lists connections, by options of conntrack(8).
func conntrack(t *testing.T, d *lab.Daemon, options ...string) []api.Connection {
	t.Helper()
	r := d.CLI(append([]string{"-j", "conntrack", "-L"}, options...)...)
	r.Expect(0)
	var all []api.Connection
	if err := json.Unmarshal([]byte(r.Out), &all); err != nil {
		t.Fatalf("%v in %s", err, r.Out)
	}
	return all
}

// TestMasquerade reaches the world by TCP, UDP and ICMP, of both families.
func TestMasquerade(t *testing.T) {
	d, world, red, green := toWorld(t)
	for _, f := range both() {
		own := outside(d, "wan", f)
		caps := []*lab.Capture{red.Capture(), world.Capture()}
		red.Ping(world.IP(f))
		green.Ping(world.IP(f))
		lab.TCP(red, world, f, 8<<20)
		for _, args := range [][]string{{"-bytes", "2000000", "-size", "1400"}, {"-bytes", "2000000", "-size", "1400", "-gso"}, {"-bytes", "500000", "-size", "6000"}} {
			r := lab.Report[report.Datagrams](green.Traffic(append([]string{"udp", "-to", world.At(f)}, args...)...), time.Minute)
			if r.Lost+r.Bad > 0 {
				t.Errorf("UDP %v: %+v", args, r)
			}
		}
		for _, c := range caps {
			c.ExpectClean()
		}
		seen := map[string]bool{}
		for _, c := range conntrack(t, d, "-d", world.IP(f).String()) {
			seen[c.Proto] = true
			if c.Reply.Dst != own || c.Original.Src == own || !slices.Contains(c.Status, "SRC_NAT") || c.Namespace != "shop" {
				t.Errorf("not masqueraded: %s", c.Line)
			}
		}
		if !seen["tcp"] || !seen["udp"] || !seen["icmp"] && !seen["icmpv6"] {
			t.Errorf("%v: connections of %v only", f, seen)
		}
		world.NoPing(red.IP(f))
	}
	for _, l := range d.Links() {
		if l.Name == "red" && l.Stats.FlowHits < l.Stats.FlowMisses {
			t.Errorf("red: %d hits of the flow cache, %d misses", l.Stats.FlowHits, l.Stats.FlowMisses)
		}
	}
	d.CLI("conntrack", "-D", "-p", "udp").Expect(0, "udp ")
	d.CLI("conntrack", "-D", "-p", "udp").Expect(1)
	d.CLI("conntrack", "-F").Expect(0)
	d.CLI("conntrack", "-C").Expect(0, "0")
}

// send moves bytes both ways and compares their hashes.
func send(t *testing.T, from *lab.NS, to netip.AddrPort) {
	t.Helper()
	p := from.Traffic("send", "-both", "-bytes", "2000000", "-to", to.String())
	if r := lab.Report[report.Stream](p, time.Minute); !r.OK {
		t.Errorf("%s to %v: %+v", from.Name(), to, r)
	}
}

// TestPublished reaches a container's port from the world, from its neighbour, and
// from itself; and another container that comes in its place.
func TestPublished(t *testing.T) {
	d, world, red, green := toWorld(t)
	d.CLI("publish", "add", "tcp", "7700", "to", "red:7000").Expect(0)
	d.CLI("publish", "add", "udp", "7700", "to", "red:7000").Expect(0)
	d.CLI("publish", "add", "tcp", "7690-7710", "to", "green").Expect(1, "")
	if r := d.CLI("publish", "add", "tcp", "7700", "to", "green"); !strings.Contains(r.Err, "published for red already") {
		t.Errorf("a second holder of the port: %+v", r)
	}
	red.Serve()
	for _, f := range both() {
		at := netip.AddrPortFrom(outside(d, "wan", f), 7700)
		in := netip.AddrPortFrom(outside(d, "web", f), 7700)
		caps := []*lab.Capture{red.Capture(), world.Capture()}
		send(t, world, at)
		send(t, green, at)
		send(t, green, in)
		send(t, red, in)
		d.Lab().Eventually("fifty round trips of UDP", patience, func() bool { // what is late on a busy machine counts as lost
			rr := lab.Report[report.RoundTrips](world.Traffic("pingpong", "-udp", "-seconds", "0.3", "-to", at.String()), time.Minute)
			return rr.Count >= 50 && rr.Lost == 0
		})
		for _, c := range caps {
			c.ExpectClean()
		}
		if all := conntrack(t, d, "-p", "tcp", "-s", world.IP(f).String(), "-g", red.IP(f).String()); len(all) == 0 {
			t.Errorf("no connection to %v is translated", at)
		}
		for _, c := range conntrack(t, d, "-p", "tcp", "-s", green.IP(f).String(), "-d", in.Addr().String()) {
			if c.Reply.Dst != in.Addr() { // the answer would not come this way
				t.Errorf("green's hairpin: %s", c.Line)
			}
		}
	}
	d.CLI("publish").Expect(0, "tcp 7700 to red:7000 at "+red.IP(lab.V4).String())
	red.Detach()
	d.CLI("publish").Expect(0, "inactive")
	blue := d.Lab().NS("blue").Attach("--network", "web", "--name", "red", "--ip", "10.50.0.77")
	blue.Serve()
	send(t, world, netip.AddrPortFrom(outside(d, "wan", lab.V4), 7700))
	d.CLI("publish", "del", "tcp", "7700").Expect(0)
	if r := world.Traffic("send", "-bytes", "1000", "-to", netip.AddrPortFrom(outside(d, "wan", lab.V4), 7700).String()).Wait(time.Minute); r.Code == 0 {
		t.Error("the port is published after it was deleted")
	}
}

// TestStatements tries what a file can say beside masquerade: a range of sources, a
// destination, prefix to prefix, a redirection to the gateway, and the profile rfc.
func TestStatements(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(`namespaces:
  - name: shop
    conntrack: {profile: rfc, filtering: endpoint}
    nat:
      - prerouting iifname web tcp dport 77 redirect to :7
      - prerouting iifname wan tcp dport 2222 dnat to 10.50.0.2:7000
      - prerouting iifname wan ip daddr 10.9.0.0/24 dnat prefix to 10.50.0.0/24
      - postrouting oifname wan ip saddr 10.50.0.0/24 snat to 192.0.2.50-192.0.2.51 persistent
networks:
  - {name: wan, namespace: shop, subnets: [192.0.2.0/24]}
  - {name: web, namespace: shop, subnets: [10.50.0.0/24], echo: true}
`)
	world := l.NS("world").Attach("--network", "wan", "--ip", "192.0.2.99")
	world.Run("ip", "route", "add", "192.0.2.48/28", "via", "192.0.2.1")
	world.Run("ip", "route", "replace", "10.9.0.0/24", "via", "192.0.2.1")
	red := l.NS("red").Attach("--network", "web", "--name", "red", "--ip", "10.50.0.2")
	red.Serve()
	caps := []*lab.Capture{red.Capture(), world.Capture()}
	red.Ping(world.IP(lab.V4))
	lab.TCP(red, world, lab.V4, 2<<20)
	send(t, world, netip.MustParseAddrPort("192.0.2.1:2222"))
	send(t, world, netip.MustParseAddrPort("10.9.0.2:7000"))
	world.Ping(netip.MustParseAddr("10.9.0.2"))
	lab.Report[report.Stream](red.Traffic("echo", "-to", "198.51.100.1:77", "-bytes", "1000000"), time.Minute)
	lab.Report[report.RoundTrips](red.Traffic("pingpong", "-udp", "-seconds", "0.3", "-to", world.At(lab.V4)), time.Minute)
	for _, c := range caps {
		c.ExpectClean()
	}
	for _, c := range conntrack(t, d, "-s", "10.50.0.2", "-d", "192.0.2.99") {
		if a := c.Reply.Dst.String(); a != "192.0.2.50" && a != "192.0.2.51" {
			t.Errorf("source of another range: %s", c.Line)
		}
	}
	d.CLI("nat", "bindings").Expect(0, "udp 10.50.0.2:", " -> 192.0.2.5")
	d.CLI("conntrack", "-L", "-p", "tcp", "--dport", "77", "-g").Expect(0, "src=10.50.0.1 dst=10.50.0.2 sport=7 ")
}

// TestNoPortIsLeft: there is one port for two containers that call the same server. The
// profile rfc tells the second one, that of the kernel nothing.
//
//	red, green -- web -- shop (one port) -- wan -- world
func TestNoPortIsLeft(t *testing.T) {
	for profile, told := range map[string]bool{"kernel": false, "rfc": true} {
		t.Run(profile, func(t *testing.T) {
			l := lab.New(t)
			d := l.Daemon(`namespaces:
  - name: shop
    conntrack: {profile: ` + profile + `}
    nat: ["postrouting oifname wan ip daddr 192.0.2.99 snat to 192.0.2.1:5000"]
networks:
  - {name: wan, namespace: shop, subnets: [192.0.2.0/24]}
  - {name: web, namespace: shop, subnets: [10.50.0.0/24]}
`)
			world := l.NS("world").Attach("--network", "wan", "--ip", "192.0.2.99")
			red := l.NS("red").Attach("--network", "web", "--name", "red")
			green := l.NS("green").Attach("--network", "web", "--name", "green")
			first := lab.StartTCP(red, world, lab.V4, "-seconds", "60")
			l.Eventually("the first connection", 20*time.Second, func() bool { return len(flows(t, d, "tcp")) == 1 })
			call := "exec 3<>/dev/tcp/" + strings.Replace(world.At(lab.V4), ":", "/", 1)
			if told {
				green.Try("bash", "-c", call).Expect(1, "No route to host")
			} else {
				green.Try("timeout", "2", "bash", "-c", call).Expect(124)
			}
			for _, k := range d.Links() {
				if k.Name == "green" && k.Stats.Drops["nat_exhausted"] == 0 {
					t.Errorf("green's drops: %v", k.Stats.Drops)
				}
			}
			if first.Ended() {
				t.Errorf("the first one: %s", first.Output())
			}
			first.Kill()
		})
	}
}

// TestQuota has a container begin more connections than it may: it keeps to its quota,
// and its neighbour's are not touched. Of open ones none gives way.
func TestQuota(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(strings.Replace(natted, "    nat:\n", "    conntrack: {quotaPerPort: 40}\n    nat:\n", 1))
	world := l.NS("world").Attach("--network", "wan", "--ip", "192.0.2.99")
	red := l.NS("red").Attach("--network", "web", "--name", "red")
	green := l.NS("green").Attach("--network", "web", "--name", "green")
	p := lab.Probe(green, world, lab.V4)
	red.Ping(world.IP(lab.V4))
	red.Run("bash", "-c", "for i in $(seq 1001 1300); do echo x > /dev/udp/192.0.2.99/$i; done")
	all := conntrack(t, d, "-p", "udp")
	count := map[string]int{}
	for _, c := range all {
		count[c.Link]++
	}
	if count["red"] == 0 || count["red"] > 40 || count["green"] == 0 {
		t.Errorf("connections by container: %v", count)
	}
	// As many that are open leave no room for another; those that end do.
	world.Serve()
	call := "exec {f}<>/dev/tcp/" + strings.Replace(world.At(lab.V4), ":", "/", 1)
	open := red.Start("bash", "-c", "for i in $(seq 40); do "+call+" || exit 1; done; echo ready; sleep 60").Ready()
	before := drops(d, "red", "conntrack_quota")
	red.Try("timeout", "2", "bash", "-c", call).Expect(124)
	if n := drops(d, "red", "conntrack_quota") - before; n < 1 || n > 4 {
		t.Errorf("%d SYNs were dropped for the quota, want those of two seconds", n)
	}
	if open.Ended() {
		t.Errorf("the open ones: %s", open.Output())
	}
	open.Kill()
	red.Try("timeout", "20", "bash", "-c", call).Expect(0)
	if r := p.Stop(); r.Lost > r.Count/10 {
		t.Errorf("green's: %+v", r)
	}
}

// flow is what must not change of a connection.
type flow struct{ inside, outside netip.AddrPort }

// flows are the translated connections to the world's server.
func flows(t *testing.T, d *lab.Daemon, proto string) (out []flow) {
	t.Helper()
	for _, c := range conntrack(t, d, "-p", proto, "-n", "--dport", fmt.Sprint(lab.Port)) {
		out = append(out, flow{netip.AddrPortFrom(c.Original.Src, c.Original.Sport), netip.AddrPortFrom(c.Reply.Dst, c.Reply.Dport)})
	}
	slices.SortFunc(out, func(a, b flow) int { return a.inside.Compare(b.inside) })
	return out
}

// TestConnectionsOutliveKills kills the dataplane, the agent, and both, in the middle
// of translated transfers: no connection breaks, and none changes its port.
//
//	red, green ==== TCP both ways, UDP ==== world       kill -9
func TestConnectionsOutliveKills(t *testing.T) {
	d, world, red, green := toWorld(t)
	d.CLI("publish", "add", "tcp", "7700", "to", "red:7000").Expect(0)
	world.Serve()
	red.Serve()
	var all []*lab.Proc
	for _, f := range both() {
		for _, from := range []*lab.NS{red, green} {
			all = append(all, from.Traffic("send", "-both", "-seconds", "15", "-streams", "2", "-to", world.At(f)))
		}
		all = append(all, world.Traffic("send", "-both", "-seconds", "15", "-to", netip.AddrPortFrom(outside(d, "wan", f), 7700).String()))
	}
	probe, control := lab.Probe(green, world, lab.V4), d.Lab().Control()
	d.Lab().Eventually("all connections", patience, func() bool { return len(flows(t, d, "tcp")) >= 8 && len(flows(t, d, "udp")) == 1 })
	tcp, udp := flows(t, d, "tcp"), flows(t, d, "udp")
	for _, kill := range []func(){
		func() { d.KillDataplane() },
		func() { d.KillAgent(); d.Start() },
		func() { d.KillBoth(); d.Start() },
		func() { d.KillDataplane() },
	} {
		time.Sleep(time.Second)
		kill()
		d.Lab().Eventually("a dataplane", patience, func() bool { s, err := d.TryStatus(); return err == nil && s.Dataplane.State == "running" })
		if is := flows(t, d, "tcp"); !slices.Equal(is, tcp) {
			t.Errorf("TCP connections were\n%v\nand are\n%v", tcp, is)
		}
		if is := flows(t, d, "udp"); !slices.Equal(is, udp) {
			t.Errorf("UDP connections were %v and are %v", udp, is)
		}
	}
	p, c := probe.Stop(), control.Stop()
	t.Logf("prober: longest gap %.1f ms (control %.1f ms), %d lost of %d", p.MaxGapMS, c.MaxGapMS, p.Lost, p.Count)
	for i, proc := range all {
		if s := lab.Report[report.Stream](proc, time.Minute); !s.OK || s.Sent == 0 || s.Received == 0 {
			t.Errorf("transfer %d: %+v", i, s)
		}
	}
}

// TestConntrackEvents watches a connection come and go, as conntrack -E.
func TestConntrackEvents(t *testing.T) {
	d, world, red, _ := toWorld(t)
	watch := d.Lab().Start(d.Command("-n", "shop", "conntrack", "-E", "-p", "icmp")...)
	d.Lab().Eventually("events", patience, func() bool {
		red.Ping(world.IP(lab.V4))
		return strings.Contains(watch.Output(), "[NEW] icmp")
	})
	d.CLI("conntrack", "-L", "-p", "icmp", "-o", "extended,id,timestamp").Expect(0, "ipv4     2 icmp     1 ", " delta-time=", " zone=1 ", " id=")
	d.CLI("conntrack", "-D", "-p", "icmp").Expect(0)
	d.Lab().Eventually("the end", patience, func() bool { return strings.Contains(watch.Output(), "[DESTROY] icmp") })
	watch.Kill()
	d.CLI("conntrack", "-S").Expect(0, "cpu=0")
	d.CLI("nat").Expect(0, "postrouting oifname wan masquerade")
}

// TestTranslatedUplink leaves by the host's uplink with addresses translated by Sluice:
// neither host nor world knows the containers' addresses. A published port leads in.
//
//	red -- web -- shop (masquerade) == out == host ---- world
func TestTranslatedUplink(t *testing.T) {
	const out = "{name: out, hostRoutes: false, forward: true}"
	w := newWay(t, 1500, out)
	w.d.Apply(strings.Replace(shopYAML(out), "[{name: shop}]", "[{name: shop, nat: [postrouting oifname out masquerade]}]", 1))
	w.d.CLI("-n", "shop", "publish", "add", "tcp", "7700", "to", w.red.Name()+":7000").Expect(0)
	w.red.Serve()
	for _, p := range w.uplinks()[0].Addresses {
		f := map[bool]lab.Family{true: lab.V4, false: lab.V6}[p.Addr().Is4()]
		w.world.Run("ip", "route", "add", p.Addr().String(), "via", wan(f))
		w.red.Ping(w.world.IP(f))
		lab.TCP(w.red, w.world, f, 4<<20)
		send(t, w.world, netip.AddrPortFrom(p.Addr(), 7700))
		send(t, w.host, netip.AddrPortFrom(p.Addr(), 7700))
		for _, c := range conntrack(t, w.d, "-p", "tcp", "-d", w.world.IP(f).String()) {
			if c.Reply.Dst != p.Addr() {
				t.Errorf("not translated: %s", c.Line)
			}
		}
	}
}
