// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sluice/api"
)

// TestTwoNamespacesWithTheSameAddresses has a container in each of two networks with
// the same subnet, and one in both, with a routing table of its own for the second.
func TestTwoNamespacesWithTheSameAddresses(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(`networks: [{name: a, subnets: [10.77.0.0/24, "fd77::/64"]}, {name: b, subnets: [10.77.0.0/24, "fd77::/64"]}]`)
	inA, inB, both := l.netns(), l.netns(), l.netns()
	peer := netip.MustParseAddr("10.77.0.50")
	l.attach(api.AttachRequest{Netns: inA, Network: "a", IP: peer})
	l.attach(api.AttachRequest{Netns: inB, Network: "b", IP: peer})
	first := l.attach(api.AttachRequest{Netns: both, Network: "a", IP: netip.MustParseAddr("10.77.0.60")})
	second := l.attach(api.AttachRequest{Netns: both, Network: "b", IfName: "eth1", IP: netip.MustParseAddr("10.77.0.70"), RouteTable: 100})
	if len(first.Gateways) != 2 || len(second.Gateways) != 2 || second.RouteTable != 100 {
		t.Errorf("gateways %v and %v", first.Gateways, second.Gateways)
	}
	for _, from := range []string{"10.77.0.60", "10.77.0.70"} {
		l.sh("ip", "netns", "exec", both, "ping", "-n", "-c", "1", "-W", "1", "-I", from, peer.String())
	}
	for at, want := range map[string]string{inA: "10.77.0.60", inB: "10.77.0.70"} {
		neigh := l.sh("ip", "-n", at, "neigh")
		other := map[string]string{"10.77.0.60": "10.77.0.70", "10.77.0.70": "10.77.0.60"}[want]
		if !strings.Contains(neigh, want+" ") || strings.Contains(neigh, other+" ") {
			t.Errorf("%s was reached from %s, but knows\n%s", at, want, neigh)
		}
	}
	if rules := l.sh("ip", "-n", both, "rule"); !strings.Contains(rules, "from 10.77.0.70 lookup 100") {
		t.Errorf("rules:\n%s", rules)
	}
	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Netns: both, IfName: "eth1"}); err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"-4", "-6"} {
		if rules := l.sh("ip", family, "-n", both, "rule"); strings.Contains(rules, "lookup 100") {
			t.Errorf("rules after detach:\n%s", rules)
		}
	}
}

// TestBareInterface leaves a container alone with its interface, and lets it in when
// it has configured itself.
func TestBareInterface(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	netns := l.netns()
	a := l.attach(api.AttachRequest{Netns: netns, Configure: "none"})
	if text := l.sh("ip", "-n", netns, "-4", "addr", "show", "eth0"); strings.Contains(text, "inet") || len(a.Gateways) != 0 {
		t.Errorf("it has %s, and gateways %v", text, a.Gateways)
	}
	l.sh("ip", "-n", netns, "addr", "add", a.Addresses[0].String(), "dev", "eth0")
	l.pings(netns, "10.77.0.1")
}

// TestRoutingByCommands reaches one network from another, and takes a container's way
// from the table of its own.
func TestRoutingByCommands(t *testing.T) {
	l := newLab(t)
	stop := l.start()
	l.apply(crashShop)
	web, db := l.netns(), l.netns()
	l.attach(api.AttachRequest{Netns: web, Network: "web", Name: "cart", Table: "blue"})
	store := l.attach(api.AttachRequest{Netns: db, Network: "db", Name: "store"})
	to := store.Addresses[0].Addr().String()
	l.pings(web, to)
	l.command1("route add blackhole 10.78.0.0/24 table blue")
	l.silent(web, to)
	if links := l.links(); links[0].Device != "cart" || links[0].Settings.Table != "blue" || links[0].Namespace != "shop" {
		t.Errorf("cart is %+v", links[0])
	}
	stop()
	l.start()
	l.silent(web, to)
	l.command1("link set cart table default")
	l.pings(web, to)
}

func (l *lab) command1(line string) {
	l.t.Helper()
	words := strings.Fields(line)
	if _, err := l.api.Command(l.t.Context(), &api.CommandRequest{Namespace: "shop", Commands: []api.Command{{Object: words[0], Words: words[1:]}}}); err != nil {
		l.t.Fatalf("%s: %v", line, err)
	}
}

