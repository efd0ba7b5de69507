// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
	"sluice/qdisc"
	"sluice/routing"
	"sluice/trace"
)

// ruled is a namespace with a ruleset.
func ruledSites(text string) NamespaceSpec {
	s := translating(2)
	s.Rules = &journal.Journal{Steps: []journal.Step{{File: "rules.nft", Text: text}}}
	return s
}

// listed is the listing of the lab's namespace.
func (l *lab) listed(words string) string {
	l.t.Helper()
	out, err := l.n.Namespace("lab").RuleList(&RuleQuery{Text: words})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *lab) wantListed(lines ...string) {
	l.t.Helper()
	out := l.listed("list ruleset")
	for _, line := range lines {
		if !strings.Contains(out, line+"\n") {
			l.t.Errorf("no line %q in\n%s", line, out)
		}
	}
}

// classing is sites whose rules choose classes of an htb at bob's port: 1:10 by a mark,
// of port 2000, 1:20 by a priority, of 2001, and 1:30 by nothing.
func classing() NamespaceSpec {
	s := ruledSites(`table inet classes {
	chain forward {
		type filter hook forward priority filter; policy accept;
		udp dport 2000 meta mark set 7
		udp dport 2001 meta priority set 1:20
	}
}
`)
	const h = qdisc.Handle(1 << 16)
	spec := qdisc.Spec{
		Qdiscs:  []qdisc.Qdisc{{Kind: "htb", Handle: h, Parent: qdisc.Root, HTB: &qdisc.HTB{Default: 0x30}}},
		Filters: []qdisc.Filter{{Parent: h, Prio: 1, Kind: "fw", Mark: 7, Class: h + 0x10}},
	}
	for _, minor := range []qdisc.Handle{0x10, 0x20, 0x30} {
		spec.Classes = append(spec.Classes, qdisc.Class{
			Kind: "htb", Handle: h + minor, Parent: h, HTB: &qdisc.HTBClass{Rate: qdisc.Rate{Bytes: 1 << 27}, Burst: 1 << 20, CBurst: 1 << 20},
		})
	}
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			if s.Networks[i].Ports[j].Index == bob.port() {
				s.Networks[i].Ports[j].Egress = &spec
			}
		}
	}
	return s
}

// classes are the packets that left by classing's classes.
func (l *lab) classes() (got [3]uint64) {
	l.t.Helper()
	reports, _, err := l.n.Queue(bob.port(), false)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, c := range reports[0].Classes {
		got[c.Handle.Minor()/0x10-1] = c.Stats.Packets
	}
	return got
}

// TestRulesChooseClasses: the mark and the priority that rules give a packet, the first
// of a flow and those that are remembered, choose the class of a queueing discipline.
func TestRulesChooseClasses(t *testing.T) {
	l := stillSites(t, classing())
	for port, times := range map[uint16]int{2000: 3, 2001: 4, 2002: 5} {
		p := alice.to(bob)
		p.DstPort = port
		for range times {
			l.send(alice.port(), pt.UDP4(p))
			l.arrived(bob, pt.UDP(pt.DstPort(port)))
		}
	}
	if got := l.classes(); got != [3]uint64{3, 4, 5} {
		t.Errorf("packets by class are %v", got)
	}
}

// TestRulesChooseClassesOfWhatWaits for a neighbour that nobody knows yet.
func TestRulesChooseClassesOfWhatWaits(t *testing.T) {
	l := stillSites(t, classing())
	guest := party{2, 9}
	for port, times := range map[uint16]int{2000: 3, 2001: 4, 2002: 5} {
		p := alice.to(guest)
		p.DstPort = port
		for range times {
			l.send(alice.port(), pt.UDP4(p))
		}
	}
	before := l.classes() // somebody was asked for
	l.arrivedAll(bob, pt.ARP())
	l.send(bob.port(), bob.answer(guest.mac(), guest.addr4()))
	for range 3 + 4 + 5 {
		l.arrivedAll(bob, pt.EtherDst(guest.mac()), pt.UDP())
	}
	after := l.classes()
	if got := [3]uint64{after[0] - before[0], after[1] - before[1], after[2] - before[2]}; got != [3]uint64{3, 4, 5} {
		t.Errorf("packets by class are %v", got)
	}
}

