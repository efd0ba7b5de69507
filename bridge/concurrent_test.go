// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/packet"
)

const (
	homes    = 4   // ports of the concurrency tests
	settled  = 160 // stations below this number never move
	stations = 200
)

// home is the only port that a settled station is ever heard on.
func home(n int) uint16 { return uint16(1 + n%homes) }

// worker is one data-path worker of the test: it hears stations, keeps the Refs
// that it gets, and refuses to see a settled station anywhere but at home.
type worker struct {
	t    *testing.T
	b    *Bridge
	rnd  *rand.Rand
	fr   *framer
	now  *atomic.Uint32
	kept map[int]Ref  // by station
	dead map[Ref]bool // were seen false
}

func (w *worker) run(frames int) {
	for range frames {
		if w.t.Failed() {
			return
		}
		w.frame(w.rnd.IntN(stations), w.rnd.IntN(stations))
	}
}

func (w *worker) frame(src, dst int) {
	in := home(src)
	if src >= settled {
		in = uint16(1 + w.rnd.IntN(homes))
	}
	now := Tick(w.now.Load())
	v := w.b.Input(in, w.fr.frame(station(dst), station(src), 0), now)
	if v.Action == Forward && dst < settled && v.Port != home(dst) {
		w.t.Errorf("station %d of port %d: forwarded to %d", dst, home(dst), v.Port)
	}
	w.keep(dst, v.Dst)
	w.keep(src, v.Src)
	w.recall(w.rnd.IntN(stations), now)
}

// keep puts a Ref into the worker's flow cache.
func (w *worker) keep(n int, r Ref) {
	if r == (Ref{}) {
		return
	}
	if n < settled && r.Port() != home(n) {
		w.t.Errorf("station %d of port %d: ref of port %d", n, home(n), r.Port())
	}
	if w.dead[r] {
		w.t.Errorf("station %d: a ref that was false is given out again", n)
	}
	w.kept[n] = r
}

// recall uses a kept Ref as a hit of the flow cache does.
func (w *worker) recall(n int, now Tick) {
	r, ok := w.kept[n]
	if !ok {
		return
	}
	if r.Valid() {
		if w.dead[r] {
			w.t.Errorf("station %d: a false ref is valid again", n)
		}
		r.Touch(now)
		return
	}
	if len(w.dead) > 10_000 {
		clear(w.dead)
	}
	w.dead[r] = true
	if w.rnd.IntN(2) == 0 {
		delete(w.kept, n)
	}
}

// disturb is the control path: it ages, flushes, takes a port away and gives it
// back, and makes entries static (at home) and free again, until done.
func disturb(b *Bridge, now *atomic.Uint32, done *atomic.Bool) {
	rnd := rand.New(rand.NewPCG(8, 9))
	for !done.Load() {
		switch rnd.IntN(6) {
		case 0, 1:
			b.Expire(Tick(now.Add(1)))
		case 2:
			b.Flush(uint16(1 + rnd.IntN(homes)))
		case 3:
			b.SetPorts(members(homes - 1))
			b.SetPorts(members(homes))
		case 4:
			var set []StaticEntry
			for range 8 {
				n := rnd.IntN(settled)
				set = append(set, StaticEntry{MAC: station(n), Port: home(n)})
			}
			b.SetStatic(set)
		case 5:
			b.Entries(nil, 0)
			b.Stats()
		}
	}
}

// Four workers and the control path on a table so small that its slots change
// hands all the time.
func TestWorkersAndControlPathAtOnce(t *testing.T) {
	b := testBridge(homes, Options{Ageing: 2e9, MaxEntries: 96, MaxPerPort: 40})
	var now atomic.Uint32
	var done atomic.Bool
	var workers, control sync.WaitGroup
	control.Go(func() { disturb(b, &now, &done) })
	for n := range 4 {
		workers.Go(func() {
			w := &worker{
				t: t, b: b, rnd: rand.New(rand.NewPCG(uint64(n), 1)), fr: newFramer(), now: &now,
				kept: map[int]Ref{}, dead: map[Ref]bool{},
			}
			w.run(60_000)
		})
	}
	workers.Wait()
	done.Store(true)
	control.Wait()
	checkCounts(t, b)
	t.Logf("%+v", b.Stats())
}

// checkCounts compares a bridge at rest with what its counts say.
func checkCounts(t *testing.T, b *Bridge) {
	t.Helper()
	perPort, seen, dynamic := map[uint16]int64{}, map[packet.MAC]bool{}, 0
	for _, e := range b.Entries(nil, 0) {
		if seen[e.MAC] {
			t.Errorf("%v is there twice", e.MAC)
		}
		seen[e.MAC] = true
		if e.Kind == Dynamic {
			dynamic++
			perPort[e.Port]++
		}
	}
	if got := b.Stats().Entries; got != dynamic || got > b.Stats().MaxEntries {
		t.Errorf("%d entries counted, %d there", got, dynamic)
	}
	for port := uint16(1); port <= homes; port++ {
		if got := b.ports.Load().byIndex[port].learned.Load(); got != perPort[port] || got > b.maxPerPort {
			t.Errorf("port %d: %d learned counted, %d there", port, got, perPort[port])
		}
	}
}

// A reader that spins on one slot, while a writer gives it to one station after
// the other, must never take one station's state for another's.
func TestSlotIsNeverTorn(t *testing.T) {
	var s slot
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !done.Load() {
				for n := uint64(1); n <= 3; n++ {
					if state, ok := s.read(n | keyValid); ok && portOf(state) != uint16(n) {
						t.Errorf("station %d has the state of %d", n, portOf(state))
						return
					}
				}
			}
		})
	}
	for n := range 200_000 {
		s.put(uint64(1+n%3)|keyValid, uint16(1+n%3), 0)
		s.drop()
	}
	done.Store(true)
	wg.Wait()
}
