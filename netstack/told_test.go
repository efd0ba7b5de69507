// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
	"sluice/policy/nft"
)

const telling = `table ip t {
	chain pre { type filter hook prerouting priority raw; udp dport 2000 meta nftrace set 1; }
	chain f { type filter hook forward priority 0; log prefix "f: " level info; udp dport 2000 log group 2 drop; }
}
`

// TestRuleLogs: a packet is in the log as each statement saw it; more than the rate of a
// namespace are counted, and nothing is allocated for them.
func TestRuleLogs(t *testing.T) {
	l := stillSites(t, ruledSites(telling))
	l.freeze()
	bells := 0
	ring := func() bool {
		select {
		case <-l.n.logged.bell:
			bells++
			return true
		default:
			return false
		}
	}
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.silent(bob.port())
	if !ring() {
		t.Error("nobody is told")
	}
	lines, suppressed := l.n.RuleLogs()
	if len(lines) != 2 || suppressed != 0 {
		t.Fatalf("%+v, %d suppressed", lines, suppressed)
	}
	a, b := lines[0], lines[1]
	if a.Namespace != "lab" || a.Level != "info" || a.Group != nil || a.Table != "ip t" || a.Chain != "f" || a.Handle == 0 ||
		!strings.HasPrefix(a.Text, "f: IN=") || !strings.Contains(a.Text, " SRC="+alice.addr4().String()+" ") || !strings.Contains(a.Text, " TTL=63 ") ||
		!strings.HasSuffix(a.Text, "DPT=2000 LEN=28") {
		t.Errorf("%+v", a)
	}
	if b.Level != "warn" || b.Group == nil || *b.Group != 2 || b.Handle <= a.Handle {
		t.Errorf("%+v", b)
	}
	w := l.n.workers[0]
	in := l.n.view.Load().port(alice.port())
	frame := pt.Frame(pt.UDP4(alice.to(bob)))
	whole, frames := string(frame.Bytes()), []packet.Frame{*frame}
	flood := func() {
		w.mu.Lock()
		x := &w.turn
		x.out.clock.read = false
		x.begin(in, frames)
		frames[0].Reset(packet.Headroom, len(whole))
		copy(frames[0].Bytes(), whole)
		x.judge(in, 0)
		w.mu.Unlock()
	}
	flood() // the ring is made
	if n := testing.AllocsPerRun(1000, flood); n != 0 {
		t.Errorf("%v allocations for a packet that is logged", n)
	}
	ring()
	if ring() {
		t.Error("told twice before anybody has asked")
	}
	lines, suppressed = l.n.RuleLogs()
	if len(lines) < 50 || len(lines) > logBurst || int(suppressed)+len(lines) != 2*1002 {
		t.Errorf("%d lines, %d suppressed", len(lines), suppressed)
	}
	l.pass(1)
	for range 3 {
		flood()
	}
	if lines, suppressed = l.n.RuleLogs(); len(lines) != 6 || suppressed != 0 {
		t.Errorf("a second later %d lines, %d suppressed", len(lines), suppressed)
	}
}

// traced are the lines of traces that wait.
func (l *lab) traced() (lines []string, lost uint64) {
	all, lost := l.n.Namespace("lab").RuleTraces(&nft.ListOptions{})
	for i := range all {
		lines = append(lines, all[i].Text)
	}
	return lines, lost
}

// TestRuleTraces: they are made while somebody listens, whole ones, so many a second.
func TestRuleTraces(t *testing.T) {
	l := stillSites(t, ruledSites(telling))
	l.freeze()
	send := func(n int) {
		for range n {
			l.send(alice.port(), pt.UDP4(alice.to(bob)))
			l.silent(bob.port())
		}
	}
	send(3)
	if lines, lost := l.traced(); len(lines) != 0 || lost != 0 {
		t.Errorf("before anybody listened: %q", lines)
	}
	send(1)
	lines, lost := l.traced()
	for i, want := range []string{"ip t pre packet: iif ", "ip t pre rule udp dport 2000 meta nftrace set 1 (verdict continue)", "ip t pre policy accept ", "ip t f packet: iif ", "ip t f rule log prefix", "ip t f rule udp dport 2000 log group 2 drop (verdict drop)"} {
		if i >= len(lines) || !strings.Contains(lines[i], want) || lines[i][:17] != lines[0][:17] {
			t.Errorf("line %d of %q: want %q", i, lines, want)
		}
	}
	if len(lines) != 6 || lost != 0 {
		t.Errorf("%d lines, %d lost", len(lines), lost)
	}
	send(traceBurst + 20)
	lines, lost = l.traced()
	if len(lines)%6 != 0 || len(lines)/6+int(lost) != traceBurst+20 || lost < 20 {
		t.Errorf("of a flood %d lines, %d lost", len(lines), lost)
	}
	l.pass(int(listening.Seconds()) + 1)
	send(1)
	if lines, _ = l.traced(); len(lines) != 0 {
		t.Errorf("nobody listened any more: %q", lines)
	}
}

