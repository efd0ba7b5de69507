// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
	"sluice/trace"
)

// framedSites are two networks, with a ruleset, in which the ports have names: p11…
func framedSites(text string) NamespaceSpec {
	s := sites("lab", site(1, 3), site(2, 2))
	s.Connections = ConnectionsSpec{Track: true, Zone: 7}
	s.Rules = &journal.Journal{Steps: []journal.Step{{File: "rules.nft", Text: text}}}
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			p := &s.Networks[i].Ports[j]
			p.Device, p.Tenure = fmt.Sprintf("p%d", p.Index), 1
		}
	}
	return s
}

var (
	carol = party{1, 2}
	dave  = party{1, 3}
)

// TestFrameHooks: each hook counts what passes it, of remembered flows, too; devices have
// their names.
func TestFrameHooks(t *testing.T) {
	net := gate(1).name()
	l := stillSites(t, framedSites(strings.ReplaceAll(`table netdev n {
	chain in { type filter hook ingress device "p11" priority 0; meta mark 0 counter; meta pkttype other udp dport 2000 counter meta mark set 5; }
	chain out { type filter hook egress devices = { "p12", "p21" } priority 0; oifname "p12" meta mark 9 counter; oifname "p21" counter; meta iif 0 counter; }
}
table inet i {
	chain in { type filter hook ingress device "p11" priority 5; meta nfproto ipv4 counter; meta nfproto ipv6 counter; }
	chain forward { type filter hook forward priority 0; meta mark 7 counter meta mark set 8; }
}
table bridge b {
	chain pre { type filter hook prerouting priority dstnat; meta ibrname "NET" iifname "p11" meta mark 5 counter; meta pkttype host counter meta mark set 7; }
	chain in { type filter hook input priority 0; iifname "p11" meta mark 7 counter; meta oif 0 ether type arp counter; }
	chain fwd { type filter hook forward priority 0; meta obrname "NET" oifname "p12" udp dport 2000 counter meta mark set 9; meta pkttype broadcast counter; }
	chain out { type filter hook output priority 0; oifname "p21" meta mark 8 counter; oifname "p11" ether type arp counter; }
	chain post { type filter hook postrouting priority srcnat; meta iif 0 oifname "p12" ip version 4 counter; }
}
table arp a {
	chain in { type filter hook input priority 0; iifname "NET" arp operation request arp daddr ip 10.44.1.1 counter; }
	chain out { type filter hook output priority 0; oifname "NET" arp operation reply counter; }
}
`, "NET", net)))
	hits := l.hits(alice)
	for range 3 { // bridged
		l.send(alice.port(), pt.UDP4(alice.beside(carol)))
		pt.Check(t, l.got(carol.port()), pt.EtherSrc(alice.mac()), pt.UDP())
	}
	for range 3 { // routed
		l.send(alice.port(), pt.UDP4(alice.to(bob)))
		l.arrived(bob, pt.UDP())
	}
	if n := hits(); n != 4 {
		t.Errorf("%d hits, want 4", n)
	}
	l.send(alice.port(), pt.ARPRequest(pt.Packet{SrcMAC: alice.mac(), Src: alice.addr4(), Dst: gate(1).addr4()}))
	l.round()
	pt.Check(t, l.got(alice.port()), pt.ARP(pt.Op(2)))
	// A frame of UDP is 48 bytes from its IP header on, one of ARP 28.
	l.wantListed(
		"\t\tmeta mark 0x00000000 counter packets 7 bytes 316",
		"\t\tmeta pkttype other udp dport 2000 counter packets 6 bytes 288 meta mark set 0x00000005",
		"\t\toifname \"p12\" meta mark 0x00000009 counter packets 3 bytes 186", "\t\toifname \"p21\" counter packets 3 bytes 186",
		"\t\tiif 0 counter packets 7 bytes 414",
		"\t\tmeta nfproto ipv4 counter packets 6 bytes 288", "\t\tmeta nfproto ipv6 counter packets 0 bytes 0",
		"\t\tmeta mark 0x00000007 counter packets 3 bytes 144 meta mark set 0x00000008",
		"\t\tmeta ibrname \""+net+"\" iifname \"p11\" meta mark 0x00000005 counter packets 6 bytes 288",
		"\t\tmeta pkttype host counter packets 3 bytes 144 meta mark set 0x00000007",
		"\t\tiifname \"p11\" meta mark 0x00000007 counter packets 3 bytes 144", "\t\toif 0 ether type arp counter packets 1 bytes 28",
		"\t\tmeta obrname \""+net+"\" oifname \"p12\" udp dport 2000 counter packets 3 bytes 144 meta mark set 0x00000009",
		"\t\tmeta pkttype broadcast counter packets 2 bytes 56",
		"\t\toifname \"p21\" meta mark 0x00000008 counter packets 3 bytes 144", "\t\toifname \"p11\" ether type arp counter packets 1 bytes 28",
		"\t\tiif 0 oifname \"p12\" ip version 4 counter packets 3 bytes 144",
		"\t\tiifname \""+net+"\" arp operation request arp daddr ip 10.44.1.1 counter packets 1 bytes 28",
		"\t\toifname \""+net+"\" arp operation reply counter packets 1 bytes 28")
}

