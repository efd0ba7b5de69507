// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
	"sluice/trace"
)

// dropsByHit sends a frame five times, and checks that it is dropped by rules each time,
// from the second on by the flow cache.
func (l *lab) dropsByHit(from party, frame []byte, wantHits int) {
	l.t.Helper()
	hits, before := l.hits(from), l.drops(from.port(), trace.NFTDrop)
	for range 5 {
		l.send(from.port(), frame)
	}
	l.silent(alice.port(), bob.port())
	if n := l.drops(from.port(), trace.NFTDrop) - before; n != 5 {
		l.t.Errorf("%d packets are dropped by rules, want 5", n)
	}
	if n := hits(); n != wantHits {
		l.t.Errorf("%d hits, want %d", n, wantHits)
	}
}

// TestDroppedFlowsAreRemembered, at whichever hook, and leave no connection; what is counted
// is counted for each packet.
func TestDroppedFlowsAreRemembered(t *testing.T) {
	plain, v6 := pt.UDP4(alice.to(bob)), pt.UDP6(alice.to6(bob))
	far := alice.to(bob)
	far.Dst = netip.MustParseAddr("10.44.2.99") // nobody answers for it
	own := alice.to(bob)
	own.Dst = gate(1).addr4()
	in := bob.to(alice)
	in.Dst, in.DstPort = gate(2).addr4(), 8080 // translated to alice
	for _, tc := range []struct {
		name, hook, rule string
		from             party
		frame            []byte
	}{
		{"raw", "filter hook prerouting priority raw", "counter drop", alice, plain},
		{"raw by policy", "filter hook prerouting priority raw; policy drop", "counter", alice, plain},
		{"notrack", "filter hook prerouting priority raw", "notrack counter drop", alice, plain},
		{"mangle", "filter hook prerouting priority mangle", "ct state new counter drop", alice, plain},
		{"nat", "nat hook prerouting priority dstnat", "counter drop", alice, plain},
		{"after dstnat", "filter hook prerouting priority 0", "udp dport 80 ct status dnat counter drop", bob, pt.UDP4(in)},
		{"forward", "filter hook forward priority 0", "ct state new counter drop", alice, plain},
		{"forward to nobody", "filter hook forward priority 0", "ip daddr 10.44.2.99 counter drop", alice, pt.UDP4(far)},
		{"forward of a ping", "filter hook forward priority 0", "icmp type echo-request counter drop", alice, pt.Ping4(alice.to(bob))},
		{"forward, translated", "filter hook forward priority 0", "udp dport 80 ct status dnat counter drop", bob, pt.UDP4(in)},
		{"forward with fib", "filter hook forward priority 0", "fib daddr type unicast meta mark set 0x00000003 counter drop", alice, plain},
		{"input", "filter hook input priority 0", "counter drop", alice, pt.UDP4(own)},
		{"postrouting", "filter hook postrouting priority 0", "oifname \"site2\" counter drop", alice, plain},
		{"nat at postrouting", "nat hook postrouting priority srcnat", "counter drop", alice, plain},
		{"IPv6", "filter hook forward priority 0; policy drop", "counter", alice, v6},
		{"TCP", "filter hook forward priority 0", "ct state new counter drop", alice, pt.TCP4(alice.to(bob))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := stillSites(t, ruledSites("table inet t {\nchain c {\ntype "+tc.hook+"\n"+tc.rule+"\n}\n}\n"))
			l.dropsByHit(tc.from, tc.frame, 4)
			f := pt.Frame(tc.frame)
			l.wantListed("\t\t" + strings.Replace(tc.rule, "counter", fmt.Sprintf("counter packets 5 bytes %d", 5*(f.View.End-f.View.L3)), 1))
			if n := l.n.Connections().Table().Len(); n != 0 {
				t.Errorf("%d connections", n)
			}
			l.hitsAllocateNothing(t, tc.from, pt.Frame(tc.frame))
			l.snap.Namespaces[0].Rules = nil
			l.apply()
			before := l.drops(tc.from.port(), trace.NFTDrop)
			l.send(tc.from.port(), tc.frame)
			if n := l.drops(tc.from.port(), trace.NFTDrop); n != before {
				t.Error("dropped without rules, too")
			}
		})
	}
}

