// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// BenchmarkFrame is what Sluice itself spends on a frame: parse, flow cache and
// output list, without the system calls.
func BenchmarkFrame(b *testing.B) {
	for name, f := range map[string]*packet.Frame{
		"hit, UDP 64 B":      pt.Frame(datagram(1, 2, "0123456789012345678901")),
		"hit, TCP 64 KB GSO": pt.GSO(segment(1, 2, 64_000), 1448),
		"hit, IPv6":          pt.Frame(pt.UDP6(pt.Packet{SrcMAC: mac(1), DstMAC: mac(2)})),
		"slow path, ARP":     pt.Frame(pt.ARPRequest(pt.Packet{SrcMAC: mac(1), DstMAC: mac(2)})),
	} {
		b.Run(name, func(b *testing.B) {
			l := stillLab(b, blue(2))
			w := l.n.workers[0]
			w.round(0)
			w.mu.Lock()
			defer w.mu.Unlock()
			t := &w.turn
			in := t.view.port(1)
			t.frames = []packet.Frame{*f}
			for b.Loop() {
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

// BenchmarkTurn is a whole turn of 64 frames, from socket to socket.
func BenchmarkTurn(b *testing.B) {
	for name, f := range map[string]*packet.Frame{
		"UDP 64 B":      pt.Frame(datagram(1, 2, "0123456789012345678901")),
		"TCP 1500 B":    pt.Frame(segment(1, 2, 1446)),
		"TCP 64 KB GSO": pt.GSO(segment(1, 2, 64_000), 1448),
	} {
		b.Run(name, func(b *testing.B) { benchmarkTurn(b, blue(2), 2, f) })
	}
}

// benchmarkTurn carries turns of one frame from container 1 to another.
func benchmarkTurn(b *testing.B, s NetworkSpec, to int, f *packet.Frame) {
	b.Helper()
	n, err := build(Options{Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	far, fds := socketPairs(b, len(s.Ports))
	if err := n.Apply(&Snapshot{Namespaces: []NamespaceSpec{alone(s)}}, fds); err != nil {
		b.Fatal(err)
	}
	w, msg, buf := n.workers[0], f.Wire(), make([]byte, packet.BufLen)
	b.SetBytes(budget * int64(f.Len()))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for range budget {
			_, _ = unix.Write(far[0], msg)
		}
		b.StartTimer()
		w.settle()
		b.StopTimer()
		drain(far[to-1], buf)
		b.StartTimer()
	}
}

// BenchmarkApply adds a container to many.
func BenchmarkApply(b *testing.B) {
	for _, ports := range []int{10, 100, 250} {
		b.Run(fmt.Sprint(ports), func(b *testing.B) {
			l := stillLab(b, manyPorts(ports))
			s := l.snap.Namespaces[0].Networks[0].Ports
			for i := 0; b.Loop(); i++ {
				s[0].MTU = 1400 + i%2
				if err := l.n.Apply(&l.snap, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// manyPorts is a namespace with more containers than addresses of one byte.
func manyPorts(n int) NetworkSpec {
	s := blue(0)
	for i := range n {
		p := container(1)
		p.Index = uint16(i + 1000)
		p.MAC = packet.MAC{2, 0, 0, 9, byte(i >> 8), byte(i)}
		p.Addresses = nil
		s.Ports = append(s.Ports, p)
	}
	return s
}
