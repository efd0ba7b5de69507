// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"testing"
)

func TestLookup(t *testing.T) {
	s := must(t, newWorld(t), `
		add default via 10.1.0.1
		add 10.9.0.0/16 via 10.2.0.1
		add 10.9.1.0/24 via 10.1.0.3
		add prohibit 10.9.2.0/24
		add blackhole 10.9.3.0/24
		add unreachable 10.9.4.0/24
		add default via 10.2.0.9 table 7
		add throw 10.9.5.0/24 table 7
		add local 10.77.0.0/16 table local
		rule add pref 10 from 10.50.0.0/16 lookup main suppress_prefixlength 0
		rule add pref 11 from 10.50.0.0/16 lookup 7
		rule add pref 20 fwmark 0x10/0xf0 goto 30
		rule add pref 21 iif p2 to 10.66.0.0/16 blackhole
		rule add pref 30 iif lo to 10.66.0.0/16 prohibit
		add prohibit 198.51.100.0/24 table 9
		add prohibit 10.9.0.0/16 table 9
		rule add pref 40 not from 10.4.0.0/16 to 0.0.0.0/1 lookup 9
		-6 rule del pref 32766
	`)
	for _, tc := range []struct {
		name, question string
		want           string // type, next hop
		rule           string
	}{
		{"the longest prefix", "10.9.1.7 from 10.4.0.1", "unicast 10.1.0.3", "32766:\tfrom all lookup main"},
		{"a shorter one", "10.9.77.7 from 10.4.0.1", "unicast 10.2.0.1", ""},
		{"the default route", "192.0.2.1", "unicast 10.1.0.1", ""},
		{"the link itself", "10.1.0.77", "unicast -", ""},
		{"an own address", "10.1.0.2", "local -", "0:\tfrom all lookup local"},
		{"a local route without device", "10.77.1.1", "local", ""},
		{"everybody on the link", "10.1.0.255", "broadcast -", ""},
		{"prohibit", "10.9.2.1 from 10.4.0.1", "prohibit", ""},
		{"blackhole", "10.9.3.1 from 10.4.0.1", "blackhole", ""},
		{"unreachable", "10.9.4.1 from 10.4.0.1", "unreachable", ""},
		{"suppress lets longer prefixes pass", "10.9.1.7 from 10.50.0.1", "unicast 10.1.0.3", "10:\tfrom 10.50.0.0/16 lookup main suppress_prefixlength 0"},
		{"suppress leaves the default to the next", "192.0.2.1 from 10.50.0.1", "unicast 10.2.0.9", "11:\tfrom 10.50.0.0/16 lookup 7"},
		{"suppress leaves what refuses", "10.9.3.1 from 10.50.0.1", "blackhole", ""},
		{"throw goes back to the rules", "10.9.5.1 from 10.50.0.1", "unicast 10.2.0.1", ""},
		{"a rule by input device", "10.66.0.1 from 10.2.0.5 iif p2", "blackhole", "21:\tfrom all to 10.66.0.0/16 iif p2 blackhole"},
		{"goto jumps over it", "10.66.0.1 from 10.2.0.5 iif p2 mark 0x1f", "unicast 10.1.0.1", ""},
		{"the namespace itself", "10.66.0.1", "prohibit", "30:\tfrom all to 10.66.0.0/16 iif lo prohibit"},
		{"not, with another destination", "198.51.100.1 from 10.4.0.1 iif p1", "prohibit", "40:\tnot from 10.4.0.0/16 to 0.0.0.0/1 lookup 9"},
		{"not, with another source", "10.9.1.7 from 10.5.0.1 iif p1", "prohibit", ""},
		{"not, with neither", "10.9.1.7 from 10.4.0.1 iif p1", "unicast 10.1.0.3", ""},
		{"output device passes over others", "10.9.1.7 from 10.4.0.1 oif p2", "unicast 10.2.0.1", ""},
		{"no rule for it", "fd09::1", "none", ""},
		{"IPv6 own address", "fd01::2", "local -", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q, err := ParseQuestion(tc.question)
			if err != nil {
				t.Fatal(err)
			}
			_, res, err := s.Ask(q, 1)
			if err != nil {
				t.Fatal(err)
			}
			got := res.Type.String()
			if h := res.NextHop; h != nil && h.Via.IsValid() {
				got += " " + h.Via.String()
			} else if h != nil {
				got += " -"
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if tc.rule != "" && res.Rule.String() != tc.rule {
				t.Errorf("rule %q, want %q", res.Rule, tc.rule)
			}
		})
	}
}

func TestReversePath(t *testing.T) {
	s := must(t, newWorld(t), `
		add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.2.0.1
		add 10.8.0.0/16 via 10.2.0.1
		add blackhole 10.7.0.0/16
	`)
	for _, tc := range []struct {
		name          string
		src           string
		strict, loose bool
	}{
		{"a neighbour", "10.1.0.9", true, true},
		{"a neighbour of the other link", "10.2.0.9", false, true},
		{"one of several next hops", "10.9.0.1", true, true},
		{"the other way", "10.8.0.1", false, true},
		{"no way", "10.6.0.1", false, false},
		{"blackhole", "10.7.0.1", false, false},
		{"an own address", "10.1.0.2", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := &Query{Src: ip(tc.src), Dst: ip("10.2.0.77"), IIF: 1}
			if got := s.ReversePath(q, ReverseStrict); got != tc.strict {
				t.Errorf("strict: %v", got)
			}
			if got := s.ReversePath(q, ReverseLoose); got != tc.loose {
				t.Errorf("loose: %v", got)
			}
			if !s.ReversePath(q, ReverseOff) {
				t.Error("off: stopped")
			}
		})
	}
}

// What every packet that misses the flow cache costs must not be garbage.
func TestNoAllocations(t *testing.T) {
	s := must(t, newWorld(t), `
		add 10.9.0.0/16 nexthop via 10.1.0.1 nexthop via 10.2.0.1 weight 3
		add 10.9.1.0/24 via 10.1.0.3
		add fd09::/64 nexthop via fd01::1 nexthop via fd02::1
		rule add pref 10 from 10.50.0.0/16 fwmark 1 iif p1 ipproto tcp dport 80 lookup 7
		rule add pref 11 l3mdev
	`)
	for name, q := range map[string]*Query{
		"IPv4":          {Src: ip("10.1.0.9"), Dst: ip("10.9.1.1"), IIF: 1},
		"several hops":  {Src: ip("10.1.0.9"), Dst: ip("10.9.2.1"), IIF: 1},
		"IPv6":          {Src: ip("fd01::9"), Dst: ip("fd09::1"), IIF: 1},
		"other device":  {Src: ip("10.1.0.9"), Dst: ip("10.9.1.1"), IIF: 1, OIF: 2},
		"nowhere":       {Src: ip("10.1.0.9"), Dst: ip("192.0.2.1"), IIF: 1},
		"IPv6, nowhere": {Src: ip("fd01::9"), Dst: ip("2001:db8::1"), IIF: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var sum uint64
			if n := testing.AllocsPerRun(100, func() {
				q.Hash = q.FlowHash(7)
				res := s.Lookup(q)
				gw := res.Gateway(q.Dst)
				if MartianForward(q.Src, gw) != NotMartian || !s.ReversePath(q, ReverseStrict) {
					sum++
				}
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