// TestRulesSeeTheMarksOfFilters: what a filter of a port's ingress discipline sets is the
// mark that rulesets, and disciplines behind them, see.
func TestRulesSeeTheMarksOfFilters(t *testing.T) {
	s := ruledSites(`table inet marks {
	chain forward {
		type filter hook forward priority filter; policy accept;
		meta mark 7 counter
	}
}
`)
	prio := &qdisc.Spec{
		Qdiscs:  []qdisc.Qdisc{{Kind: "prio", Handle: 1 << 16, Parent: qdisc.Root}},
		Filters: []qdisc.Filter{{Parent: 1 << 16, Prio: 1, Kind: "matchall", SetMark: new(uint32(7)), Class: 1<<16 + 1}},
	}
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			switch p := &s.Networks[i].Ports[j]; p.Index {
			case alice.port():
				p.Ingress = prio
			case bob.port():
				p.Egress = classing().Networks[1].Ports[0].Egress
			}
		}
	}
	l := stillSites(t, s)
	for range 4 {
		p := alice.to(bob)
		p.DstPort = 2003
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(bob, pt.UDP())
	}
	l.wantListed("\t\tmeta mark 0x00000007 counter packets 4 bytes 192")
	if got := l.classes(); got != [3]uint64{4, 0, 0} {
		t.Errorf("packets by class are %v", got)
	}
}

const forwardRules = `table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related counter accept
		iifname "net1" udp dport 2000 counter accept
		tcp dport 99 counter reject with tcp reset
		udp dport 98 counter reject with icmpx admin-prohibited
	}
}
`

func TestRulesForward(t *testing.T) {
	l := stillSites(t, ruledSites(strings.ReplaceAll(forwardRules, "net1", translating(1).Networks[0].Name)))
	there := alice.to(bob)
	back := bob.back(there, gate(2).addr4(), 1000)
	hits := l.hits(alice)
	for range 4 {
		l.send(alice.port(), pt.UDP4(there))
		l.arrived(bob, pt.UDP(pt.DstPort(2000)))
		l.send(bob.port(), pt.UDP4(back))
		l.arrived(alice, pt.UDP(pt.SrcPort(2000)))
	}
	if n := hits(); n != 2 {
		t.Errorf("%d hits, want 2: the first packet is new, the second established", n)
	}
	l.wantListed("\t\tct state established,related counter packets 7 bytes 336 accept",
		"\t\tiifname \""+translating(1).Networks[0].Name+"\" udp dport 2000 counter packets 1 bytes 48 accept")
	other := bob.to(alice) // from outside
	l.send(bob.port(), pt.UDP4(other))
	l.silent(alice.port())
	if n := l.drops(bob.port(), trace.NFTDrop); n != 1 {
		t.Errorf("%d dropped", n)
	}
	// Who is refused hears of it.
	syn := alice.to(bob)
	syn.DstPort, syn.Flags = 99, pt.SYN
	l.send(alice.port(), pt.TCP4(syn))
	l.round()
	pt.Check(t, l.got(alice.port()), pt.IPv4(pt.Src(bob.addr4()), pt.Dst(alice.addr4())), pt.TCP(pt.SrcPort(99)))
	no := alice.to(bob)
	no.DstPort = 98
	l.send(alice.port(), pt.UDP4(no))
	l.round()
	f := l.got(alice.port())
	pt.Check(t, f, pt.IPv4(pt.Src(gate(1).addr4()), pt.Dst(alice.addr4())))
	if f.View.Proto != packet.ProtoICMP || f.Bytes()[f.View.L4] != packet.ICMPUnreach || f.Bytes()[f.View.L4+1] != packet.ICMPAdminProhib {
		t.Errorf("%v", f.View)
	}
	if n := l.drops(alice.port(), trace.NFTReject); n != 2 {
		t.Errorf("%d refused", n)
	}
	// Of one with a wrong checksum nobody knows who sent it.
	for _, frame := range [][]byte{pt.TCP4(syn), pt.UDP4(no)} {
		f := pt.Frame(frame)
		f.Bytes()[f.View.L4+map[uint8]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6}[f.View.Proto]] ^= 0x55
		l.send(alice.port(), f.Bytes())
		l.silent(alice.port())
	}
	if n := l.drops(alice.port(), trace.NFTReject); n != 4 {
		t.Errorf("%d refused", n)
	}
}