// TestDroppedAtTheGateway: what the namespace itself sends is remembered as well.
func TestDroppedAtTheGateway(t *testing.T) {
	l := stillSites(t, ruledSites("table ip t { chain o { type filter hook output priority 0; icmp type echo-reply counter drop; }; }"))
	p := alice.to(bob)
	p.Dst = gate(1).addr4()
	for range 4 {
		l.send(alice.port(), pt.Ping4(p))
		l.silent(alice.port())
	}
	if got := l.stats(gate(1).port()); got.Drops[trace.NFTDrop.String()] != 4 || got.FlowHits != 3 {
		t.Errorf("%d dropped, %d hits", got.Drops[trace.NFTDrop.String()], got.FlowHits)
	}
	l.wantListed("\t\ticmp type echo-reply counter packets 4 bytes 192 drop")
}

// TestDroppedOverLinks: what links carry before it is dropped is counted at both ends.
func TestDroppedOverLinks(t *testing.T) {
	spaces := chain(2)
	spaces[1].Connections = ConnectionsSpec{Track: true, Zone: 9}
	spaces[1].Rules = &journal.Journal{Steps: []journal.Step{{Text: "table ip t { chain f { type filter hook forward priority 0; policy drop; counter; }; }"}}}
	l := stillSites(t, spaces...)
	l.dropsByHit(alice, pt.UDP4(alice.to(bob)), 4)
	out, in := l.stats(linkIndex(1, 2)), l.stats(linkIndex(2, 1))
	if out.TxPackets != 5 || in.RxPackets != 5 {
		t.Errorf("the link has %+v, the other end %+v", out, in)
	}
	low := alice.to(bob) // ends before it comes to the rules
	low.TTL = 1
	l.send(alice.port(), pt.UDP4(low))
	l.arrived(alice, pt.ICMP(pt.ICMPType(11, 0)))
}

// TestDroppedWithinANetwork: the flow is that of this receiver, and flooded when nobody
// knows where that is, as without the flow cache.
func TestDroppedWithinANetwork(t *testing.T) {
	s := bridgedSites(3)
	s.Rules = &journal.Journal{Steps: []journal.Step{{Text: `table ip t { chain f { type filter hook forward priority 0; ct state new counter drop; }; }
table bridge b { chain f { type filter hook forward priority 0; counter; }; }`}}}
	l := stillSites(t, s)
	l.dropsByHit(alice, pt.UDP4(alice.beside(carol)), 4)
	l.silent(carol.port(), dave.port())
	l.wantListed("\t\tct state new counter packets 5 bytes 240 drop", "\t\tcounter packets 5 bytes 240")

	s = bridgedSites(2)
	for i := range s.Networks[0].Ports {
		p := &s.Networks[0].Ports[i]
		*p = PortSpec{Index: p.Index, MTU: p.MTU, Offload: true}
	}
	s.Rules = &journal.Journal{Steps: []journal.Step{{Text: "table ip t { chain f { type filter hook prerouting priority 0; ip saddr 10.44.1.11 counter drop; }; }"}}}
	l = stillSites(t, s)
	l.send(alice.port(), pt.UDP4(alice.beside(dave))) // flooded: nobody knows him
	pt.Check(t, l.got(carol.port()), pt.UDP())
	l.send(carol.port(), pt.UDP4(carol.beside(alice)))
	pt.Check(t, l.got(alice.port()), pt.UDP())
	l.dropsByHit(alice, pt.UDP4(alice.beside(carol)), 4)
	for range 301 { // carol is not heard any more
		l.pass(1)
		l.send(alice.port(), pt.UDP4(alice.beside(carol)))
	}
	pt.Check(t, l.got(carol.port()), pt.UDP())
}

