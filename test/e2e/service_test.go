// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// places are those of the service of these tests.
func place(f lab.Family) netip.AddrPort {
	return map[lab.Family]netip.AddrPort{lab.V4: netip.MustParseAddrPort("10.96.0.10:80"), lab.V6: netip.MustParseAddrPort("[fd96::10]:80")}[f]
}

// real is a container's traffic server as a backend.
func real(n *lab.NS, f lab.Family) string { return "real " + n.At(f) }

// service changes or makes services, by the words of the command.
func service(d *lab.Daemon, words string) {
	d.CLI(append([]string{"-n", "shop", "service"}, strings.Fields(words)...)...).Expect(0)
}

// backends are those of the only service, by address.
func backends(t *testing.T, d *lab.Daemon) map[netip.Addr]api.ServiceBackend {
	t.Helper()
	var all []api.Service
	d.CLI("-j", "-n", "shop", "service", "list").JSON(&all)
	out := make(map[netip.Addr]api.ServiceBackend)
	if len(all) != 1 {
		t.Fatalf("services: %+v", all)
	}
	for _, b := range all[0].Backends {
		out[b.Addr] = b
	}
	return out
}

// TestService spreads connections from the world, a neighbour and a backend itself over
// two backends, drains one without breaking its connections, and ends those of one
// that is gone.
//
//	red, green (backends), blue -- web -- shop -- wan -- world
func TestService(t *testing.T) {
	d, world, red, green := toWorld(t)
	blue := d.Lab().NS("blue").Attach("--network", "web", "--name", "blue")
	for _, f := range both() {
		world.Run("ip", "route", "add", place(f).Addr().String(), "via", outside(d, "wan", f).String())
	}
	red.Serve()
	green.Serve()
	service(d, "add web tcp 10.96.0.10:80 udp 10.96.0.10:80 tcp [fd96::10]:80 udp [fd96::10]:80")
	refused := func(at netip.AddrPort) {
		t.Helper()
		if r := blue.Traffic("send", "-bytes", "1000", "-to", at.String()).Wait(10 * time.Second); r.Code == 0 || !strings.Contains(r.Err, "refused") {
			t.Errorf("%v without a backend: %+v", at, r)
		}
	}
	refused(place(lab.V4))
	for _, f := range both() {
		service(d, "add web "+real(red, f)+" weight 2 "+real(green, f))
		for _, from := range []*lab.NS{world, blue, red} {
			c := from.Capture()
			send(t, from, place(f))
			lab.Report[report.Rate](from.Traffic("crr", "-seconds", "0.3", "-to", place(f).String()), time.Minute)
			d.Lab().Eventually("round trips of UDP", patience, func() bool { // fewer on a busy machine
				rr := lab.Report[report.RoundTrips](from.Traffic("pingpong", "-udp", "-seconds", "0.2", "-to", place(f).String()), time.Minute)
				return rr.Count >= 20
			})
			c.ExpectClean()
		}
		for _, n := range []*lab.NS{red, green} {
			if b := backends(t, d)[n.IP(f)]; b.Conns < 10 || b.InBytes == 0 || b.OutBytes == 0 {
				t.Errorf("%s: %+v", n.Name(), b)
			}
		}
	}
	d.CLI("-n", "shop", "service").Expect(0, "web tcp 10.96.0.10:80 udp", "    -> "+red.At(lab.V4)+" weight 2 state ready active ")
	// Draining keeps what is established, over a kill too, and begins nothing.
	service(d, "set web "+real(green, lab.V4)+" state draining")
	stream := world.Traffic("send", "-both", "-seconds", "2.5", "-to", place(lab.V4).String())
	d.Lab().Eventually("a connection", patience, func() bool { return backends(t, d)[red.IP(lab.V4)].Active > 0 })
	service(d, "set web "+real(red, lab.V4)+" state draining "+real(green, lab.V4)+" state ready")
	d.KillDataplane()
	d.Lab().Eventually("a new dataplane", patience, func() bool { return d.Status().Dataplane.State == "running" })
	before := backends(t, d)
	lab.Report[report.Rate](blue.Traffic("crr", "-seconds", "0.3", "-to", place(lab.V4).String()), time.Minute)
	if b := backends(t, d); b[green.IP(lab.V4)].Conns < before[green.IP(lab.V4)].Conns+10 || b[red.IP(lab.V4)].Conns != before[red.IP(lab.V4)].Conns {
		t.Errorf("red drains: %+v, before %+v", b, before)
	}
	if r := lab.Report[report.Stream](stream, time.Minute); !r.OK {
		t.Errorf("red drains, its connection: %+v", r)
	}
	// Gone ends what is established.
	stream = world.Traffic("send", "-both", "-seconds", "10", "-to", place(lab.V4).String())
	d.Lab().Eventually("a connection", patience, func() bool { return backends(t, d)[green.IP(lab.V4)].Active > 0 })
	time.Sleep(200 * time.Millisecond)
	service(d, "set web "+real(green, lab.V4)+" state gone "+real(red, lab.V4)+" state gone")
	if r, code := lab.TryReport[report.Stream](stream, 40*time.Second); code == 0 {
		t.Errorf("green is gone, and its connection goes on: %+v", r)
	}
	refused(place(lab.V4))
	send(t, world, place(lab.V6))
	service(d, "del web")
	d.CLI("-n", "shop", "service").Expect(0)
}

