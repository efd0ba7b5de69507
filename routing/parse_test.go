// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// equal compares what holds addresses and unexported fields of queries.
func equal() cmp.Options {
	return cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreUnexported(Query{}, NextHop{})}
}

func testNames(t testing.TB) *Names {
	t.Helper()
	n, err := NewNames(map[string]TableID{"blue": 100, "green-1": 101})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParseRoute(t *testing.T) {
	for line, want := range map[string]Change{
		"add 10.0.0.0/8 via 10.1.0.1 metric 5 table blue": {Route: &Route{
			Prefix: mustPrefix("10.0.0.0/8"), Metric: 5, Table: 100, NextHops: []NextHop{{Via: ip("10.1.0.1")}},
		}},
		"a 10/8 dev p1 scope link src 10.1.0.2 proto static": {Route: &Route{
			Prefix: mustPrefix("10.0.0.0/8"), Scope: ScopeLink, Proto: ProtoStatic, Src: ip("10.1.0.2"), NextHops: []NextHop{{Dev: "p1"}},
		}},
		"replace default via fd00::1 dev p1 onlink mtu lock 1400 advmss 0x500": {Op: OpReplace, Route: &Route{
			Prefix: mustPrefix("::/0"), MTU: 1400, MTULock: true, AdvMSS: 1280, NextHops: []NextHop{{Via: ip("fd00::1"), Dev: "p1", Onlink: true}},
		}},
		"-6 del default": {Op: OpDelete, Route: &Route{Prefix: mustPrefix("::/0")}},
		"append 10.1.1.1 nexthop via 10.1.0.1 weight 3 nexthop via inet6 fe80::1 dev p2 onlink": {Op: OpAppend, Route: &Route{
			Prefix: mustPrefix("10.1.1.1/32"), NextHops: []NextHop{{Via: ip("10.1.0.1"), Weight: 3}, {Via: ip("fe80::1"), Dev: "p2", Onlink: true}},
		}},
		"chg blackhole to fd00::/8 table 7 proto 77":     {Op: OpChange, Route: &Route{Prefix: mustPrefix("fd00::/8"), Type: Blackhole, Table: 7, Proto: 77}},
		"prepend local 10.1.0.2 dev p1 scope 254":        {Op: OpPrepend, Route: &Route{Prefix: mustPrefix("10.1.0.2/32"), Type: Local, Scope: ScopeHost, NextHops: []NextHop{{Dev: "p1"}}}},
		"flush table all proto bgp root fd00::1/8":       {Op: OpFlush, Filter: &Filter{Families: []Family{IPv6}, Proto: 186, Root: mustPrefix("fd00::/8")}},
		"-4 flush dev p1 type unicast via 10.1.0.1":      {Op: OpFlush, Filter: &Filter{Families: []Family{IPv4}, Table: TableMain, Dev: "p1", Type: Unicast, Via: ip("10.1.0.1")}},
		"flush 10.0.0.0/8 match 10.1.1.1 scope link":     {Op: OpFlush, Filter: &Filter{Families: []Family{IPv4}, Table: TableMain, Scope: ScopeLink, Exact: mustPrefix("10.0.0.0/8"), Match: mustPrefix("10.1.1.1/32")}},
		"add throw 10.0.0.0/8 table green-1 pref medium": {Route: &Route{Prefix: mustPrefix("10.0.0.0/8"), Type: Throw, Table: 101}},
	} {
		got, err := testNames(t).ParseRoute(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if diff := cmp.Diff(want, got, equal()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

func TestParseRule(t *testing.T) {
	for line, want := range map[string]Rule{
		"add from 10.1.0.0/16 lookup blue":                          {From: mustPrefix("10.1.0.0/16"), Table: 100},
		"add pref 0 from all to 10/8 table 9":                       {PrioritySet: true, To: mustPrefix("10.0.0.0/8"), Table: 9},
		"add not from fd00::1 fwmark 0x15/0xf unreachable":          {Family: IPv6, Not: true, From: mustPrefix("fd00::1/128"), Mark: 5, Mask: 15, Action: ActionUnreachable},
		"add iif p1 oif p2 tos 0x10 ipproto tcp dport 80 nop":       {IIF: "p1", OIF: "p2", TOS: 16, Proto: 6, Dport: Ports{80, 80}, Action: ActionNop},
		"-6 add priority 7 ipproto 99 sport 5-6 goto 9":             {Family: IPv6, Priority: 7, PrioritySet: true, Proto: 99, Sport: Ports{5, 6}, Action: ActionGoto, Goto: 9},
		"add lookup main suppress_prefixlength 0 protocol 4":        {Table: TableMain, Suppress: true, Origin: ProtoStatic},
		"add l3mdev pref 1000":                                      {L3mdev: true, Priority: 1000, PrioritySet: true},
		"add 12:\tfrom all iif p9 [detached] lookup [l3mdev-table]": {IIF: "p9", L3mdev: true, Priority: 12, PrioritySet: true},
		"add fwmark 7 blackhole":                                    {Mark: 7, Mask: ^uint32(0), Action: ActionBlackhole},
		"add type prohibit dsfield 8":                               {TOS: 8, Action: ActionProhibit},
	} {
		got, err := testNames(t).ParseRule(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if diff := cmp.Diff(Change{Rule: &want}, got, equal()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

// An error names the word that is wrong.
func TestParseErrors(t *testing.T) {
	for line, word := range map[string]string{
		"": "", "rout": "", "link add p1": "link", "route": "", "route show": "show",
		"route add": "add", "route add via": "via", "route add metric 5": "5", "route add 10.0.0.0/33": "10.0.0.0/33",
		"route add 10.0.0.0/8 metrc 5":                     "metrc",
		"route add 10.0.0.0/8 metric x":                    "x",
		"route add 10.0.0.0/8 metric 4294967296":           "4294967296",
		"route add 10.0.0.0/8 tos 4":                       "tos",
		"route add nhid 4":                                 "nhid",
		"route add 10.0.0.0/8 table blau":                  "blau",
		"route add 10.0.0.0/8 table 0":                     "0",
		"route add 10.0.0.0/8 via fd00::1":                 "fd00::1",
		"route add 10.0.0.0/8 via inet6 10.0.0.1":          "10.0.0.1",
		"route add 10.0.0.0/8 dev p1/":                     "p1/",
		"route add 10.0.0.0/8 10.0.0.0/9":                  "10.0.0.0/9",
		"route add 10.0.0.0/8 nexthop":                     "nexthop",
		"route add 10.0.0.0/8 nexthop weight 300":          "300",
		"route add 10.0.0.0/8 via 10.1.0.1 nexthop dev p1": "nexthop",
		"route add 10.0.0.0/8 scope none":                  "none",
		"route add 10.0.0.0/8 proto 256":                   "256",
		"route add fd00::/8 pref high":                     "high",
		"route add ::ffff:10.0.0.0/104 dev p1":             "::ffff:10.0.0.0/104",
		"-6 route add 10.0.0.0/8 dev p1":                   "10.0.0.0/8",
		"route flush":                                      "flush",
		"route flush table":                                "table",
		"route flush colour red":                           "colour",
		"rule del":                                         "del",
		"rule show":                                        "show",
		"rule add from 10.0.0.0/8 to fd00::/8":             "fd00::/8",
		"rule add from 10.0.0.0/8 lookup main nop":         "nop",
		"rule add goto 7 lookup main":                      "main",
		"rule add uidrange 0-5":                            "uidrange",
		"rule add dport 70000":                             "70000",
		"rule add sport 9-5":                               "9-5",
		"rule add tos 3":                                   "3",
		"rule add fwmark x":                                "x",
		"rule add fwmark 1/x":                              "1/x",
		"rule add suppress_prefixlength 129":               "129",
		"rule add ipproto quick":                           "quick",
		"rule add x:":                                      "x:",
		"rule add protocol what":                           "what",
		"route add 10.0.0.0/8" + strings.Repeat(" nexthop dev p1", maxNextHops+1): "nexthop",
	} {
		_, err := (*Names)(nil).Parse(line)
		var p *ParseError
		if !errors.As(err, &p) || p.Word != word || p.Error() == "" {
			t.Errorf("%.50q: error %v, want one on %q", line, err, word)
		}
	}
}

func TestParseQuestionErrors(t *testing.T) {
	for line, word := range map[string]string{
		"": "", "from 10.0.0.1": "10.0.0.1", "10.0.0.1 from fd00::1": "fd00::1", "10.0.0.1/8": "10.0.0.1/8",
		"10.0.0.1 uid 0": "uid", "10.0.0.1 sport 70000": "70000", "10.0.0.1 colour": "colour", "10.0.0.1 tos 1": "1",
	} {
		_, err := ParseQuestion(line)
		var p *ParseError
		if !errors.As(err, &p) || p.Word != word {
			t.Errorf("%q: error %v, want one on %q", line, err, word)
		}
	}
	q, err := ParseQuestion("10.0.0.1 iif p9")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := newWorld(t).Ask(q, 0); !errors.Is(err, ErrDevice) {
		t.Errorf("error %v", err)
	}
}

func TestDecision(t *testing.T) {
	names := testNames(t)
	s := newWorld(t)
	for _, l := range []string{
		"route add default nexthop via 10.1.0.1 nexthop via 10.2.0.1 dead weight 2 table blue",
		"route add 10.9.0.0/16 via 10.1.0.1 src 10.1.0.2 mtu 1400",
		"route add prohibit 10.8.0.0/16",
		"rule add pref 100 from 10.1.0.0/24 iif p1 lookup blue",
		"rule add pref 99 to 10.7.0.0/16 blackhole",
	} {
		c, err := names.Parse(l)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = s.Apply([]Change{c}); err != nil {
			t.Fatal(err)
		}
	}
	for question, want := range map[string]string{
		"10.9.0.1": "10.9.0.1 via 10.1.0.1 dev p1 table main src 10.1.0.2 mtu 1400\n" +
			"    rule  32766: from all lookup main\n    route 10.9.0.0/16 via 10.1.0.1 dev p1 src 10.1.0.2 mtu 1400",
		"10.8.0.1": "prohibit 10.8.0.1 table main\n    rule  32766: from all lookup main\n    route prohibit 10.8.0.0/16",
		"10.7.0.1": "blackhole 10.7.0.1\n    rule  99: from all to 10.7.0.0/16 blackhole",
		"10.6.0.1": "unreachable 10.6.0.1",
		"10.9.0.1 from 10.1.0.9 iif p1": "10.9.0.1 from 10.1.0.9 iif p1 via 10.1.0.1 dev p1 table blue\n" +
			"    rule  100: from 10.1.0.0/24 iif p1 lookup blue\n" +
			"    route default table blue\n          nexthop via 10.1.0.1 dev p1 weight 1\n          nexthop via 10.2.0.1 dev p2 weight 2",
	} {
		q, err := ParseQuestion(question)
		if err != nil {
			t.Fatal(err)
		}
		_, res, err := s.Ask(q, 5)
		if err != nil {
			t.Fatal(err)
		}
		got := names.Decision(q, &res, netip.Addr{})
		if strings.Contains(question, "iif") { // either next hop
			got = strings.Replace(got, "via 10.2.0.1 dev p2 table", "via 10.1.0.1 dev p1 table", 1)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", question, diff)
		}
	}
}

func TestNames(t *testing.T) {
	n := testNames(t)
	for word, want := range map[string]TableID{"blue": 100, "100": 100, "main": 254, "local": 255, "default": 253, "0x10": 16, "red": 0, "0": 0, "-1": 0} {
		if got, ok := n.Table(word); ok != (want != 0) || ok && got != want {
			t.Errorf("%s: %d %v", word, got, ok)
		}
	}
	for id, want := range map[TableID]string{100: "blue", 7: "7", 254: "main", 253: "default", 255: "local"} {
		if got := n.TableName(id); got != want {
			t.Errorf("%d: %s", id, got)
		}
	}
	for _, bad := range []map[string]TableID{{"7": 7}, {"": 7}, {"a b": 7}, {"main": 7}, {"all": 7}, {"x": 254}, {"x": 0}, {"x": 7, "y": 7}} {
		if _, err := NewNames(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// Routes, rules and changes go through JSON unharmed.
func TestJSON(t *testing.T) {
	for _, l := range []string{
		"route add 10.0.0.0/8 nexthop via 10.1.0.1 weight 3 nexthop dev p1 metric 5 proto bgp scope global mtu lock 1400",
		"route del prohibit fd00::/8", "route flush table all proto bgp root fd00::/8",
		"rule add not from 10.1.0.0/16 fwmark 1/3 sport 5-9 lookup 100 suppress_prefixlength 8",
		"-6 rule add pref 0 goto 9",
	} {
		want, err := (*Names)(nil).Parse(l)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Change
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got, equal()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", l, diff)
		}
	}
}
