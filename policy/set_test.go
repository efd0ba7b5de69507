// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/policy/nft"
)

func u16(x int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(x))) }
func u32(x int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(x))) }

var (
	addrSpec = nft.Spec{Type: nft.TypeIPv4Addr, Bits: 32}
	portSpec = nft.Spec{Type: nft.TypeInetService, Bits: 16}
)

// world is an engine with one set, changed as a transaction would.
type world struct {
	t    testing.TB
	e    *Engine
	rs   *nft.Ruleset
	tree *nft.Set
	ev   *Evaluator
	gen  uint64
}

func newWorld(tb testing.TB, tree *nft.Set) *world {
	tb.Helper()
	e := New([2]uint64{1, 2})
	tree.Name, tree.Handle = "s", 1
	w := &world{t: tb, e: e, tree: tree, ev: e.Evaluator()}
	w.commit(tree)
	return w
}

// commit makes tree the set.
func (w *world) commit(tree *nft.Set) {
	w.t.Helper()
	w.tree, w.gen = tree, w.gen+1
	table := &nft.Table{Family: nft.FamilyIP, Name: "t", Handle: 1, Sets: []*nft.Set{tree}}
	w.rs = &nft.Ruleset{Tables: []*nft.Table{table}}
	if err := w.e.Commit(w.rs, nil, 0); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) set() *set { return w.e.tables[1].sets["s"].set }

// with is the tree with other elements.
func (w *world) with(elems nft.Elems) *nft.Set {
	next := *w.tree
	next.Elems = elems
	return &next
}

func (w *world) find(key string, now int64) *elem {
	w.ev.Pin()
	defer w.ev.Unpin()
	s := w.set()
	return s.find(unpack(key, s.fields, s.width), w.ev.snap.gen, now)
}

// holds is the obvious look-up.
func holds(tree *nft.Set, key string) *nft.Elem {
	for e := range tree.Elems.All() {
		at, in := 0, true
		for _, k := range tree.Key {
			n := k.Bytes()
			in = in && e.Key[at:at+n] <= key[at:at+n] && key[at:at+n] <= e.End[at:at+n]
			at += n
		}
		if in {
			return e
		}
	}
	return nil
}

func TestSetsFindWhatTheTreeHas(t *testing.T) {
	kinds := map[string]struct {
		tree nft.Set
		key  func(*rand.Rand) string
		end  func(*rand.Rand, string) string
	}{
		"addresses": {
			nft.Set{Key: []nft.Spec{addrSpec}},
			func(r *rand.Rand) string { return u32(r.IntN(500)) },
			func(_ *rand.Rand, k string) string { return k },
		},
		"intervals": {
			nft.Set{Key: []nft.Spec{portSpec}, Interval: true},
			func(r *rand.Rand) string { return u16(10 * r.IntN(200)) },
			func(r *rand.Rand, k string) string {
				return u16(int(binary.BigEndian.Uint16([]byte(k))) + r.IntN(10))
			},
		},
		"pairs": {
			nft.Set{Key: []nft.Spec{addrSpec, portSpec}},
			func(r *rand.Rand) string { return u32(r.IntN(30)) + u16(r.IntN(30)) },
			func(_ *rand.Rand, k string) string { return k },
		},
		"boxes": {
			nft.Set{Key: []nft.Spec{addrSpec, portSpec}, Interval: true},
			func(r *rand.Rand) string { return u32(10*r.IntN(30)) + u16(10*r.IntN(30)) },
			func(r *rand.Rand, k string) string {
				a, p := binary.BigEndian.Uint32([]byte(k)), binary.BigEndian.Uint16([]byte(k[4:]))
				return u32(int(a)+r.IntN(10)) + u16(int(p)+r.IntN(10))
			},
		},
	}
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			w := newWorld(t, &k.tree)
			for range 200 {
				elems := w.tree.Elems
				for range r.IntN(20) {
					key := k.key(r)
					if r.IntN(3) == 0 {
						elems = elems.Without(key)
						continue
					}
					elems = elems.With(&nft.Elem{Key: key, End: k.end(r, key)})
				}
				w.commit(w.with(elems))
				for range 50 {
					key := k.key(r)
					key = key[:len(key)-1] + string([]byte{key[len(key)-1] + byte(r.IntN(10))})
					want, got := holds(w.tree, key), w.find(key, 0)
					if (want == nil) != (got == nil) || got != nil && got.source != want {
						t.Fatalf("key %x: %v, want %v", key, got, want)
					}
				}
			}
			n := 0
			w.set().each(w.e.Generation(), 0, func(*elem) bool { n++; return true })
			if n != w.tree.Elems.Len() || w.set().n != n {
				t.Errorf("%d elements are listed, %d counted; there are %d", n, w.set().n, w.tree.Elems.Len())
			}
		})
	}
}