// TestFramesAreDropped at each hook, the first and the others, and only those.
func TestFramesAreDropped(t *testing.T) {
	udp := func(l *lab) { l.send(alice.port(), pt.UDP4(alice.beside(carol))) }
	routed := func(l *lab) { l.send(alice.port(), pt.UDP4(alice.to(bob))) }
	arp := func(l *lab) {
		l.send(alice.port(), pt.ARPRequest(pt.Packet{SrcMAC: alice.mac(), Src: alice.addr4(), Dst: gate(1).addr4()}))
		l.round()
	}
	for chain, c := range map[string]struct {
		family, rule string
		send         func(*lab)
		silent       []uint16
		at           uint16
		hits         int
	}{
		`ingress device "p11"`: {"netdev", "udp dport 2000 drop", udp, []uint16{12}, 11, 2},
		`egress device "p12"`:  {"netdev", "ip saddr 10.44.1.11 drop", udp, []uint16{12}, 11, 2},
		`egress device "p21"`:  {"netdev", "ip saddr 10.44.1.11 drop", routed, []uint16{21}, 11, 2},
		"prerouting":           {"bridge", "ether saddr " + alice.mac().String() + " drop", udp, []uint16{12}, 11, 2},
		"forward":              {"bridge", "ether saddr " + alice.mac().String() + " drop", udp, []uint16{12}, 11, 2},
		"postrouting":          {"bridge", "oifname p12 drop", udp, []uint16{12}, 11, 2},
		"input":                {"bridge", "ip daddr 10.44.2.0/24 drop", routed, []uint16{21}, 11, 2},
		"output":               {"bridge", "meta obrname " + gate(2).name() + " drop", routed, []uint16{21}, 11, 2},
		"input ":               {"arp", "arp saddr ether " + alice.mac().String() + " drop", arp, []uint16{11}, 11, 0},
		"output ":              {"arp", "arp operation reply drop", arp, []uint16{11}, gate(1).port(), 0},
	} {
		t.Run(c.family+" "+chain, func(t *testing.T) {
			l := stillSites(t, framedSites("table "+c.family+" t { chain c { type filter hook "+chain+" priority 0; "+c.rule+"; }; }"))
			hits := l.hits(alice)
			for range 3 {
				c.send(l)
			}
			for _, at := range append(c.silent, carol.port()) {
				for f := l.got(at); f != nil; f = l.got(at) {
					if f.View.Is(packet.ViewIPv4) || at == 11 {
						t.Errorf("port %d got %s", at, pt.Describe(f.Bytes()))
					}
				}
			}
			if n := l.drops(c.at, trace.NFTDrop); n != 3 {
				t.Errorf("%d dropped at port %d: %v", n, c.at, l.stats(c.at).Drops)
			}
			if n := hits(); n != c.hits {
				t.Errorf("%d hits, want %d", n, c.hits)
			}
			l.snap.Namespaces[0].Rules = nil
			l.apply()
			l.send(alice.port(), pt.UDP4(alice.beside(carol)))
			pt.Check(t, l.got(carol.port()), pt.UDP())
		})
	}
}

