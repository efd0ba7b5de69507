// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	pt "sluice/packet/packettest"
)

// viewed is a table in a file, and a view of it.
func viewed(tb testing.TB, entries int) (*Table, *View) {
	tb.Helper()
	f, err := CreateFile(filepath.Join(tb.TempDir(), "table"), entries)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	tab, _, err := Open(f, Config{}, 1000)
	if err != nil {
		tb.Fatal(err)
	}
	v, err := NewView(f)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := v.Close(); err != nil {
			tb.Error(err)
		}
		_ = tab.Close()
	})
	return tab, v
}

// all is what a list in parts of so many entries has.
func (v *View) all(f *Filter, now uint32, part int) (out []Entry, parts int) {
	for from := uint32(0); ; parts++ {
		n := 0
		from = v.Entries(f, from, now, func(e *Entry) bool {
			out = append(out, *e)
			n++
			return n < part
		})
		if from == 0 {
			return out, parts + 1
		}
	}
}

// TestViewInParts: a list in parts has every connection once, the first and the last
// record's too, and those that are over not.
func TestViewInParts(t *testing.T) {
	const n = 1000
	tab, v := viewed(t, n)
	filled(t, tab, n)
	for _, part := range []int{1, 7, 500, n, 2 * n} {
		got, parts := v.all(nil, 1000, part)
		ids := map[uint32]bool{}
		for i := range got {
			ids[got[i].ID] = true
		}
		if len(got) != n || len(ids) != n || parts > n/part+1 {
			t.Errorf("in parts of %d: %d entries, %d of them different, %d parts", part, len(got), len(ids), parts)
		}
	}
	if got, _ := v.all(&Filter{Original: TupleFilter{SrcPort: 77}}, 1000, 5); len(got) != 1 || got[0].Original.SrcPort != 77 {
		t.Errorf("of port 77: %+v", got)
	}
	if got, _ := v.all(nil, 1000+3600, 5); len(got) != 0 {
		t.Errorf("%d entries that are over", len(got))
	}
	if next := v.Entries(nil, n, 1000, func(*Entry) bool { t.Error("behind the end"); return true }); next != 0 {
		t.Error(next)
	}
	if next := v.Entries(nil, 1<<32-1, 1000, func(*Entry) bool { t.Error("far behind the end"); return true }); next != 0 {
		t.Error(next)
	}
}

// TestViewAgreesWithTheTable: the same filter chooses the same, as the same text.
func TestViewAgreesWithTheTable(t *testing.T) {
	tab, v := viewed(t, 64)
	look(t, tab, there(pt.SYN, 100, 0, ""), 1000)
	look(t, tab, back(pt.SYN|pt.ACK, 500, 101, ""), 1000)
	look(t, tab, pt.UDP6(pt.Packet{SrcPort: 5, DstPort: 53}), 1000)
	look(t, tab, pt.Ping4(pt.Packet{ID: 5}), 1000)
	lines := func(each func(*Filter, func(*Entry) bool)) (out []string) {
		each(nil, func(e *Entry) bool { out = append(out, string(e.Append(nil, 255))); return true })
		return out
	}
	want := lines(func(f *Filter, y func(*Entry) bool) { tab.Entries(f, 1000, y) })
	got := lines(func(f *Filter, y func(*Entry) bool) { v.Entries(f, 0, 1000, y) })
	if len(want) != 3 || !slices.Equal(got, want) {
		t.Errorf("%q\nis not\n%q", got, want)
	}
}

// TestViewDoesNotWaitForTheDead: a lock that nobody gives back hides no connection.
func TestViewDoesNotWaitForTheDead(t *testing.T) {
	tab, v := viewed(t, 64)
	c := look(t, tab, there(pt.SYN, 100, 0, ""), 1000).Conn
	c.record().acquire()
	if got, _ := v.all(nil, 1000, 5); len(got) != 1 {
		t.Errorf("%d entries", len(got))
	}
	c.record().release()
}