// TestDroppedUntilItAnswers: a packet of a tuple that is dropped passes when the other side
// has opened that connection, and is dropped again when it is over.
func TestDroppedUntilItAnswers(t *testing.T) {
	for _, hook := range []string{"prerouting priority mangle", "prerouting priority 0", "forward priority 0", "postrouting priority 0"} {
		s := ruledSites("table ip t { chain f { type filter hook " + hook + "; ct state established accept; ip saddr 10.44.1.0/24 counter drop; }; }")
		s.Connections.Rules = nil
		l := stillSites(t, s)
		opens := bob.to(alice)
		back := alice.to(bob)
		back.SrcPort, back.DstPort = opens.DstPort, opens.SrcPort
		l.dropsByHit(alice, pt.UDP4(back), 4)
		l.send(bob.port(), pt.UDP4(opens))
		l.arrived(alice, pt.UDP())
		for range 3 {
			l.send(alice.port(), pt.UDP4(back))
			l.arrived(bob, pt.UDP())
		}
		c := l.n.Connections()
		if e := l.only(); e.Packets != [2]uint64{1, 3} {
			t.Errorf("%s: packets %v", hook, e.Packets)
		}
		c.Table().Delete(nil, c.Now())
		l.dropsByHit(alice, pt.UDP4(back), 4)
	}
}

// TestDroppedOfAConnection: the connection sees what rules drop of it, by a hit too; when
// it is gone, so is the decision.
func TestDroppedOfAConnection(t *testing.T) {
	for _, hook := range []string{"prerouting priority mangle", "prerouting priority 0", "forward priority 0"} {
		s := ruledSites("table inet t { chain f { type filter hook " + hook + "; meta length 0-70 accept; ip saddr 10.44.1.0/24 udp sport 1000 counter drop; }; }")
		s.Rules.Steps[0].Text = "table inet t { set bad { type ipv4_addr; flags dynamic,timeout; timeout 10s; }; chain a { type filter hook prerouting priority raw; udp sport 9 add @bad { ip daddr }; }\nchain f { type filter hook " +
			hook + "; ip saddr @bad counter drop; }; }"
		s.Connections.Rules = nil
		l := stillSites(t, s)
		there := alice.to(bob)
		l.send(alice.port(), pt.UDP4(there))
		l.arrived(bob, pt.UDP())
		bad := bob.to(alice)
		bad.SrcPort = 9
		l.send(bob.port(), pt.UDP4(bad)) // from now on alice is bad
		l.arrived(alice, pt.UDP())
		l.dropsByHit(alice, pt.UDP4(there), 4)
		packets := func() (n uint64) {
			c := l.n.Connections()
			c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
				if e.Original.SrcPort == 1000 && e.Original.Src == alice.addr4() {
					n += e.Packets[0]
				}
				return true
			})
			return n
		}
		if n := packets(); n != 6 {
			t.Errorf("%s: %d packets, want 6", hook, n)
		}
		c := l.n.Connections()
		c.Table().Delete(nil, c.Now())
		l.dropsByHit(alice, pt.UDP4(there), 4)
		if n := packets(); n != 0 {
			t.Errorf("%s: a connection of packets that are dropped", hook)
		}
		l.freeze()
		l.pass(11) // the element's time is over
		l.send(alice.port(), pt.UDP4(there))
		l.arrived(bob, pt.UDP())
	}
}