// TestReadersSeeWholeTransactions moves one element about, while others look: they
// find it in exactly one of all places, whatever ruleset they have pinned.
func TestReadersSeeWholeTransactions(t *testing.T) {
	for _, interval := range []bool{false, true} {
		t.Run(fmt.Sprintf("interval %v", interval), func(t *testing.T) {
			const places = 16
			var elems nft.Elems
			w := newWorld(t, &nft.Set{Key: []nft.Spec{addrSpec}, Interval: interval, Elems: elems.With(&nft.Elem{Key: u32(0), End: u32(0)})})
			s := w.set()
			var wg sync.WaitGroup
			done := make(chan struct{})
			for range 3 {
				wg.Go(func() {
					ev := w.e.Evaluator()
					defer ev.Close()
					for {
						select {
						case <-done:
							return
						default:
						}
						ev.Pin()
						n := 0
						for i := range places {
							if s.find([]uint64{uint64(i)}, ev.snap.gen, 0) != nil {
								n++
							}
						}
						ev.Unpin()
						if n != 1 {
							t.Errorf("found in %d places", n)
							return
						}
					}
				})
			}
			for i := range 3000 {
				var next nft.Elems
				k := u32((i + 1) % places)
				w.commit(w.with(next.With(&nft.Elem{Key: k, End: k})))
			}
			close(done)
			wg.Wait()
			for range 3 { // nobody reads any more
				w.commit(w.with(w.tree.Elems.Without(u32(99))))
			}
			if n := len(s.dying) + len(s.limbo); n > 10 {
				t.Errorf("%d elements are kept that nobody sees", n)
			}
		})
	}
}

func arrive(w *world, op nft.SetOp, key int, now int64) *elem {
	w.ev.Pin()
	defer w.ev.Unpin()
	a := arrival{op: op, key: []uint64{uint64(key)}, specs: []StateSpec{{Kind: CounterState}}}
	return w.set().arrive(&a, w.ev.snap.gen, now)
}

func TestPacketsAddElements(t *testing.T) {
	const timeout = 10 * int64(time.Second)
	w := newWorld(t, &nft.Set{Key: []nft.Spec{addrSpec}, Dynamic: true, HasTimeout: true, Timeout: time.Duration(timeout), Size: 3})
	for i := range 3 {
		if arrive(w, nft.SetAdd, i, 0) == nil {
			t.Fatal("no room for", i)
		}
	}
	if arrive(w, nft.SetAdd, 3, 0) != nil {
		t.Error("a fourth element found room")
	}
	if arrive(w, nft.SetAdd, 0, 1) == nil {
		t.Error("an element that is there was not found")
	}
	arrive(w, nft.SetAdd, 1, timeout/2)    // does not refresh
	arrive(w, nft.SetUpdate, 2, timeout/2) // does
	for i, want := range []bool{false, false, true} {
		if got := w.find(u32(i), timeout) != nil; got != want {
			t.Errorf("element %d is there: %v, want %v", i, got, want)
		}
	}
	if arrive(w, nft.SetAdd, 4, timeout) == nil {
		t.Error("an element that is over still takes room")
	}
	w.e.Tick(timeout + 1)
	if n := w.set().n; n != 2 {
		t.Errorf("%d elements are left, want two", n)
	}
	if arrive(w, nft.SetDelete, 4, timeout) == nil || w.find(u32(4), timeout) != nil {
		t.Error("an element was not deleted")
	}
}

