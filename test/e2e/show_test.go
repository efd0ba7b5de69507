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

// TestShow compares what every word of the CLI says, as JSON and as text, with
// what was attached and sent.
//
//	red ---- blue, gateway 10.44.0.1 ---- green
func TestShow(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	red.Ping(green.IP(lab.V4))
	red.Ping(d.Gateway(lab.V4))
	red.Ping(d.Gateway(lab.V6))
	t.Run("link", func(t *testing.T) { showLinks(t, d, red) })
	t.Run("addr", func(t *testing.T) { showAddresses(t, d, red) })
	t.Run("neigh", func(t *testing.T) { showNeighbours(t, d, red) })
	t.Run("fdb", func(t *testing.T) { showFDB(t, d, red, green) })
	t.Run("ss", func(t *testing.T) { showSockets(t, d) })
	t.Run("status", func(t *testing.T) { showStatus(t, d) })
}

func showLinks(t *testing.T, d *lab.Daemon, red *lab.NS) {
	t.Helper()
	links := d.Links()
	i := slices.IndexFunc(links, func(l api.Link) bool { return l.Name == red.Name() })
	if len(links) != 2 || i < 0 {
		t.Fatalf("links: %+v", links)
	}
	l := links[i]
	if l.Network != "blue" || l.Netns != red.Path() || l.IfName != "eth0" || l.MAC != red.MAC() || l.MTU != 1500 ||
		!l.Offload || l.State != api.StateReady || l.Addresses[0].Addr() != red.IP(lab.V4) {
		t.Errorf("link: %+v", l)
	}
	// Three pings to green, three to each gateway address, and their resolution.
	if l.Stats.RX.Packets < 9 || l.Stats.TX.Packets < 9 || l.Stats.RX.Bytes < 9*98 || l.Stats.Dropped() > 0 {
		t.Errorf("counters: %+v", l.Stats)
	}
	d.CLI("link").Expect(0, l.Name+": mtu 1500 master blue state READY offload on", l.MAC)
	d.CLI("-s", "link", "show", l.Name).Expect(0, "RX:", fmt.Sprint(l.Stats.RX.Bytes), "dropped: 0")
}

func showAddresses(t *testing.T, d *lab.Daemon, red *lab.NS) {
	t.Helper()
	var all []api.Address
	d.CLI("addr", "-o", "json").JSON(&all)
	want := map[string]string{ // address: who has it
		"10.44.0.1/24": "blue", "fd44::1/64": "blue",
		red.IP(lab.V4).String() + "/24": red.Name(), red.IP(lab.V6).String() + "/64": red.Name(),
	}
	for _, a := range all {
		if link, ok := want[a.Prefix.String()]; ok && a.Link == link {
			delete(want, a.Prefix.String())
		}
	}
	if len(want) > 0 || len(all) != 6 {
		t.Errorf("addresses: missing %v in %+v", want, all)
	}
	d.CLI("addr").Expect(0, "inet "+red.IP(lab.V4).String()+"/24", "inet6 fd44::1/64")
}

func showNeighbours(t *testing.T, d *lab.Daemon, red *lab.NS) {
	t.Helper()
	var all []api.Neighbour
	d.CLI("neigh", "-o", "json").JSON(&all)
	for _, f := range both() {
		i := slices.IndexFunc(all, func(n api.Neighbour) bool { return n.Addr == red.IP(f) })
		if i < 0 || all[i].MAC != red.MAC() || all[i].State == "" {
			t.Errorf("%v: no neighbour %v %v in %+v", f, red.IP(f), red.MAC(), all)
		}
	}
	d.CLI("neigh").Expect(0, fmt.Sprintf("%v dev blue lladdr %s", red.IP(lab.V4), red.MAC()))
}

func showFDB(t *testing.T, d *lab.Daemon, red, green *lab.NS) {
	t.Helper()
	kinds := map[string]string{}
	for _, e := range d.FDB() {
		kinds[e.MAC] = e.Kind + " " + e.Link
	}
	gateway := d.Networks()[0].MAC
	for mac, want := range map[string]string{
		gateway: "own blue", red.MAC(): "static " + red.Name(), green.MAC(): "static " + green.Name(),
	} {
		if kinds[mac] != want {
			t.Errorf("%s is %q, want %q, in %v", mac, kinds[mac], want, kinds)
		}
	}
	d.CLI("fdb").Expect(0, red.MAC()+" dev "+red.Name()+" master blue static", gateway)
}

func showSockets(t *testing.T, d *lab.Daemon) {
	t.Helper()
	var all []api.Socket
	d.CLI("ss", "-o", "json").JSON(&all)
	want := []string{"tcp listen 10.44.0.1:7", "tcp listen [fd44::1]:7", "udp unconn 10.44.0.1:7", "tcp listen 10.44.0.1:9"}
	for _, w := range want {
		if !slices.ContainsFunc(all, func(s api.Socket) bool { return s.Proto+" "+s.State+" "+s.Local.String() == w }) {
			t.Errorf("no %q in %+v", w, all)
		}
	}
	d.CLI("ss").Expect(0, "LISTEN", "10.44.0.1:7", "UNCONN")
}