// TestNeighboursAreForgotten deletes what was learned and what was set.
func TestNeighboursAreForgotten(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(crashShop)
	web := l.netns()
	l.attach(api.AttachRequest{Netns: web, Network: "web", Name: "cart"})
	l.pings(web, "fd77::1")
	learned := func() (out []string) {
		all, err := l.api.Neigh(t.Context(), api.ShowQuery{Namespace: "shop", Words: []string{"to", "fe80::/10"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range all {
			out = append(out, n.Dst)
		}
		return out
	}
	l.eventually("the gateway has learned the container's link-local address", func() bool {
		_ = exec.Command("ip", "netns", "exec", web, "ping", "-n", "-c", "1", "-W", "1", "-I", "eth0", "ff02::2").Run()
		return len(learned()) == 1
	})
	l.command1("neigh del " + learned()[0] + " dev web")
	if left := learned(); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

// TestLists holds the lines, which are ip(8)'s and bridge(8)'s.
func TestLists(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(strings.Replace(crashShop, "subnets: [10.78.0.0/24]", "subnets: [10.78.0.0/24], snooping: {}, vlan: {pvid: 1}", 1))
	l.attach(api.AttachRequest{
		Netns: l.netns(), Network: "db", Name: "store", MAC: "02:00:00:00:00:07", VLAN: []string{"vid 1 pvid untagged", "vid 20-29"},
		FDB: []string{"02:00:00:00:00:99 vlan 20"}, MDB: []string{"239.1.1.1 vid 1"}, Set: []string{"isolated", "on"}, Table: "blue",
	})
	for _, line := range []string{
		"route add 10.0.0.0/8 via 10.77.0.9 metric 5 table blue", "route add default nexthop via 10.77.0.9 weight 2 nexthop via 10.78.0.9",
		"rule add from 10.78.0.0/24 lookup blue pref 7", "neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev web", "vrf add red table 1000",
	} {
		l.command1(line)
	}
	show := func(words string) api.ShowQuery {
		return api.ShowQuery{Namespace: "shop", Words: strings.Fields(words)}
	}
	ctx := t.Context()
	for what, tt := range map[string]struct {
		list func() (any, error)
		want string
	}{
		"route": {func() (any, error) { return l.api.Routes(ctx, show("")) }, "default\n\tnexthop via 10.77.0.9 dev web weight 2\n\tnexthop via 10.78.0.9 dev db weight 1\n" +
			"10.77.0.0/24 dev web proto kernel scope link src 10.77.0.1\n10.78.0.0/24 dev db proto kernel scope link src 10.78.0.1"},
		"route table blue": {func() (any, error) { return l.api.Routes(ctx, show("table blue")) }, "10.0.0.0/8 via 10.77.0.9 dev web metric 5"},
		"route dev":        {func() (any, error) { return l.api.Routes(ctx, show("dev db")) }, "default\n\tnexthop via 10.77.0.9 dev web weight 2\n\tnexthop via 10.78.0.9 dev db weight 1\n10.78.0.0/24 proto kernel scope link src 10.78.0.1"},
		"route -6":         {func() (any, error) { return l.api.Routes(ctx, show("-6 fd77::/64")) }, "fd77::/64 dev web proto kernel metric 256 pref medium"},
		"rule":             {func() (any, error) { return l.api.Rules(ctx, show("")) }, "0:\tfrom all lookup local\n7:\tfrom 10.78.0.0/24 lookup blue\n1000:\tfrom all lookup [l3mdev-table]\n32765:\tfrom all iif store lookup blue\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default"},
		"neigh":            {func() (any, error) { return l.api.Neigh(ctx, show("to 10.77.0.0/24")) }, "10.77.0.9 dev web lladdr 02:00:00:00:00:09 PERMANENT"},
		"neigh dev":        {func() (any, error) { return l.api.Neigh(ctx, show("dev db")) }, "10.78.0.2 dev db lladdr 02:00:00:00:00:07 PERMANENT"},
		"vrf":              {func() (any, error) { return l.api.VRFs(ctx, show("")) }, "red              1000"},
		"fdb":              {func() (any, error) { return l.api.Stations(ctx, show("dev store static vlan 20")) }, "02:00:00:00:00:99 dev store vlan 20 master db static"},
		"vlan":             {func() (any, error) { return l.api.VLANs(ctx, show("")) }, "db                1 PVID Egress Untagged\nstore             1 PVID Egress Untagged\n                  20-29"},
		"mdb": {func() (any, error) {
			all, err := l.api.MDB(ctx, show("dev db vid 1"))
			return slices.DeleteFunc(all, func(e api.MDBEntry) bool { return e.State == "temp" }), err // what the container has joined
		}, "dev db port store grp 239.1.1.1 permanent vid 1"},
		"link": {func() (any, error) { return l.api.Devices(ctx, show("store")) }, "3: store: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 master db state UP"},
		"get": {func() (any, error) {
			g, err := l.api.RouteGet(ctx, show("10.9.9.9 from 10.78.0.2 iif db"))
			return []*api.RouteGet{g}, err
		}, "10.9.9.9 from 10.78.0.2 iif db via 10.77.0.9 dev web table blue\n" +
			"    rule  7: from 10.78.0.0/24 lookup blue\n    route 10.0.0.0/8 via 10.77.0.9 dev web table blue metric 5"},
	} {
		got, err := tt.list()
		if text := linesOf(t, got); err != nil || text != tt.want {
			t.Errorf("%s: %v\n got %q\nwant %q", what, err, text, tt.want)
		}
	}
	for path, words := range map[string]string{"routes": "table nowhere", "rules": "dev x", "neigh": "frobnicate", "get": "10.0.0.1 iif nowhere"} {
		var err error
		switch path {
		case "routes":
			_, err = l.api.Routes(ctx, show(words))
		case "rules":
			_, err = l.api.Rules(ctx, show(words))
		case "neigh":
			_, err = l.api.Neigh(ctx, show(words))
		case "get":
			_, err = l.api.RouteGet(ctx, show(words))
		}
		if code := api.CodeOf(err); code != api.CodeInvalid && code != api.CodeNotFound {
			t.Errorf("%s %s: %v", path, words, err)
		}
	}
	all, err := l.api.Namespaces(ctx)
	if err != nil || fmt.Sprint(all) != "[{edge [] [] [] [] map[] 0 5} {shop [db web] [] [] [red] map[blue:100] 2 10}]" {
		t.Errorf("namespaces: %v, %v", all, err)
	}
}

// linesOf are the lines of a list's entries.
func linesOf(t *testing.T, list any) string {
	t.Helper()
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	var entries []struct{ Line string }
	if err := json.Unmarshal(text, &entries); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Line)
	}
	return strings.Join(out, "\n")
}
