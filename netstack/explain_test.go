// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
	"sluice/trace"
)

const explained = `table ip t {
	set seen { type ipv4_addr; flags dynamic; size 5; }
	map to { type inet_service : ipv4_addr . inet_service; elements = { 7000 : 10.44.1.11 . 70 } }
	quota q { over 100 bytes }
	chain raw { type filter hook prerouting priority raw; udp dport 9 notrack; }
	chain pre { type nat hook prerouting priority dstnat; dnat to udp dport map @to; }
	chain sub { udp dport 4 counter drop; udp dport 5 return; }
	chain f {
		type filter hook forward priority 0; policy drop;
		ct state invalid drop
		ct state established counter accept
		add @seen { ip saddr counter }
		jump sub
		udp dport { 4, 5, 70, 2000 } limit rate 1/hour burst 2 packets counter accept
		ct state untracked accept
		tcp dport 99 reject with tcp reset
	}
	chain in { type filter hook input priority 0; icmp type echo-request counter accept; drop; }
}
`

// said is an answer in a line.
func (a *RuleAnswer) said() string {
	out := a.Verdict
	if a.By != nil {
		out += fmt.Sprintf(" by %s %s", a.By.Chain, strings.TrimPrefix(a.By.Rule, "  "))
	}
	if a.To != "" {
		out += " to " + a.To
	}
	return strings.TrimSpace(out + " " + a.Reason)
}

