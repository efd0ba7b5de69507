// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/router"
	"sluice/routing"
)

// TestRoutesTravelAsText sends all kinds of routes and builds the same routing of
// what arrives.
func TestRoutesTravelAsText(t *testing.T) {
	spec := NamespaceSpec{Networks: []NetworkSpec{{
		Name: "blue", Bridge: BridgeSpec{Index: 1, MTU: 1500}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("fd01::1/64")},
	}}}
	base := spec.RouterSpec()
	set, err := router.BuildSet(&base)
	if err != nil {
		t.Fatal(err)
	}
	var changes []routing.Change
	for line := range strings.SplitSeq(strings.TrimSpace(`
		add default via 10.1.0.9
		add 10.2.0.0/16 via 10.1.0.9 metric 5 table 100 mtu lock 1400 advmss 1300 src 10.1.0.1 proto static
		append 10.2.0.0/16 via 10.1.0.8 metric 5 table 100
		add 10.3.0.0/16 dev blue scope link
		add 10.4.0.0/16 nexthop via 10.1.0.9 weight 3 nexthop via 10.1.0.8 onlink dev blue nexthop dev blue
		add blackhole 10.5.0.0/16
		add throw 10.6.0.0/16 table 7
		add local 10.7.0.1 dev blue
		add 10.8.0.0/16 via inet6 fd01::9
		add fd02::/48 via fd01::9
		append fd02::/48 via fd01::8
		add fd03::/48 dev blue metric 7
		add prohibit fd04::/48
		add ::/0 dev blue metric 9
		add blackhole ::/0 table 9
		add default via fe80::9 dev blue table 100`), "\n") {
		c, err := routing.ParseRoute(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, c)
	}
	if set, err = set.Apply(changes); err != nil {
		t.Fatal(err)
	}
	for r := range set.Routes(0) {
		if r.Proto != routing.ProtoKernel {
			spec.Routing.Routes = append(spec.Routing.Routes, *r)
		}
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var arrived NamespaceSpec
	if err := json.Unmarshal(text, &arrived); err != nil {
		t.Fatal(err)
	}
	far := arrived.RouterSpec()
	again, err := router.BuildSet(&far)
	if err != nil {
		t.Fatal(err)
	}
	want, got := details(set), details(again)
	if !slices.Equal(want, got) {
		t.Errorf("sent\n%s\narrived\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// details are the routes of a Set with all that they state.
func details(s *routing.Set) (out []string) {
	for r := range s.Routes(0) {
		c := *r
		c.NextHops = nil
		line := fmt.Sprintf("%+v", c)
		for _, h := range r.NextHops {
			line += fmt.Sprintf(" %v %s %d %v %d", h.Via, h.Dev, h.Weight, h.Onlink, h.Index)
		}
		out = append(out, line)
	}
	return out
}
