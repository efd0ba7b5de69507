// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// manyRules is a ruleset of n rules that don't match alice's packets, before one that
// counts and accepts them.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("table ip t {\nchain f {\ntype filter hook forward priority 0; policy drop;\n")
	for i := range n {
		fmt.Fprintf(&b, "udp sport %d ip saddr 10.99.0.0/16 drop\n", i%60_000+5000)
	}
	b.WriteString("ip saddr 10.44.0.0/16 counter accept\n}\n}\n")
	return b.String()
}

// countingRules are rules that count before they ask, so that each of them sees each
// packet.
func countingRules(n int) string {
	return strings.ReplaceAll(manyRules(n), "\nudp sport", "\ncounter udp sport")
}

// dropping is a ruleset that drops what it would accept.
func dropping(text string) string { return strings.ReplaceAll(text, "counter accept", "counter drop") }

// manyElements is a ruleset with a set of n addresses, one of n networks, and one of n
// networks with ports: alice's packets are in all of them.
func manyElements(n int) string {
	var a, nets, boxes strings.Builder
	for i := range n {
		fmt.Fprintf(&a, ", 172.%d.%d.%d", 16+i/65536, i/256%256, i%256)
		fmt.Fprintf(&nets, ", 172.%d.%d.%d/31", 16+i/32768, i/128%256, i%128*2)
		fmt.Fprintf(&boxes, ", 172.%d.%d.%d/31 . %d-%d", 16+i/32768, i/128%256, i%128*2, i%60000, i%60000+100)
	}
	return "table ip t {\nset a { type ipv4_addr; elements = { 10.44.0.0, " + alice.addr4().String() + a.String() +
		" } }\nset n { type ipv4_addr; flags interval; elements = { 10.44.0.0/16" + nets.String() +
		" } }\nset b { type ipv4_addr . inet_service; flags interval; elements = { 10.44.0.0/16 . 0-65535" + boxes.String() +
		" } }\nchain f {\ntype filter hook forward priority 0; policy drop;\nip saddr @a ip saddr @n ip saddr . udp sport @b counter accept\n}\n}\n"
}

// manyChains is a ruleset with a chain for each of n addresses.
func manyChains(n int) string {
	var chains, elems strings.Builder
	for i := range n {
		fmt.Fprintf(&chains, "chain p%d { udp dport 1-9999 counter accept; }\n", i)
		fmt.Fprintf(&elems, ", 172.16.%d.%d : jump p%d", i/256, i%256, i)
	}
	return "table ip t {\n" + chains.String() + "map m { type ipv4_addr : verdict; elements = { " + alice.addr4().String() + " : jump p0" + elems.String() +
		" } }\nchain f {\ntype filter hook forward priority 0; policy drop;\nip saddr vmap @m\n}\n}\n"
}

// BenchmarkRules is a packet in a namespace with rules: of a remembered flow, and the
// first one of a flow.
func BenchmarkRules(b *testing.B) {
	for _, tc := range []struct{ name, text string }{
		{"none", ""},
		{"10 rules", manyRules(10)},
		{"1000 rules", manyRules(1000)},
		{"100000 rules", manyRules(100_000)},
		{"1000 rules that count", countingRules(1000)},
		{"3x10 elements", manyElements(10)},
		{"3x10000 elements", manyElements(10_000)},
		{"3x100000 elements", manyElements(100_000)},
		{"10000 chains", manyChains(10_000)},
		{"10 rules, dropped", dropping(manyRules(10))},
		{"1000 rules, dropped", dropping(manyRules(1000))},
	} {
		for _, miss := range []bool{false, true} {
			b.Run(map[bool]string{false: "next, ", true: "first, "}[miss]+tc.name, func(b *testing.B) { benchmarkRules(b, tc.text, miss) })
		}
	}
}

func benchmarkRules(b *testing.B, text string, miss bool) {
	b.Helper()
	s := translating(1)
	if text != "" {
		s = ruledSites(text)
	}
	l := stillSites(b, s)
	w := l.n.workers[0]
	w.round(0)
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &w.turn
	in := t.view.port(alice.port())
	frame := pt.Frame(pt.UDP4(alice.to(bob)))
	t.begin(in, []packet.Frame{*frame})
	head := *(*[54]byte)(frame.Bytes())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		*(*[54]byte)(t.frames[0].Bytes()) = head
		if miss {
			t.frames[0].Bytes()[34], t.frames[0].Bytes()[35] = byte(i>>8), byte(i)
		}
		t.tally.work = 0
		t.judge(in, 0)
		if t.out.full() {
			t.out.touched, t.out.used = t.out.touched[:0], 1
			clear(t.out.lists)
		}
	}
}