// TestDroppedByState: the state of each segment counts, and not only that of the first.
func TestDroppedByState(t *testing.T) {
	l := stillSites(t, ruledSites("table ip t { chain f { type filter hook prerouting priority 0; ct state invalid counter accept; tcp sport 1000 counter drop; }\nchain g { type filter hook forward priority 0; ct state invalid tcp sport 1001 counter drop; }; }"))
	syn, rst := alice.to(bob), alice.to(bob)
	syn.Flags, rst.Flags = pt.SYN, pt.RST
	l.dropsByHit(alice, pt.TCP4(syn), 4)
	l.send(alice.port(), pt.TCP4(rst)) // of no connection: invalid
	l.arrived(bob, pt.TCP(pt.SrcPort(1000)))
	rst.SrcPort = 1001
	l.dropsByHit(alice, pt.TCP4(rst), 4) // what is invalid is remembered, if it is dropped
	l.wantListed("\t\tct state invalid counter packets 6 bytes 360 accept", "\t\ttcp sport 1000 counter packets 5 bytes 300 drop",
		"\t\tct state invalid tcp sport 1001 counter packets 5 bytes 300 drop")
	wrong := pt.Frame(pt.TCP4(syn))
	wrong.Bytes()[wrong.View.L4+16] ^= 0x55 // its checksum: invalid
	l.send(alice.port(), wrong.Bytes())
	l.got(bob.port())
	l.wantListed("\t\tct state invalid counter packets 7 bytes 420 accept")
}

// TestDroppedTranslated: a segment that is not new has the destination that was written.
func TestDroppedTranslated(t *testing.T) {
	l := stillSites(t, ruledSites("table ip t { chain f { type filter hook forward priority 0; tcp dport 80 counter drop; }\nchain i { type filter hook input priority 0; tcp dport 8080 counter; }; }"))
	syn := bob.to(alice)
	syn.Dst, syn.DstPort, syn.Flags = gate(2).addr4(), 8080, pt.SYN
	l.dropsByHit(bob, pt.TCP4(syn), 4)
	syn.Flags = pt.RST
	l.send(bob.port(), pt.TCP4(syn))
	l.wantListed("\t\ttcp dport 80 counter packets 5 bytes 300 drop", "\t\ttcp dport 8080 counter packets 1 bytes 60")
}

// TestDroppedUntilTaken: a ping gets another identifier when the answer to it would be that
// to another's.
func TestDroppedUntilTaken(t *testing.T) {
	s := ruledSites("table ip t { chain f { type filter hook forward priority 0; ct status dnat accept; ip saddr 10.44.1.11 counter drop; }\n" +
		"chain p { type nat hook postrouting priority srcnat; ip saddr 10.44.1.12 snat to 10.44.1.11; }; }")
	s.Connections.Rules = nil
	l := stillSites(t, s)
	ping, other := alice.to(bob), carol.to(bob)
	ping.ID, other.ID = 5, 5
	l.dropsByHit(alice, pt.Ping4(ping), 4)
	l.send(carol.port(), pt.Ping4(other))
	l.arrived(bob, pt.IPv4(pt.Src(alice.addr4())), pt.ICMP())
	l.send(alice.port(), pt.Ping4(ping))
	l.arrived(bob, pt.IPv4(pt.Src(alice.addr4())), pt.ICMP())
}

// TestDroppedAnswers are seen by their connection.
func TestDroppedAnswers(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := ruledSites("table inet t { chain f { type filter hook prerouting priority mangle; ct direction reply counter drop; }; }")
		s.Connections.Rules = nil
		l := stillSites(t, s)
		there, udp := alice.to(bob), pt.UDP4
		back := bob.back(there, alice.addr4(), there.SrcPort)
		if v6 {
			there, udp = alice.to6(bob), pt.UDP6
			back = bob.back(there, alice.addr6(), there.SrcPort)
		}
		l.send(alice.port(), udp(there))
		l.arrived(bob, pt.UDP())
		l.dropsByHit(bob, udp(back), 4)
		if e := l.only(); e.Packets != [2]uint64{1, 5} {
			t.Errorf("packets %v", e.Packets)
		}
	}
}