// TestFramesAreRefused: who sent the frame is told, in the name of who it was for.
func TestFramesAreRefused(t *testing.T) {
	l := stillSites(t, framedSites(`table bridge t {
	chain c { type filter hook prerouting priority 0; tcp dport 99 reject with tcp reset; udp dport 98 reject with icmpx admin-prohibited; ip6 nexthdr udp reject; }
}
`))
	p := alice.beside(carol)
	p.DstPort, p.Flags = 99, pt.SYN
	l.send(alice.port(), pt.TCP4(p))
	l.round()
	pt.Check(t, l.got(alice.port()), pt.EtherSrc(carol.mac()), pt.EtherDst(alice.mac()), pt.IPv4(pt.Src(carol.addr4()), pt.Dst(alice.addr4())), pt.TCP(pt.SrcPort(99)))
	p.DstPort, p.Tags = 98, tag(5)
	l.send(alice.port(), pt.UDP4(p))
	l.round()
	f := l.got(alice.port())
	pt.Check(t, f, pt.EtherSrc(carol.mac()), pt.IPv4(pt.Src(carol.addr4())), pt.ICMP(pt.ICMPType(packet.ICMPUnreach, packet.ICMPAdminProhib)))
	if f.View.Tags != 1 || f.View.TCI[0] != 5 {
		t.Errorf("answered in another VLAN: %+v", f.View)
	}
	q := alice.to6(carol)
	q.DstMAC = carol.mac()
	l.send(alice.port(), pt.UDP6(q))
	l.round()
	pt.Check(t, l.got(alice.port()), pt.IPv6(pt.Src(carol.addr6())), pt.ICMPv6(pt.ICMPType(packet.ICMP6Unreach, packet.ICMP6PortUnreach)))
	q.DstMAC, q.Dst = packet.MAC{0x33, 0x33, 0, 0, 0, 1}, pt.IP("ff02::1")
	l.send(alice.port(), pt.UDP6(q))
	l.round()
	l.silent(alice.port(), carol.port())
	if n := l.drops(alice.port(), trace.NFTReject); n != 4 {
		t.Errorf("%d refused", n)
	}
}

// TestFramesInVLANs are seen with the tag that they leave with.
func TestFramesInVLANs(t *testing.T) {
	s := vlans()
	for i := range s.Ports {
		s.Ports[i].Device = fmt.Sprintf("p%d", s.Ports[i].Index)
	}
	ns := alone(s)
	ns.Connections = ConnectionsSpec{Track: true, Zone: 7}
	ns.Rules = &journal.Journal{Steps: []journal.Step{{Text: `table bridge t {
	chain pre { type filter hook prerouting priority 0; iifname "p1" ether type vlan counter; iifname "p1" ether type ip counter; }
	chain c { type filter hook forward priority 0; oifname "p2" vlan id 10 udp dport 2000 counter; oifname "p3" ether type ip counter; oifname "p3" vlan id 10 counter; }
}
table netdev n { chain c { type filter hook egress device "p2" priority 0; vlan id 10 ip saddr 10.44.0.11 counter; vlan id 10 udp dport 77 drop; }; }
`}}}
	l := stillSites(t, ns)
	p := pt.Packet{SrcMAC: mac(1), DstMAC: mac(2), Src: addr4(1), Dst: addr4(2), SrcPort: 1000, DstPort: 2000}
	sent := pt.UDP4(p)
	l.send(2, pt.UDP4(pt.Packet{SrcMAC: mac(2), DstMAC: mac(1), Tags: tag(10)})) // where it is, in the VLAN
	pt.Check(t, l.got(1), pt.UDP())
	for range 3 {
		l.send(1, sent)
		l.same(2, retagged(sent, push(0x8100, 10)))
	}
	all := p
	all.DstMAC = packet.Broadcast()
	sent = pt.UDP4(all)
	l.send(1, sent)
	l.same(2, retagged(sent, push(0x8100, 10)))
	l.same(3, sent)
	l.silent(4)
	p.DstPort = 77
	for range 2 {
		l.send(1, pt.UDP4(p))
		l.silent(2)
	}
	if n := l.stats(1).FlowHits; n != 3 {
		t.Errorf("%d hits, want 3", n)
	}
	for _, line := range []string{
		"iifname \"p1\" ether type 8021q counter packets 0 bytes 0", "iifname \"p1\" ether type ip counter packets 6 bytes 168",
		"oifname \"p2\" vlan id 10 udp dport 2000 counter packets 4 bytes 112", "oifname \"p3\" ether type ip counter packets 1 bytes 28",
		"oifname \"p3\" vlan id 10 counter packets 0 bytes 0", "vlan id 10 ip saddr 10.44.0.11 counter packets 6 bytes 252",
	} {
		out, err := l.n.Namespace("blue").RuleList(&RuleQuery{Text: "list ruleset"})
		if err != nil || !strings.Contains(out, line) {
			t.Fatalf("no line %q in\n%s (%v)", line, out, err)
		}
	}
}

