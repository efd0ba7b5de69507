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
		"hit, UDP 64 B":              {pt.Frame(pt.UDP4(alice.to(bob))), []NamespaceSpec{twoSites()}},
		"hit, TCP 64 KB GSO":         {big(alice.to(bob), 64_000, 1448), []NamespaceSpec{twoSites()}},
		"hit, IPv6":                  {pt.Frame(pt.UDP6(alice.to6(bob))), []NamespaceSpec{twoSites()}},
		"hit, translated":            {pt.Frame(pt.UDP4(alice.to(bob))), []NamespaceSpec{translating(1)}},
		"hit, translated, GSO":       {big(alice.to(bob), 64_000, 1448), []NamespaceSpec{translating(1)}},
		"hit, tracked on the bridge": {pt.Frame(pt.UDP4(alice.beside(party{1, 2}))), []NamespaceSpec{bridgedSites(2)}},
		"hit, over a link":           {pt.Frame(pt.UDP4(alice.to(bob))), chain(2)},
		"slow path":                  {pt.Frame(options), []NamespaceSpec{twoSites()}},
		"slow path over a link":      {pt.Frame(options), chain(2)},
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

// BenchmarkNAT64 is a hit that changes its family, in both directions.
func BenchmarkNAT64(b *testing.B) {
	back := bob.back(alice.to(bob), gate(2).addr4(), 1000)
	back.Payload = pt.Bytes(42)
	for name, tc := range map[string]struct {
		in    party
		frame *packet.Frame
	}{
		"to IPv4, UDP 82 B":      {alice, pt.Frame(pt.UDP6(alice.to64(bob.addr4())))},
		"to IPv4, TCP 64 KB GSO": {alice, pt.GSO(pt.TCP6(func() pt.Packet { p := alice.to64(bob.addr4()); p.Payload = pt.Bytes(64_000); return p }()), 1400)},
		"to IPv6, UDP 84 B":      {bob, pt.Frame(pt.UDP4(back))},
	} {
		b.Run(name, func(b *testing.B) {
			l := stillSites(b, sixOnly(1))
			l.send(alice.port(), pt.UDP6(alice.to64(bob.addr4())))
			w := l.n.workers[0]
			w.round(0)
			w.mu.Lock()
			defer w.mu.Unlock()
			t := &w.turn
			in := t.view.port(tc.in.port())
			t.begin(in, []packet.Frame{*tc.frame})
			vnet, n, head := tc.frame.Vnet, tc.frame.Len(), *(*[76]byte)(tc.frame.Bytes())
			b.ReportAllocs()
			for b.Loop() {
				f := &t.frames[0]
				f.Reset(packet.Headroom, n)
				f.Vnet = vnet
				*(*[76]byte)(f.Bytes()) = head
				t.tally.work = 0
				t.judge(in, 0)
				if t.out.full() {
					t.out.touched, t.out.used = t.out.touched[:0], 1
					clear(t.out.lists)
				}
			}
			if t.tally.misses > 2 {
				b.Errorf("%d misses", t.tally.misses)
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
