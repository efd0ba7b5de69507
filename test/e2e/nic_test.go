// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
)

// wire is a host whose interface wan0 is Sluice's, and a world at its other end, which
// has no route back.
//
//	red ---- web --.
//	               shop ==== wan ---- world
//	green -- db ---'   (host's wan0)
type wire struct {
	*way
}

// newWire makes it; the world has the second address of each family.
func newWire(t *testing.T, mtu int, uplinks ...string) *wire {
	t.Helper()
	l := lab.New(t)
	w := &wire{&way{Lab: l, host: l.NS("host"), world: l.NS("world"), red: l.NS("red"), green: l.NS("green")}}
	l.Cable(w.host, w.world, "wan0", mtu)
	w.world.Use(w.address("192.0.2.2/24"), w.address("2001:db8::2/64"))
	w.host.Run("ip", "link", "set", "lo", "up")
	w.before = w.interfaces()
	w.d = l.DaemonIn(w.host, shopYAML(uplinks...))
	w.red.Attach("--network", "web")
	w.green.Attach("--network", "db")
	return w
}

// address gives the world one.
func (w *wire) address(text string) netip.Addr {
	w.world.Run("ip", "addr", "add", text, "dev", "wan0", "nodad")
	return netip.MustParsePrefix(text).Addr()
}

// interfaces are those of the host, without what depends on their other ends.
func (w *wire) interfaces() string {
	var out []string
	for line := range strings.SplitSeq(strings.TrimSpace(w.host.Run("ip", "-br", "link")), "\n") {
		f := strings.Fields(line)
		out = append(out, f[0]+" "+f[2])
	}
	return strings.Join(out, "\n")
}

// reaches pings the world until it answers: a busy machine loses some.
func (w *wire) reaches(from *lab.NS, f lab.Family) {
	w.Eventually(from.Name()+" reaches the world", patience, func() bool { return from.TryPing(w.world.IP(f), 1).Code == 0 })
}

// works checks that the uplink is ready, and the world is reached.
func (w *wire) works(t *testing.T) {
	t.Helper()
	if all := w.uplinks(); len(all) != 1 || all[0].State != api.StateReady || all[0].Fault != "" {
		t.Errorf("uplinks: %+v", all)
	}
	for _, f := range both() {
		w.reaches(w.red, f)
		w.reaches(w.green, f)
	}
}

// goesOut sends TCP and UDP to the world, and traces the way there.
func (w *wire) goesOut(t *testing.T, from *lab.NS) {
	t.Helper()
	for _, f := range both() {
		w.reaches(from, f)
		lab.TCP(from, w.world, f, 8<<20)
		trips(t, from, w.world.At(f))
	}
}

const static = `{name: wan, type: nic, ifname: wan0, masquerade: true, addresses: [192.0.2.1/24, "2001:db8::1/64"], gateways: [192.0.2.2, "2001:db8::2"]}`

// TestNICStatic: an interface with static addresses, masqueraded.
func TestNICStatic(t *testing.T) {
	w := newWire(t, 1500, static)
	w.works(t)
	w.goesOut(t, w.red)
	w.goesOut(t, w.green)
	w.red.Try("traceroute", "-n", "-q", "1", w.world.IP(lab.V4).String()).Expect(0, " 10.44.0.1 ", w.world.IP(lab.V4).String()+" ")
	w.d.CLI("uplink").Expect(0, "wan@wan0", "inet 192.0.2.1/24", "inet6 2001:db8::1/64", "type nic dhcp off", "masquerade on", "gateway 192.0.2.2")
	w.d.CLI("-n", "shop", "route").Expect(0, "default via 192.0.2.2 dev wan proto static", "192.0.2.0/24 dev wan")
	w.d.CLI("-n", "shop", "neigh", "show", "dev", "wan").Expect(0, "192.0.2.2 dev wan lladdr")
	w.gone(t, func() { w.d.Apply(shopYAML()) })
}

// gone checks that the interface is the host's again after something.
func (w *wire) gone(t *testing.T, after func()) {
	t.Helper()
	after()
	if after := w.interfaces(); after != w.before {
		t.Errorf("the host had\n%s\nand has\n%s", w.before, after)
	}
	if r := w.red.TryPing(w.world.IP(lab.V4), 1); r.Code == 0 {
		t.Error("without the uplink, the world is reached")
	}
}

// TestNICGivenBack: the interface goes back when all is stopped, also after kills.
func TestNICGivenBack(t *testing.T) {
	w := newWire(t, 1500, static)
	w.works(t)
	w.gone(t, w.d.StopAll)
	w.d.Start()
	w.works(t)
	w.d.KillAgent()
	w.gone(t, w.d.StopAll)
	w.d.Start()
	w.works(t)
	w.d.KillBoth()
	w.gone(t, w.d.StopAll)
}

