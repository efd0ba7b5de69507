// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
	"sluice/trace"
)

// TestRuleDrops: a port remembers which rule dropped its frame last, and which refused
// one, for as long as the rule is there.
func TestRuleDrops(t *testing.T) {
	s := framedSites(`table inet t {
	chain f {
		type filter hook forward priority 0; policy drop;
		udp dport 2000 drop
		udp dport 2001 jump refuse
		udp dport 2002 accept
	}
	chain refuse { reject; }
}
table netdev n { chain i { type filter hook ingress device "p11" priority 0; udp dport 2003 drop; }; }
`)
	s.Networks[0].Ports[0].Rules = &journal.Journal{Steps: []journal.Step{{Text: `table netdev own { chain i { type filter hook ingress device "port" priority 0; udp dport 2004 drop; }; }`}}}
	l := stillSites(t, s)
	p := alice.to(bob)
	send := func(port uint16) {
		p.DstPort = port
		p.SrcPort++ // a flow that is not remembered
		l.send(alice.port(), pt.UDP4(p))
	}
	want := func(all ...RuleDrop) {
		t.Helper()
		if d := cmp.Diff(append([]RuleDrop{}, all...), l.n.RuleDrops()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	send(2002)
	l.arrived(bob, pt.UDP())
	want()
	base := RuleDrop{Port: alice.port(), Reason: "nft_drop", Table: "inet t", Chain: "f"}
	rule := func(chain, text string, handle uint64, pos string) RuleDrop {
		d := base
		d.Chain, d.Rule, d.Handle, d.Pos = chain, text, handle, pos
		return d
	}
	send(2000)
	want(rule("f", "udp dport 2000 drop", 3, "rules.nft:4"))
	send(1)
	want(base) // the policy
	send(2001)
	refused := rule("refuse", "reject", 6, "rules.nft:8")
	refused.Reason = "nft_reject"
	want(base, refused)
	send(2003)
	ingress := rule("i", "udp dport 2003 drop", 2, "rules.nft:10")
	ingress.Table = "netdev n"
	want(ingress, refused)
	send(2004)
	own := rule("i", "udp dport 2004 drop", 2, "")
	own.Table, own.Own = "netdev own", true
	want(own, refused)
	p.SrcPort++ // another flow: this one is dropped by the flow cache
	send(2000)
	j := *l.snap.Namespaces[0].Rules
	j.Steps = append(j.Steps[:1:1], journal.Step{Text: "delete rule inet t f handle 3; delete table netdev n"})
	l.snap.Namespaces[0].Rules = &j
	l.apply()
	gone := RuleDrop{Port: alice.port(), Reason: "nft_drop", Table: "inet t", Handle: 3}
	want(gone, refused)
	l.snap.Namespaces[0].Rules = nil
	l.apply()
	want()
}

// TestRuleDropsAllocateNothing.
func TestRuleDropsAllocateNothing(t *testing.T) {
	l := stillSites(t, ruledSites("table ip t { chain f { type filter hook forward priority 0; udp dport 2000 drop; }; }"))
	l.freeze()
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.silent(bob.port())
	was := l.drops(alice.port(), trace.NFTDrop)
	w, in := l.n.workers[0], l.n.view.Load().port(alice.port())
	frame := pt.Frame(pt.UDP4(alice.to(bob)))
	whole, frames := string(frame.Bytes()), []packet.Frame{*frame}
	n := testing.AllocsPerRun(1000, func() {
		w.mu.Lock()
		w.turn.begin(in, frames)
		w.turn.out.clock.read = false
		w.turn.flows.cache.Flush()
		frames[0].Reset(packet.Headroom, len(whole))
		copy(frames[0].Bytes(), whole)
		w.turn.judge(in, 0)
		w.mu.Unlock()
	})
	w.mu.Lock()
	w.turn.tally.addTo(in.counters)
	w.mu.Unlock()
	if dropped := l.drops(alice.port(), trace.NFTDrop) - was; n != 0 || dropped != 1001 || len(l.n.RuleDrops()) != 1 {
		t.Errorf("%v allocations for a packet that is dropped, %d were, by %v", n, dropped, l.n.RuleDrops())
	}
}