// TestRulesHooks: all hooks are asked in netfilter's order, about the packet as it is
// there.
func TestRulesHooks(t *testing.T) {
	s := ruledSites(`table ip t {
	chain raw { type filter hook prerouting priority raw; udp dport 8080 counter; udp dport 9 notrack; }
	chain mangle { type filter hook prerouting priority mangle; udp dport 8080 ct state new counter; }
	chain late { type filter hook prerouting priority -90; udp dport 80 counter; }
	chain forward { type filter hook forward priority 0; ip ttl 63 udp dport 80 counter; ct state untracked counter; }
	chain post { type filter hook postrouting priority 0; udp dport 80 counter; }
	chain in { type filter hook input priority 0; icmp type echo-request counter; }
	chain out { type filter hook output priority 0; icmp type echo-reply counter; }
}
`)
	l := stillSites(t, s)
	in := bob.to(alice)
	in.Dst, in.DstPort = gate(2).addr4(), 8080
	for range 3 {
		l.send(bob.port(), pt.UDP4(in))
		l.arrived(alice, pt.UDP(pt.DstPort(80)))
	}
	p := alice.to(bob)
	p.Dst = gate(1).addr4()
	l.send(alice.port(), pt.Ping4(p))
	l.round()
	l.got(alice.port())
	p = alice.to(bob)
	p.DstPort = 9
	l.send(alice.port(), pt.UDP4(p))
	l.arrived(bob, pt.UDP(pt.DstPort(9)))
	l.wantListed("\t\tudp dport 8080 counter packets 3 bytes 144", "\t\tudp dport 8080 ct state new counter packets 3 bytes 144",
		"\t\tudp dport 80 counter packets 3 bytes 144", "\t\tip ttl 63 udp dport 80 counter packets 3 bytes 144",
		"\t\tct state untracked counter packets 1 bytes 48", "\t\ticmp type echo-request counter packets 1 bytes 48",
		"\t\ticmp type echo-reply counter packets 1 bytes 48")
}

func TestRulesNAT(t *testing.T) {
	s := ruledSites(`table ip nat {
	map to { type inet_service : ipv4_addr . inet_service; elements = { 7000 : 10.44.1.11 . 70 } }
	chain pre { type nat hook prerouting priority dstnat; dnat to udp dport map @to; }
	chain post { type nat hook postrouting priority srcnat; oifname != "lo" ip saddr 10.44.1.12 snat to 10.44.2.99; }
}
`)
	s.Connections.Rules = nil
	l := stillSites(t, s)
	in := bob.to(alice)
	in.Dst, in.DstPort = gate(2).addr4(), 7000
	for range 3 {
		l.send(bob.port(), pt.UDP4(in))
		l.arrived(alice, pt.IPv4(pt.Dst(alice.addr4())), pt.UDP(pt.DstPort(70)))
	}
	from := party{1, 2}
	l.send(from.port(), pt.UDP4(from.to(bob)))
	pt.Check(t, l.got(bob.port()), pt.IPv4(pt.Src(netip.MustParseAddr("10.44.2.99"))))
}

