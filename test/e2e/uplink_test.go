// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// way is a host, which is a namespace of the test's own that the daemon runs in, and a
// world behind it.
//
//	red ---- web --.
//	               shop ==== out ==== host ---- world
//	green -- db ---'                 sluiced
type way struct {
	*lab.Lab
	d           *lab.Daemon
	host, world *lab.NS
	red, green  *lab.NS
	before      string // what the host had
}

// shopYAML is the file of a way out; uplinks are lines of its list.
func shopYAML(uplinks ...string) string {
	text := `namespaces: [{name: shop}]
networks:
  - {name: web, namespace: shop, subnets: [10.44.0.0/24, "fd44::/64"]}
  - {name: db, namespace: shop, subnets: [10.45.0.0/24, "fd45::/64"]}
uplinks:
`
	for _, u := range uplinks {
		text += "  - " + u + "\n"
	}
	return text
}

// hostUplink is one of newWay's.
const hostUplink = "{name: out, masquerade: true, forward: true}"

// newWay makes it, with an MTU between host and world.
func newWay(t *testing.T, mtu int, uplinks ...string) *way {
	t.Helper()
	l := lab.New(t)
	w := &way{Lab: l, host: l.NS("host"), world: l.NS("world"), red: l.NS("red"), green: l.NS("green")}
	l.Cable(w.host, w.world, "wan", mtu, "192.0.2.0/24", "2001:db8::/64")
	w.host.Ping(w.world.IP(lab.V4)) // which is up then
	w.before = w.has()
	w.d = l.DaemonIn(w.host, shopYAML(uplinks...))
	// A server of UDP that listens on any address answers from the one on the way back,
	// as on any host: it has to be called by that.
	for _, u := range w.uplinks() {
		w.host.Use(u.Peers...)
	}
	w.red.Attach("--network", "web")
	w.green.Attach("--network", "db")
	return w
}

func (w *way) uplinks() (all []api.Uplink) {
	w.d.CLI("-s", "uplink", "-o", "json").JSON(&all)
	return all
}

// has is what the host has that an uplink could change, but for forwarding.
func (w *way) has() string {
	return strings.Join([]string{
		w.host.Run("ip", "-br", "addr", "show", "scope", "global"), w.host.Run("ip", "route"), w.host.Run("ip", "-6", "route", "show", "proto", "83"),
		w.host.Run("nft", "list", "ruleset"),
	}, "--\n")
}

// unchanged checks that the host has what it had at first.
func (w *way) unchanged(t *testing.T) {
	t.Helper()
	if has := w.has(); has != w.before {
		t.Errorf("the host had\n%s\nand has\n%s", w.before, has)
	}
}

// wan is the host's address to the world.
func wan(f lab.Family) string {
	return map[lab.Family]string{lab.V4: "192.0.2.1", lab.V6: "2001:db8::1"}[f]
}

// goes sends TCP, UDP in datagrams and fragments, and pings from one to another.
func goes(from, to *lab.NS) {
	for _, f := range both() {
		from.Ping(to.IP(f))
		lab.TCP(from, to, f, 8<<20)
		lab.UDP(from, to, f, lab.Datagrams{Bytes: 1 << 20})
		lab.UDP(from, to, f, lab.Datagrams{Bytes: 1 << 20, GSO: true})
		lab.UDP(from, to, f, lab.Datagrams{Bytes: 256 << 10, Size: 4000})
	}
}

