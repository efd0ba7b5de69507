// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever the words are: they are refused, or what they say is refused by every
// Set, or it can be printed and parsed again to the same.
func FuzzParse(f *testing.F) {
	for _, l := range []string{
		"route add 10.0.0.0/8 via 10.1.0.1 metric 5 table blue",
		"route append default nexthop via 10.1.0.1 weight 3 nexthop via inet6 fe80::1 dev p2 onlink mtu lock 1400",
		"-6 route replace default via fe80::1 dev p1 advmss 1200 pref medium", "route add local 10/8 table main scope link proto 77",
		"route add blackhole fd00::/8 dev lo", "route flush table all root 10/8",
		"rule add pref 7 not from 10.0.0.0/8 fwmark 1/3 iif lo ipproto udp dport 1-9 lookup blue suppress_prefixlength 8",
		"-6 rule add goto 9 tos 0x10", "rule add l3mdev protocol static", "rule del pref 0", "ro c unreachable any",
	} {
		f.Add(l)
	}
	names := testNames(f)
	f.Fuzz(func(t *testing.T, line string) {
		c, err := names.Parse(line)
		if err != nil {
			return
		}
		switch {
		case c.Route != nil:
			routeAgain(t, names, c.Route)
		case c.Rule != nil:
			ruleAgain(t, names, c.Rule)
		}
		if n, err := newWorld(t).Apply([]Change{c}); err == nil && n.Len() != len(shown(n, 0)) {
			t.Errorf("Len %d of %d routes", n.Len(), len(shown(n, 0)))
		}
	})
}

func routeAgain(t *testing.T, names *Names, r *Route) {
	t.Helper()
	want, err := r.complete()
	if err != nil {
		return
	}
	family := map[bool]string{false: "-4", true: "-6"}[want.is6()]
	text := names.Route(want)
	c, err := names.Parse(family + " route add " + text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	got, err := c.Route.complete()
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if diff := cmp.Diff(want, got, equal()); diff != "" {
		t.Errorf("%q (-want +got):\n%s", text, diff)
	}
}

func ruleAgain(t *testing.T, names *Names, r *Rule) {
	t.Helper()
	want, err := r.complete()
	if err != nil {
		return
	}
	family := map[bool]string{false: "-4", true: "-6"}[want.is6()]
	text := names.Rule(want)
	c, err := names.Parse(family + " rule add " + text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	got, err := c.Rule.complete()
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if want.Origin == ProtoKernel { // which ip(8) doesn't show
		want.Origin = got.Origin
	}
	if diff := cmp.Diff(want, got, equal()); diff != "" {
		t.Errorf("%q (-want +got):\n%s", text, diff)
	}
}

// Whatever a question is, the answer is one that Result describes.
func FuzzParseQuestion(f *testing.F) {
	f.Add("10.9.0.1 from 10.1.0.9 iif p1 mark 3 ipproto tcp dport 80")
	f.Add("fd09::1 oif p2 tos 0x10")
	s := must(f, newWorld(f), "add default nexthop via 10.1.0.1 nexthop via 10.2.0.1\nadd fd09::/64 via fd01::1\nrule add pref 9 iif p1 l3mdev")
	f.Fuzz(func(t *testing.T, line string) {
		q, err := ParseQuestion(line)
		if err != nil {
			return
		}
		_, res, err := s.Ask(q, 0)
		if err != nil {
			return
		}
		if (res.Type == TypeNone) != (res.Rule == nil) || res.Type == Throw || res.NextHop != nil && res.Route == nil {
			t.Errorf("%+v", res)
		}
		_ = (*Names)(nil).Decision(q, &res, netip.Addr{})
	})
}
