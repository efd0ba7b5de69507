// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// TestFollowed has connections come and go between what a follower sees, and until it
// opens the table: it has what the one before had.
func TestFollowed(t *testing.T) {
	for name, tc := range map[string]struct{ before, between, after int }{
		"nothing was seen":     {0, 0, 500},
		"all was seen":         {500, 0, 0},
		"some was seen":        {300, 300, 300},
		"records change hands": {900, 900, 900},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := CreateFile(filepath.Join(t.TempDir(), "table"), 700)
			must(t, err)
			defer f.Close()
			tab, _, err := Open(f, Config{}, 1000)
			must(t, err)
			m, err := Map(f, Config{})
			must(t, err)
			r := rand.New(rand.NewPCG(rand.Uint64(), 8))
			comeAndGo(tab, r, tc.before)
			for range 2 {
				m.Follow(runtime.Gosched)
				comeAndGo(tab, r, tc.between)
			}
			m.Follow(runtime.Gosched)
			comeAndGo(tab, r, tc.after)
			want := tuplesOf(tab)
			must(t, tab.Close())
			next, rep := m.Open(1000)
			defer next.Close()
			sound(t, next)
			if rep != (Report{Kept: len(want)}) {
				t.Errorf("%+v, want %d kept", rep, len(want))
			}
			for tu := range want {
				if c, d := next.Find(0, tu); c == (Conn{}) || d != Original {
					t.Errorf("%v is not found", tu)
				}
			}
			comeAndGo(next, r, 2000)
			sound(t, next)
		})
	}
}

// comeAndGo begins connections, and ends some.
func comeAndGo(tab *Table, r *rand.Rand, n int) {
	for range n {
		c, out := begin(tab, uint16(1+r.IntN(5)), datagram(uint16(1+r.IntN(4)), r.IntN(200)), 1000)
		if out == Inserted && r.IntN(3) == 0 {
			c.Delete(1000)
		}
		if r.IntN(300) == 0 {
			tab.Delete(&Filter{}, 1000)
		}
	}
}

func tuplesOf(tab *Table) map[Tuple]bool {
	all := map[Tuple]bool{}
	tab.Entries(nil, 1000, func(e *Entry) bool {
		all[e.Original] = true
		return true
	})
	return all
}

// TestOpenedWhileItFollows: whoever follows stops at once, and changes nothing more.
func TestOpenedWhileItFollows(t *testing.T) {
	f, err := CreateFile(filepath.Join(t.TempDir(), "table"), 50_000)
	must(t, err)
	defer f.Close()
	tab, _, err := Open(f, Config{}, 1000)
	must(t, err)
	filled(t, tab, 40_000)
	must(t, tab.Close())
	for range 5 {
		m, err := Map(f, Config{})
		must(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { m.Follow(runtime.Gosched) })
		tab, rep := m.Open(1000)
		wg.Wait()
		m.Follow(runtime.Gosched)
		if rep != (Report{Kept: 40_000}) {
			t.Errorf("%+v", rep)
		}
		sound(t, tab)
		must(t, tab.Close())
	}
	m, err := Map(f, Config{})
	must(t, err)
	m.Follow(runtime.Gosched)
	must(t, m.Close())
	m.Follow(runtime.Gosched)
}