// TestUplinkRouted: containers and host reach each other, and containers and the world,
// which has a route back.
func TestUplinkRouted(t *testing.T) {
	w := newWay(t, 1500, "{name: out, forward: true}")
	for _, f := range both() {
		w.world.Run("ip", "route", "add", map[lab.Family]string{lab.V4: "10.44.0.0/15", lab.V6: "fd44::/15"}[f], "via", wan(f))
		w.red.Ping(netip.MustParseAddr(wan(f)))
	}
	goes(w.red, w.host)
	goes(w.host, w.green)
	goes(w.red, w.world)
	goes(w.world, w.green)
	w.red.Ping(w.green.IP(lab.V4))
	w.red.Try("traceroute", "-n", "-q", "1", w.world.IP(lab.V4).String()).Expect(0, " 10.44.0.1 ", w.world.IP(lab.V4).String()+" ")
	w.d.CLI("uplink").Expect(0, "out@sluice-out", "masquerade off forwarding on", "host_route fd45::/64 dev sluice-out")
}

// TestUplinkMasqueraded: the world has no route back, and nobody there can begin a
// connection to a container.
func TestUplinkMasqueraded(t *testing.T) {
	w := newWay(t, 1500, hostUplink)
	goesOut := func(from *lab.NS) {
		t.Helper()
		for _, f := range both() {
			from.Ping(w.world.IP(f))
			lab.TCP(from, w.world, f, 8<<20)
			w.Eventually("a hundred round trips of UDP", patience, func() bool { // what is late on a busy machine counts as lost
				r := lab.Report[report.RoundTrips](from.Traffic("pingpong", "-udp", "-seconds", "0.5", "-to", w.world.At(f)), time.Minute)
				return r.Count >= 100 && r.Lost <= r.Count/100
			})
		}
	}
	goesOut(w.red)
	goesOut(w.green)
	goes(w.red, w.host)
	goes(w.host, w.green)
	w.world.Run("ip", "route", "add", "10.44.0.0/15", "via", wan(lab.V4))
	w.world.Run("ip", "route", "add", "fd44::/15", "via", wan(lab.V6))
	for _, f := range both() {
		if r := w.world.TryPing(w.red.IP(f), 1); r.Code == 0 {
			t.Errorf("%v: the world reaches a container behind masquerading", f)
		}
		w.red.Ping(w.world.IP(f)) // what the container begins still goes
	}
	if has := w.has(); !strings.Contains(has, "masquerade") || !strings.Contains(has, "sluice-out") {
		t.Errorf("the host has\n%s", has)
	}
	w.d.Apply(shopYAML())
	w.unchanged(t)
	if r := w.red.TryPing(w.host.IP(lab.V4), 1); r.Code == 0 {
		t.Error("without the uplink, the host is reached")
	}
	w.red.Ping(w.green.IP(lab.V6))
}

// TestUplinkMTU makes the way narrow behind the host, and then the uplink itself.
func TestUplinkMTU(t *testing.T) {
	w := newWay(t, 1400, hostUplink)
	for _, f := range both() {
		lab.TCP(w.red, w.world, f, 4<<20)
		w.red.Run("ip", "route", "flush", "cache")
		w.red.Try("ping", "-n", "-c", "2", "-i", "0.2", "-M", "do", "-s", "1440", w.world.IP(f).String()).Expect(1, "1400")
	}
	w.d.Apply(shopYAML("{name: out, masquerade: true, forward: true, mtu: 1300}"))
	for _, f := range both() {
		lab.TCP(w.red, w.world, f, 4<<20)
		lab.TCP(w.host, w.green, f, 4<<20)
		w.green.Try("ping", "-n", "-c", "2", "-i", "0.2", "-M", "do", "-s", "1400", w.world.IP(f).String()).Expect(1, "1300")
	}
}

// wayOpen is a transfer from a container to the world, as crash_test.go has them.
func wayOpen(t *testing.T, f lab.Family, seconds string) (*way, *transfer) {
	t.Helper()
	w := newWay(t, 1500, hostUplink)
	w.red.Ping(w.world.IP(f))
	control := w.Control()
	return w, &transfer{w.d, w.red, w.world, lab.StartTCP(w.red, w.world, f, "-seconds", seconds), lab.Probe(w.red, w.world, f), control}
}