// TestExplainRules: what is said of a packet is what becomes of one that is sent; and
// nothing counts it.
func TestExplainRules(t *testing.T) {
	s := ruledSites(explained)
	s.Connections.Rules = nil
	l := stillSites(t, s)
	ns := l.n.Namespace("lab")
	in, other := translating(1).Networks[0].Bridge.Index, translating(2).Networks[1].Bridge.Index
	q := func(port uint16) *RuleQuestion {
		return &RuleQuestion{In: in, Src: alice.addr4(), Dst: bob.addr4(), Proto: packet.ProtoUDP, SrcPort: 1000, DstPort: port}
	}
	with := func(q *RuleQuestion, change func(*RuleQuestion)) *RuleQuestion { change(q); return q }
	before := l.listed("list ruleset")
	for _, c := range []struct {
		q    *RuleQuestion
		want string
	}{
		{q(2000), "accept"},
		{q(4), "drop by sub udp dport 4 counter drop"},
		{q(5), "accept"},
		{q(6), "drop by f"},
		{q(9), "accept"},
		{with(q(6), func(q *RuleQuestion) { q.Answered = true }), "accept"},
		{with(q(99), func(q *RuleQuestion) { q.Proto = packet.ProtoTCP }), "reject by f tcp dport 99 reject with tcp reset"},
		{with(q(98), func(q *RuleQuestion) { q.Proto, q.Answered = packet.ProtoTCP, true }), "accept"},
		{with(q(7000), func(q *RuleQuestion) { q.In, q.Src, q.Dst = other, bob.addr4(), gate(2).addr4() }), "accept to 10.44.1.11 port 70"},
		{with(q(8<<8), func(q *RuleQuestion) { q.Proto, q.Dst = packet.ProtoICMP, gate(1).addr4() }), "accept"},
		{with(q(8<<8), func(q *RuleQuestion) { q.Proto, q.Dst, q.Answered = packet.ProtoICMP, gate(1).addr4(), true }), "accept"},
		{with(q(53), func(q *RuleQuestion) { q.Dst = gate(1).addr4() }), "drop by in drop"},
		{with(q(1), func(q *RuleQuestion) { q.Dst = netip.MustParseAddr("203.0.113.9") }), "drop no_route"},
		{with(q(2), func(q *RuleQuestion) { q.Proto = packet.ProtoSCTP }), "drop by f"},
		{with(q(0), func(q *RuleQuestion) { q.Proto = 47 }), "drop by f"},
	} {
		for range 3 { // a limit is not used up by questions
			a, err := ns.ExplainRules(c.q)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.said(); got != c.want {
				t.Errorf("%+v: %s, want %s", c.q, got, c.want)
			}
		}
	}
	if after := l.listed("list ruleset"); after != before {
		t.Errorf("questions were counted:\n%s\nbefore\n%s", after, before)
	}
	a, err := ns.ExplainRules(q(5))
	if err != nil || a.Out != other {
		t.Errorf("%+v, %v", a, err)
	}
	steps := ""
	for _, s := range a.Steps {
		steps += s.Hook + " " + s.Chain + " " + s.Verdict + "|"
		if s.Rule != "" && (s.Handle == 0 || !strings.HasPrefix(s.Pos, "rules.nft:")) {
			t.Errorf("%+v", s)
		}
	}
	want := "prerouting raw accept|prerouting pre accept|forward f continue|forward f jump sub|forward sub return|forward f accept|"
	if steps != want {
		t.Errorf("steps %s, want %s", steps, want)
	}
	// By what is there now: the limit is used up, and so is what the set has seen.
	for range 2 {
		l.send(alice.port(), pt.UDP4(pt.Packet{SrcMAC: alice.mac(), DstMAC: gate(1).mac(), Src: alice.addr4(), Dst: bob.addr4(), SrcPort: 7, DstPort: 2000, TTL: 64}))
		l.arrived(bob, pt.UDP())
	}
	if a, _ := ns.ExplainRules(q(2000)); a.said() != "drop by f" {
		t.Errorf("the limit is used up: %s", a.said())
	}
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.silent(bob.port())
	if n := l.drops(alice.port(), trace.NFTDrop); n != 1 {
		t.Errorf("%d dropped", n)
	}
	for _, bad := range []*RuleQuestion{{}, {In: in, Src: alice.addr4(), Dst: netip.IPv6Unspecified()}, {In: 999, Src: alice.addr4(), Dst: bob.addr4(), Proto: 6}} {
		if _, err := ns.ExplainRules(bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

// TestExplainPortRules: a port's ruleset says of what comes by the port, and of what
// leaves by it, what becomes of it when it is sent; and nothing counts it.
func TestExplainPortRules(t *testing.T) {
	s := framedSites("")
	s.Networks[0].Ports[0].Rules = &journal.Journal{Steps: []journal.Step{{File: "own.nft", Text: `table netdev own {
	chain in {
		type filter hook ingress device "port" priority 0
		udp dport 4 counter drop
		ip ttl 64 udp dport 5 iifname "port" ether saddr ` + alice.mac().String() + ` drop
	}
	chain out {
		type filter hook egress device "port" priority 0; policy accept
		oifname "port" udp dport 6 counter drop
		udp dport 7 ip ttl 63 meta pkttype host ct state new drop
	}
}`}}}
	l := stillSites(t, s)
	ns, own := l.n.Namespace("lab"), alice.port()
	in := func(to party, port uint16) *RuleQuestion {
		return &RuleQuestion{Port: own, Src: alice.addr4(), Dst: to.addr4(), SrcMAC: alice.mac(), DstMAC: gate(1).mac(), Proto: packet.ProtoUDP, SrcPort: 1000, DstPort: port}
	}
	out := func(from party, port uint16) *RuleQuestion {
		routed := from.site != alice.site
		return &RuleQuestion{
			Port: own, Leaves: true, Routed: routed, Tracked: routed, Src: from.addr4(), Dst: alice.addr4(), SrcMAC: from.mac(), DstMAC: alice.mac(),
			Proto: packet.ProtoUDP, SrcPort: 1000, DstPort: port,
		}
	}
	before, err := ns.RuleList(&RuleQuery{Port: own, Text: "list ruleset"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		q        *RuleQuestion
		from, to party
		want     string
	}{
		{in(bob, 4), alice, bob, "drop by in udp dport 4 counter drop"},
		{in(bob, 5), alice, bob, "drop by in ip ttl 64 udp dport 5 iifname \"port\" ether saddr " + alice.mac().String() + " drop"},
		{in(bob, 6), alice, bob, "accept"},
		{in(carol, 4), alice, carol, "drop by in udp dport 4 counter drop"},
		{out(bob, 4), bob, alice, "accept"},
		{out(bob, 6), bob, alice, "drop by out oifname \"port\" udp dport 6 counter drop"},
		{out(bob, 7), bob, alice, "drop by out udp dport 7 ip ttl 63 meta pkttype host ct state new drop"},
		{out(carol, 7), carol, alice, "accept"},
	} {
		a, err := ns.ExplainRules(c.q)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.said(); got != c.want {
			t.Errorf("%v to %v port %d: %s, want %s", c.from, c.to, c.q.DstPort, got, c.want)
		}
		if by := a.By; by != nil && (by.Handle == 0 || !strings.HasPrefix(by.Pos, "own.nft:") || by.Table != "netdev own" || by.Hook != map[bool]string{true: "egress", false: "ingress"}[c.q.Leaves]) {
			t.Errorf("%+v", by)
		}
	}
	if after, _ := ns.RuleList(&RuleQuery{Port: own, Text: "list ruleset"}); after != before {
		t.Errorf("questions were counted:\n%s\nbefore\n%s", after, before)
	}
	for _, c := range []struct {
		from, to party
		port     uint16
		passes   bool
	}{{alice, bob, 4, false}, {alice, bob, 5, false}, {alice, bob, 6, true}, {bob, alice, 4, true}, {bob, alice, 6, false}, {bob, alice, 7, false}, {carol, alice, 7, true}, {alice, carol, 4, false}} {
		p := c.from.to(c.to)
		if c.from.site == c.to.site {
			p = c.from.beside(c.to)
		}
		p.DstPort = c.port
		l.send(c.from.port(), pt.UDP4(p))
		if !c.passes {
			l.silent(c.to.port())
		} else if pt.Check(t, l.got(c.to.port()), pt.UDP()); t.Failed() {
			t.Fatalf("%v to %v port %d", c.from, c.to, c.port)
		}
	}
	if _, err := ns.ExplainRules(&RuleQuestion{Port: carol.port(), Src: carol.addr4(), Dst: bob.addr4(), Proto: 6}); !errors.Is(err, ErrNoPortRules) {
		t.Errorf("a port without rules: %v", err)
	}
}