// TestRulesComeLate: a namespace that was left as it is by a snapshot may have its first
// ruleset by a later one.
func TestRulesComeLate(t *testing.T) {
	l := stillSites(t, translating(2))
	l.apply()
	l.snap.Namespaces[0].Rules = ruledSites(telling).Rules
	l.apply()
	l.apply()
	if lines, lost := l.n.Namespace("lab").RuleTraces(&nft.ListOptions{}); len(lines) != 0 || lost != 0 {
		t.Errorf("traces before the first packet: %+v", lines)
	}
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.silent(bob.port())
	if lines, _ := l.n.RuleLogs(); len(lines) != 2 || lines[0].Namespace != "lab" {
		t.Errorf("logged %+v", lines)
	}
}

// TestFramesAreTold: rules of frames log and trace as those of IP, which one evaluator
// has judged in between; and so do those of a port.
func TestFramesAreTold(t *testing.T) {
	s := framedSites(`table netdev n {
	chain in { type filter hook ingress device "p11" priority 0; udp dport 2000 log prefix "1 "; }
}
table bridge b {
	chain pre { type filter hook prerouting priority 0; udp dport 2000 log prefix "2 "; }
	chain f { type filter hook forward priority 0; udp dport 2001 log prefix "4 "; }
	chain post { type filter hook postrouting priority 0; udp dport 2000 log prefix "6 "; }
}
table ip t {
	chain pre { type filter hook prerouting priority 0; udp dport { 2000, 2001 } log prefix "3 "; }
	chain f { type filter hook forward priority 0; udp dport { 2000, 2001 } log prefix "5 "; }
}
table arp a {
	chain in { type filter hook input priority 0; log prefix "arp "; }
}
`)
	s.Connections.Bridged = true
	s.Networks[0].Ports[0].Rules = &journal.Journal{Steps: []journal.Step{{Text: `table netdev own {
	chain in { type filter hook ingress device "port" priority 0; udp dport 2000 log prefix "0 " meta nftrace set 1; }
}`}}}
	l := stillSites(t, s)
	l.freeze()
	told := func(want ...string) {
		t.Helper()
		lines, suppressed := l.n.RuleLogs()
		for i := range lines {
			if i < len(want) && !strings.HasPrefix(lines[i].Text, want[i]) {
				t.Errorf("line %d: %+v, want %q", i, lines[i], want[i])
			}
		}
		if len(lines) != len(want) || suppressed != 0 {
			t.Errorf("%d lines, %d suppressed, want %d", len(lines), suppressed, len(want))
		}
		for i := range lines {
			if own := strings.HasPrefix(lines[i].Text, "0 "); own != (lines[i].Port == alice.port()) || !own && lines[i].Port != 0 {
				t.Errorf("by port %d: %s", lines[i].Port, lines[i].Text)
			}
		}
	}
	ns, o := l.n.Namespace("lab"), &nft.ListOptions{}
	ns.RuleTraces(o)
	for range 2 {
		l.send(alice.port(), pt.UDP4(alice.beside(carol)))
		pt.Check(t, l.got(carol.port()), pt.UDP())
		told("0 IN=port OUT= ", "1 IN=p11 OUT= MAC=", "2 IN=p11 OUT= ", "3 IN=", "5 IN=", "6 IN= OUT=p12 SRC=")
		var chains []string
		all, _ := ns.RuleTraces(o)
		var lines []string
		for i := range all {
			line := all[i].Text
			if lines = append(lines, line); strings.Contains(line, " netdev own ") != (all[i].Port == alice.port()) {
				t.Errorf("by port %d: %s", all[i].Port, line)
			}
			if words := strings.Fields(line); words[6] == "packet:" {
				chains = append(chains, strings.Join(words[3:6], " "))
			}
		}
		if got, want := strings.Join(chains, ", "), "netdev own in, netdev n in, bridge b pre, ip t pre, bridge b f, ip t f, bridge b post"; got != want {
			t.Errorf("traced by %s, want %s: %q", got, want, lines)
		}
		ids := make(map[string]bool)
		for _, line := range lines {
			if !strings.Contains(line, " netdev own ") {
				ids[line[:17]] = true
			}
		}
		if len(ids) != 1 || !strings.Contains(strings.Join(lines, "\n"), ` netdev own in rule udp dport 2000 log prefix "0 " meta nftrace set 1 (verdict continue)`) {
			t.Errorf("%q", lines)
		}
	}
	later := alice.beside(carol)
	later.DstPort = 2001
	l.send(alice.port(), pt.UDP4(later))
	told("3 IN=", "4 IN=p11 OUT=p12 ", "5 IN=")
	l.send(alice.port(), pt.ARPRequest(pt.Packet{SrcMAC: alice.mac(), Src: alice.addr4(), Dst: gate(1).addr4()}))
	l.round()
	told("arp IN=" + gate(1).name() + " OUT= ARP HTYPE=1 PTYPE=0x0800 OPCODE=1 MACSRC=" + alice.mac().String() + " IPSRC=10.44.1.11 ")
}
