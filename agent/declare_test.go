// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"sluice/api"
	"sluice/config"
	"sluice/iproute"
)

func TestReferenceFileApplies(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "config", "testdata", "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk(t, string(text))
	d.attach("db", "store")
	st := mustRead(t, d.store)
	spec := st.namespaceSpec("shop", "")
	if n := spec.Networks[0]; n.Name != "db" || len(n.Bridge.Static) != 1 || len(n.Bridge.Groups) != 1 || n.VRF != "red" {
		t.Errorf("db is %+v", n)
	}
	if again := d.declare(string(text)); len(again) != 0 {
		t.Errorf("the same file changes %v", again)
	}
	d.shown("shop")
	d.shown("edge")
}

func TestDeclareNamespaces(t *testing.T) {
	d := newDesk(t, shop)
	d.must("route add 10.1.0.0/16 via 10.50.0.9", "rule add lookup 7 pref 5")
	more := strings.Replace(shop, "tables: {blue: 100}", `tables: {blue: 100, green: 101}
    routes: [10.2.0.0/16 via 10.50.0.9 table green, 10.3.0.0/16 dev to-edge]
    rules: [from 10.50.0.0/24 lookup green]
    neighbours: [10.50.0.9 dev web lladdr 02:00:00:00:00:09]
    vrfs: [{name: red, table: 10, devices: [db]}]`, 1)
	want := []string{
		"change db: vrf none to red", "add table green 101 in shop", "add neighbour 10.50.0.9 dev web lladdr 02:00:00:00:00:09 PERMANENT in shop",
		"add vrf red table 10 in shop",
		"remove rule 5: from all lookup 7 in shop",
		"add rule 1000: from all lookup [l3mdev-table] in shop", "add rule 32765: from 10.50.0.0/24 lookup green in shop", "add rule -6 1000: from all lookup [l3mdev-table] in shop",
		"remove route 10.1.0.0/16 via 10.50.0.9 dev web in shop",
		"add route 10.2.0.0/16 via 10.50.0.9 dev web table green in shop", "add route 10.3.0.0/16 dev to-edge scope link in shop",
	}
	for i := range want {
		want[i] = strings.Replace(want[i], "32765: from 10.50", "999: from 10.50", 1)
	}
	got := d.declare(more)
	if diff := cmp.Diff(sorted(strings.Join(want, "\n")), sorted(strings.Join(got, "\n"))); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	was := mustRead(t, d.store).namespace("shop").VRFs[0].Index
	if again := d.declare(more); len(again) != 0 || mustRead(t, d.store).namespace("shop").VRFs[0].Index != was {
		t.Errorf("the same file changes %v", again)
	}
	d.shown("shop")
	got = d.declare(`networks: [{name: shop, subnets: [10.50.0.0/24]}]`)
	for _, line := range []string{"remove web", "remove namespace edge", "remove vrf red table 10 in shop", "remove route 10.3.0.0/16 dev to-edge scope link in shop"} {
		if !strings.Contains(strings.Join(got, "\n"), line) {
			t.Errorf("%q is not among %v", line, got)
		}
	}
	if st := mustRead(t, d.store); len(st.namespaces) != 0 || st.routes["shop"].len() != 0 || len(st.spaces()) != 1 {
		t.Errorf("left is %+v", st)
	}
}

func TestDeclareRefusesNamespaces(t *testing.T) {
	edit := func(line string) string { return strings.Replace(shop, "tables: {blue: 100}", line, 1) }
	for name, tt := range map[string]struct{ yaml, want string }{
		"gateway on no link": {edit("routes: [10.2.0.0/16 via 10.99.0.1]"), "line 4: namespaces[0].routes[0]: nexthop has invalid gateway: 10.99.0.1 is on no link"},
		"route twice": {
			edit("routes:\n      - 10.2.0.0/16 via 10.50.0.9\n      - 10.2.0.0/16 via 10.50.0.8"), "line 6: namespaces[0].routes[1]: file exists",
		},
		"route of the kernel": {
			edit("routes: [10.2.0.0/16 via 10.50.0.9 proto kernel]"), "line 4: namespaces[0].routes[0]: proto kernel is what the namespace makes of its own addresses",
		},
		"backward goto": {edit("rules: [goto 5 priority 9]"), "line 4: namespaces[0].rules[0]: backward goto not supported: from 9 to 5"},
		"moved":         {strings.Replace(shop, "alone,", "alone, namespace: edge,", 1), "network alone can't be moved to namespace edge: attached are cart"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, shop)
			d.attach("alone", "cart")
			before := d.shown("shop")
			_, err := d.tryDeclare(tt.yaml)
			e, ok := errors.AsType[*api.Error](err)
			if !ok || e.Message != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if diff := cmp.Diff(before, d.shown("shop")); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
		})
	}
}

