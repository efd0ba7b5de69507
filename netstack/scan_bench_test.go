// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/binary"
	"testing"

	"sluice/conntrack"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// BenchmarkScan is what a packet costs that begins a connection, while there is room,
// while the oldest of its port has to give way for it, and when none may.
func BenchmarkScan(b *testing.B) {
	for name, tc := range map[string]struct{ quota, assured int }{
		"room":      {0, 0},
		"gives way": {1000, 0},
		"refused":   {10, 10},
	} {
		b.Run(name, func(b *testing.B) {
			l := stillSites(b, scanned(tc.quota))
			for i := range tc.assured {
				l.converse(uint16(100 + i))
			}
			p := alice.to(bob)
			p.Flags = pt.SYN
			f := pt.Frame(pt.TCP4(p))
			benchmarkScan(b, l, f)
			if tc.assured > 0 && l.drops(alice.port(), trace.CTQuota) < uint64(b.N) {
				b.Errorf("drops %v", l.stats(alice.port()).Drops)
			}
		})
	}
}

// scanned is a namespace that translates, whose first container has a quota.
func scanned(quota int) NamespaceSpec {
	s := translating(2)
	s.Networks[0].Ports[0].Connections = conntrack.PortLimits{Quota: quota}
	return s
}

// converse makes a connection from alice to bob that is established.
func (l *lab) converse(port uint16) {
	there := alice.to(bob)
	there.SrcPort, there.Flags, there.Seq, there.Payload = port, pt.SYN, 100, nil
	l.send(alice.port(), pt.TCP4(there))
	back := bob.back(there, gate(2).addr4(), port)
	back.Flags, back.Seq, back.Ack = pt.SYN|pt.ACK, 500, 101
	l.send(bob.port(), pt.TCP4(back))
	there.Flags, there.Seq, there.Ack = pt.ACK, 101, 501
	l.send(alice.port(), pt.TCP4(there))
	for _, at := range []uint16{alice.port(), bob.port()} {
		for l.got(at) != nil {
			continue
		}
	}
}

// benchmarkScan judges a frame again and again, each time with other ports.
func benchmarkScan(b *testing.B, l *lab, f *packet.Frame) {
	b.Helper()
	w := l.n.workers[0]
	w.round(0)
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &w.turn
	in := t.view.port(alice.port())
	t.begin(in, []packet.Frame{*f})
	f = &t.frames[0]
	n, head := f.Len(), *(*[54]byte)(f.Bytes())
	b.ReportAllocs()
	for i := uint32(0); b.Loop(); i++ {
		f.Reset(packet.Headroom, n)
		f.Vnet.Flags = packet.FlagDataValid // the sum isn't changed with the ports
		*(*[54]byte)(f.Bytes()) = head
		binary.BigEndian.PutUint32(f.Bytes()[34:], 1<<26+i*7919)
		t.tally.work = 0
		t.judge(in, 0)
		if t.out.full() {
			t.out.touched, t.out.used = t.out.touched[:0], 1
			clear(t.out.lists)
		}
	}
}