// TestFloodedFramesAreEachPorts: what rules write into a frame for one port, others don't
// see; nor does one that may not have it hold back the others.
func TestFloodedFramesAreEachPorts(t *testing.T) {
	l := stillSites(t, framedSites(`table bridge t {
	chain c { type filter hook forward priority 0; oifname "p12" ether saddr set 02:00:00:00:00:99; oifname "p13" udp dport 7 drop; }
}
`))
	p := alice.beside(carol)
	p.DstMAC = packet.Broadcast()
	for _, dport := range []uint16{2000, 7} {
		p.DstPort = dport
		sent := pt.UDP4(p)
		l.send(alice.port(), sent)
		l.same(carol.port(), retagged(sent, func(f *packet.Frame) bool {
			f.SetMACs(packet.Broadcast(), packet.MAC{2, 0, 0, 0, 0, 0x99})
			return true
		}))
		if dport == 2000 {
			l.same(dave.port(), sent)
		}
	}
	l.silent(alice.port(), dave.port())
	one := alice.beside(carol) // a write to one port is repeated for a known flow
	for range 3 {
		l.send(alice.port(), pt.UDP4(one))
		pt.Check(t, l.got(carol.port()), pt.EtherSrc(packet.MAC{2, 0, 0, 0, 0, 0x99}), pt.Data(one.Payload))
	}
	if n := l.stats(alice.port()).FlowHits; n != 2 {
		t.Errorf("%d hits, want 2", n)
	}
}

// TestBridgeKnowsConnections where the namespace tracks what is bridged.
func TestBridgeKnowsConnections(t *testing.T) {
	s := framedSites(`table bridge t {
	chain c { type filter hook forward priority 0; policy drop; ct state established counter accept; ct state new iifname "p11" ct mark set 3 counter accept; ether type arp accept; }
	chain p { type filter hook postrouting priority 0; ct mark 3 counter; }
}
`)
	s.Connections.Bridged = true
	l := stillSites(t, s)
	there, back := alice.beside(carol), carol.beside(alice)
	back.SrcPort, back.DstPort = there.DstPort, there.SrcPort
	for range 4 {
		l.send(alice.port(), pt.UDP4(there))
		pt.Check(t, l.got(carol.port()), pt.UDP())
		l.send(carol.port(), pt.UDP4(back))
		pt.Check(t, l.got(alice.port()), pt.UDP())
	}
	other := carol.beside(alice)
	l.send(carol.port(), pt.UDP4(other))
	l.silent(alice.port())
	l.wantListed("\t\tct state established counter packets 7 bytes 336 accept", "\t\tct state new iifname \"p11\" ct mark set 0x00000003 counter packets 1 bytes 48 accept",
		"\t\tct mark 0x00000003 counter packets 8 bytes 384")
	if n := l.stats(alice.port()).FlowHits; n != 2 {
		t.Errorf("%d hits, want 2: the first packet is new, the second established", n)
	}
}

const ownRules = `table netdev f {
	chain in { type filter hook ingress device "port" priority 0; udp dport 7 counter drop; iifname "port" counter; }
	chain out { type filter hook egress device "port" priority 0; oifname "port" meta obrname != "nowhere" counter; udp dport 9 drop; }
}
`