// TestRulesNATOnce: what chains of type nat do beside translating, they do for the first
// packet of a connection.
func TestRulesNATOnce(t *testing.T) {
	s := ruledSites(`table ip nat {
	set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
	chain pre { type nat hook prerouting priority dstnat; udp dport 7000 counter update @seen { ip saddr timeout 5s } meta mark set 4 dnat to 10.44.1.11:70; }
	chain post { type nat hook postrouting priority srcnat; counter masquerade; }
	chain f { type filter hook forward priority 0; counter; meta mark 4 counter comment "first"; ip saddr @seen counter; }
}
`)
	s.Connections.Rules = nil
	l := stillSites(t, s)
	in := bob.to(alice)
	in.Dst, in.DstPort = gate(2).addr4(), 7000
	for range 6 {
		l.send(bob.port(), pt.UDP4(in))
		l.arrived(alice, pt.IPv4(pt.Dst(alice.addr4())), pt.UDP(pt.DstPort(70)))
	}
	l.wantListed("\t\tcounter packets 1 bytes 48 masquerade", "\t\tcounter packets 6 bytes 288", "\t\tmeta mark 0x00000004 counter packets 1 bytes 48 comment \"first\"",
		"\t\tip saddr @seen counter packets 6 bytes 288")
	if hits := l.n.opts.Counters.Port(bob.port()).Snapshot().FlowHits; hits != 4 {
		t.Errorf("%d of 6 packets by the flow cache, want all but two", hits)
	}
	for range 6 {
		l.send(bob.port(), pt.UDP4(in))
		l.got(alice.port())
		l.pass(1)
	}
	l.send(bob.port(), pt.UDP4(in)) // the element was not refreshed
	l.got(alice.port())
	l.wantListed("\t\tip saddr @seen counter packets 11 bytes 528")
}

func TestRulesHitAllocatesNothing(t *testing.T) {
	l := stillSites(t, ruledSites(`table inet t {
	set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
	chain forward {
		type filter hook forward priority 0; policy drop;
		counter
		ct state established,related counter accept
		ip saddr 10.44.0.0/16 counter accept
	}
}
`))
	l.hitsAllocateNothing(t, alice, pt.Frame(pt.UDP4(alice.to(bob))))
}

// TestRulesChange: a transaction goes on with what was counted; one that is wrong
// changes nothing.
func TestRulesChange(t *testing.T) {
	l := stillSites(t, ruledSites("table ip t { chain f { type filter hook forward priority 0; counter; }; }"))
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.arrived(bob, pt.UDP())
	spec := &l.snap.Namespaces[0]
	j := *spec.Rules
	next := j
	next.Steps = append(next.Steps[:1:1], journal.Step{Text: "add rule ip t f udp dport 2000 counter drop"})
	spec.Rules = &next
	l.apply()
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.silent(bob.port())
	l.wantListed("\t\tcounter packets 2 bytes 96", "\t\tudp dport 2000 counter packets 1 bytes 48 drop")
	wrong := next
	wrong.Steps = append(next.Steps[:2:2], journal.Step{File: "x.nft", Text: "\nadd rule ip t f tcp dport nobody"})
	spec.Rules = &wrong
	if err := l.n.Apply(&l.snap, nil); err == nil || !strings.Contains(err.Error(), "x.nft:2:") {
		t.Errorf("error %v", err)
	}
	spec.Rules = &journal.Journal{Steps: []journal.Step{{Text: "table bridge t { chain f { type filter hook prerouting priority 0; ct state new; }; }"}}}
	if err := l.n.Apply(&l.snap, nil); err == nil || !strings.Contains(err.Error(), "at hook prerouting, nothing is known of connections") {
		t.Errorf("error %v", err)
	}
	l.wantListed("\t\tcounter packets 2 bytes 96")
	spec.Rules = nil
	l.apply()
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.arrived(bob, pt.UDP())
}

// TestRulesCountOnce: a packet for which the rules are asked again, since its connection
// has another state now, is seen by the connection once.
func TestRulesCountOnce(t *testing.T) {
	l := stillSites(t, ruledSites("table ip t { chain f { type filter hook forward priority 0; ct state established accept; ct state new accept; drop; }; }"))
	there := alice.to(bob)
	for range 3 {
		l.send(alice.port(), pt.UDP4(there))
		l.arrived(bob, pt.UDP())
		l.send(bob.port(), pt.UDP4(bob.back(there, gate(2).addr4(), 1000)))
		l.arrived(alice, pt.UDP())
	}
	c := l.n.Connections()
	c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
		if e.Packets != [2]uint64{3, 3} {
			t.Errorf("packets %v", e.Packets)
		}
		return true
	})
}