// TestNICShared: the host keeps the interface, and reaches the world by it, too.
func TestNICShared(t *testing.T) {
	for _, mode := range []string{"bridge", "private"} {
		t.Run(mode, func(t *testing.T) {
			w := newWire(t, 1500, strings.Replace(static, "type: nic", "type: nic, share: "+mode, 1))
			w.works(t)
			w.goesOut(t, w.red)
			w.host.Run("ip", "addr", "add", "192.0.2.9/24", "dev", "wan0")
			w.host.Ping(w.world.IP(lab.V4))
			w.gone(t, func() { w.d.Apply(shopYAML()) })
		})
	}
}

// TestNICMTU: the world is narrow behind the interface, and then the interface itself.
func TestNICMTU(t *testing.T) {
	w := newWire(t, 1400, static)
	for _, f := range both() {
		lab.TCP(w.red, w.world, f, 4<<20)
		w.red.Try("tracepath", "-n", w.world.IP(f).String()).Expect(0, "pmtu 1400", "reached")
	}
	w.beyond(t)
	w.d.Apply(shopYAML(strings.Replace(static, "type: nic", "type: nic, mtu: 1300", 1)))
	w.d.CLI("uplink").Expect(0, "mtu 1300")
	for _, f := range both() {
		lab.TCP(w.red, w.world, f, 4<<20)
		w.green.Try("ping", "-n", "-c", "2", "-i", "0.2", "-M", "do", "-s", "1400", w.world.IP(f).String()).Expect(1, "1300")
	}
}

// beyond puts another host behind the world, by a link that is narrower still: the world
// tells so, the uplink's address, for the container.
func (w *wire) beyond(t *testing.T) {
	t.Helper()
	far := w.NS("far")
	w.Cable(w.world, far, "far0", 1320, "198.51.100.0/24", "2001:db8:1::/64")
	w.world.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	far.Run("ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.1")
	far.Run("ip", "route", "add", "2001:db8::/64", "via", "2001:db8:1::1")
	for _, f := range both() {
		lab.TCP(w.red, far, f, 4<<20)
		w.red.Try("tracepath", "-n", far.IP(f).String()).Expect(0, "pmtu 1320", "reached")
		w.red.Try("traceroute", "-n", "-q", "1", far.IP(f).String()).Expect(0, far.IP(f).String())
	}
}

// TestNICKilled kills the dataplane, the agent and both during a transfer.
func TestNICKilled(t *testing.T) {
	w := newWire(t, 1500, static)
	w.reaches(w.red, lab.V4)
	control := w.Control()
	x := &transfer{w.d, w.red, w.world, lab.StartTCP(w.red, w.world, lab.V4, "-seconds", "5"), lab.Probe(w.red, w.world, lab.V4), control}
	time.Sleep(500 * time.Millisecond)
	w.d.AwaitDataplane(w.d.KillDataplane())
	time.Sleep(time.Second)
	w.d.KillAgent()
	w.d.Start()
	time.Sleep(time.Second)
	w.d.KillBoth()
	w.d.Start()
	x.survives(t, 5000)
	w.works(t)
}

// TestNICRefused is what is refused, with nothing changed.
func TestNICRefused(t *testing.T) {
	w := newWire(t, 1500)
	for uplink, want := range map[string]string{
		"{name: wan, type: nic, ifname: wan7, dhcp: true}":                                      "uplinks[0].ifname: no such interface on the host: wan7",
		"{name: wan, type: nic, ifname: wan0}":                                                  "uplinks[0].addresses: missing; give addresses, dhcp: true, slaac: true or dhcp6: true",
		"{name: wan, type: nic, ifname: wan0, dhcp: true, forward: true}":                       "uplinks[0].forward: is of uplinks of type host",
		"{name: wan, dhcp: true}":                                                               "uplinks[0].dhcp: is of uplinks of type nic",
		"{name: wan, type: nic, ifname: wan0, dhcp: true, share: vepa}":                         `uplinks[0].share: "vepa": want one of ["bridge" "private" "passthru"]`,
		"{name: wan, type: nic, ifname: wan0, addresses: [192.0.2.1/24], gateways: [10.1.1.1]}": "uplinks[0].gateways[0]: 10.1.1.1 is on none of the subnets of addresses",
	} {
		w.d.TryApply(shopYAML(uplink)).Expect(1, want)
	}
	w.host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "wan0")
	w.d.TryApply(shopYAML(static)).Expect(1, "uplinks[0].ifname: in the way on the host: its address 192.0.2.1/24 is on wan0")
	if after := w.interfaces(); after != w.before {
		t.Errorf("the host had\n%s\nand has\n%s", w.before, after)
	}
}

// TestNICComesBack: the interface vanishes, and comes again.
func TestNICComesBack(t *testing.T) {
	w := newWire(t, 1500, static)
	w.works(t)
	w.world.Run("ip", "link", "del", "wan0")
	w.Eventually("the uplink fails", patience, func() bool { return w.uplinks()[0].State == api.StateFailed })
	w.d.CLI("uplink").Expect(0, `fault "`)
	w.Cable(w.host, w.world, "wan0", 1500)
	w.address("192.0.2.2/24")
	w.address("2001:db8::2/64")
	w.Eventually("the uplink is back", 20*time.Second, func() bool { return w.uplinks()[0].State == api.StateReady })
	w.works(t)
}