// TestPortsRuleset is for that port's frames, and nobody else's; and of this container's.
func TestPortsRuleset(t *testing.T) {
	s := framedSites("")
	s.Rules, s.Connections = nil, ConnectionsSpec{}
	own := &journal.Journal{Steps: []journal.Step{{Text: ownRules}}}
	s.Networks[0].Ports[0].Rules = own
	l := stillSites(t, s)
	send := func(from, to party, dport uint16) {
		p := from.beside(to)
		p.DstPort = dport
		l.send(from.port(), pt.UDP4(p))
	}
	for range 3 {
		send(alice, carol, 2000)
		pt.Check(t, l.got(carol.port()), pt.UDP())
		send(alice, carol, 7)
		send(carol, alice, 9)
		send(carol, alice, 7)
		pt.Check(t, l.got(alice.port()), pt.UDP(pt.DstPort(7)))
		send(carol, dave, 9)
		pt.Check(t, l.got(dave.port()), pt.UDP(pt.DstPort(9)))
	}
	l.silent(alice.port(), carol.port())
	want := func(lines ...string) {
		t.Helper()
		out, err := l.n.Namespace("lab").RuleList(&RuleQuery{Text: "list ruleset", Port: alice.port()})
		for _, line := range lines {
			if err != nil || !strings.Contains(out, line) {
				t.Errorf("no line %q in\n%s (%v)", line, out, err)
			}
		}
	}
	counted := []string{"udp dport 7 counter packets 3 bytes 144 drop", "iifname \"port\" counter packets 3 bytes 144", "counter packets 6 bytes 372"}
	want(counted...)
	saved := l.n.Namespace("lab").SaveRules(alice.port())
	p := &l.snap.Namespaces[0].Networks[0].Ports[0]
	p.Tenure = 2 // another container
	l.apply()
	want("udp dport 7 counter packets 0 bytes 0 drop")
	l.n.Namespace("lab").RestoreRules(alice.port(), 1, saved)
	want("udp dport 7 counter packets 0 bytes 0 drop")
	l.n.Namespace("lab").RestoreRules(alice.port(), 2, saved)
	want(counted...)
	if out := l.listed("list ruleset"); out != "" {
		t.Errorf("the namespace lists %s", out)
	}
	for text, wrong := range map[string]string{
		"table inet t": "family netdev only",
		"table netdev t { chain c { type filter hook ingress device \"p11\" priority 0; }; }": "its device is called \"port\"",
	} {
		p.Rules = &journal.Journal{Steps: []journal.Step{{Text: text}}}
		if err := l.n.Apply(&l.snap, nil); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("error %v, want %q", err, wrong)
		}
	}
	p.Rules = nil
	l.apply()
	send(alice, carol, 7)
	pt.Check(t, l.got(carol.port()), pt.UDP())
}

