// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/netstack"
	"sluice/routing"
)

// TestNeighbourFlush: as ip(8) does it, without a state what was set stays.
func TestNeighbourFlush(t *testing.T) {
	d := newDesk(t, shop)
	set := []string{
		"10.50.0.9 dev web lladdr 02:00:00:00:00:09 PERMANENT", "fd50::9 dev web lladdr 02:00:00:00:00:0a PERMANENT",
		"10.51.0.9 dev db lladdr 02:00:00:00:00:0b PERMANENT",
	}
	for line, want := range map[string][]string{
		"neigh flush all":                   set,
		"neigh flush dev web":               set,
		"neigh flush dev web nud stale":     set,
		"neigh flush dev web nud permanent": set[2:],
		"neigh flush to 10.0.0.0/8 nud all": set[1:2],
		"neigh -6 flush nud permanent":      {set[0], set[2]},
		"neigh -6 flush all nud permanent":  {set[0], set[2]},
		"neigh flush all nud all":           nil,
	} {
		d.declare(shop)
		d.must(
			"neigh add 10.50.0.9 lladdr 02:00:00:00:00:09 dev web", "neigh add fd50::9 lladdr 02:00:00:00:00:0a dev web",
			"neigh add 10.51.0.9 lladdr 02:00:00:00:00:0b dev db",
		)
		d.must(line)
		st, err := d.store.read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, lines(st.namespace("shop").Neighbours)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
		d.must("neigh flush all nud permanent")
	}
	if _, err := d.do(false, "neigh flush"); err == nil {
		t.Error("a flush of everything needs no word")
	}
}

// TestNeighboursAreAskedOnce: a batch of many lines asks the dataplane once a network,
// and what the states of a flush choose is forgotten.
func TestNeighboursAreAskedOnce(t *testing.T) {
	d := newDesk(t, shop)
	addr := netip.MustParseAddr
	asked := 0
	err := d.store.update(func(tx *txn) error {
		e, err := newEditor(tx, "shop", &d.sets)
		if err != nil {
			return err
		}
		e.learned = func(network string) []learned {
			asked++
			if network != "web" {
				return nil
			}
			return []learned{{addr("10.50.0.8"), "stale"}, {addr("10.50.0.7"), "reachable"}, {addr("fd50::8"), "stale"}}
		}
		for _, line := range []string{"del 10.50.0.8 dev web", "del 10.50.0.7 dev web", "flush dev web nud stale to 10.0.0.0/8", "-6 flush dev web"} {
			if err := e.neighbour(strings.Fields(line)); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
		want := []forgotten{{"web", addr("10.50.0.8")}, {"web", addr("10.50.0.7")}, {"web", addr("10.50.0.8")}, {"web", addr("fd50::8")}}
		if diff := cmp.Diff(want, e.forgotten, cmp.AllowUnexported(forgotten{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
	if err != nil || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

// TestStationFlush takes what the words name, and nothing else.
func TestStationFlush(t *testing.T) {
	d := newDesk(t, shop)
	d.attach("web", "cart")
	d.must("fdb add 02:00:00:00:00:99 dev cart vlan 10", "fdb add 02:00:00:00:00:98 dev cart vlan 11", "fdb flush dev cart vlan 11")
	if got := d.shown("shop"); !strings.Contains(got, "02:00:00:00:00:99 vlan 10") || strings.Contains(got, "vlan 11") {
		t.Errorf("after the flush:\n%s", got)
	}
}

// TestNoRulesAtAll: that a namespace has none is not that it has the first ones. The
// file, what is shown and what the dataplane is told must agree.
func TestNoRulesAtAll(t *testing.T) {
	d := newDesk(t, shop)
	for _, family := range []string{"-4", "-6"} {
		d.must("rule "+family+" del pref 0", "rule "+family+" flush")
	}
	d.shown("shop")
	st, err := d.store.read()
	if err != nil {
		t.Fatal(err)
	}
	if rules := st.rules(st.namespace("shop"), ""); rules == nil || len(rules) > 0 {
		t.Errorf("recorded are %v", ruleLines(nil, rules))
	}
	text, err := json.Marshal(st.snapshot(""))
	if err != nil {
		t.Fatal(err)
	}
	var told netstack.Snapshot
	if err := json.Unmarshal(text, &told); err != nil {
		t.Fatal(err)
	}
	for _, ns := range told.Namespaces {
		if none := ns.Routing.Rules != nil; none != (ns.Name == "shop") {
			t.Errorf("%s is told of %v", ns.Name, ns.Routing.Rules)
		}
	}
	set, err := new(sets).of(st, "shop")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(set.Rules(routing.IPv4)) + len(set.Rules(routing.IPv6)); n > 0 {
		t.Errorf("built are %d", n)
	}
}

// TestAddressOfAnother: the command is at fault, and -force can go on without it.
func TestAddressOfAnother(t *testing.T) {
	d := newDesk(t, shop)
	e, err := d.do(true, "addr add 10.51.0.1/24 dev to-edge", "addr add 10.254.0.1/30 dev to-edge")
	if err != nil {
		t.Fatal(err)
	}
	if len(e.failed) != 1 || e.failed[0].Index != 0 || !strings.Contains(e.failed[0].Message, "the address of db") {
		t.Errorf("failed: %+v", e.failed)
	}
}

// TestLinkDeleteReadsAllWords: a word too many is not passed over when it would cost
// a device.
func TestLinkDeleteReadsAllWords(t *testing.T) {
	d := newDesk(t, shop)
	for _, line := range []string{"link del to-edge foo", "link del to-edge type", "link del to-edge type bogus", "link del dev to-edge x y"} {
		if _, err := d.do(false, line); err == nil {
			t.Errorf("%s: accepted", line)
		}
	}
}

// TestNeighbourOfALaterContainer: what was set of an address that nobody had does not
// hide the container that is given it.
func TestNeighbourOfALaterContainer(t *testing.T) {
	d := newDesk(t, shop)
	d.must("neigh add 10.50.0.2 lladdr 02:00:00:00:00:09 dev web", "neigh add 10.50.0.9 lladdr 02:00:00:00:00:0a dev web")
	d.attach("web", "cart")
	told := func() string {
		st, err := d.store.read()
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, n := range st.routingSpec(st.namespace("shop"), "").Neighbours {
			out = append(out, n.Addr.String())
		}
		return strings.Join(out, " ")
	}
	if got := told(); got != "10.50.0.9" {
		t.Errorf("told are %q, though cart has 10.50.0.2", got)
	}
	if err := d.store.update(func(t *txn) error { return t.dropAttachment("id-cart") }); err != nil {
		t.Fatal(err)
	}
	if got := told(); got != "10.50.0.2 10.50.0.9" {
		t.Errorf("with cart gone told are %q", got)
	}
}

// TestDeviceNamedAsAPort: a rule that means the port must not come to mean the device.
func TestDeviceNamedAsAPort(t *testing.T) {
	d := newDesk(t, shop)
	d.attach("web", "cart")
	for _, line := range []string{"vrf add cart table 10", "link add cart type veth peer name y netns alone"} {
		if _, err := d.do(false, line); err == nil || !strings.Contains(err.Error(), "RTNETLINK answers: File exists") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
