// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"hash/maphash"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// named returns a key that is different for each n.
func named(n int) Key {
	return Key{InPort: 1, SrcPort: uint16(n), DstPort: uint16(n >> 16)}
}

// model is the slow twin of a Cache: a map that never evicts. The cache must
// hold what the model holds, or nothing.
type model map[Key]struct {
	gen uint64
	val int
}

// TestSlotsAreTheirs: what lies beside the values by slot belongs to the same key
// for as long as the value does.
func TestSlotsAreTheirs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	seed := maphash.MakeSeed()
	c := NewCache[int](64)
	beside := make([]Key, c.Cap())
	for range 20_000 {
		k := named(rnd.IntN(300))
		h := k.Hash(seed)
		if v := c.Lookup(&k, h, 1); v == nil {
			*c.Insert(&k, h, 1) = c.Slot()
			beside[c.Slot()] = k
		} else if beside[*v] != k {
			t.Fatalf("slot %d has %v, want %v", *v, beside[*v], k)
		}
	}
}

func TestCacheIsRightOrAbsent(t *testing.T) {
	const keys = 300
	rnd := rand.New(rand.NewPCG(1, 2))
	seed := maphash.MakeSeed()
	c, m := NewCache[int](64), model{}
	gen := uint64(1)
	hits := 0
	for step := range 200_000 {
		k := named(rnd.IntN(keys))
		if rnd.IntN(2) == 0 {
			k = named(rnd.IntN(20)) // busy flows, which should stay
		}
		h := k.Hash(seed)
		switch rnd.IntN(1000) {
		case 0:
			gen++
		case 1:
			c.Flush()
			clear(m)
		case 2, 3, 4:
			c.Delete(&k, h)
			delete(m, k)
		}
		if v := c.Lookup(&k, h, gen); v != nil {
			hits++
			if want, ok := m[k]; !ok || want.gen != gen || want.val != *v {
				t.Fatalf("step %d: key %v is %d, model has %+v (generation %d)", step, k, *v, want, gen)
			}
			continue
		}
		*c.Insert(&k, h, gen) = step
		m[k] = struct {
			gen uint64
			val int
		}{gen, step}
		if v := c.Lookup(&k, h, gen); v == nil || *v != step {
			t.Fatalf("step %d: what was inserted is not there", step)
		}
		if c.Len() > c.Cap() {
			t.Fatalf("step %d: %d entries of %d", step, c.Len(), c.Cap())
		}
	}
	if hits < 80_000 {
		t.Errorf("%d hits: busy flows do not stay", hits)
	}
}

// The hash decides where an entry is, never which one it is.
func TestKeysWithOneHashAreToldApart(t *testing.T) {
	c := NewCache[int](8)
	for n := range 8 {
		k := named(n)
		*c.Insert(&k, 42, 1) = n
	}
	for n := range 8 {
		k := named(n)
		if v := c.Lookup(&k, 42, 1); v == nil || *v != n {
			t.Errorf("key %d: got %v", n, v)
		}
	}
	for n := range 8 {
		k := named(n)
		k.Dst[15] = 1 // differs in one bit only
		if v := c.Lookup(&k, 42, 1); v != nil {
			t.Errorf("key %d with another address: got %d", n, *v)
		}
	}
}

// Every tag finds its slot, whatever its neighbours in the word are.
func TestEveryTagMatches(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		s := set{tags: rnd.Uint64() & (rnd.Uint64() | rnd.Uint64()), used: allInUse}
		for w := range ways {
			h := s.tags >> (8 * w) << tagShift
			if s.match(h)>>(8*w+7)&1 == 0 {
				t.Fatalf("tags %016x: no match for slot %d", s.tags, w)
			}
		}
	}
}

func TestEmptySlotIsNoEntryOfTheZeroKey(t *testing.T) {
	c := NewCache[int](8)
	if v := c.Lookup(&Key{}, 0, 0); v != nil {
		t.Errorf("got %d from an empty cache", *v)
	}
	k := named(1)
	c.Insert(&k, 0, 0)
	c.Delete(&k, 0)
	if v := c.Lookup(&Key{}, 0, 0); v != nil || c.Len() != 0 {
		t.Errorf("got %v, %d entries after the deletion", v, c.Len())
	}
}