// TestRulesRejectTranslated: a reset, and an ICMP error, are about the segment that the
// client has sent, though its destination was translated.
func TestRulesRejectTranslated(t *testing.T) {
	l := stillSites(t, ruledSites(`table ip t {
	chain f { type filter hook forward priority 0; tcp dport 80 reject with tcp reset; udp dport 80 reject with icmp port-unreachable; }
}
`))
	syn := bob.to(alice)
	syn.Dst, syn.DstPort, syn.Flags = gate(2).addr4(), 8080, pt.SYN
	l.send(bob.port(), pt.TCP4(syn))
	l.round()
	pt.Check(t, l.got(bob.port()), pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(bob.addr4())), pt.TCP(pt.SrcPort(8080), pt.DstPort(1000)))
	u := bob.to(alice)
	u.Dst, u.DstPort = gate(2).addr4(), 8080
	l.send(bob.port(), pt.UDP4(u))
	l.round()
	f := l.got(bob.port())
	quoted := f.Bytes()[f.View.L4+8:]
	if !bytes.Equal(quoted[16:20], gate(2).addr4().AsSlice()) || quoted[22] != 8080>>8 || quoted[23] != 8080&0xff || quoted[8] != 63 {
		t.Errorf("quoted %x", quoted)
	}
	if n := l.drops(bob.port(), trace.NFTReject); n != 2 {
		t.Errorf("%d refused", n)
	}
}

// TestRulesCountMuch: of a remembered flow that passes many rules which count, at all hooks,
// each of them counts each packet, and a hit is one nevertheless.
func TestRulesCountMuch(t *testing.T) {
	many := strings.Repeat("counter\n", 50)
	s := framedSites("table ip t {\nchain p { type filter hook prerouting priority 0;\n" + many + "}\nchain f { type filter hook forward priority 0;\n" + many +
		"}\nchain q { type filter hook postrouting priority 150;\n" + many + "}\n}\ntable bridge b {\nchain o { type filter hook postrouting priority 0;\n" + many + "}\n}\n")
	s.Connections.Rules = []nat.Rule{publish(8080, alice.addr4(), 80)}
	l := stillSites(t, s)
	in := bob.to(alice)
	in.Dst, in.DstPort = gate(2).addr4(), 8080
	hits := l.hits(bob)
	for range 5 {
		l.send(bob.port(), pt.UDP4(in))
		l.arrived(alice, pt.UDP(pt.DstPort(80)))
	}
	if n := hits(); n != 4 {
		t.Errorf("%d hits, want 4", n)
	}
	if n := strings.Count(l.listed("list ruleset"), "counter packets 5 bytes 240\n"); n != 200 {
		t.Errorf("%d rules have counted all packets, want 200", n)
	}
	l.hitsAllocateNothing(t, bob, pt.Frame(pt.UDP4(in)))
	if n := strings.Count(l.listed("list ruleset"), "counter packets 207 bytes 9936\n"); n != 200 {
		t.Errorf("%d rules have counted all packets, want 200", n)
	}
}

// TestRulesRoute: a mark that is set before routing chooses the table; so it does for
// the packets of the remembered flow.
func TestRulesRoute(t *testing.T) {
	s := ruledSites("table ip t { chain p { type filter hook prerouting priority mangle; udp dport 7 meta mark set 9 ct mark set 3; }; }")
	names, err := routing.NewNames(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"add pref 0 lookup local", "add pref 9 fwmark 9 prohibit", "add pref 32766 lookup main"} {
		c, err := names.ParseRule(line)
		if err != nil {
			t.Fatal(err)
		}
		s.Routing.Rules = append(s.Routing.Rules, *c.Rule)
	}
	l := stillSites(t, s)
	p := alice.to(bob)
	for range 2 {
		p.DstPort = 7
		l.send(alice.port(), pt.UDP4(p))
		l.silent(bob.port())
		p.DstPort = 8
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(bob, pt.UDP())
	}
	if n := l.drops(alice.port(), trace.Prohibit); n != 2 {
		t.Errorf("%d prohibited", n)
	}
}

