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

// reach sends to an address over TCP and, in round trips, over UDP.
func reach(t *testing.T, from *lab.NS, to string) {
	t.Helper()
	send(t, from, netip.MustParseAddrPort(to))
	trips(t, from, to)
}

// trips makes round trips of UDP. What is late counts as lost, so that a busy machine
// gets more tries: a few trips show the way.
func trips(t *testing.T, from *lab.NS, to string) {
	t.Helper()
	count := uint64(0)
	for try := 0; count < 5 && try < 20; try++ {
		count += uint64(lab.Report[report.RoundTrips](from.Traffic("pingpong", "-udp", "-seconds", "0.2", "-to", to), time.Minute).Count)
	}
	if count < 5 {
		from.Lab().Evidence()
		t.Errorf("%s to %s, UDP: %d round trips", from.Name(), to, count)
	}
}

// doors is a way with red's ports published on the host's addresses.
func doors(t *testing.T, uplink string) *way {
	t.Helper()
	w := newWay(t, 1500, uplink)
	w.host.Run("ip", "link", "set", "lo", "up")
	red := w.red.Name()
	for _, p := range []string{"tcp", "udp"} {
		w.publish(p, "7700", "to", red+":7000").Expect(0)
		w.publish(p, "7800-7802", "to", red+":6999-7001").Expect(0)
		w.publish(p, "192.0.2.1:7000", "to", red).Expect(0)
		w.publish(p, "127.0.0.1:7900", "to", red+":7000").Expect(0)
	}
	return w
}

func (w *way) publish(words ...string) lab.Result {
	return w.d.CLI(append([]string{"-n", "shop", "publish", "add"}, words...)...)
}

// published reaches red's ports from the world, from the host by its addresses and by
// localhost, from another container, and from red itself; then another red's, and over
// kills, until they are published no more. It calls more while all are there.
func (w *way) published(t *testing.T, refused func(*testing.T, *lab.NS, string), more func()) {
	t.Helper()
	w.red.Serve()
	for _, f := range both() {
		at := map[lab.Family]string{lab.V4: "192.0.2.1:", lab.V6: "[2001:db8::1]:"}[f]
		for _, from := range []*lab.NS{w.world, w.host, w.green, w.red} {
			reach(t, from, at+"7700")
			reach(t, from, at+"7801")
		}
	}
	for _, from := range []*lab.NS{w.world, w.host, w.green, w.red} {
		reach(t, from, "192.0.2.1:7000")
	}
	for _, port := range []string{"7700", "7801", "7900"} {
		reach(t, w.host, "127.0.0.1:"+port)
	}
	refused(t, w.world, "192.0.2.1:7900") // of the loopback only
	more()

	w.red.Detach() // the port leads nowhere, and to the next one of that name
	refused(t, w.world, "192.0.2.1:7700")
	blue := w.NS("blue").Attach("--network", "web", "--name", w.red.Name(), "--ip", "10.44.0.77")
	blue.Serve()
	reach(t, w.world, "192.0.2.1:7700")
	w.d.KillBoth()
	w.d.Start()
	reach(t, w.world, "192.0.2.1:7700")
	reach(t, w.host, "127.0.0.1:7700")
	w.d.CLI("-n", "shop", "publish", "del", "tcp", "7700").Expect(0)
	refused(t, w.world, "192.0.2.1:7700")
	w.d.Apply(shopYAML())
}

// notReached expects that nobody serves at an address.
func notReached(t *testing.T, from *lab.NS, to string) {
	t.Helper()
	if r := from.Traffic("send", "-bytes", "1000", "-to", to).Wait(time.Minute); r.Code == 0 {
		t.Errorf("%s reaches %s", from.Name(), to)
	}
}

// TestPublishedOnHost publishes ports of red on the host's addresses.
func TestPublishedOnHost(t *testing.T) {
	w := doors(t, hostUplink)
	w.published(t, notReached, func() {
		for _, name := range []string{"all", "default", "wan"} {
			if got := w.host.Run("cat", "/proc/sys/net/ipv4/conf/"+name+"/route_localnet"); strings.TrimSpace(got) != "0" {
				t.Errorf("route_localnet of %s: %s", name, got)
			}
		}
	})
	w.unchanged(t)
}

// TestPublishedConflicts: a port that somebody has is refused with his name, and nobody
// gets one that is published.
func TestPublishedConflicts(t *testing.T) { conflicts(t, hostUplink) }

func conflicts(t *testing.T, uplink string) {
	t.Helper()
	w := newWay(t, 1500, uplink)
	w.host.Serve() // 7000
	w.publish("tcp", "7000", "to", w.red.Name()).Expect(1, "port tcp 7000: tcp *:7000: in use on the host by traffic (process ")
	w.publish("udp", "192.0.2.1:6990-7010", "to", w.red.Name()).Expect(1, "udp 192.0.2.1:7000: in use on the host by traffic (process ")
	w.publish("tcp", "7700", "to", w.red.Name()).Expect(0)
	w.publish("tcp", "7700", "to", w.green.Name()).Expect(1, "published for "+w.red.Name()+" already")
	if r := w.host.Traffic("serve", "-port", "7700").Wait(10 * time.Second); r.Code == 0 || !strings.Contains(r.Err, "address already in use") {
		t.Errorf("a program of the host got a published port: %+v", r)
	}
	declared := strings.Replace(shopYAML(uplink), "[{name: shop}]", "[{name: shop, publish: [tcp 7000 to "+w.red.Name()+"]}]", 1)
	w.d.TryApply(declared).Expect(1, "namespaces[0].publish[0]: tcp *:7000: in use on the host by traffic (process ")
	w.d.CLI("-n", "shop", "publish").Expect(0, "tcp 7700 to "+w.red.Name())
	w.d.CLI("-n", "shop", "publish", "del", "tcp", "7700").Expect(0)
	w.host.Traffic("serve", "-port", "7700").Ready()
}

// TestPublishedOnNIC publishes a port on the addresses of an interface that is Sluice's.
func TestPublishedOnNIC(t *testing.T) {
	w := newWire(t, 1500, static)
	for _, p := range []string{"tcp", "udp"} {
		w.d.CLI("-n", "shop", "publish", "add", p, "7700", "to", w.red.Name()+":7000").Expect(0)
		w.d.CLI("-n", "shop", "publish", "add", p, "192.0.2.1:7800-7802", "to", w.red.Name()+":6999-7001").Expect(0)
	}
	w.red.Serve()
	for _, from := range []*lab.NS{w.world, w.green, w.red} {
		reach(t, from, "192.0.2.1:7700")
		reach(t, from, "192.0.2.1:7801")
		reach(t, from, "[2001:db8::1]:7700")
	}
}
