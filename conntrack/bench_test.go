// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// filled enters n connections, half of them TCP.
func filled(tb testing.TB, tab *Table, n int) {
	tb.Helper()
	var p Pending
	for i := range n {
		tu := Tuple{
			Src: addr4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Dst: addr4([4]byte{10, 200, 0, 1}),
			SrcPort: uint16(i), DstPort: 80, Proto: 17,
		}
		p = Pending{active: true, Original: tu, timeout: 3600, Zone: uint16(i >> 24), Port: uint16(i % 100)}
		if i%2 == 0 {
			p.Original.Proto, p.state = 6, tcpEstablished
		}
		p.Reply, _ = p.Original.Inverse()
		if _, out := tab.Confirm(&p, 1000); out != Inserted {
			tb.Fatalf("%d: outcome %d", i, out)
		}
	}
}

// keyNumber is the key of the i-th connection of filled.
func keyNumber(i int) key {
	src := uint64(10)<<24 | uint64(i&0xffffff)
	return key{src << 32, 0, 0x0ac80001 << 32, 0, rest(uint16(i), 80, uint16(i>>24), [2]uint8{6, 17}[i%2], 4)}
}

func sizes() []int { return []int{10, 1000, 100_000, 1_000_000} }

// BenchmarkFind looks up tuples at random: beyond the caches' size it is memory
// that costs.
func BenchmarkFind(b *testing.B) {
	for _, n := range sizes() {
		tab := table(b, Config{Entries: max(n, 1000)})
		filled(b, tab, n)
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			for i := uint32(0); b.Loop(); i += 2654435761 { // jumps all over the table
				k := keyNumber(int(i % uint32(n)))
				if _, _, ok := tab.find(&k, tab.secret.hash(&k)); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}

func BenchmarkPacket(b *testing.B) {
	tab := table(b, Config{Entries: 1000})
	look(b, tab, there(pt.SYN, 100, 0, ""), 1000)
	look(b, tab, back(pt.SYN|pt.ACK, 500, 101, ""), 1000)
	f := pt.Partial(there(pt.ACK, 101, 501, "data"))
	tcp := look(b, tab, there(pt.ACK, 101, 501, ""), 1000).Conn
	u := pt.Partial(pt.UDP4(pt.Packet{}))
	udp := look(b, tab, pt.UDP4(pt.Packet{}), 1000).Conn
	b.Run("tcp", func(b *testing.B) {
		for b.Loop() {
			tcp.Packet(Original, f, 1000)
		}
	})
	b.Run("udp", func(b *testing.B) {
		for b.Loop() {
			udp.Packet(Original, u, 1000)
		}
	})
	b.Run("look", func(b *testing.B) {
		p, n := Packet{Frame: f, Now: 1000}, new(Pending)
		for b.Loop() {
			tab.Look(&p, n)
		}
	})
}

// BenchmarkConfirm begins and ends connections in a table that holds many.
func BenchmarkConfirm(b *testing.B) {
	for _, n := range sizes() {
		tab := table(b, Config{Entries: n + 1000})
		filled(b, tab, n)
		f := pt.NewFrame()
		raw := pt.UDP4(pt.Packet{})
		f.Reset(64, len(raw))
		copy(f.Bytes(), raw)
		f.View.Parse(raw)
		f.Vnet.Flags = packet.FlagDataValid
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			p, pend := Packet{Frame: f, Now: 1000}, new(Pending)
			for i := 0; b.Loop(); i++ {
				f.View.SrcPort = uint16(i)
				p.Zone = uint16(1 + i>>16&0xff)
				tab.Look(&p, pend)
				c, out := tab.Confirm(pend, 1000)
				if out != Inserted {
					b.Fatal(out)
				}
				c.Delete(1000)
			}
		})
	}
}

// BenchmarkOpen is how long the next process takes until it goes on.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{10_000, 500_000} {
		f, err := CreateFile(filepath.Join(b.TempDir(), "table"), n)
		if err != nil {
			b.Fatal(err)
		}
		tab, _, err := Open(f, Config{}, 1000)
		if err != nil {
			b.Fatal(err)
		}
		filled(b, tab, n)
		_ = tab.Close()
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			for b.Loop() {
				tab, rep, err := Open(f, Config{}, 1000)
				if err != nil || rep.Kept != n {
					b.Fatal(err, rep)
				}
				_ = tab.Close()
			}
		})
		b.Run(fmt.Sprintf("mapped/entries=%d", n), func(b *testing.B) { takeOver(b, f, n) })
		_ = f.Close()
	}
}

// takeOver is what is left of Open for a process that mapped the file in advance.
func takeOver(b *testing.B, f *os.File, n int) {
	b.Helper()
	for b.Loop() {
		b.StopTimer()
		m, err := Map(f, Config{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		tab, rep := m.Open(1000)
		b.StopTimer()
		if rep.Kept != n {
			b.Fatal(rep)
		}
		_ = tab.Close()
		b.StartTimer()
	}
}

// TestMemoryOfAnEntry: what a connection costs beside its record.
func TestMemoryOfAnEntry(t *testing.T) {
	const n = 200_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tab := table(t, Config{Entries: n})
	runtime.ReadMemStats(&after)
	own := float64(after.TotalAlloc-before.TotalAlloc-(maxPorts*(8+8))+uint64(len(tab.index)))/n + recordSize
	t.Logf("%.0f bytes for each entry", own)
	if own > 340 {
		t.Errorf("%.0f bytes", own)
	}
	runtime.KeepAlive(tab)
}

// TestExpiryDoesNotStall lets very many connections end in one second, while a
// worker begins others: none of those waits for long.
func TestExpiryDoesNotStall(t *testing.T) {
	n := 300_000
	if testing.Short() {
		n = 50_000
	}
	tab := table(t, Config{Entries: n + 1000})
	filled(t, tab, n)
	done := make(chan int)
	go func() { done <- tab.Expire(1000 + 3600) }()
	var waits []time.Duration
	for i := 0; ; i++ {
		select {
		case ended := <-done:
			report(t, ended, waits)
			if ended != n {
				t.Errorf("%d ended, want %d", ended, n)
			}
			return
		default:
			at := time.Now()
			c, _ := begin(tab, 7, datagram(7, i), 5000)
			c.Delete(5000)
			waits = append(waits, time.Since(at))
		}
	}
}

// report asks of the median only what a busy machine can give, and logs the rest.
func report(t *testing.T, ended int, waits []time.Duration) {
	t.Helper()
	late := 0
	var worst time.Duration
	for _, w := range waits {
		worst = max(worst, w)
		if w > 10*time.Millisecond {
			late++
		}
	}
	t.Logf("%d ended; %d connections begun meanwhile, the slowest in %v, %d in more than 10 ms", ended, len(waits), worst, late)
	if len(waits) > 1000 && late*100 > len(waits) {
		t.Errorf("%d of %d waited for more than 10 ms", late, len(waits))
	}
}
