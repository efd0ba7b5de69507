// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// BenchmarkRouted is BenchmarkFrame for what is routed. A hit writes into its frame,
// which is put right again each time.
func BenchmarkRouted(b *testing.B) {
	options := pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()},
		pt.IPv4Hdr{Src: alice.addr4(), Dst: bob.addr4(), Options: []byte{1, 1, 1, 1}}, pt.UDPHdr{}, pt.Bytes(18))
	for name, tc := range map[string]struct {
		frame *packet.Frame
		space []NamespaceSpec
	}{
		"hit, UDP 64 B":         {pt.Frame(pt.UDP4(alice.to(bob))), []NamespaceSpec{twoSites()}},
		"hit, TCP 64 KB GSO":    {big(alice.to(bob), 64_000, 1448), []NamespaceSpec{twoSites()}},
		"hit, IPv6":             {pt.Frame(pt.UDP6(alice.to6(bob))), []NamespaceSpec{twoSites()}},
		"hit, translated":       {pt.Frame(pt.UDP4(alice.to(bob))), []NamespaceSpec{translating(1)}},
		"hit, translated, GSO":  {big(alice.to(bob), 64_000, 1448), []NamespaceSpec{translating(1)}},
		"hit, over a link":      {pt.Frame(pt.UDP4(alice.to(bob))), chain(2)},
		"slow path":             {pt.Frame(options), []NamespaceSpec{twoSites()}},
		"slow path over a link": {pt.Frame(options), chain(2)},
	} {
		b.Run(name, func(b *testing.B) {
			l := stillSites(b, tc.space...)
			w := l.n.workers[0]
			w.round(0)
			w.mu.Lock()
			defer w.mu.Unlock()
			t := &w.turn
			in := t.view.port(alice.port())
			t.begin(in, []packet.Frame{*tc.frame})
			head := *(*[54]byte)(tc.frame.Bytes())
			b.ReportAllocs()
			for b.Loop() {
				*(*[54]byte)(t.frames[0].Bytes()) = head
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

// BenchmarkFlows is a bridged hit among so many flows that the cache of the CPU
// counts.
func BenchmarkFlows(b *testing.B) {
	for _, flows := range []int{1000, 15_000} {
		b.Run(fmt.Sprint(flows), func(b *testing.B) {
			n, err := build(Options{Workers: 1})
			if err != nil {
				b.Fatal(err)
			}
			l := open(b, n, []NetworkSpec{blue(2)})
			w := l.n.workers[0]
			w.round(0)
			w.mu.Lock()
			defer w.mu.Unlock()
			t := &w.turn
			in := t.view.port(1)
			t.frames = []packet.Frame{*pt.Frame(datagram(1, 2, "0123456789012345678901"))}
			ports := t.frames[0].Bytes()[34:]
			for i := 0; b.Loop(); i++ {
				k := i * 7919 % flows
				ports[0], ports[1] = byte(k>>8), byte(k)
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
