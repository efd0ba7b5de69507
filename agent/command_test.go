// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/config"
	"sluice/routing"
	"sluice/uplink"
)

// shop is two namespaces, one of which has two networks and a link to the other.
const shop = `
namespaces:
  - name: shop
    tables: {blue: 100}
    links: [{name: to-edge, peer: {namespace: edge, link: to-shop}, addresses: [10.255.0.0/31]}]
  - name: edge
    links: [{name: to-shop, peer: {namespace: shop, link: to-edge}, addresses: [10.255.0.1/31]}]
networks:
  - {name: web, namespace: shop, subnets: [10.50.0.0/24, "fd50::/64"], snooping: {}}
  - {name: db, namespace: shop, subnets: [10.51.0.0/24]}
  - {name: alone, subnets: [10.50.0.0/24]}
`

// desk is a state file without a dataplane.
type desk struct {
	t     *testing.T
	store *store
	sets  sets
	path  string
	host  *uplink.Survey // what uplinks could collide with
}

func newDesk(t *testing.T, yaml string) *desk {
	t.Helper()
	d := &desk{t: t, path: filepath.Join(t.TempDir(), "state.db")}
	d.open()
	t.Cleanup(func() { d.store.Close() })
	d.declare(yaml)
	return d
}

func (d *desk) open() {
	d.t.Helper()
	s, err := openStore(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.store = s
}

// declare applies a file and returns the changes as text.
func (d *desk) declare(yaml string) []string {
	d.t.Helper()
	changes, err := d.tryDeclare(yaml)
	if err != nil {
		d.t.Fatal(err)
	}
	return changes
}

func (d *desk) tryDeclare(yaml string) ([]string, error) {
	d.t.Helper()
	c, err := config.ParseWith([]byte(yaml), func(name string) (*config.Ruleset, error) {
		return config.ReadRuleset(filepath.Join("..", "config", "testdata", "reference.yaml"), name)
	})
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	err = d.store.update(func(t *txn) error {
		t.host = d.host
		changes, err := t.declare(c, origin{}, &d.sets)
		for _, ch := range changes {
			out = append(out, ch.String())
		}
		return err
	})
	return out, err
}

// attach puts a ready attachment of a network into the file.
func (d *desk) attach(network, name string) {
	d.t.Helper()
	err := d.store.update(func(t *txn) error {
		rec, n, err := decide(t.state, &api.AttachRequest{Netns: name, Network: network, Name: name}, nsIdentity{Cookie: uint64(len(t.state.attachments) + 1)}, "id-"+name, nil)
		if err != nil {
			return err
		}
		rec.State = api.StateReady
		return errors.Join(t.putNetwork(n), t.putAttachment(rec))
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// do carries out commands, a line each, in the namespace shop.
func (d *desk) do(force bool, lines ...string) (*editor, error) {
	d.t.Helper()
	var all []api.Command
	for _, line := range lines {
		words := strings.Fields(line)
		all = append(all, api.Command{Object: words[0], Words: words[1:]})
	}
	var e *editor
	err := d.store.update(func(t *txn) (err error) {
		if e, err = newEditor(t, "shop", &d.sets); err != nil {
			return err
		}
		if err := e.run(all, force); err != nil {
			return err
		}
		return e.finish()
	})
	return e, err
}

func (d *desk) must(lines ...string) {
	d.t.Helper()
	if _, err := d.do(false, lines...); err != nil {
		d.t.Fatalf("%v: %v", lines, err)
	}
}

// shown is everything that is recorded of a namespace, as text. It is read from the
// file, and must build to the same routing again.
func (d *desk) shown(space string) string {
	d.t.Helper()
	d.store.Close()
	d.open()
	st, err := d.store.read()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := st.snapshot("").Validate(); err != nil {
		d.t.Error(err)
	}
	built, err := new(sets).of(st, space)
	if err != nil {
		d.t.Fatal(err)
	}
	kept, err := d.sets.of(st, space)
	if err != nil {
		d.t.Fatal(err)
	}
	if diff := cmp.Diff(printed(built), printed(kept)); diff != "" {
		d.t.Errorf("built anew, the routing differs:\n%s", diff)
	}
	return d.text(st, space)
}

func (d *desk) text(st *state, space string) string {
	var out []string
	rec := st.namespace(space)
	for _, r := range st.routes[space].routes() {
		out = append(out, "route "+rec.names().Route(&r))
	}
	out = append(out, ruleLines(rec.names(), lessRules(st.rules(rec, ""), firstRules(false)))...)
	out = append(out, lines(rec.Neighbours)...)
	out = append(out, lines(rec.VRFs)...)
	out = append(out, lines(rec.Links)...)
	for _, n := range st.in(space) {
		text := fmt.Sprintf("%s mtu %d vrf %s %s vlan %s", n.Name, n.MTU, n.VRF, strings.Join(n.Device.Words(), " "), vlanText(n.VLAN))
		out = append(out, text, words(n.Stations)+words(n.Groups))
		for _, a := range st.of(n.Name) {
			out = append(out, fmt.Sprintf("%s: %s vlan %s %s%s", a.Name, strings.Join(a.Settings.Words(), " "), vlanText(a.vlan(n)), words(a.Stations), words(a.Groups)))
		}
	}
	return strings.Join(slices.DeleteFunc(out, func(s string) bool { return s == "" }), "\n")
}

func printed(s *routing.Set) []string {
	var out []string
	for r := range s.Routes(0) {
		out = append(out, r.String())
	}
	for _, r := range rulesOf(s) {
		out = append(out, r.String())
	}
	return out
}

func TestCommandsChangeTheState(t *testing.T) {
	d := newDesk(t, shop)
	d.attach("web", "cart")
	d.attach("db", "store")
	d.must(
		"route add 10.0.0.0/8 via 10.50.0.9 metric 5 table blue",
		"route add default nexthop via 10.50.0.9 nexthop via 10.51.0.9 weight 3",
		"route append 10.0.0.0/8 via 10.51.0.9 metric 5 table blue",
		"route add 2001:db8::/32 via fd50::9",
		"route add blackhole 192.0.2.0/24",
		"route add 10.60.0.0/24 dev to-edge",
		"route replace 192.0.2.0/24 via 10.50.0.7",
		"rule add from 10.50.0.0/24 lookup blue",
		"rule add to fd99::/48 unreachable pref 7",
		"rule -6 add iif cart lookup blue pref 8",
		"neigh add 10.50.0.9 lladdr 02:00:00:00:00:09 dev web",
		"neigh replace 10.50.0.9 lladdr 02:00:00:00:00:0a dev web",
		"vrf add red table 10",
		"link set db master red rp_filter loose",
		"route add default via 10.51.0.5 vrf red",
		"link add x type veth peer name y netns alone",
		"addr add 10.254.0.1/30 dev x",
		"link set cart isolated on guard mac,ip table blue",
		"link set web mtu 1600 clamp_mss pmtu",
		"fdb add 02:00:00:00:00:99 dev cart vlan 10 master static",
		"mdb add dev web port cart grp 239.1.1.1 permanent",
		"vlan add dev cart vid 10 pvid untagged",
		"vlan add dev web vid 1 pvid untagged", "vlan add dev web vid 10-12",
	)
	got := d.shown("shop")
	wantLines := `
route default via 10.51.0.5 dev db table 10
route 10.0.0.0/8 via 10.50.0.9 dev web table blue metric 5
route 10.0.0.0/8 via 10.51.0.9 dev db table blue metric 5
route default
	nexthop via 10.50.0.9 dev web weight 1
	nexthop via 10.51.0.9 dev db weight 3
route 10.60.0.0/24 dev to-edge scope link
route 192.0.2.0/24 via 10.50.0.7 dev web
route 2001:db8::/32 via fd50::9 dev web metric 1024 pref medium
1000:	from all lookup [l3mdev-table]
32765:	from all iif cart lookup blue
32765:	from 10.50.0.0/24 lookup blue
-6 7:	from all to fd99::/48 unreachable
-6 8:	from all iif cart lookup blue
-6 1000:	from all lookup [l3mdev-table]
-6 32765:	from all iif cart lookup blue
10.50.0.9 dev web lladdr 02:00:00:00:00:0a PERMANENT
red table 10
to-edge peer to-shop netns edge mtu 1500 addr 10.255.0.0/31
x peer y netns alone mtu 1500 addr 10.254.0.1/30
db mtu 1500 vrf red rp_filter loose vlan none
store:  vlan none 
web mtu 1600 vrf  clamp_mss pmtu vlan pvid 1 tagged 10-12 untagged 1
cart: guard mac,ip isolated on table 100 vlan pvid 10 tagged none untagged 10 02:00:00:00:00:99 vlan 10 staticgrp 239.1.1.1 permanent`
	if diff := cmp.Diff(sorted(wantLines), sorted(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := d.shown("alone"); !strings.Contains(got, "y peer x netns shop mtu 1500") {
		t.Errorf("the peer's namespace has\n%s", got)
	}
}

func sorted(text string) []string {
	out := strings.Split(strings.TrimSpace(strings.ReplaceAll(text, "\n\t", " ")), "\n")
	slices.Sort(out)
	return out
}

func TestCommandsTakeBack(t *testing.T) {
	d := newDesk(t, shop)
	d.attach("web", "cart")
	before := d.shown("shop")
	d.must(
		"vrf add red table 10", "link set db master red", "link add x type veth peer name y netns alone",
		"route add 10.0.0.0/8 via 10.50.0.9", "route add 10.1.0.0/16 dev x", "route add 10.2.0.0/16 nexthop via 10.50.0.9 nexthop dev x",
		"rule add from 10.50.0.0/24 lookup 7 pref 5", "neigh add 10.50.0.9 lladdr 02:00:00:00:00:09 dev web",
		"link set cart table 7 isolated on", "fdb add 02:00:00:00:00:99 dev cart", "fdb add 02:00:00:00:00:98 dev cart vlan 3",
		"mdb add dev web port cart grp 239.1.1.1", "vlan add dev cart vid 10",
	)
	d.must("link del x")
	if got := d.shown("shop"); strings.Contains(got, "dev x") || !strings.Contains(got, "route 10.2.0.0/16 via 10.50.0.9 dev web") {
		t.Errorf("after the link is gone:\n%s", got)
	}
	d.must(
		"route del 10.0.0.0/8", "route flush 10.2.0.0/16", "rule del pref 5", "neigh flush dev web nud permanent", "link set cart table default isolated default",
		"fdb flush dev cart", "mdb del dev web port cart grp 239.1.1.1", "vlan flush dev cart", "link del red type vrf", "rule del pref 1000", "rule -6 del pref 1000",
	)
	if diff := cmp.Diff(sorted(before), sorted(d.shown("shop"))); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	d.must("rule add lookup 7 pref 5", "rule -6 add lookup 7 pref 5", "rule flush")
	if got := d.shown("shop"); strings.Contains(got, "\n5:\t") || !strings.Contains(got, "-6 5:\tfrom all lookup 7") {
		t.Errorf("after rule flush:\n%s", got)
	}
}

func TestRefusedCommandsLeaveNothing(t *testing.T) {
	d := newDesk(t, shop)
	d.attach("web", "cart")
	d.must("route add 10.0.0.0/8 via 10.50.0.9", "rule add lookup 7 pref 5", "link set cart table 7", "vrf add red table 10")
	before := d.shown("shop")
	for line, want := range map[string]string{
		"route add 10.0.0.0/8 via 10.50.0.8":                   "RTNETLINK answers: File exists",
		"route add 10.9.0.0/16 via 10.99.0.1":                  "Error: Nexthop has invalid gateway.",
		"route add 10.9.0.0/16 via 10.50.0.9 src 10.50.0.44":   "Error: Invalid prefsrc address.",
		"route add 10.9.0.0/16 dev none":                       `Cannot find device "none"`,
		"route add 10.9.0.0/16":                                "Error: No such device: neither gateway nor device given.",
		"route del 10.9.0.0/16":                                "RTNETLINK answers: No such process",
		"route change 10.9.0.0/16 via 10.50.0.9":               "RTNETLINK answers: No such file or directory",
		"route del 10.50.0.0/24 dev web":                       "RTNETLINK answers: Operation not permitted",
		"route replace 10.50.0.0/24 via 10.51.0.9":             "RTNETLINK answers: Operation not permitted",
		"route add 10.9.0.0/16 dev web proto kernel":           "RTNETLINK answers: Operation not permitted",
		"route add 10.9.0.0/16 via 10.50.0.9 table green":      `Error: argument "green" is wrong: no such table name`,
		"route add 10.9.0.0/16 via 10.50.0.9 vrf green":        `Error: argument "green" is wrong: no VRF of that name`,
		"route frobnicate":                                     `Error: argument "frobnicate" is wrong: want add, append, prepend, change, replace, del or flush`,
		"rule add lookup 7 pref 5":                             "RTNETLINK answers: File exists",
		"rule del pref 6":                                      "RTNETLINK answers: No such file or directory",
		"rule del iif cart":                                    "RTNETLINK answers: Operation not permitted",
		"neigh del 10.50.0.9 dev web":                          "RTNETLINK answers: No such file or directory",
		"neigh add 10.50.0.2 lladdr 02:00:00:00:00:09 dev web": "RTNETLINK answers: Operation not permitted",
		"neigh add 10.50.0.9 lladdr 02:00:00:00:00:09 dev x":   `Cannot find device "x"`,
		"vrf add red table 11":                                 "RTNETLINK answers: File exists",
		"vrf add blue table 10":                                "RTNETLINK answers: File exists",
		"vrf del blue":                                         `Cannot find device "blue"`,
		"link del web":                                         `Error: argument "web" is wrong: networks are declared in the file, see apply`,
		"link add x type veth peer name y netns nowhere":       `Error: argument "nowhere" is wrong: no namespace of that name`,
		"link add web type vrf table 3":                        "RTNETLINK answers: File exists",
		"link set web mtu 1000":                                `Error: argument "mtu" is wrong: the least is 1280`,
		"link set web mtu 1300":                                "Error: Network web can't be changed to mtu 1300: attached are cart.",
		"link set web isolated on":                             `Error: argument "isolated" is wrong: unknown word`,
		"link set cart rp_filter off":                          `Error: argument "rp_filter" is wrong: unknown word`,
		"link set cart mtu 1300":                               `Error: argument "cart" is wrong: mtu and network of a container are set when it is attached`,
		"link set cart mirror nobody":                          `Cannot find device "nobody"`,
		"link set web master blue":                             `Cannot find device "blue"`,
		"addr add 10.1.0.1/24 dev web":                         `Error: argument "web" is wrong: the addresses of a network are declared in the file, see apply`,
		"addr add 10.255.0.0/31 dev to-edge":                   "RTNETLINK answers: File exists",
		"addr del 10.255.0.9/31 dev to-edge":                   "Error: Cannot assign requested address.",
		"fdb del 02:00:00:00:00:99 dev cart":                   "RTNETLINK answers: No such file or directory",
		"fdb add 02:00:00:00:00:99 dev nobody":                 `Cannot find device "nobody"`,
		"fdb add 02:00:00:00:00:98 dev web":                    "RTNETLINK answers: Operation not supported",
		"vlan add dev db vid 10":                               "Error: The gateway needs a pvid, since it knows no tags.",
		"mdb add dev db port db grp 239.1.1.1":                 "RTNETLINK answers: Operation not supported",
		"mdb add dev db port cart grp 239.1.1.1":               `Cannot find device "cart"`,
		"mdb del dev web port cart grp 239.1.1.1":              "RTNETLINK answers: No such file or directory",
		"vlan del dev cart vid 3":                              "RTNETLINK answers: No such file or directory",
		"tunnel add":                                           `Error: argument "tunnel" is wrong: want route, rule, neigh, vrf, link, addr, fdb, vlan, mdb, publish, dns, service, qdisc, class, filter or tree`,
	} {
		// In the middle of others, which must not be carried out either.
		_, err := d.do(false, "route add 10.77.0.0/16 via 10.50.0.9", "vrf add pink table 77", line, "neigh add 10.50.0.77 lladdr 02:00:00:00:00:77 dev web")
		fault, ok := errors.AsType[*api.Error](err)
		if !ok || fault.Index == nil || *fault.Index != 2 || fault.Message != want {
			t.Errorf("%s: %+v, want %s", line, err, want)
		}
		e, err := d.do(true, line)
		if err != nil || len(e.failed) != 1 || e.failed[0] != (api.CommandFault{Index: 0, Message: want}) {
			t.Errorf("%s, forced: %v, %+v", line, err, e.failed)
		}
	}
	if diff := cmp.Diff(before, d.shown("shop")); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func TestForceLeavesOutWhatFails(t *testing.T) {
	d := newDesk(t, shop)
	e, err := d.do(true, "route add 10.1.0.0/16 via 10.50.0.9", "route add 10.1.0.0/16 via 10.50.0.8", "vrf add red", "route add 10.2.0.0/16 via 10.50.0.9")
	if err != nil {
		t.Fatal(err)
	}
	if len(e.failed) != 2 || e.failed[0].Index != 1 || e.failed[1].Index != 2 {
		t.Errorf("failed: %+v", e.failed)
	}
	if got := d.shown("shop"); !strings.Contains(got, "10.1.0.0/16 via 10.50.0.9") || !strings.Contains(got, "10.2.0.0/16") {
		t.Errorf("left is\n%s", got)
	}
}

// TestUndo takes a transaction back, as is done when the dataplane refuses it.
func TestUndo(t *testing.T) {
	d := newDesk(t, shop)
	d.must("route add 10.1.0.0/16 via 10.50.0.9", "vrf add red table 10")
	before := d.shown("shop")
	undo, err := d.store.attempt(func(tx *txn) error {
		e, err := newEditor(tx, "shop", &d.sets)
		if err != nil {
			return err
		}
		err = e.run([]api.Command{
			{Object: "route", Words: []string{"add", "10.2.0.0/16", "via", "10.50.0.9"}},
			{Object: "route", Words: []string{"replace", "10.1.0.0/16", "via", "10.50.0.8"}},
			{Object: "vrf", Words: []string{"del", "red"}},
		}, false)
		return errors.Join(err, e.finish())
	})
	if err != nil {
		t.Fatal(err)
	}
	if d.text(mustRead(t, d.store), "shop") == before {
		t.Fatal("nothing has changed")
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, d.shown("shop")); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func mustRead(t *testing.T, s *store) *state {
	t.Helper()
	st, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	return st
}