// TestFrameRulesRefused: what the namespace can't have as it is, by name.
func TestFrameRulesRefused(t *testing.T) {
	s := framedSites("")
	for text, want := range map[string]string{
		"table bridge t { chain c { type filter hook forward priority 0; ct state new; }; }":                                                                                                "needs conntrack.bridged",
		"table bridge t { chain d { meta ibrpvid 10; }\nchain c { type filter hook forward priority 0; jump d; }; }":                                                                        "meta ibrpvid and ibrvproto are not supported",
		"table bridge t { chain d { ct mark 3; }\nchain c { type filter hook input priority 0; jump d; }; }":                                                                                "at hook input, nothing is known",
		"table netdev t { chain c { type filter hook ingress device \"" + gate(1).name() + "\" priority 0; }; }":                                                                            "no container's port",
		"table bridge t { map m { type ifname : verdict; elements = { \"a\" : jump d }; }\nchain d { ct mark set 3; }\nchain c { type filter hook output priority 0; oifname vmap @m; }; }": "at hook output",
	} {
		j := journal.Journal{Steps: []journal.Step{{Text: text}}}
		state, _, err := j.Follow(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CheckRules(state.Ruleset); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

// manyFrameRules is a ruleset of n rules that don't match alice's frames, before one that
// counts them.
func manyFrameRules(n int) string {
	var b strings.Builder
	b.WriteString("table bridge t {\nchain f {\ntype filter hook forward priority 0; policy drop;\n")
	for i := range n {
		fmt.Fprintf(&b, "ether saddr 02:99:00:00:%02x:%02x ip saddr 10.99.0.0/16 drop\n", i>>8, i&0xff)
	}
	b.WriteString("ip saddr 10.44.0.0/16 counter accept\n}\n}\n")
	return b.String()
}

// TestFrameHitAllocatesNothing, and has one thing to do, by however many rules.
func TestFrameHitAllocatesNothing(t *testing.T) {
	for _, n := range []int{0, 1000} {
		l := stillSites(t, framedSites(manyFrameRules(n)))
		for to, frame := range map[party][]byte{carol: pt.UDP4(alice.beside(carol)), bob: pt.UDP4(alice.to(bob))} {
			l.send(alice.port(), frame)
			pt.Check(t, l.got(to.port()), pt.UDP())
			l.hitsAllocateNothing(t, alice, pt.Frame(frame))
		}
		acts := 0
		w := l.n.workers[0]
		w.mu.Lock()
		for i := range w.turn.flows.framed {
			for j := range w.turn.flows.framed[i].parts {
				acts += len(w.turn.flows.framed[i].parts[j].acts)
			}
		}
		w.mu.Unlock()
		if acts != 1 {
			t.Errorf("%d rules: %d actions are remembered, want 1", n, acts)
		}
	}
	// Where nothing is to be done for each packet, a hit is that of a namespace without rules.
	l := stillSites(t, framedSites(strings.ReplaceAll(manyFrameRules(1000), "counter", "")))
	l.send(alice.port(), pt.UDP4(alice.beside(carol)))
	pt.Check(t, l.got(carol.port()), pt.UDP())
	w := l.n.workers[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	d, _ := w.turn.flows.find(pt.Frame(pt.UDP4(alice.beside(carol))), l.n.view.Load().gen)
	if d != nil {
		t.Error("found under a port that is nobody's")
	}
	f := pt.Frame(pt.UDP4(alice.beside(carol)))
	f.InPort = alice.port()
	if d, _ = w.turn.flows.find(f, l.n.view.Load().gen); d == nil || !d.plain || d.hop != nil {
		t.Errorf("remembered as %+v", d)
	}
}

// TestMirroredAsItCame: who watches a port gets the frame before rules of forward write
// into it.
func TestMirroredAsItCame(t *testing.T) {
	s := framedSites("table bridge t { chain c { type filter hook forward priority 0; ether saddr set 02:00:00:00:00:99; }; }")
	s.Networks[0].Ports[0].MirrorIn = dave.port()
	l := stillSites(t, s)
	sent := pt.UDP4(alice.beside(carol))
	for range 2 {
		l.send(alice.port(), sent)
		l.same(dave.port(), sent)
		f := l.got(carol.port())
		if f == nil || bytes.Equal(f.Bytes(), sent) {
			t.Error("not written")
		}
	}
}

// BenchmarkFrameRules is a bridged frame of a remembered flow, and one that all rules are
// asked about.
func BenchmarkFrameRules(b *testing.B) {
	for _, n := range []int{-1, 0, 1000} {
		for name, miss := range map[string]bool{"hit": false, "miss": true} {
			b.Run(fmt.Sprintf("%s, %d rules", name, n), func(b *testing.B) {
				s := framedSites("")
				if s.Rules = nil; n >= 0 {
					s = framedSites(manyFrameRules(n))
				}
				l := stillSites(b, s)
				w := l.n.workers[0]
				w.round(0)
				w.mu.Lock()
				defer w.mu.Unlock()
				t := &w.turn
				in := t.view.port(alice.port())
				frame := pt.Frame(pt.UDP4(alice.beside(carol)))
				t.begin(in, []packet.Frame{*frame})
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if miss {
						t.frames[0].Bytes()[34], t.frames[0].Bytes()[35] = byte(i>>8), byte(i)
					}
					t.tally.work, t.last = 0, train{}
					t.judge(in, 0)
					if t.out.full() {
						t.out.touched, t.out.used = t.out.touched[:0], 1
						clear(t.out.lists)
					}
				}
			})
		}
	}
}