// TestWhatIsNotRememberedOfDrops: answers, limits, quotas, and destinations that others
// have a say in.
func TestWhatIsNotRememberedOfDrops(t *testing.T) {
	for _, rule := range []string{"reject", "limit rate 1000/second drop", "quota 1 mbytes drop", "log drop", "meta length 48 drop", "tcp flags syn drop", "numgen inc mod 2 < 2 drop"} {
		l := stillSites(t, ruledSites("table ip t { chain f { type filter hook forward priority 0; "+rule+"; }; }"))
		hits := l.hits(alice)
		frame := pt.UDP4(alice.to(bob))
		if strings.HasPrefix(rule, "tcp") {
			p := alice.to(bob)
			p.Flags = pt.SYN
			frame = pt.TCP4(p)
		}
		for range 3 {
			l.send(alice.port(), frame)
			l.silent(bob.port())
		}
		if n := hits(); n != 0 {
			t.Errorf("%s: %d hits", rule, n)
		}
	}
	s := ruledSites("table ip t { chain f { type filter hook forward priority 0; counter drop; }; }")
	r := publish(8080, alice.addr4(), 0)
	r.Target.Ports = nat.PortRange{Min: 80, Max: 90}
	s.Connections.Rules = []nat.Rule{r}
	l := stillSites(t, s)
	in := bob.to(alice)
	in.Dst, in.DstPort = gate(2).addr4(), 8080
	l.dropsByHit(bob, pt.UDP4(in), 0)
}

// TestDroppedUntilMapped: what comes for nobody is dropped until a source has a mapping
// there, in the profile rfc.
func TestDroppedUntilMapped(t *testing.T) {
	s := ruledSites("table ip t { chain i { type filter hook input priority 0; iifname \"site2\" counter drop; }; }")
	s.Connections.Profile, s.Connections.Filtering = "rfc", "endpoint"
	l := stillSites(t, s)
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	f := l.got(bob.port())
	if f == nil {
		t.Fatal("nothing comes")
	}
	c := l.n.Connections()
	out := f.View.SrcPort
	c.Table().Delete(nil, c.Now())
	in := bob.to(alice)
	in.Dst, in.DstPort, in.SrcPort = gate(2).addr4(), out, 77
	l.dropsByHit(bob, pt.UDP4(in), 4)
	for port := uint16(1000); ; port++ { // until one gets the port
		p := alice.to(bob)
		p.SrcPort = port
		l.send(alice.port(), pt.UDP4(p))
		if f := l.got(bob.port()); f == nil || f.View.SrcPort == out {
			break
		}
	}
	l.send(bob.port(), pt.UDP4(in))
	l.arrived(alice, pt.UDP(pt.SrcPort(77)))
}

