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

// BenchmarkRules is a packet in a namespace with so many rules: of a remembered flow,
// and one that all of them are asked about.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{0, 10, 1000, 100_000} {
		for name, miss := range map[string]bool{"hit": false, "miss": true} {
			b.Run(fmt.Sprintf("%s, %d rules", name, n), func(b *testing.B) {
				s := translating(1)
				if n > 0 {
					s = ruledSites(manyRules(n))
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
			})
		}
	}
}
