// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	pt "sluice/packet/packettest"
)

// handOver makes a file with some connections and opens it again, as the next
// process does; between the two, harm may come to it.
func handOver(t *testing.T, now uint32, harm func(*Table)) (*Table, Report) {
	t.Helper()
	return handOverTo(t, now, false, harm)
}

// handOverTo is handOver to a process that may have followed the one before, until
// the harm was done.
func handOverTo(t *testing.T, now uint32, follows bool, harm func(*Table)) (*Table, Report) {
	t.Helper()
	f, err := CreateFile(filepath.Join(t.TempDir(), "table"), 256)
	must(t, err)
	defer f.Close()
	tab, _, err := Open(f, Config{}, 1000)
	must(t, err)
	for _, b := range [][]byte{
		there(pt.SYN, 100, 0, ""), back(pt.SYN|pt.ACK, 500, 101, ""), there(pt.ACK, 101, 501, ""),
		pt.UDP4(pt.Packet{}), pt.UDP6(pt.Packet{}), pt.Ping6(pt.Packet{ID: 7}),
	} {
		look(t, tab, b, 1000)
	}
	m, err := Map(f, Config{})
	must(t, err)
	if follows {
		m.Follow(runtime.Gosched)
	}
	if harm != nil {
		harm(tab)
	}
	must(t, tab.Close())
	tab, rep := m.Open(now)
	t.Cleanup(func() { _ = tab.Close() })
	return tab, rep
}

// tcpRecord is the record of the TCP connection in handOver.
func tcpRecord(tab *Table) *record {
	c, _ := tab.Find(0, Tuple{Src: client(), Dst: server(), SrcPort: 1000, DstPort: 80, Proto: 6})
	return c.record()
}

func TestAnotherProcessGoesOn(t *testing.T) {
	tab, rep := handOver(t, 1010, nil)
	if rep != (Report{Kept: 4}) {
		t.Errorf("%+v", rep)
	}
	sound(t, tab)
	if v := look(t, tab, there(pt.ACK|pt.PSH, 101, 501, "data"), 1010); v.State != Established {
		t.Errorf("a segment in the window: %v", v.State)
	}
	if v := look(t, tab, there(pt.ACK, 101+1<<30, 501, "data"), 1010); v.State != Invalid {
		t.Errorf("a segment out of the window: %v", v.State)
	}
	tab.Expire(1030)
	if tab.Len() != 1 {
		t.Errorf("%d left, want the TCP one", tab.Len())
	}
}

func TestWhatIsDroppedAtTheStart(t *testing.T) {
	for name, tc := range map[string]struct {
		harm func(*Table)
		now  uint32
		want Report
	}{
		"over":              {nil, 1030, Report{Kept: 1, Expired: 3}},
		"being made":        {func(tab *Table) { r := tcpRecord(tab); r.life.Store(r.life.Load()&^phaseMask | phaseFresh) }, 1000, Report{Kept: 3, Torn: 1}},
		"being ended":       {func(tab *Table) { r := tcpRecord(tab); r.life.Store(r.life.Load()&^phaseMask | phaseDying) }, 1000, Report{Kept: 3, Torn: 1}},
		"being tracked":     {func(tab *Table) { tcpRecord(tab).acquire() }, 1000, Report{Kept: 4, Repaired: 1}},
		"tuple overwritten": {func(tab *Table) { tcpRecord(tab).keys[1][0].Add(1) }, 1000, Report{Kept: 3, Bad: 1}},
		"hash overwritten":  {func(tab *Table) { tcpRecord(tab).hash[0]++ }, 1000, Report{Kept: 3, Bad: 1}},
		"state overwritten": {func(tab *Table) { tcpRecord(tab).state.Store(77) }, 1000, Report{Kept: 3, Bad: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, follows := range []bool{false, true} {
				tab, rep := handOverTo(t, tc.now, follows, tc.harm)
				if rep != tc.want {
					t.Errorf("follows %t: %+v, want %+v", follows, rep, tc.want)
				}
				sound(t, tab)
			}
		})
	}
}

// TestTornWindows: whatever half of a segment's stores were done, the connection
// goes on in both directions.
func TestTornWindows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	for range 200 {
		tab, rep := handOver(t, 1000, func(tab *Table) {
			rec := tcpRecord(tab)
			rec.acquire()
			for d := range rec.track.peer {
				p := &rec.track.peer[d]
				for _, word := range []*uint32{&p.end, &p.maxEnd, &p.maxWin, &p.maxAck} {
					if r.IntN(2) == 0 {
						*word = r.Uint32()
					}
				}
			}
		})
		if rep.Repaired != 1 {
			t.Fatalf("%+v", rep)
		}
		for i, b := range [][]byte{there(pt.ACK, 101, 501, "data"), back(pt.ACK, 501, 105, "more"), there(pt.ACK, 105, 505, "")} {
			if v := look(t, tab, b, 1001); v.State != Established {
				t.Fatalf("segment %d after the crash: %v", i, v.State)
			}
		}
	}
}

// TestGarbageInTheFile: any bytes are taken for what they are not, and nothing
// else happens.
func TestGarbageInTheFile(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 3))
	for n := range 30 {
		tab, rep := handOverTo(t, 1000, n%2 == 1, func(tab *Table) {
			for i := headerSize; i < len(tab.mem); i++ {
				if r.IntN(8) == 0 {
					tab.mem[i] = byte(r.Uint32())
				}
			}
		})
		sound(t, tab)
		if rep.Bad == 0 {
			t.Errorf("%+v", rep)
		}
	}
}

func TestCreateFileKeepsWhatFits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	for _, tc := range []struct {
		entries, kept int
		before        func()
	}{
		{64, 0, func() {}},
		{64, 1, func() {}},
		{128, 0, func() {}},
		{128, 1, func() {}},
		{128, 0, func() { must(t, os.Truncate(path, 5000)) }},
		{128, 0, func() { must(t, os.WriteFile(path, []byte("nonsense"), 0o600)) }},
	} {
		tc.before()
		f, err := CreateFile(path, tc.entries)
		must(t, err)
		tab, rep, err := Open(f, Config{}, 1000)
		must(t, err)
		if rep.Kept != tc.kept || tab.Cap() != tc.entries {
			t.Errorf("%d of %d kept, want %d of %d", rep.Kept, tab.Cap(), tc.kept, tc.entries)
		}
		look(t, tab, pt.UDP4(pt.Packet{}), 1000)
		must(t, tab.Close())
		must(t, f.Close())
	}
}

func TestOpenRefusesOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	f, err := CreateFile(path, 16)
	must(t, err)
	defer f.Close()
	for at, b := range map[int64]byte{0: 'X', 8: 99, 12: 1, 16: 17} {
		old := make([]byte, 1)
		_, err := f.ReadAt(old, at)
		must(t, err)
		_, err = f.WriteAt([]byte{b}, at)
		must(t, err)
		if _, _, err := Open(f, Config{}, 1000); !errors.Is(err, ErrLayout) {
			t.Errorf("byte %d: %v", at, err)
		}
		_, err = f.WriteAt(old, at)
		must(t, err)
	}
	for _, n := range []int{0, -1, MaxEntries + 1} {
		if _, err := CreateFile(path, n); err == nil {
			t.Errorf("%d entries: no error", n)
		}
		if _, err := NewTable(Config{Entries: n}); (err == nil) != (n == 0) {
			t.Errorf("%d entries: %v", n, err)
		}
	}
}