// TestUplinkDataplaneKilled kills the dataplane during a transfer to the world.
func TestUplinkDataplaneKilled(t *testing.T) {
	w, x := wayOpen(t, lab.V4, "4")
	for range 3 {
		time.Sleep(time.Second)
		w.d.AwaitDataplane(w.d.KillDataplane())
	}
	x.survives(t, 1000)
	w.whole(t)
}

// TestUplinkAgentKilled kills the agent during a transfer to the world.
func TestUplinkAgentKilled(t *testing.T) {
	w, x := wayOpen(t, lab.V6, "3")
	pid := w.d.Status().Dataplane.PID
	time.Sleep(500 * time.Millisecond)
	w.d.KillAgent()
	time.Sleep(500 * time.Millisecond)
	w.d.Start()
	if s := w.d.Status(); s.Dataplane.PID != pid || !s.Dataplane.Adopted {
		t.Errorf("status: %+v", s)
	}
	x.survives(t, 250)
	w.whole(t)
}

// TestUplinkBothKilled kills both during a transfer to the world.
func TestUplinkBothKilled(t *testing.T) {
	w, x := wayOpen(t, lab.V4, "4")
	time.Sleep(time.Second)
	w.d.KillBoth()
	if r := w.host.TryPing(w.green.IP(lab.V4), 1); r.Code == 0 {
		t.Error("there is an answer although there is no dataplane")
	}
	w.d.Start()
	x.survives(t, 5000)
	w.whole(t)
}

// whole checks that the uplink is there as it should be, and works both ways.
func (w *way) whole(t *testing.T) {
	t.Helper()
	all := w.uplinks()
	if len(all) != 1 || all[0].State != api.StateReady || all[0].Fault != "" || !all[0].HostForwards {
		t.Errorf("uplinks: %+v", all)
	}
	for _, f := range both() {
		w.green.Ping(w.world.IP(f))
		w.host.Ping(w.green.IP(f))
	}
}

// TestTwoUplinks gives each of two namespaces one. They reach the world, and not each
// other.
//
//	red ---- web -- shop ==== a ====.
//	                                 host ---- world
//	blue --- lab -- bench ==== b ==='
func TestTwoUplinks(t *testing.T) {
	l := lab.New(t)
	host, world := l.NS("host"), l.NS("world")
	l.Cable(host, world, "wan", 1500, "192.0.2.0/24", "2001:db8::/64")
	text := `networks:
  - {name: web, namespace: shop, subnets: [10.44.0.0/24, "fd44::/64"]}
  - {name: lab, namespace: bench, subnets: [%s, "fd46::/64"]}
namespaces: [{name: shop}, {name: bench}]
uplinks:
  - {name: a, namespace: shop, masquerade: true, forward: true}
  - {name: b, namespace: bench, masquerade: true}
`
	d := l.DaemonIn(host, fmt.Sprintf(text, "10.46.0.0/24"))
	red, blue := l.NS("red").Attach("--network", "web"), l.NS("blue").Attach("--network", "lab")
	for _, f := range both() {
		for _, n := range []*lab.NS{red, blue} {
			n.Ping(world.IP(f))
			n.Ping(host.IP(f))
			host.Ping(n.IP(f))
			lab.TCP(n, world, f, 4<<20)
		}
		if r := red.TryPing(blue.IP(f), 1); r.Code == 0 {
			t.Errorf("%v: one namespace reaches the other", f)
		}
	}
	d.TryApply(fmt.Sprintf(text, "10.44.0.0/16")).Expect(1, "uplinks[1].hostRoutes: 10.44.0.0/16 overlaps 10.44.0.0/24, a network behind uplink a")
	d.CLI("uplink", "show", "b").Expect(0, "b@sluice-b")
	d.CLI("-n", "shop", "-6", "route").Expect(0, "default via", "dev a proto static")
	d.CLI("uplink", "show", "c").Expect(1, `Uplink "c" does not exist.`)
}