// randomDrops is a ruleset that drops much, at random hooks.
func randomDrops(r *rand.Rand) string {
	of := func(words ...string) string { return words[r.IntN(len(words))] }
	var b strings.Builder
	b.WriteString("table inet t {\nset bad { type ipv4_addr . inet_service; size 100; flags dynamic,timeout; timeout 20s; }\nset own { type ipv4_addr; flags timeout; elements = { 10.44.1.11 timeout 30s, 10.44.2.12 }; }\ncounter named { }\n")
	for i := range 1 + r.IntN(4) {
		hook := of("prerouting", "forward", "input", "postrouting")
		prio := of("raw", "mangle", "-90", "0", "150")
		fmt.Fprintf(&b, "chain c%d {\ntype filter hook %s priority %s; policy %s;\n", i, hook, prio, of("accept", "accept", "accept", "drop"))
		if r.IntN(3) == 0 { // more than a flow has for itself
			b.WriteString(strings.Repeat("counter\n", 20+r.IntN(20)))
		}
		for range 1 + r.IntN(5) {
			match := of("", "ct state new", "ct state established", "ct state invalid", "ct status dnat", "ct mark 3", "ct direction reply", "udp dport { 80, 1000, 2001 }", "tcp dport 1000-2000",
				"ip saddr 10.44.1.0/24", "ip saddr @own", "ip saddr . th dport @bad", "ip saddr . th dport != @bad", "iifname \"site2\"", "fib saddr type unicast", "meta l4proto icmp", "meta length 0-47", "tcp flags syn", "meta mark 5")
			act := of("", "", "counter", "counter name named", "ct mark set 3", "meta mark set 5", "notrack", "add @bad { ip saddr . th sport }", "update @bad { ip daddr . th dport }", "limit rate 5/second", "last")
			end := of("", "counter", "counter drop", "counter drop", "accept", "counter reject")
			switch {
			case act == "notrack" && (hook != "prerouting" || prio != "raw"):
				act = ""
			case hook == "postrouting" && strings.HasPrefix(match, "fib"):
				match = ""
			}
			if prio == "raw" && hook == "prerouting" && strings.Contains(match, "@") {
				match = "" // of a known flow, the connection sees the packet before a set is found to have changed
			}
			if hook != "forward" && hook != "input" {
				end = strings.Replace(end, "reject", "drop", 1)
			}
			if line := strings.TrimSpace(match + " " + act + " " + end); line != "" {
				b.WriteString(line + "\n")
			}
		}
		b.WriteString("}\n")
	}
	if r.IntN(2) == 0 {
		fmt.Fprintf(&b, "chain n {\ntype nat hook %s;\ncounter\n%s %s\n%s %s %s\n}\n", of("prerouting priority dstnat", "postrouting priority srcnat"),
			of("", "udp dport 1000", "ip saddr @own"), of("counter", "counter name named", "counter drop"), of("", "tcp dport 80"), of("", "meta mark set 5", "ct mark set 3", "last"), of("counter", "accept", "drop"))
	}
	return b.String() + "}\n"
}

// dropTwin is a laboratory, and all that happens in it.
type dropTwin struct {
	*lab
	events []string
}

func (d *dropTwin) note(format string, args ...any) {
	d.events = append(d.events, fmt.Sprintf(format, args...))
}

// chosen puts the same in the place of ports that were chosen at random.
func (d *dropTwin) chosen(s string) string {
	return regexp.MustCompile(`:\d+`).ReplaceAllStringFunc(s, func(port string) string {
		if slices.Contains([]string{":1000", ":2000", ":80", ":8080"}, port) {
			return port
		}
		return ":any"
	})
}

// elements takes from a listing those with ports that were chosen at random.
func elements(s string) string {
	s = regexp.MustCompile(`[0-9.]+ \. \d+[\s,]*`).ReplaceAllStringFunc(s, func(e string) string {
		if regexp.MustCompile(` (80|8080|1000|2000|2048|771)\b`).MatchString(e) {
			return strings.TrimRight(e, ", \t\n") + ","
		}
		return ""
	})
	return s
}

// state is what is counted and remembered.
func (d *dropTwin) state() {
	d.note("%s", elements(regexp.MustCompile(`expires \S+|last used \S+`).ReplaceAllString(d.listed("list ruleset"), "")))
	var all []string
	c := d.n.Connections()
	c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
		all = append(all, d.chosen(fmt.Sprintf("%v:%d>%v:%d %v:%d>%v:%d %v %d %v", e.Original.Src, e.Original.SrcPort, e.Original.Dst, e.Original.DstPort,
			e.Reply.Src, e.Reply.SrcPort, e.Reply.Dst, e.Reply.DstPort, e.Packets, e.Mark, e.Status)))
		return true
	})
	slices.Sort(all)
	d.note("%s", strings.Join(all, "\n"))
	for _, p := range []party{alice, carol, bob, {2, 2}} {
		d.note("%v", d.stats(p.port()).Drops)
	}
}

