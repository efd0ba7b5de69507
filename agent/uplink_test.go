// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/netstack"
	"sluice/uplink"
	"sluice/veth"
)

// site is two networks of a namespace, and lines of the list of uplinks.
func site(uplinks ...string) string {
	text := `namespaces: [{name: shop}]
networks:
  - {name: web, namespace: shop, subnets: [10.77.0.0/24, "fd77::/64"]}
  - {name: db, namespace: shop, subnets: [10.78.0.0/24]}
  - {name: alone, subnets: [10.79.0.0/24]}
uplinks:
`
	for _, u := range uplinks {
		text += "  - " + u + "\n"
	}
	return text
}

func TestDeclareUplink(t *testing.T) {
	d := newDesk(t, site())
	got := d.declare(site(`{name: out, namespace: shop, addresses: [10.255.0.0/31, "fd01::1/127"], masquerade: true, clampMSS: pmtu}`))
	want := []string{
		"add uplink out type host dev sluice-out mtu 1500 addr 10.255.0.0/31 peer 10.255.0.1 addr fd01::1/127 peer fd01:: " +
			"default_route on host_routes on masquerade on forward off clamp_mss pmtu in shop",
		"add route default via 10.255.0.1 dev out proto static in shop",
		"add route default via fd01:: dev out proto static metric 1024 pref medium in shop",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	st := mustRead(t, d.store)
	rec := st.uplinkPort("out")
	if rec == nil || rec.State != api.StateCreating || fmt.Sprint(rec.Addresses) != "[10.255.0.1/31 fd01::/127]" {
		t.Fatalf("record is %+v", rec)
	}
	if st.containers() != 0 || !slices.Equal(st.attachable(), []string{"alone", "db", "web"}) {
		t.Errorf("%d containers, networks %v", st.containers(), st.attachable())
	}
	spec := st.namespaceSpec("shop", rec.ID)
	i := slices.IndexFunc(spec.Networks, func(n netstack.NetworkSpec) bool { return n.Name == "out" })
	n := spec.Networks[i]
	if p := n.Ports[0]; p.Guard != 0b1111_1101 || // all but ip
		fmt.Sprint(n.Addresses) != "[10.255.0.0/31 fd01::1/127]" || n.Device.ClampMSS != 1 {
		t.Errorf("network is %+v", n)
	}
	c := st.hostConfig(rec)
	if fmt.Sprint(c.Subnets) != "[10.78.0.0/24 10.77.0.0/24 fd77::/64]" || !c.Routes || !c.Masquerade || c.Forward {
		t.Errorf("on the host: %+v", c)
	}
}

// ready is what the agent does when all is made.
func (d *desk) ready() {
	d.t.Helper()
	err := d.store.update(func(t *txn) error {
		for _, a := range t.state.uplinks() {
			if a.State == api.StateDeleting {
				if err := t.dropAttachment(a.ID); err != nil {
					return err
				}
				continue
			}
			a.State = api.StateReady
			if err := t.putAttachment(a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// TestUplinkChanges tells what needs another pair from what doesn't.
func TestUplinkChanges(t *testing.T) {
	d := newDesk(t, site("{name: out, namespace: shop}"))
	d.ready()
	first := *mustRead(t, d.store).uplinkPort("out")
	if again := d.declare(site("{name: out, namespace: shop}")); len(again) != 0 {
		t.Errorf("the same file changes %v", again)
	}
	for _, tt := range []struct {
		line string
		same bool
	}{
		{"{name: out, namespace: shop, masquerade: true}", true},
		{"{name: out, namespace: shop, defaultRoute: false, rpFilter: loose}", true},
		{"{name: out, namespace: shop, hostRoutes: false, forward: true}", true},
		{"{name: out, namespace: shop, mtu: 9000}", false},
		{"{name: out, namespace: shop, mtu: 9000, ifname: x}", false},
		{"{name: out, namespace: shop, mtu: 9000, ifname: x, addresses: [10.255.0.0/31]}", false},
		{"{name: out, namespace: alone, mtu: 9000, ifname: x, addresses: [10.255.0.0/31]}", false},
	} {
		was := *mustRead(t, d.store).uplinkPort("out")
		if changes := d.declare(site(tt.line)); len(changes) == 0 {
			t.Errorf("%s changes nothing", tt.line)
		}
		st := mustRead(t, d.store)
		is := st.uplinkPort("out")
		old := st.find(func(a *attachmentRecord) bool { return a.ID == was.ID })
		if (is.ID == was.ID) != tt.same || !tt.same && (old == nil || old.State != api.StateDeleting || is.Port == was.Port) {
			t.Errorf("%s: was %+v, is %+v, the old one %+v", tt.line, was, is, old)
		}
		if n := st.network("out"); n.Port != first.Port-1 && n.Port != first.Port+1 {
			t.Errorf("%s: the device's number is %d now", tt.line, n.Port)
		}
		d.ready()
	}
	d.declare(site())
	if st := mustRead(t, d.store); st.network("out") != nil || st.uplinkPort("out") != nil || len(st.uplinks()) != 1 || st.routes["alone"].len() != 0 {
		t.Errorf("left: %+v", st.uplinks())
	}
}

func TestUplinkRefused(t *testing.T) {
	d := newDesk(t, site())
	text := strings.Replace(site("{name: out, namespace: shop, addresses: [10.255.0.0/31]}"), "{name: shop}", "{name: shop, routes: [default via 10.77.0.9]}", 1)
	if _, err := d.tryDeclare(text); err == nil || err.Error() != "line 7: uplinks[0].defaultRoute: file exists" {
		t.Errorf("with another default route: %v", err)
	}
	if st := mustRead(t, d.store); st.network("out") != nil {
		t.Error("something is left of what was refused")
	}
}

// TestPicks finds the first prefix that neither file nor host has, and stays with it.
func TestPicks(t *testing.T) {
	d := newDesk(t, site())
	d.host = &uplink.Survey{Addrs: []uplink.Held{{Prefix: netip.MustParsePrefix("100.127.0.1/31"), IfName: "eth0"}}}
	text := site(`{name: a, namespace: shop}`, "{name: b, namespace: alone, addresses: [100.127.0.2/31]}")
	d.declare(text)
	n := mustRead(t, d.store).network("a")
	if n.Gateways[0] != netip.MustParseAddr("100.127.0.4") || !n.Gateways[1].Is6() || n.Subnets[1].Bits() != 127 || n.Gateways[1].As16()[0] != 0xfd {
		t.Errorf("picked %v", n.ends())
	}
	d.ready()
	d.host = nil
	if again := d.declare(text); len(again) != 0 {
		t.Errorf("changes when the host does: %v", again)
	}
}

// newHostedLab is a lab whose agents run in a host of their own, which has the address
// 192.0.2.1, and a world behind it at 192.0.2.9, to which it doesn't forward.
func newHostedLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	l.inside = l.netns()
	world := l.netns()
	l.sh("ip", "-n", l.inside, "link", "add", "wan", "type", "veth", "peer", "name", "eth0", "netns", world)
	for _, x := range [][2]string{{l.inside, "wan"}, {world, "eth0"}} {
		n := map[string]string{"wan": "1", "eth0": "9"}[x[1]]
		l.sh("ip", "-n", x[0], "addr", "add", "192.0.2."+n+"/24", "dev", x[1])
		l.sh("ip", "-n", x[0], "link", "set", x[1], "up")
	}
	return l
}

// onHost runs a command on the host.
func (l *lab) onHost(args ...string) string {
	l.t.Helper()
	return l.sh(append([]string{"nsenter", "--net=/run/netns/" + l.inside, "--"}, args...)...)
}

// hostHas are the interfaces, routes and tables on the host that are Sluice's.
func (l *lab) hostHas() (links, routes, tables []string) {
	l.t.Helper()
	for line := range strings.Lines(l.onHost("ip", "-br", "link", "show", "type", "veth")) {
		if name, _, _ := strings.Cut(line, "@"); name != "wan" {
			links = append(links, name)
		}
	}
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(l.onHost("ip", family, "route", "show", "proto", "83")) {
			routes = append(routes, strings.Fields(line)[0])
		}
	}
	for line := range strings.Lines(l.onHost("nft", "list", "tables")) {
		tables = append(tables, strings.TrimSpace(strings.TrimPrefix(line, "table inet ")))
	}
	for _, list := range [][]string{links, routes, tables} {
		slices.Sort(list)
	}
	return links, routes, tables
}

func (l *lab) uplinks() []api.Uplink {
	l.t.Helper()
	all, err := l.api.Uplinks(l.t.Context(), api.ShowQuery{}, true)
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

// agrees checks that the host has what the uplinks say, and nothing else.
func (l *lab) agrees() {
	l.t.Helper()
	var wantLinks, wantRoutes, wantTables []string
	ends := l.hostEnds()
	for _, u := range l.uplinks() {
		if u.State != api.StateReady || u.Fault != "" {
			l.t.Errorf("uplink is %+v", u)
		}
		wantLinks = append(wantLinks, u.IfName)
		for _, p := range u.HostRoutes {
			if slices.ContainsFunc(u.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == p.Addr().Is4() }) {
				wantRoutes = append(wantRoutes, p.String())
			}
		}
		if u.Masquerade {
			wantTables = append(wantTables, u.IfName)
		}
		if _, there := ends[u.HostIfName]; !there {
			l.t.Errorf("uplink %s has no pair %s", u.Name, u.HostIfName)
		}
		delete(ends, u.HostIfName)
	}
	for _, k := range l.links() {
		delete(ends, k.HostIfName)
	}
	for name := range ends {
		l.t.Errorf("pair %s has no record", name)
	}
	links, routes, tables := l.hostHas()
	for _, list := range [][]string{wantLinks, wantRoutes, wantTables} {
		slices.Sort(list)
	}
	if diff := cmp.Diff([][]string{wantLinks, wantRoutes, wantTables}, [][]string{links, routes, tables}); diff != "" {
		l.t.Errorf("interfaces, routes and tables on the host (-want +got):\n%s", diff)
	}
}

func TestUplink(t *testing.T) {
	l := newHostedLab(t)
	l.process()
	l.apply(site(`{name: out, namespace: shop, masquerade: true, forward: true}`))
	web, db := l.netns(), l.netns()
	at := l.attach(api.AttachRequest{Netns: web, Network: "web"})
	l.attach(api.AttachRequest{Netns: db, Network: "db"})
	l.agrees()
	out := l.uplinks()[0]
	for _, to := range []string{"192.0.2.1", "192.0.2.9", out.Peers[0].String()} {
		l.pings(web, to)
		l.pings(db, to)
	}
	l.pings(web, out.Peers[1].String())
	l.pings(l.inside, at.Addresses[0].Addr().String(), at.Addresses[1].Addr().String(), "10.77.0.1")
	if s := l.status(); s.Networks != 3 || s.Attachments != 2 || s.Uplinks != 1 || !out.HostForwards {
		t.Errorf("status %+v, uplink %+v", s, out)
	}
	if n := len(l.links()); n != 2 {
		t.Errorf("%d links", n)
	}

	// Without what is asked for, it is not there.
	l.apply(site(`{name: out, namespace: shop, hostRoutes: false}`))
	l.agrees()
	l.silent(web, "192.0.2.9")
	l.apply(site(`{name: out, namespace: shop, masquerade: true, mtu: 9000, ifname: elsewhere}`))
	l.agrees()
	l.pings(web, "192.0.2.9")
	l.apply(strings.Replace(site(`{name: out, namespace: shop, masquerade: true, mtu: 9000, ifname: elsewhere}`),
		"  - {name: alone", "  - {name: more, namespace: shop, subnets: [10.80.0.0/24]}\n  - {name: alone", 1))
	l.agrees()
	l.apply(site())
	l.agrees()
	if links, routes, tables := l.hostHas(); len(links)+len(routes)+len(tables) != 0 {
		t.Errorf("left on the host: %v %v %v", links, routes, tables)
	}
	l.silent(web, "192.0.2.1")
	l.pings(web, "10.77.0.1")
}

// TestUplinkInTheWay refuses what collides, and then nothing has changed.
func TestUplinkInTheWay(t *testing.T) {
	l := newHostedLab(t)
	l.process()
	l.apply(site("{name: out, namespace: shop}"))
	l.onHost("ip", "link", "add", "taken", "type", "bridge")
	l.onHost("ip", "route", "add", "10.79.0.0/25", "via", "192.0.2.9")
	l.onHost("nft", "add", "table", "inet", "sluice-b")
	l.onHost("nft", "add", "chain", "inet", "sluice-b", "mine")
	for name, tt := range map[string]struct{ line, want string }{
		"interface": {"{name: b, namespace: alone, ifname: taken}", "uplinks[1]: in the way on the host: it has an interface taken"},
		"route":     {"{name: b, namespace: alone}", "its route to 10.79.0.0/25 by wan is in 10.79.0.0/24"},
		"addresses": {"{name: b, namespace: alone, hostRoutes: false, addresses: [192.0.2.4/31]}", "192.0.2.4/31 overlaps its address 192.0.2.1/24 on wan"},
		"table":     {"{name: b, namespace: alone, masquerade: true}", "uplinks[1].masquerade: in the way on the host: a table inet sluice-b is there"},
	} {
		before := l.onHost("ip", "-br", "addr")
		for _, dry := range []bool{true, false} {
			_, err := l.api.Apply(t.Context(), &api.ApplyRequest{YAML: site("{name: out, namespace: shop}", tt.line), DryRun: dry})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: error is %v", name, err)
			}
		}
		if after := l.onHost("ip", "-br", "addr"); after != before || len(l.uplinks()) != 1 {
			t.Errorf("%s: the host had\n%s, has\n%s", name, before, after)
		}
	}
	l.onHost("nft", "delete", "table", "inet", "sluice-b")
	l.agrees()
	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Name: "host:out"}); err == nil || !strings.Contains(err.Error(), "declared in the file") {
		t.Errorf("detach: %v", err)
	}
	if _, err := l.api.Attach(t.Context(), &api.AttachRequest{Netns: l.netns(), Network: "out"}); err == nil || !strings.Contains(err.Error(), `no network "out"`) {
		t.Errorf("attach: %v", err)
	}
}

// TestUplinkTakenBack makes a change of two uplinks fail in the middle: the first one
// has another pair by then.
func TestUplinkTakenBack(t *testing.T) {
	l := newHostedLab(t)
	l.process()
	l.apply(site("{name: out, namespace: shop}"))
	web := l.netns()
	l.attach(api.AttachRequest{Netns: web, Network: "web"})
	l.pings(web, "192.0.2.1")
	was := l.uplinks()[0]
	// A second name of an interface is one that no other can have, and is not looked for.
	l.onHost("ip", "link", "property", "add", "dev", "wan", "altname", "taken")
	_, err := l.api.Apply(t.Context(), &api.ApplyRequest{YAML: site("{name: out, namespace: shop, mtu: 9000, masquerade: true}", "{name: b, namespace: alone, ifname: taken}")})
	if err == nil || !strings.Contains(err.Error(), "uplink b: interface exists: taken") {
		t.Errorf("error is %v", err)
	}
	l.pings(web, "192.0.2.1")
	l.agrees()
	if is := l.uplinks(); len(is) != 1 || is[0].PeerMAC != was.PeerMAC || is[0].MTU != 1500 || is[0].Masquerade {
		t.Errorf("was %+v, is %+v", was, is)
	}
	l.pings(l.inside, "10.77.0.2")
}

// TestUplinkMended gets back an interface that was deleted, and a table.
func TestUplinkMended(t *testing.T) {
	l := newHostedLab(t)
	l.process()
	l.apply(site("{name: out, namespace: shop, masquerade: true}"))
	web := l.netns()
	l.attach(api.AttachRequest{Netns: web, Network: "web"})
	l.pings(web, "192.0.2.1")
	for range 2 {
		l.onHost("ip", "link", "del", "sluice-out")
		l.eventually("a new interface", func() bool {
			up := l.uplinks()
			return up[0].State == api.StateReady && strings.Contains(l.onHost("ip", "-br", "link"), "sluice-out")
		})
		l.agrees()
		l.pings(web, "192.0.2.1")
	}
	// A network that goes to a VRF is not behind the uplink any more.
	l.commands("vrf add red table 10", "link set db master red")
	l.agrees()
	if _, routes, _ := l.hostHas(); slices.Contains(routes, "10.78.0.0/24") {
		t.Errorf("routes are %v", routes)
	}
}

func (l *lab) commands(lines ...string) {
	l.t.Helper()
	var all []api.Command
	for _, line := range lines {
		words := strings.Fields(line)
		all = append(all, api.Command{Object: words[0], Words: words[1:]})
	}
	if _, err := l.api.Command(l.t.Context(), &api.CommandRequest{Namespace: "shop", Commands: all}); err != nil {
		l.t.Fatal(err)
	}
}

// TestStrayedUplink is found when the host is looked at.
func TestStrayedUplink(t *testing.T) {
	l := newHostedLab(t)
	agent := l.process()
	l.apply(site("{name: out, namespace: shop, masquerade: true}"))
	was := l.uplinks()[0]
	kill(agent)
	a := &Agent{}
	var err error
	if a.hostNS, err = veth.OpenNetNS(l.run("netns/sluice")); err != nil {
		t.Fatal(err)
	}
	defer a.hostNS.Close()
	if a.ownNS, err = veth.OpenNetNS(l.inside); err != nil {
		t.Fatal(err)
	}
	defer a.ownNS.Close()
	a.host = uplink.NewHost(a.ownNS)
	st := &state{attachments: []attachmentRecord{{Port: was.Port, IfName: was.IfName, State: api.StateReady, Uplink: true}}}
	for _, want := range []int{0, 1} {
		if lost, err := a.strayed(st); err != nil || len(lost) != want {
			t.Errorf("strayed: %v, %v", lost, err)
		}
		l.onHost("ip", "link", "set", "sluice-out", "down")
		if want == 0 {
			l.onHost("ip", "link", "set", "sluice-out", "name", "renamed")
			l.onHost("ip", "link", "add", "sluice-out", "type", "veth", "peer", "name", "another")
		}
	}
	l.onHost("ip", "link", "del", "sluice-out")
	l.process()
	l.agrees()
}

// TestUplinkRestored: agents follow each other by restart, by kill -9 of both, and by
// stop, with one thing or another missing on the host meanwhile.
func TestUplinkRestored(t *testing.T) {
	l := newHostedLab(t)
	agent := l.process()
	l.apply(site("{name: out, namespace: shop, masquerade: true}"))
	web := l.netns()
	l.attach(api.AttachRequest{Netns: web, Network: "web"})
	next := func(why string) {
		t.Helper()
		agent = l.process()
		l.agrees()
		l.pings(web, "192.0.2.1")
		if t.Failed() {
			t.Fatal(why)
		}
	}
	kill(agent)
	l.pings(web, "192.0.2.1")
	next("kill -9 of the agent")
	l.killPlane()
	kill(agent)
	next("kill -9 of both")
	kill(agent)
	l.onHost("nft", "flush", "ruleset")
	l.onHost("ip", "route", "flush", "proto", "83")
	next("rules and routes flushed")
	kill(agent)
	l.onHost("ip", "link", "del", "sluice-out")
	next("interface deleted")
	kill(agent)
	l.onHost("ip", "link", "set", "sluice-out", "down")
	l.onHost("ip", "link", "set", "sluice-out", "name", "renamed")
	next("interface renamed")
	if err := Stop(t.Context(), optionsIn(l.dir)); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if links, routes, tables := l.hostHas(); len(links)+len(routes)+len(tables) != 0 {
		t.Errorf("left on the host by a stop: %v %v %v", links, routes, tables)
	}
	next("stop")
	kill(agent)
	if err := Stop(t.Context(), optionsIn(l.dir)); err != nil { // from another host than the daemon's
		t.Fatal(err)
	}
	if links, _, _ := l.hostHas(); len(links) != 0 {
		t.Errorf("left on the host by a stop without an agent: %v", links)
	}
	next("stop without an agent")
	if _, err := os.Stat(filepath.Join(l.dir, "run", "netns")); err != nil {
		t.Error(err)
	}
}

// uplinkFiles are what TestKillAmongUplinks goes from and to.
func uplinkFiles() []string {
	return []string{
		site(),
		site("{name: out, namespace: shop}"),
		site("{name: out, namespace: shop, masquerade: true}"),
		site("{name: out, namespace: shop, masquerade: true, mtu: 1400}"),
		site("{name: out, namespace: shop, ifname: elsewhere, addresses: [10.255.0.0/31]}", "{name: b, namespace: alone, masquerade: true}"),
		site("{name: b, namespace: alone, hostRoutes: false}"),
	}
}

// TestKillAmongUplinks kills the agent with kill -9 while uplinks come, change and go,
// now and then the dataplane with it. After each start the host has what is recorded and
// nothing else, and it works.
func TestKillAmongUplinks(t *testing.T) {
	l := newHostedLab(t)
	agent := l.process()
	l.apply(site())
	web, alone := l.netns(), l.netns()
	l.attach(api.AttachRequest{Netns: web, Network: "web"})
	l.attach(api.AttachRequest{Netns: alone, Network: "alone"})
	hostWas := l.onHost("ip", "route", "show", "dev", "wan")
	files := uplinkFiles()
	l.kills(agent, 16, 250*time.Millisecond, 1, func(ctx context.Context, rnd *rand.Rand, _ int) {
		_, _ = l.api.Apply(ctx, &api.ApplyRequest{YAML: files[rnd.IntN(len(files))]})
	}, func() {
		l.agrees()
		for _, u := range l.uplinks() {
			if len(u.HostRoutes) > 0 {
				l.pings(map[string]string{"shop": web, "alone": alone}[u.Namespace], u.Peers[0].String())
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	})
	l.apply(site())
	l.agrees()
	if is := l.onHost("ip", "route", "show", "dev", "wan"); is != hostWas {
		t.Errorf("the host's routes were\n%s, are\n%s", hostWas, is)
	}
}
