// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"sluice/api"
)

// red ---+          gateway 10.77.0.1, fd77::1
//
//	+-- blue --+
//
// tan ---+
func TestAttachedContainersReachEachOther(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	red, tan := l.netns(), l.netns()
	first := l.attach(api.AttachRequest{Netns: red})
	second := l.attach(api.AttachRequest{Netns: "/run/netns/" + tan, IP: netip.MustParseAddr("10.77.0.99"), MAC: "02:00:00:00:00:99", MTU: 1400})

	if first.Name != red || first.IfName != "eth0" || first.Netns != "/run/netns/"+red || first.State != api.StateReady {
		t.Errorf("first is %+v", first)
	}
	if second.MAC != "02:00:00:00:00:99" || second.MTU != 1400 || second.Addresses[0] != netip.MustParsePrefix("10.77.0.99/24") {
		t.Errorf("second is %+v", second)
	}
	for _, a := range append(first.Addresses, second.Addresses...) {
		l.pings(red, a.Addr().String())
		l.pings(tan, a.Addr().String())
	}
	l.pings(red, "10.77.0.1", "fd77::1")
	l.consistent()

	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Netns: red}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Name: tan}); err != nil {
		t.Fatal(err)
	}
	if len(l.links()) != 0 || len(l.hostEnds()) != 0 {
		t.Errorf("left: %v, %v", l.links(), l.hostEnds())
	}
	if out := l.sh("ip", "-n", red, "-br", "link"); strings.Contains(out, "eth0") {
		t.Errorf("left in the container: %s", out)
	}
}

func TestRefusedAttachLeavesNothing(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	red, tan := l.netns(), l.netns()
	l.attach(api.AttachRequest{Netns: red, IP: netip.MustParseAddr("10.77.0.9"), MAC: "02:00:00:00:00:09"})
	l.sh("ip", "-n", tan, "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
	before := l.links()

	tests := map[string]struct {
		request api.AttachRequest
		code    api.Code
		field   string
	}{
		"no namespace given":            {api.AttachRequest{}, api.CodeInvalid, "netns"},
		"Sluice's own namespace":        {api.AttachRequest{Netns: l.run("netns/sluice"), IfName: "e1"}, api.CodeInvalid, "netns"},
		"the daemon's namespace":        {api.AttachRequest{Netns: "/proc/self/ns/net", IfName: "slt-e1"}, api.CodeInvalid, "netns"},
		"that of another process there": {api.AttachRequest{Netns: fmt.Sprintf("pid:%d", os.Getpid()), IfName: "slt-e1"}, api.CodeInvalid, "netns"},
		"namespace missing":             {api.AttachRequest{Netns: "slt-none"}, api.CodeNotFound, "netns"},
		"not a namespace":               {api.AttachRequest{Netns: "/etc/passwd"}, api.CodeInvalid, "netns"},
		"no such process":               {api.AttachRequest{Netns: "pid:0"}, api.CodeNotFound, "netns"},
		"network missing":               {api.AttachRequest{Netns: tan, Network: "green"}, api.CodeNotFound, "network"},
		"attached already":              {api.AttachRequest{Netns: red}, api.CodeExists, "ifname"},
		"interface taken":               {api.AttachRequest{Netns: tan}, api.CodeExists, "ifname"},
		"name taken":                    {api.AttachRequest{Netns: tan, IfName: "e1", Name: red}, api.CodeExists, "name"},
		"address outside":               {api.AttachRequest{Netns: tan, IfName: "e1", IP: netip.MustParseAddr("10.78.0.1")}, api.CodeOutOfRange, "ip"},
		"address in use":                {api.AttachRequest{Netns: tan, IfName: "e1", IP: netip.MustParseAddr("10.77.0.9")}, api.CodeInUse, "ip"},
		"address is the gateway":        {api.AttachRequest{Netns: tan, IfName: "e1", IP6: netip.MustParseAddr("fd77::1")}, api.CodeInUse, "ip6"},
		"MAC in use":                    {api.AttachRequest{Netns: tan, IfName: "e1", MAC: "02:00:00:00:00:09"}, api.CodeInUse, "mac"},
		"MTU above the network's":       {api.AttachRequest{Netns: tan, IfName: "e1", MTU: 9000}, api.CodeOutOfRange, "mtu"},
		"interface name of 16 letters":  {api.AttachRequest{Netns: tan, IfName: "abcdefghijklmnop"}, api.CodeInvalid, "ifname"},
		"interface name with a percent": {api.AttachRequest{Netns: tan, IfName: "eth%d"}, api.CodeInvalid, "ifname"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := l.api.Attach(t.Context(), &tt.request)
			e, ok := errors.AsType[*api.Error](err)
			if !ok || e.Code != tt.code || e.Field != tt.field {
				t.Errorf("got %T %+v, want code %s, field %s", err, err, tt.code, tt.field)
			}
		})
	}
	if after := l.links(); len(after) != len(before) || after[0].ID != before[0].ID {
		t.Errorf("attachments were %v, are %v", before, after)
	}
	l.consistent()
	l.pings(red, "10.77.0.1")
}