func showStatus(t *testing.T, d *lab.Daemon) {
	t.Helper()
	s := d.Status()
	if s.PID != d.PID() || s.Networks != 1 || s.Attachments != 2 || s.RunDir != d.RunDir() ||
		s.Dataplane.State != "running" || s.Dataplane.PID == 0 || s.Dataplane.Workers < 1 || s.Dataplane.Restarts != 0 {
		t.Errorf("status: %+v", s)
	}
	d.CLI("status").Expect(0, fmt.Sprintf("pid %d", s.PID), fmt.Sprintf("dataplane running pid %d", s.Dataplane.PID))
}

// TestCounters sends a known number of datagrams and finds them in the
// counters of both ports.
func TestCounters(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	const count, size = 1000, 1000
	lab.UDP(red, green, lab.V4, lab.Datagrams{Bytes: count * size, Size: size})
	for _, l := range d.Links() {
		// Each sends as many as the other; answers come for several at once.
		if s := l.Stats; s.RX.Packets < count || s.TX.Packets < count || s.RX.Bytes < count*(size+42) || s.FlowHits < s.FlowMisses {
			t.Errorf("%s: %+v", l.Name, s)
		}
	}
}

// TestStations moves a station that is nobody's attachment from one container
// to the other, and has it learned, moved and aged.
//
//	red  --.  02:00:00:00:77:01 behind red, then behind green
//	       +-- blue, ageing 2 s
//	green --'
//
// It has a MAC and an IPv4 address of its own, which guards would not let pass.
func TestStations(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue+"    ageing: 2s\n    ports: {guard: off}\n")
	const mac = "02:00:00:00:77:01"
	behind := func() string {
		for _, e := range d.FDB() {
			if e.MAC == mac && e.Kind == "dynamic" {
				return e.Link
			}
		}
		return ""
	}
	for _, n := range []*lab.NS{red, green} {
		// A macvlan has a MAC address of its own behind the container's interface.
		n.Run("ip", "link", "add", "extra0", "link", "eth0", "address", mac, "type", "macvlan", "mode", "bridge")
		n.Run("ip", "link", "set", "extra0", "up")
		n.Run("ip", "addr", "add", "10.44.0.200/24", "dev", "extra0")
		n.Try("ping", "-n", "-c", "2", "-W", "5", "-I", "extra0", "10.44.0.1").Expect(0)
		if at := behind(); at != n.Name() {
			t.Errorf("%s is behind %q, want %q", mac, at, n.Name())
		}
		n.Run("ip", "link", "del", "extra0")
	}
	d.Lab().Eventually("the station is forgotten", 20*time.Second, func() bool { return behind() == "" })
}

// TestApply declares networks: strictly, all or nothing, and not under anybody's
// feet.
func TestApply(t *testing.T) {
	l := lab.New(t)
	d := l.NewDaemon()
	d.Start()
	tests := map[string]struct{ yaml, says string }{
		"unknown field":       {lab.Blue + "    colour: navy\n", "colour"},
		"unknown top field":   {"networs: []\n", "networs"},
		"no YAML":             {"networks: [\n", "line"},
		"bad subnet":          {strings.Replace(lab.Blue, "10.44.0.0/24", "10.44.0.0/33", 1), "10.44.0.0/33"},
		"gateway outside":     {lab.Blue + "    gateways: [10.45.0.1]\n", "10.45.0.1"},
		"bad name":            {strings.Replace(lab.Blue, "name: blue", "name: Blue!", 1), "Blue!"},
		"MTU too large":       {lab.Blue + "    mtu: 65536\n", "65536"},
		"the same name twice": {lab.Blue + strings.TrimPrefix(lab.Blue, "networks:\n"), "blue"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { d.TryApply(tt.yaml).Expect(1, tt.says) })
	}
	if n := len(d.Networks()); n != 0 {
		t.Errorf("%d networks came of files that were refused", n)
	}
	d.TryApply(lab.Blue, "--dry-run").Expect(0, "add network blue (dry run)")
	if n := len(d.Networks()); n != 0 {
		t.Errorf("%d networks came of a dry run", n)
	}
	d.TryApply(lab.Blue).Expect(0, "add network blue")
	d.TryApply(lab.Blue).Expect(0, "no change")
	red := l.NS("red").Attach("--network", "blue")
	d.TryApply("networks: []\n").Expect(1, "blue", red.Name())
	red.Ping(netip.MustParseAddr("10.44.0.1"))
	d.CLI("detach", red.Name()).Expect(0)
	d.TryApply("networks: []\n").Expect(0, "remove network blue")
}

// TestConnectionIsShown has the gateway's sockets shown while they are in use.
func TestConnectionIsShown(t *testing.T) {
	d, red, _ := pairOn(t, lab.Blue)
	p := red.Traffic("pingpong", "-to", "10.44.0.1:7", "-seconds", "0", "-interval", "10ms").Ready()
	shown := func() bool {
		var all []api.Socket
		d.CLI("ss", "-o", "json").JSON(&all)
		return slices.ContainsFunc(all, func(s api.Socket) bool {
			return s.State == "estab" && s.Local.Port() == 7 && s.Remote.Addr() == red.IP(lab.V4)
		})
	}
	d.Lab().Eventually("the connection is shown", patience, shown)
	if r := p.Stop(); r.Code != 0 {
		t.Errorf("pingpong with the echo service: %+v", r)
	}
}
