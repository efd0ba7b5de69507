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

// TestRulesChooseClasses: the mark and the priority that rules give a packet, the first
// of a flow and those that are remembered, choose the class of a queueing discipline.
func TestRulesChooseClasses(t *testing.T) {
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
	l := stillSites(t, s)
	for port, times := range map[uint16]int{2000: 3, 2001: 4, 2002: 5} {
		p := alice.to(bob)
		p.DstPort = port
		for range times {
			l.send(alice.port(), pt.UDP4(p))
			l.arrived(bob, pt.UDP(pt.DstPort(port)))
		}
	}
	reports, _, err := l.n.Queue(bob.port(), false)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]uint64)
	for _, c := range reports[0].Classes {
		got[c.Handle.String()] = c.Stats.Packets
	}
	if got["1:10"] != 3 || got["1:20"] != 4 || got["1:30"] != 5 {
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