// randomFrame is a packet of one of a few flows.
func randomFrame(r *rand.Rand) (from party, frame []byte) {
	all := []party{alice, carol, bob, {2, 2}}
	from = all[r.IntN(4)]
	to := all[(slices.Index(all, from)+2+r.IntN(2))%4]
	if to.site == from.site {
		to = party{3 - from.site, 1}
	}
	p := from.to(to)
	ports := []uint16{1000, 2000, 80}
	p.SrcPort, p.DstPort = ports[r.IntN(3)], ports[r.IntN(3)]
	switch r.IntN(8) {
	case 0:
		p.Dst, p.DstPort = gate(from.site).addr4(), 8080
	case 1:
		p.Dst = gate(from.site).addr4()
	case 2:
		p.Dst = netip.AddrFrom4([4]byte{10, 44, byte(to.site), 99})
	}
	switch r.IntN(6) {
	case 0, 1:
		p.Flags = []uint8{pt.SYN, pt.SYN | pt.ACK, pt.ACK, pt.RST, pt.FIN | pt.ACK}[r.IntN(5)]
		return from, pt.TCP4(p)
	case 2:
		p.ID = 5
		return from, pt.Ping4(p)
	case 3:
		p.TTL = cmp.Or(uint8(r.IntN(3)), 64)
	}
	return from, pt.UDP4(p)
}

// TestDroppedTwins: with a flow cache and without one, everything is the same.
func TestDroppedTwins(t *testing.T) {
	hits, rounds := 0, 40
	if raceEnabled || testing.Short() {
		rounds = 15
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { hits += twinsOfDrops(t, rand.New(rand.NewPCG(seed, 5))) })
	}
	if hits < rounds*10 {
		t.Errorf("%d hits: the cache is hardly used", hits)
	}
}

// twinsOfDrops compares two laboratories; the second has an empty flow cache each time.
// It tells how many hits the first one had.
//
// +checklocksignore: the workers stand still.
func twinsOfDrops(t *testing.T, r *rand.Rand) (hits int) {
	t.Helper()
	s := ruledSites(randomDrops(r))
	s.Connections.Profile = []string{"kernel", "kernel", "rfc"}[r.IntN(3)]
	twins := []*dropTwin{{lab: stillSites(t, s)}, {lab: stillSites(t, s)}}
	for _, d := range twins {
		d.freeze()
	}
	type sending struct {
		from  party
		frame []byte
	}
	var sent []sending
	for i := range 150 {
		if len(sent) == 0 || r.IntN(5) == 0 {
			from, frame := randomFrame(r)
			sent = append(sent, sending{from, frame})
		}
		x := sent[r.IntN(len(sent))]
		n := twins[0].hits(x.from)
		twins[0].send(x.from, x.frame)
		hits += n()
		twins[1].n.workers[0].turn.flows.cache.Flush()
		twins[1].send(x.from, x.frame)
		if i%40 == 39 {
			n := 1 + r.IntN(25)
			for _, d := range twins {
				d.pass(n)
			}
		}
	}
	for _, d := range twins {
		d.state()
	}
	a, b := twins[0].events, twins[1].events
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("with the cache\n%s\nwithout\n%s\nby\n%s", a[i], b[i], s.Rules.Steps[0].Text)
		}
	}
	if len(a) != len(b) {
		t.Fatalf("%d events, and %d", len(a), len(b))
	}
	return hits
}

// send sends a frame, and notes all that comes of it.
func (d *dropTwin) send(from party, frame []byte) {
	d.note("from %v: %s", from, pt.Describe(frame))
	d.lab.send(from.port(), frame)
	for _, p := range []party{alice, carol, bob, {2, 2}} {
		for f := d.got(p.port()); f != nil; f = d.got(p.port()) {
			b := f.Bytes()
			if v := &f.View; v.Is(packet.ViewIPv4) { // what the gateway sends is numbered at random
				b[v.L3+4], b[v.L3+5], b[v.L3+10], b[v.L3+11] = 0, 0, 0, 0
			}
			d.note("%v gets %s", p, d.chosen(pt.Describe(b)))
		}
	}
}