// TestNATChainsSeeFirstPackets: what a chain of type nat does is for a connection's first
// packet, also when the flow is remembered.
func TestNATChainsSeeFirstPackets(t *testing.T) {
	l := stillSites(t, ruledSites(`table ip t {
	chain pre { type nat hook prerouting priority dstnat; udp dport 2000 counter meta mark set 7; udp dport 2001 counter ct mark set 5; }
	chain forward { type filter hook forward priority 0; meta mark 7 counter; meta mark 0 counter; ct mark 5 counter; }
}
`))
	hits := l.hits(alice)
	for _, port := range []uint16{2000, 2001} {
		p := alice.to(bob)
		p.DstPort = port
		for range 4 {
			l.send(alice.port(), pt.UDP4(p))
			l.arrived(bob, pt.UDP(pt.DstPort(port)))
		}
	}
	if n := hits(); n != 5 { // whose first packet had another mark is asked about once more
		t.Errorf("%d hits, want 5", n)
	}
	l.wantListed("\t\tudp dport 2000 counter packets 1 bytes 48 meta mark set 0x00000007", "\t\tudp dport 2001 counter packets 1 bytes 48 ct mark set 0x00000005",
		"\t\tmeta mark 0x00000007 counter packets 1 bytes 48", "\t\tmeta mark 0x00000000 counter packets 7 bytes 336",
		"\t\tct mark 0x00000005 counter packets 4 bytes 192")
}

// TestNATOfTheOtherFamily: a rule that translates to an address of one family is none for
// packets of the other.
func TestNATOfTheOtherFamily(t *testing.T) {
	l := stillSites(t, ruledSites(`table inet t {
	chain pre { type nat hook prerouting priority dstnat; udp dport 7000 counter dnat ip6 to fd44::99; udp dport 7000 counter dnat ip to 10.44.1.11:70; }
}
`))
	p := bob.to(alice)
	p.Dst, p.DstPort = gate(2).addr4(), 7000
	l.send(bob.port(), pt.UDP4(p))
	l.arrived(alice, pt.UDP(pt.DstPort(70)))
	l.wantListed("\t\tudp dport 7000 counter packets 1 bytes 48 dnat ip6 to fd44::99", "\t\tudp dport 7000 counter packets 1 bytes 48 dnat ip to 10.44.1.11:70")
}

// TestRawKnowsNoConnection: not that of the packet before either, which came to nothing.
func TestRawKnowsNoConnection(t *testing.T) {
	l := stillSites(t, ruledSites(`table ip t {
	chain raw { type filter hook prerouting priority raw; ct direction original counter; udp dport 9 notrack; }
	chain forward { type filter hook forward priority 0; udp dport 7 drop; ct state untracked counter; }
}
`))
	p := alice.to(bob)
	for range 2 {
		p.DstPort = 7
		l.send(alice.port(), pt.UDP4(p))
		l.silent(bob.port())
		p.DstPort = 9
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(bob, pt.UDP(pt.DstPort(9)))
	}
	l.wantListed("\t\tct direction original counter packets 0 bytes 0", "\t\tct state untracked counter packets 2 bytes 96")
}

// TestRefusedByWhoItWasFor: the namespace refuses what was for one of its addresses by that.
func TestRefusedByWhoItWasFor(t *testing.T) {
	for _, hook := range []string{"prerouting", "input"} {
		l := stillSites(t, ruledSites("table inet t { chain c { type filter hook "+hook+" priority 0; udp dport 2000 reject with icmpx admin-prohibited; }; }"))
		p := alice.to(bob)
		for _, dst := range []netip.Addr{gate(1).addr4(), gate(2).addr4(), gate(1).addr6(), gate(2).addr6()} {
			build, want := pt.UDP4, dst
			if p.Dst = dst; dst.Is6() {
				p.Src, build = alice.addr6(), pt.UDP6
			} else if hook == "prerouting" { // nobody knows yet who it is for
				want = gate(1).addr4()
			}
			l.send(alice.port(), build(p))
			l.round()
			f := l.got(alice.port())
			if f == nil || f.View.SrcAddr(f.Bytes()) != want {
				t.Errorf("what was sent to %v is refused at %s by %v", dst, hook, f)
			}
		}
	}
}

