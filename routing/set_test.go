// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The world of these tests: two devices with addresses, and what the kernel makes
// of addresses.
const world = `
	append 10.1.0.0/24 dev p1 proto kernel scope link src 10.1.0.2
	append 10.2.0.0/24 dev p2 proto kernel scope link src 10.2.0.2
	append fd01::/64 dev p1 proto kernel metric 256
	append fd02::/64 dev p2 proto kernel metric 256
	rule add pref 5 nop
`

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// newWorld has the local addresses first, since a source must be one.
func newWorld(t testing.TB) *Set {
	t.Helper()
	s, err := New(Limits{}).Apply([]Change{
		{Device: &Device{Name: "p1", Index: 1}},
		{Device: &Device{Name: "p2", Index: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return must(t, s, `
		append local 10.1.0.2 dev p1 proto kernel scope host src 10.1.0.2
		append broadcast 10.1.0.255 dev p1 proto kernel scope link
		append local 10.2.0.2 dev p2 proto kernel scope host
		append local fd01::2 dev p1 proto kernel metric 256
		append local fd02::2 dev p2 proto kernel metric 256
	`+world)
}

// changes parses lines; one without a noun is of a route.
func changes(t testing.TB, text string) []Change {
	t.Helper()
	var all []Change
	for l := range strings.SplitSeq(text, "\n") {
		l = strings.TrimSpace(l)
		if l == "" {
			continue
		}
		if !strings.Contains(l, "rule ") && !strings.Contains(l, "route ") {
			l = "route " + l
		}
		c, err := (*Names)(nil).Parse(l)
		if err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		all = append(all, c)
	}
	return all
}

func must(t testing.TB, s *Set, text string) *Set {
	t.Helper()
	n, err := s.Apply(changes(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// shown are the routes of a table as they print.
func shown(s *Set, id TableID) []string {
	var all []string
	for r := range s.Routes(id) {
		all = append(all, r.String())
	}
	return all
}

// added are the routes that are not of the world.
func added(s *Set) []string {
	return slices.DeleteFunc(shown(s, 0), func(l string) bool { return strings.Contains(l, "proto kernel") })
}

func TestRouteOperations(t *testing.T) {
	for _, tc := range []struct {
		name string
		ops  string
		want []string
		err  error
	}{
		{
			name: "a route stands in main", ops: "add 10.9.0.0/16 via 10.1.0.1",
			want: []string{"10.9.0.0/16 via 10.1.0.1 dev p1"},
		},
		{
			name: "add refuses a key that is taken",
			ops:  "add 10.9.0.0/16 via 10.1.0.1\nadd 10.9.0.0/16 via 10.2.0.1", err: ErrExist,
		},
		{
			name: "another metric is another key",
			ops:  "add 10.9.0.0/16 via 10.1.0.1 metric 5\nadd 10.9.0.0/16 via 10.2.0.1",
			want: []string{"10.9.0.0/16 via 10.2.0.1 dev p2", "10.9.0.0/16 via 10.1.0.1 dev p1 metric 5"},
		},
		{
			name: "append and prepend stand behind and before",
			ops:  "add 10.9.0.0/16 via 10.1.0.1\nappend 10.9.0.0/16 via 10.1.0.3\nprepend 10.9.0.0/16 via 10.1.0.4",
			want: []string{"10.9.0.0/16 via 10.1.0.4 dev p1", "10.9.0.0/16 via 10.1.0.1 dev p1", "10.9.0.0/16 via 10.1.0.3 dev p1"},
		},
		{
			name: "append refuses the same route",
			ops:  "append 10.9.0.0/16 via 10.1.0.1\nappend 10.9.0.0/16 via 10.1.0.1", err: ErrExist,
		},
		{
			name: "append joins gateways in IPv6",
			ops:  "append fd09::/64 via fd01::1\nappend fd09::/64 via fd02::1\nappend fd09::/64 dev p1",
			want: []string{
				"fd09::/64 metric 1024 pref medium\n\tnexthop via fd01::1 dev p1 weight 1\n\tnexthop via fd02::1 dev p2 weight 1",
				"fd09::/64 dev p1 metric 1024 pref medium",
			},
		},
		{
			name: "change needs a route", ops: "change 10.9.0.0/16 via 10.1.0.1", err: ErrNoEnt,
		},
		{
			name: "change keeps the key", ops: "add 10.9.0.0/16 via 10.1.0.1\nchange 10.9.0.0/16 via 10.2.0.1 mtu 1400",
			want: []string{"10.9.0.0/16 via 10.2.0.1 dev p2 mtu 1400"},
		},
		{
			name: "replace adds or changes", ops: "replace 10.9.0.0/16 via 10.1.0.1\nreplace 10.9.0.0/16 via 10.2.0.1",
			want: []string{"10.9.0.0/16 via 10.2.0.1 dev p2"},
		},
		{
			name: "del takes the best of those that match",
			ops:  "add 10.9.0.0/16 via 10.1.0.1\nadd 10.9.0.0/16 via 10.2.0.1 metric 7\nadd 10.9.0.0/16 via 10.2.0.1 metric 9\ndel 10.9.0.0/16 dev p2",
			want: []string{"10.9.0.0/16 via 10.1.0.1 dev p1", "10.9.0.0/16 via 10.2.0.1 dev p2 metric 9"},
		},
		{
			name: "del of nothing", ops: "del 10.9.0.0/16", err: ErrNoRoute,
		},
		{
			name: "del of another type", ops: "add blackhole 10.9.0.0/16\ndel prohibit 10.9.0.0/16", err: ErrNoRoute,
		},
		{
			name: "del takes one gateway in IPv6",
			ops:  "add fd09::/64 nexthop via fd01::1 nexthop via fd01::3 nexthop via fd01::4\ndel fd09::/64 via fd01::3",
			want: []string{"fd09::/64 metric 1024 pref medium\n\tnexthop via fd01::1 dev p1 weight 1\n\tnexthop via fd01::4 dev p1 weight 1"},
		},
		{
			name: "a host prefix with host bits", ops: "add 10.9.0.1/16 via 10.1.0.1", err: errAny,
		},
		{
			name: "IPv6 masks", ops: "add fd09::1/64 via fd01::1",
			want: []string{"fd09::/64 via fd01::1 dev p1 metric 1024 pref medium"},
		},
		{name: "a gateway on no link", ops: "add 10.9.0.0/16 via 10.99.0.1", err: ErrGateway},
		{name: "a gateway behind a gateway", ops: "add 10.9.0.0/16 via 10.1.0.1\nadd 10.8.0.0/16 via 10.9.0.1", err: ErrGateway},
		{name: "a gateway that is broadcast", ops: "add 10.9.0.0/16 via 10.1.0.255", err: ErrGateway},
		{name: "a gateway that is oneself", ops: "add fd09::/64 via fd01::2", err: ErrGateway},
		{name: "a gateway on the other device", ops: "add 10.9.0.0/16 via 10.1.0.1 dev p2", err: ErrGateway},
		{name: "a gateway of link scope", ops: "add 10.9.0.0/16 via 10.1.0.1 scope link", err: ErrGateway},
		{
			name: "a gateway that is said to be there", ops: "add 10.9.0.0/16 via 10.99.0.1 dev p2 onlink",
			want: []string{"10.9.0.0/16 via 10.99.0.1 dev p2 onlink"},
		},
		{
			name: "an IPv6 gateway for IPv4", ops: "add 10.9.0.0/16 via inet6 fe80::1 dev p2",
			want: []string{"10.9.0.0/16 via inet6 fe80::1 dev p2"},
		},
		{name: "a device that isn't there", ops: "add 10.9.0.0/16 dev p9", err: ErrDevice},
		{name: "a source that isn't ours", ops: "add 10.9.0.0/16 dev p1 src 10.9.9.9", err: ErrPrefSrc},
		{name: "a blackhole with a device", ops: "add blackhole 10.9.0.0/16 dev p1", err: errAny},
		{
			name: "flush takes what matches",
			ops:  "add 10.9.0.0/16 via 10.1.0.1 proto bgp\nadd 10.9.1.0/24 via 10.1.0.1 proto bgp\nadd 10.9.2.0/24 via 10.1.0.1\nflush root 10/8 proto bgp",
			want: []string{"10.9.2.0/24 via 10.1.0.1 dev p1"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newWorld(t)
			before := shown(s, 0)
			n, err := s.Apply(changes(t, tc.ops))
			if tc.err != nil {
				if err == nil || !errors.Is(err, tc.err) && !errors.Is(tc.err, errAny) {
					t.Fatalf("error %v, want %v", err, tc.err)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if diff := cmp.Diff(tc.want, added(n)); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			} else if n.Len() != len(shown(n, 0)) {
				t.Errorf("Len %d, routes %d", n.Len(), len(shown(n, 0)))
			}
			if diff := cmp.Diff(before, shown(s, 0)); diff != "" {
				t.Errorf("the version before has changed:\n%s", diff)
			}
		})
	}
}

// errAny stands for an error that no caller tells apart.
var errAny = errors.New("any error")

func TestATransactionIsAllOrNothing(t *testing.T) {
	s := newWorld(t)
	_, err := s.Apply(changes(t, "add 10.9.0.0/16 via 10.1.0.1\nrule add from 10.1.0.0/24 lookup 7\nadd 10.9.0.0/16 via 10.2.0.1\nadd 10.8.0.0/16 dev p1"))
	var which *ChangeError
	if !errors.As(err, &which) || which.Index != 2 || err.Error() != "change 3: file exists" {
		t.Errorf("error %v", err)
	}
	if len(added(s)) != 0 || len(s.Rules(IPv4)) != 4 {
		t.Errorf("something is left: %v %v", added(s), s.Rules(IPv4))
	}
}

func TestRuleOperations(t *testing.T) {
	for _, tc := range []struct {
		name, ops string
		want      []string
		err       error
	}{
		{
			name: "without priority before the second", ops: "rule add from 10.9.0.0/16 lookup 7\nrule add to 10.8.0.0/16 prohibit",
			want: []string{
				"0:\tfrom all lookup local", "3:\tfrom all to 10.8.0.0/16 prohibit", "4:\tfrom 10.9.0.0/16 lookup 7",
				"5:\tfrom all nop", "32766:\tfrom all lookup main", "32767:\tfrom all lookup default",
			},
		},
		{
			name: "the same twice", ops: "rule add pref 9 from 10.9.0.0/16 lookup 7\nrule add pref 9 from 10.9.0.0/16 lookup 7", err: ErrExist,
		},
		{
			name: "equal priorities in the order of arrival",
			ops:  "rule add pref 9 from 10.9.0.0/16 lookup 7\nrule add pref 9 from 10.8.0.0/16 lookup 7\nrule del pref 5\nrule del lookup local",
			want: []string{
				"9:\tfrom 10.9.0.0/16 lookup 7", "9:\tfrom 10.8.0.0/16 lookup 7",
				"32766:\tfrom all lookup main", "32767:\tfrom all lookup default",
			},
		},
		{name: "goto only goes forward", ops: "rule add pref 9 goto 9", err: errAny},
		{name: "del of nothing", ops: "rule del pref 9", err: ErrNoEnt},
		{name: "table and suppress with nop", ops: "rule add pref 9 nop suppress_prefixlength 3", err: errAny},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := newWorld(t).Apply(changes(t, tc.ops))
			if tc.err != nil {
				if err == nil || !errors.Is(err, tc.err) && !errors.Is(tc.err, errAny) {
					t.Fatalf("error %v, want %v", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range s.Rules(IPv4) {
				got = append(got, r.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDevices(t *testing.T) {
	s := must(t, newWorld(t), `
		add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.2.0.1
		add 10.8.0.0/16 via 10.1.0.1
		rule add pref 3 iif p1 prohibit
	`)
	down, err := s.Apply([]Change{{Op: OpReplace, Device: &Device{Name: "p1", Index: 1, Down: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if r := down.Lookup(&Query{Dst: ip("10.8.0.1")}); r.Type != TypeNone {
		t.Errorf("down: %v", r)
	}
	for h := range uint64(16) {
		if r := down.Lookup(&Query{Dst: ip("10.9.0.1"), Hash: h}); r.NextHop == nil || r.NextHop.Dev != "p2" {
			t.Fatalf("down: next hop %v", r.NextHop)
		}
	}
	moved, err := s.Apply([]Change{{Op: OpReplace, Device: &Device{Name: "p1", Index: 9}}})
	if err != nil {
		t.Fatal(err)
	}
	if r := moved.Lookup(&Query{Dst: ip("10.8.0.1"), IIF: 1}); r.NextHop == nil || r.NextHop.Index != 9 {
		t.Errorf("other index: %+v", r)
	}
	if r := moved.Lookup(&Query{Dst: ip("10.8.0.1"), IIF: 9}); r.Type != Prohibit {
		t.Errorf("rule for the other index: %+v", r)
	}
	gone, err := s.Apply([]Change{{Op: OpDelete, Device: &Device{Name: "p1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.9.0.0/16 via 10.2.0.1 dev p2"}, added(gone)); diff != "" {
		t.Errorf("gone (-want +got):\n%s", diff)
	}
	if gone.Len() != len(shown(gone, 0)) {
		t.Errorf("Len %d of %d", gone.Len(), len(shown(gone, 0)))
	}
	for _, bad := range []Change{
		{Device: &Device{Name: "p1", Index: 7}},
		{Device: &Device{Name: "p3", Index: 1}},
		{Device: &Device{Name: "lo", Index: 7}},
		{Device: &Device{Name: "p3"}},
		{Op: OpDelete, Device: &Device{Name: "p3"}},
		{Op: OpFlush, Device: &Device{Name: "p3"}},
		{},
	} {
		if _, err := s.Apply([]Change{bad}); err == nil {
			t.Errorf("%v %+v: no error", bad.Op, bad.Device)
		}
	}
}

func TestADeadNextHopIsPassedOver(t *testing.T) {
	s := must(t, newWorld(t), "add 10.9.0.0/16 via 10.1.0.1\nadd 10.9.0.0/16 via 10.2.0.1 metric 5\nadd 10.0.0.0/8 via 10.2.0.3")
	to := func(s *Set) string { return s.Lookup(&Query{Dst: ip("10.9.0.1")}).NextHop.Via.String() }
	for _, step := range []struct {
		via  string
		dev  string
		dead bool
		want string
	}{
		{"10.1.0.1", "p1", true, "10.2.0.1"},
		{"10.2.0.1", "p2", true, "10.2.0.3"},
		{"10.1.0.1", "p1", false, "10.1.0.1"},
		{"10.1.0.1", "p1", false, "10.1.0.1"},
	} {
		n, err := s.Apply([]Change{{Hop: &HopState{Dev: step.dev, Via: ip(step.via), Dead: step.dead}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := to(n); got != step.want {
			t.Errorf("%s dead %v: to %s, want %s", step.via, step.dead, got, step.want)
		}
		s = n
	}
}

func TestLimits(t *testing.T) {
	s, err := New(Limits{Routes: 2, Tables: 1, Rules: 4, Devices: 1}).Apply([]Change{{Device: &Device{Name: "p1", Index: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"add 10.1.0.0/16 dev p1\nadd 10.2.0.0/16 dev p1\nadd 10.3.0.0/16 dev p1",
		"add 10.1.0.0/16 dev p1\nadd 10.2.0.0/16 dev p1 table 7",
		"rule add pref 1 nop\nrule add pref 2 nop",
	} {
		if _, err := s.Apply(changes(t, text)); !errors.Is(err, ErrLimit) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := s.Apply([]Change{{Device: &Device{Name: "p2", Index: 2}}}); !errors.Is(err, ErrLimit) {
		t.Errorf("device: %v", err)
	}
}

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestRestoreNeedsNothingButTheDevice(t *testing.T) {
	s := must(t, newWorld(t), "add 10.9.0.0/16 via 10.1.0.1 metric 1\nadd 2001:db8:9::/48 nexthop via fd01::1 dev p1 nexthop via fd02::1 dev p2")
	empty, err := New(Limits{}).Apply([]Change{
		{Device: &Device{Name: "p1", Index: 1}}, {Device: &Device{Name: "p2", Index: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"10.9.0.0/16", "2001:db8:9::/48"} {
		was := s.At(TableMain, mustPrefix(p))
		again, err := empty.Apply([]Change{{Op: OpRestore, Route: was[0]}})
		if err != nil {
			t.Fatal(err)
		}
		is := again.At(TableMain, mustPrefix(p))
		if len(is) != 1 || is[0].String() != was[0].String() {
			t.Errorf("restored %v, was %v", is, was)
		}
		if _, err := empty.Apply([]Change{{Op: OpAppend, Route: was[0]}}); !errors.Is(err, ErrGateway) {
			t.Errorf("append: %v, want %v", err, ErrGateway)
		}
		if _, err := New(Limits{}).Apply([]Change{{Op: OpRestore, Route: was[0]}}); !errors.Is(err, ErrDevice) {
			t.Errorf("without the device: %v", err)
		}
	}
}