// TestManyRoutes keeps the times of a large table bounded, far above what they are.
func TestManyRoutes(t *testing.T) {
	const routes = 100_000
	var b strings.Builder
	b.WriteString("networks: [{name: shop, subnets: [10.50.0.0/24]}]\nnamespaces:\n  - name: shop\n    routes:\n")
	for i := range routes {
		fmt.Fprintf(&b, "      - 11.%d.%d.%d/32 via 10.50.0.9 metric 5\n", i>>16, i>>8&255, i&255)
	}
	lap := func(what string, begin time.Time) {
		t.Helper()
		t.Logf("%s: %v", what, time.Since(begin))
		if time.Since(begin) > 30*time.Second {
			t.Errorf("%s took %v", what, time.Since(begin))
		}
	}
	begin := time.Now()
	d := newDesk(t, "networks: []")
	changes := d.declare(b.String())
	lap("declare", begin)
	if n := len(changes); n != 2+mostListed+1 || changes[n-1] != fmt.Sprintf("add route and %d more in shop", routes-mostListed) {
		t.Errorf("changes: %v", changes)
	}
	begin = time.Now()
	d.declare(b.String())
	lap("declare the same", begin)
	begin = time.Now()
	d.must("route add 12.0.0.0/8 via 10.50.0.9")
	lap("one route more", begin)
	begin = time.Now()
	d.must("route flush root 11.0.0.0/9")
	lap("flush", begin)
	d.store.Close()
	d.open()
	d.sets = sets{}
	begin = time.Now()
	st := mustRead(t, d.store)
	if _, err := d.sets.of(st, "shop"); err != nil || st.routes["shop"].len() != 1 {
		t.Errorf("%d routes, %v", st.routes["shop"].len(), err)
	}
	lap("read again", begin)
}

// TestOldStateFile reads what the version before namespaces has written.
func TestOldStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]map[string]string{
		"meta": {"version": "1"},
		"networks": {"blue-with-a-long-name": `{"name":"blue-with-a-long-name","subnets":["10.77.0.0/24","fd77::/64"],"gateways":["10.77.0.1","fd77::1"],"mtu":1500,` +
			`"ageing_seconds":300,"fdb_max":4096,"fdb_max_per_port":1024,"echo":false,"port":1,"mac":"02:00:00:00:00:01","last":["10.77.0.2","fd77::2"]}`},
		"attachments": {"4f": `{"id":"4f","name":"red","network":"blue-with-a-long-name","netns":"/run/netns/red","ns":{"boot":"b","cookie":7},"ifname":"eth0",` +
			`"port":2,"mac":"02:00:00:00:00:02","mtu":1500,"addresses":["10.77.0.2/24","fd77::2/64"],"offload":true,"state":"ready"}`},
	}
	if err := db.Update(func(tx *bbolt.Tx) error {
		for bucket, all := range records {
			b, err := tx.CreateBucket([]byte(bucket))
			for key, value := range all {
				err = errors.Join(err, b.Put([]byte(key), []byte(value)))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st := mustRead(t, s)
	snap := st.snapshot("")
	if err := snap.Validate(); err != nil {
		t.Fatal(err)
	}
	ns := snap.Namespaces[0]
	if len(snap.Namespaces) != 1 || ns.Name != "blue-with-a-long-name" || len(ns.Networks) != 1 || ns.Routing.Rules != nil || st.seed == 0 {
		t.Errorf("namespaces: %+v", snap.Namespaces)
	}
	p := ns.Networks[0].Ports[0]
	if p.Guard != iproute.Settings(nil).Guard() || p.Guard == 0 || p.Flags != iproute.Settings(nil).Flags() || p.VLAN.Aware() || p.Device != "red" {
		t.Errorf("port: %+v", p)
	}
	set, err := new(sets).of(st, ns.Name)
	if err != nil || set.Len() == 0 {
		t.Fatalf("routing: %v, %v", set, err)
	}
	c, err := config.Parse([]byte(`networks: [{name: blue-with-a-long-name, subnets: [10.77.0.0/24, "fd77::/64"]}]`))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.update(func(tx *txn) error {
		changes, err := tx.declare(c, origin{}, new(sets))
		if len(changes) != 0 {
			t.Errorf("the file that made it changes %v", changes)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestPortsHaveNamesForRules(t *testing.T) {
	d := newDesk(t, shop)
	for _, name := range []string{"cart", "db", "a-name-that-is-too-long-for-a-device", "sl3", "odd.name"} {
		d.attach("web", name)
	}
	st := mustRead(t, d.store)
	devices, seen := st.portDevices("shop"), map[string]bool{}
	for _, a := range st.attachedIn("shop") {
		want := a.Name
		if a.Name == "db" || len(a.Name) > 15 || a.Name == "sl3" {
			want = a.hostIfName()
		}
		got := devices[a.ID]
		if got != want || seen[got] {
			t.Errorf("%s is %q to rules, want %q", a.Name, got, want)
		}
		seen[got] = true
	}
	d.must("rule add iif cart lookup 7", "rule add iif "+devices["id-db"]+" lookup 8")
	if err := st.snapshot("").Validate(); err != nil {
		t.Error(err)
	}
	if _, known := mustRead(t, d.store).namespace("shop").names().Table("blue"); !known {
		t.Error("a command has forgotten the names of tables")
	}
}