func TestOtherGenerationIsAbsent(t *testing.T) {
	c := NewCache[int](8)
	k := named(1)
	*c.Insert(&k, 7, 1) = 5
	if c.Lookup(&k, 7, 2) != nil {
		t.Error("found in a later generation")
	}
	if v := c.Insert(&k, 7, 2); *v != 0 || c.Len() != 1 {
		t.Errorf("reinserted: value %d, %d entries, want 0 and 1", *v, c.Len())
	}
	if c.Lookup(&k, 7, 1) != nil {
		t.Error("found in the past generation")
	}
}

func TestStaleEntriesGoFirst(t *testing.T) {
	c := NewCache[int](8)
	for n := range 8 {
		k := named(n)
		c.Insert(&k, 0, uint64(1+n%2))
		c.Lookup(&k, 0, uint64(1+n%2)) // busy, for what it is worth
	}
	for n := range 4 {
		k := named(100 + n)
		c.Insert(&k, 0, 2)
	}
	for n := 1; n < 8; n += 2 {
		k := named(n)
		if c.Lookup(&k, 0, 2) == nil {
			t.Errorf("entry %d of this generation went before a stale one", n)
		}
	}
	if got := c.Stats().Evictions; got != 0 {
		t.Errorf("%d evictions, want 0: stale entries do not count", got)
	}
}

// A scan of one-packet flows must not push out the flow that is in use.
func TestClockKeepsTheBusyFlow(t *testing.T) {
	c := NewCache[int](8)
	busy := named(0)
	c.Insert(&busy, 0, 1)
	for n := 1; n < 1000; n++ {
		if c.Lookup(&busy, 0, 1) == nil {
			t.Fatalf("evicted after %d other flows", n)
		}
		k := named(n)
		c.Insert(&k, 0, 1)
	}
	want := Stats{Hits: 999, Inserts: 1000, Evictions: 992}
	if diff := cmp.Diff(want, c.Stats()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClockEndsWhenAllAreBusy(t *testing.T) {
	c := NewCache[int](8)
	for n := range 100 {
		k := named(n)
		c.Insert(&k, 0, 1)
		c.Lookup(&k, 0, 1)
	}
	if c.Len() != 8 {
		t.Errorf("%d entries, want 8", c.Len())
	}
}

func TestCapIsRoundedUp(t *testing.T) {
	for entries, want := range map[int]int{-1: 4096, 0: 4096, 1: 8, 8: 8, 9: 16, 1000: 1024, 1024: 1024} {
		if got := NewCache[int](entries).Cap(); got != want {
			t.Errorf("NewCache(%d): room for %d, want %d", entries, got, want)
		}
	}
}

func TestCacheAllocatesNothing(t *testing.T) {
	c, seed, n := NewCache[benchValue](1024), maphash.MakeSeed(), 0
	allocs := testing.AllocsPerRun(5000, func() {
		k := named(n)
		n++
		h := k.Hash(seed)
		if c.Lookup(&k, h, 1) == nil {
			c.Insert(&k, h, 1)[0] = 1
		}
		if n%7 == 0 {
			c.Delete(&k, h)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

// benchValue is as large as what a worker remembers of a flow.
type benchValue [6]uint64

// benchCache is a cache with n busy flows, their keys and hashes.
func benchCache(n int) (*Cache[benchValue], []Key, maphash.Seed) {
	c, seed := NewCache[benchValue](4096), maphash.MakeSeed()
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = named(i)
		c.Insert(&keys[i], keys[i].Hash(seed), 1)
	}
	return c, keys, seed
}

func BenchmarkCacheHit(b *testing.B) {
	for _, bb := range []struct {
		name  string
		flows int
	}{{"1 flow", 1}, {"64 flows", 64}, {"1024 flows", 1024}} {
		b.Run(bb.name, func(b *testing.B) {
			c, keys, seed := benchCache(bb.flows)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				k := &keys[i&(len(keys)-1)]
				if c.Lookup(k, k.Hash(seed), 1) == nil {
					b.Fatal("miss")
				}
				i++
			}
		})
	}
}

func BenchmarkCacheMissAndInsert(b *testing.B) {
	c, _, seed := benchCache(4096)
	b.ReportAllocs()
	n := 1 << 20
	for b.Loop() {
		k := named(n)
		n++
		h := k.Hash(seed)
		if c.Lookup(&k, h, 1) == nil {
			c.Insert(&k, h, 1)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	k, seed := named(1), maphash.MakeSeed()
	b.ReportAllocs()
	for b.Loop() {
		k.Hash(seed)
	}
}