// TestViewOfATableAtWork reads while connections come and go all the time: none that
// stays is missed or told twice, and of none are the tuples another's.
func TestViewOfATableAtWork(t *testing.T) {
	const stay = 300
	tab, v := viewed(t, 1000)
	filled(t, tab, stay)
	var done atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; !done.Load(); i++ {
			c, out := begin(tab, 7, datagram(7, i), 1000)
			if out == Inserted {
				c.Packet(Original, pt.Frame(datagram(7, i)), 1000)
				c.Delete(1000)
			}
		}
	}()
	for range 200 {
		stayed := map[uint32]int{}
		v.Entries(nil, 0, 1000, func(e *Entry) bool {
			if inverse, ok := e.Original.Inverse(); !ok || inverse != e.Reply {
				t.Errorf("%v and %v", e.Original, e.Reply)
			}
			if e.Original.DstPort == 80 {
				stayed[e.ID]++
			}
			return true
		})
		for id, n := range stayed {
			if n != 1 {
				t.Errorf("%d is told %d times", id, n)
			}
		}
		if len(stayed) < stay {
			t.Errorf("%d of %d", len(stayed), stay)
		}
	}
	done.Store(true)
	<-ended
}

// FuzzView: any bytes as records give entries that can be shown.
func FuzzView(f *testing.F) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 4*recordSize)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		for i := 0; i < len(b); i += recordSize {
			b[i] = phaseLive
			b[i+8+32], b[i+48+32] = 4, 6
		}
		f.Add(b)
	}
	mem, err := unix.Mmap(-1, 0, int(fileSize(4)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		clear(mem)
		copy(mem[headerSize:], b)
		v := View{recs: recordsOf(mem, 4)}
		v.Entries(nil, 0, 0, func(e *Entry) bool { printable(t, e.Append(nil, 255), e); return true })
	})
}

// TestDeleteListed: what is gone, or has become what the filter does not choose, stays.
func TestDeleteListed(t *testing.T) {
	tab := table(t, Config{Entries: 4})
	filled(t, tab, 4)
	var all []Conn
	var ids []uint32
	tab.Entries(nil, 1000, func(e *Entry) bool { all, ids = append(all, e.Conn), append(ids, e.ID); return true })
	all[1].SetMark(5)
	all[2].Delete(1000)
	again, _ := begin(tab, 7, datagram(7, 1), 1000) // in the record of the one that went
	if again.i != all[2].i {
		t.Fatalf("it is in record %d, not %d", again.i, all[2].i)
	}
	got := tab.DeleteListed(&Filter{MarkMask: 1<<32 - 1}, append([]uint32{0, 1 << 31, 1<<32 - 1}, ids...), 1000)
	if !slices.Equal(got, []uint32{ids[0], ids[3]}) || all[0].Valid() || !all[1].Valid() || !again.Valid() || all[3].Valid() {
		t.Errorf("%v of %v", got, ids)
	}
}

// BenchmarkList lists, counts and seeks in a large table, as the agent does.
//
//	go test -run '^$' -bench List ./conntrack
func BenchmarkList(b *testing.B) {
	const n = 510_000
	tab, v := viewed(b, n)
	filled(b, tab, n)
	for name, f := range map[string]*Filter{
		"all":   nil,
		"one":   {Original: TupleFilter{SrcPort: 77, Src: netip.MustParsePrefix("10.0.0.77/32")}},
		"state": {State: "ESTABLISHED"},
	} {
		b.Run(fmt.Sprintf("count/%s/entries=%d", name, n), func(b *testing.B) {
			for b.Loop() {
				count := 0
				v.Entries(f, 0, 1000, func(*Entry) bool { count++; return true })
				if count == 0 {
					b.Fatal("none")
				}
			}
		})
	}
	b.Run(fmt.Sprintf("lines/entries=%d", n), func(b *testing.B) {
		b.ReportAllocs()
		var line []byte
		for b.Loop() {
			v.Entries(nil, 0, 1000, func(e *Entry) bool { line = e.Append(line[:0], ListAccount); return true })
		}
		b.SetBytes(int64(n * len(line)))
	})
}