// TestSteadyArrivalsAllocateNothing: elements that go make room for those that come.
func TestSteadyArrivalsAllocateNothing(t *testing.T) {
	w := newWorld(t, &nft.Set{Key: []nft.Spec{addrSpec}, Dynamic: true, HasTimeout: true, Timeout: 100, Size: 1000})
	now := int64(0)
	a := arrival{op: nft.SetUpdate, key: []uint64{0}, specs: []StateSpec{{Kind: CounterState}}}
	step := func() {
		now++
		a.key[0] = uint64(now)
		w.ev.Pin()
		w.set().arrive(&a, w.ev.snap.gen, now)
		w.ev.Unpin()
		if now%50 == 0 {
			w.set().expire(now)
		}
	}
	for range 20000 {
		step()
	}
	if n := testing.AllocsPerRun(5000, step); n != 0 {
		t.Errorf("%v allocations for each", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, interval := range []bool{false, true} {
		for _, n := range []int{10, 1000, 100_000} {
			b.Run(fmt.Sprintf("interval=%v/elements=%d", interval, n), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				var elems nft.Elems
				for i := range n {
					k := u32(i * 16)
					end := k
					if interval {
						end = u32(i*16 + 7)
					}
					elems = elems.With(&nft.Elem{Key: k, End: end})
				}
				w := newWorld(b, &nft.Set{Key: []nft.Spec{addrSpec}, Interval: interval, Elems: elems})
				s := w.set()
				keys := make([][]uint64, 4096)
				for i := range keys {
					keys[i] = []uint64{uint64(r.IntN(n) * 16)}
				}
				gen := w.e.Generation()
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if s.find(keys[i&4095], gen, 0) == nil {
						b.Fatal("lost")
					}
					i++
				}
			})
		}
	}
}

// BenchmarkCommitOneOf100000 changes one element of many.
func BenchmarkCommitOneOf100000(b *testing.B) {
	for _, interval := range []bool{false, true} {
		b.Run(fmt.Sprintf("interval=%v", interval), func(b *testing.B) {
			var elems nft.Elems
			for i := range 100_000 {
				elems = elems.With(&nft.Elem{Key: u32(i * 4), End: u32(i * 4)})
			}
			w := newWorld(b, &nft.Set{Key: []nft.Spec{addrSpec}, Interval: interval, Elems: elems})
			i := 0
			for b.Loop() {
				k := u32(i%100_000*4 + 1)
				w.commit(w.with(elems.With(&nft.Elem{Key: k, End: k})))
				i++
			}
		})
	}
}

// TestManyWorkersOneSet lets workers add, refresh, delete and find elements, while
// they expire and transactions change the set.
func TestManyWorkersOneSet(t *testing.T) {
	w := newWorld(t, &nft.Set{Key: []nft.Spec{addrSpec}, Dynamic: true, HasTimeout: true, Timeout: 200, Size: 64})
	s := w.set()
	var now atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 3 {
		wg.Go(func() {
			ev := w.e.Evaluator()
			defer ev.Close()
			r := rand.New(rand.NewPCG(uint64(i), 1))
			a := arrival{key: []uint64{0}, specs: []StateSpec{{Kind: CounterState}}}
			for {
				select {
				case <-done:
					return
				default:
				}
				ev.Pin()
				for range 16 {
					a.op, a.key[0] = nft.SetOp(r.IntN(3)), uint64(r.IntN(100))
					if e := s.arrive(&a, ev.snap.gen, now.Add(1)); e != nil {
						e.states[0].count(1, 1) // it isn't used again while this worker has pinned
					}
					s.find(a.key, ev.snap.gen, now.Load())
				}
				ev.Unpin()
			}
		})
	}
	for i := range 300 {
		k := u32(i % 100)
		w.commit(w.with(w.tree.Elems.With(&nft.Elem{Key: k, End: k, Stmts: []nft.Stmt{&nft.Counter{}}})))
		w.commit(w.with(nft.Elems{}))
		w.e.Tick(now.Load())
		s.list(w.e.Generation(), now.Load())(func(*Element) bool { return true })
	}
	close(done)
	wg.Wait()
	linked, living := 0, 0
	for e := range s.all() {
		linked++
		if e.died.Load() == alive {
			living++
		}
	}
	if living != s.n || s.n > 64+1 || linked != s.table.Load().n {
		t.Errorf("%d elements are alive, %d counted; %d linked, %d counted", living, s.n, linked, s.table.Load().n)
	}
}