// TestResetOfNoConnection: a segment that is no good for a connection is refused by a
// reset, which is of that connection and ends it.
func TestResetOfNoConnection(t *testing.T) {
	l := stillSites(t, ruledSites("table ip t { chain c { type filter hook forward priority 0; ct state invalid counter reject with tcp reset; }; }"))
	p := bob.to(alice) // which nothing translates
	p.Flags, p.Seq, p.Ack = pt.ACK, 1000, 500
	l.send(bob.port(), pt.TCP4(p))
	l.arrived(alice, pt.TCP())
	table := l.n.Connections().Table()
	if n := table.Len(); n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
	q := alice.to(bob)
	q.SrcPort, q.DstPort, q.Flags, q.Seq, q.Ack = p.DstPort, p.SrcPort, pt.SYN, 500, 1000
	l.send(alice.port(), pt.TCP4(q))
	l.round()
	pt.Check(t, l.got(alice.port()), pt.TCP(pt.SrcPort(p.SrcPort)))
	table.Entries(nil, l.n.Connections().Now(), func(e *conntrack.Entry) bool {
		t.Errorf("there is %s", e.Append(nil, 0))
		return true
	})
}

// TestOutputKnowsTheRoute: what the host stack answers leaves, for rules of output, by the
// device of the routes to where the packet goes as yet.
func TestOutputKnowsTheRoute(t *testing.T) {
	l := stillSites(t, ruledSites(strings.NewReplacer("NET1", gate(1).name(), "NET2", gate(2).name()).Replace(`table ip t {
	chain in { type nat hook input priority 100; snat to 10.44.1.77; }
	chain out { type filter hook output priority raw; oifname "NET1" counter; oifname "NET2" counter; }
	chain post { type filter hook postrouting priority 0; oifname "NET2" counter; }
}
`)))
	p := bob.to(alice)
	p.Dst = gate(2).addr4()
	l.send(bob.port(), pt.Ping4(p))
	l.round()
	pt.Check(t, l.got(bob.port()), pt.IPv4(pt.Src(gate(2).addr4()), pt.Dst(bob.addr4())))
	l.wantListed("\t\toifname \""+gate(1).name()+"\" counter packets 1 bytes 48", "\t\toifname \""+gate(2).name()+"\" counter packets 0 bytes 0",
		"\t\toifname \""+gate(2).name()+"\" counter packets 1 bytes 48")
}

// TestRefusalsAreTranslated: as what they are about would be, also at hooks before that is,
// or before it is known.
func TestRefusalsAreTranslated(t *testing.T) {
	l := stillSites(t, ruledSites(`table ip t {
	chain raw { type filter hook prerouting priority raw; udp dport 53 counter reject; }
	chain mangle { type filter hook prerouting priority mangle; ct status dnat udp dport 7000 counter reject; }
	chain nat { type nat hook prerouting priority dstnat; udp dport 7000 dnat to 10.44.1.11:70; udp dport 7001 redirect; }
}
`))
	p := bob.to(alice)
	p.Dst, p.DstPort = netip.MustParseAddr("10.44.1.99"), 7000
	l.send(bob.port(), pt.UDP4(p))
	l.arrived(alice, pt.UDP(pt.DstPort(70)))
	l.send(bob.port(), pt.UDP4(p))
	l.round()
	pt.Check(t, l.got(bob.port()), pt.IPv4(pt.Src(p.Dst), pt.Dst(bob.addr4())))
	p.Dst, p.SrcPort, p.DstPort = alice.addr4(), 53, 7001
	l.send(bob.port(), pt.UDP4(p)) // comes to the namespace itself
	l.round()
	pt.Check(t, l.got(bob.port()), pt.IPv4(pt.Src(alice.addr4()), pt.Dst(bob.addr4())))
	q := alice.to(bob)
	q.SrcPort, q.DstPort = 7001, 53 // so that this is for the namespace, too
	l.send(alice.port(), pt.UDP4(q))
	l.round()
	l.silent(alice.port(), bob.port())
	l.wantListed("\t\tudp dport 53 counter packets 1 bytes 48 reject", "\t\tct status dnat udp dport 7000 counter packets 1 bytes 48 reject")
}