func TestSecondInterfaceKeepsTheDefaultRoute(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue[:len(blue)-1] + ", {name: green, subnets: [10.78.0.0/24]}]")
	red := l.netns()
	if _, err := l.api.Attach(t.Context(), &api.AttachRequest{Netns: red}); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("two networks and none said: got %v", err)
	}
	one := l.attach(api.AttachRequest{Netns: red, Network: "blue"})
	two := l.attach(api.AttachRequest{Netns: red, Network: "green", IfName: "eth1"})
	if len(one.Gateways) != 2 || len(two.Gateways) != 0 {
		t.Errorf("default routes by %v, then by %v", one.Gateways, two.Gateways)
	}
	if two.Name != red+"-eth1" {
		t.Errorf("second is called %s", two.Name)
	}
	l.pings(red, "10.77.0.1", "10.78.0.1")
	_, err := l.api.Detach(t.Context(), &api.DetachRequest{Netns: red})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Field != "ifname" {
		t.Errorf("detach of one of two: %v", err)
	}
	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Netns: red, IfName: "eth1"}); err != nil {
		t.Error(err)
	}
}

func TestDeletedNamespaceIsDetached(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	red, tan := l.netns(), l.netns()
	was := l.attach(api.AttachRequest{Netns: red})
	l.attach(api.AttachRequest{Netns: tan})
	l.sh("ip", "netns", "del", red)
	l.eventually("red is detached", func() bool { return len(l.links()) == 1 })
	l.consistent()

	// A namespace of the same name is another one, and gets what it asks for.
	l.sh("ip", "netns", "add", red)
	l.attach(api.AttachRequest{Netns: red, IP: was.Addresses[0].Addr()})
	l.pings(red, "10.77.0.1")

	// An interface that somebody deletes by hand is as gone.
	l.sh("ip", "-n", tan, "link", "del", "eth0")
	l.eventually("tan is detached", func() bool { return len(l.links()) == 1 })
}

func TestTwoAgentsSideBySide(t *testing.T) {
	one, two := newLab(t), newLab(t)
	one.start()
	two.start()
	one.apply(blue)
	two.apply(blue)
	red, tan := one.netns(), one.netns()
	a := one.attach(api.AttachRequest{Netns: red})
	b := two.attach(api.AttachRequest{Netns: tan})
	if a.Addresses[0] != b.Addresses[0] {
		t.Errorf("addresses %v and %v, of separate agents", a.Addresses, b.Addresses)
	}
	one.pings(red, "10.77.0.1")
	one.pings(tan, "10.77.0.1")
}

func TestOneAgentForEachDirectory(t *testing.T) {
	l := newLab(t)
	l.start()
	if err := Run(t.Context(), optionsIn(l.dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("second agent: %v, want ErrLocked", err)
	}
	// Another run directory does not make the state file free.
	o := optionsIn(l.dir)
	o.RunDir += "2"
	if err := Run(t.Context(), o); !errors.Is(err, ErrLocked) {
		t.Errorf("agent with the same state: %v, want ErrLocked", err)
	}
	o.RunDir = "/tmp/" + strings.Repeat("x", 90)
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("long path: %v", err)
	}
}

func TestQueriesTellEverything(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(`networks: [{name: blue, subnets: [10.77.0.0/24], echo: true}, {name: empty, subnets: [10.77.0.0/24]}]`)
	red := l.netns()
	at := l.attach(api.AttachRequest{Netns: red, Network: "blue"})
	l.pings(red, "10.77.0.1")
	ctx := t.Context()

	fdb, err := l.api.FDB(ctx, "blue")
	if err != nil || len(fdb) != 2 {
		t.Fatalf("fdb %v, %v", fdb, err)
	}
	kinds := map[string]string{fdb[0].Link: fdb[0].Kind, fdb[1].Link: fdb[1].Kind}
	if kinds["blue"] != "own" || kinds[red] != "static" {
		t.Errorf("fdb %v", fdb)
	}
	neigh, err := l.api.Neigh(ctx, api.ShowQuery{Words: []string{"nud", "permanent"}})
	if err != nil || len(neigh) != 1 || neigh[0].MAC != at.MAC {
		t.Errorf("neighbours %v, %v", neigh, err)
	}
	socks, err := l.api.Sockets(ctx, "blue")
	if err != nil || len(socks) == 0 {
		t.Errorf("sockets %v, %v", socks, err)
	}
	addrs, err := l.api.Addresses(ctx, "")
	if err != nil || len(addrs) != 3 {
		t.Errorf("addresses %v, %v", addrs, err)
	}
	nets, err := l.api.Networks(ctx, true)
	if err != nil || len(nets) != 2 || nets[0].Attachments != 1 || nets[0].Stats.TX.Packets+nets[0].Stats.RX.Packets == 0 {
		t.Errorf("networks %+v, %v", nets, err)
	}
	if link := l.links()[0]; link.Stats.RX.Packets == 0 || link.Stats.TX.Packets == 0 {
		t.Errorf("red's counters after a ping: %+v", link.Stats)
	}
	if _, err := l.api.FDB(ctx, "nope"); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("unknown network: %v", err)
	}
	s := l.status()
	if s.Dataplane.State != "running" || s.Networks != 2 || s.Attachments != 1 || s.Dataplane.Workers != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestClientThatGoesAwayStopsNothing(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	for range 5 {
		red := l.netns()
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = l.api.Attach(ctx, &api.AttachRequest{Netns: red})
		}()
		cancel()
		<-gone
	}
	// Whatever had begun is finished before this one is served.
	l.attach(api.AttachRequest{Netns: l.netns()})
	l.consistent()
}