// TestServiceAffinity: a client comes to the same backend, whatever its port; declared
// in the file, with a map of nft's beside it.
func TestServiceAffinity(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(`namespaces:
  - name: shop
    maps:
      - {name: ports, type: "ipv4_addr . inet_service : ipv4_addr . inet_service", elements: ["10.50.0.1 . 81 : 10.50.0.3 . 7000"]}
    nat:
      - prerouting dnat to ip daddr . tcp dport map @ports
      - "prerouting dnat to tcp dport map { 82 : 10.50.0.2 . 7000 }"
    services:
      - {name: web, listen: ["tcp 10.96.0.10:80"], affinity: 60s, backends: ["10.50.0.2:7000", "10.50.0.3:7000"]}
networks:
  - {name: wan, namespace: shop, subnets: [192.0.2.0/24]}
  - {name: web, namespace: shop, subnets: [10.50.0.0/24]}
`)
	world := l.NS("world").Attach("--network", "wan")
	red := l.NS("red").Attach("--network", "web", "--ip", "10.50.0.2")
	green := l.NS("green").Attach("--network", "web", "--ip", "10.50.0.3")
	red.Serve()
	green.Serve()
	lab.Report[report.Rate](world.Traffic("crr", "-seconds", "0.3", "-to", "10.96.0.10:80"), time.Minute)
	b := backends(t, d)
	if a, c := b[red.IP(lab.V4)].Conns, b[green.IP(lab.V4)].Conns; a != 0 && c != 0 || a+c < 20 {
		t.Errorf("connections of one client: %d and %d", a, c)
	}
	for at, to := range map[string]*lab.NS{"10.50.0.1:81": green, "10.50.0.1:82": red} {
		send(t, world, netip.MustParseAddrPort(at))
		if all := conntrack(t, d, "-p", "tcp", "-g", to.IP(lab.V4).String(), "--dport", at[len(at)-2:]); len(all) == 0 {
			t.Errorf("%s doesn't lead to %s", at, to.Name())
		}
	}
}

// TestBridgedConnections tracks what two containers of one network send each other, where
// the namespace asks for it; a destination that is translated there is reached, too.
func TestBridgedConnections(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(`namespaces:
  - name: shop
    conntrack: {bridged: true}
    nat:
      - prerouting ip daddr 10.50.0.3 tcp dport 81 dnat to 10.50.0.4:7000
networks:
  - {name: web, namespace: shop, subnets: [10.50.0.0/24, "fd50::/64"]}
`)
	red := l.NS("red").Attach("--network", "web", "--ip", "10.50.0.2", "--name", "red")
	green := l.NS("green").Attach("--network", "web", "--ip", "10.50.0.3")
	blue := l.NS("blue").Attach("--network", "web", "--ip", "10.50.0.4")
	c := red.Capture()
	for _, f := range both() {
		red.Ping(green.IP(f))
		lab.TCP(red, green, f, 8<<20)
		lab.UDP(red, green, f, lab.Datagrams{Bytes: 1 << 20, GSO: true})
		lab.UDP(red, green, f, lab.Datagrams{Bytes: 256 << 10, Size: 4000})
		if all := conntrack(t, d, "-p", "tcp", "-s", red.IP(f).String(), "-d", green.IP(f).String()); len(all) == 0 || all[0].Link != "red" {
			t.Errorf("%v: connections %+v", f, all)
		}
	}
	blue.Serve()
	send(t, red, netip.MustParseAddrPort("10.50.0.3:81"))
	c.ExpectClean()
	for _, link := range d.Links() {
		if link.Name == "red" && link.Stats.FlowHits < link.Stats.FlowMisses {
			t.Errorf("red: %d hits of the flow cache, %d misses", link.Stats.FlowHits, link.Stats.FlowMisses)
		}
	}
}
