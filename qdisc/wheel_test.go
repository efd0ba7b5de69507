// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// Every tree comes up once, not before its time, and in the slot after it at the
// latest; one that was forgotten doesn't.
func TestWheel(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var w Wheel
	due := map[uint32]int64{}
	now := int64(0)
	for range 20_000 {
		id := uint32(rng.IntN(3000))
		switch rng.IntN(8) {
		case 0:
			w.Clear(id)
			delete(due, id)
		default:
			at := now + rng.Int64N([]int64{100, 100_000, 20 * ms, 5 * second}[rng.IntN(4)])
			w.Set(id, at)
			due[id] = at
		}
		if rng.IntN(4) == 0 {
			now += rng.Int64N([]int64{1000, 50_000, 3 * ms, 200 * ms}[rng.IntN(4)])
			expire(t, &w, due, now)
		}
	}
	for len(due) > 0 {
		next := w.Time()
		if next == never {
			t.Fatalf("%d trees are missing", len(due))
		}
		now = max(now+1, next)
		expire(t, &w, due, now)
	}
	if w.Time() != never {
		t.Error("the wheel isn't empty")
	}
}

func expire(t *testing.T, w *Wheel, due map[uint32]int64, now int64) {
	t.Helper()
	for id, ok := w.Next(now); ok; id, ok = w.Next(now) {
		at, known := due[id]
		if !known || at > now {
			t.Fatalf("tree %d came up at %d, due %d (%v)", id, now, at, known)
		}
		delete(due, id)
	}
	for id, at := range due {
		if at+1<<wheelShift <= now {
			t.Fatalf("tree %d did not come up at %d, due %d", id, now, at)
		}
	}
	if next := w.Time(); len(due) > 0 && next == never {
		t.Fatal("no next time")
	}
}

// A wheel that slept for long goes on.
func TestWheelSleeps(t *testing.T) {
	var w Wheel
	for round := int64(1); round < 50; round++ {
		now := round * 3600 * second
		if _, ok := w.Next(now); ok {
			t.Fatal("it was empty")
		}
		w.Set(1, now+5*ms)
		w.Set(2, now+7*second)
		for want := uint32(1); want <= 2; want++ {
			id, ok := w.Next(w.Time())
			for !ok {
				id, ok = w.Next(w.Time())
			}
			if id != want {
				t.Fatalf("tree %d, want %d", id, want)
			}
		}
	}
}

// Workers that share a class get its rate together and no more, by what waits with
// each of them; one that is alone gets all of it.
func TestShare(t *testing.T) {
	const rate = 100 * mbit
	share := NewShare(2, 0)
	var sims [2]*sim
	for i := range sims {
		sims[i] = newSim(t, htbSpec(rate, HTBClass{Rate: Rate{Bytes: mbit}, Ceil: Rate{Bytes: rate}}, HTBClass{Rate: Rate{Bytes: mbit}, Ceil: Rate{Bytes: rate}}))
		if err := sims[i].tree.Join(h1+1, share.Seat(i)); err != nil {
			t.Fatal(err)
		}
	}
	both := func(until int64) {
		for now := sims[0].now; now < until; now += 10_000 {
			for _, s := range sims {
				s.run(now)
			}
		}
	}
	a := sims[0].greedy(to(meta(1000, 0), 0), 50)
	sims[1].greedy(to(meta(1000, 0), 0), 50)
	both(2 * second)
	near(t, "worker 0", float64(sims[0].bytes(-1, second, 2*second)), rate/2, .01)
	near(t, "worker 1", float64(sims[1].bytes(-1, second, 2*second)), rate/2, .01)
	sims[1].greedy(to(meta(1000, 0), 1), 50) // two leaves to one
	both(4 * second)
	near(t, "one leaf", float64(sims[0].bytes(-1, 3*second, 4*second)), rate/3, .02)
	near(t, "two leaves", float64(sims[1].bytes(-1, 3*second, 4*second)), 2*rate/3, .02)
	a.until = 0
	both(6 * second)
	near(t, "alone", float64(sims[1].bytes(-1, 5*second, 6*second)), rate, .01)
	all := &sim{t: t, out: append(sims[0].out, sims[1].out...)}
	near(t, "together", float64(all.bytes(-1, 0, 6*second)), 6*rate, .005)
}

// Time is given out exactly once, whoever asks.
func TestShareIsExact(t *testing.T) {
	const workers, end = 4, 100 * ms
	share := NewShare(workers, 0)
	var wg sync.WaitGroup
	sums := make([]int64, workers)
	for i := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 9))
			seat := share.Seat(i)
			for now := int64(0); now < end; now += rng.Int64N(30_000) {
				sums[i] += seat.claim(now)
				if rng.IntN(20) == 0 {
					seat.weight.Store(rng.Int64N(3) * 1000)
				}
			}
		})
	}
	wg.Wait()
	total := int64(0)
	for i := range workers {
		total += sums[i] + share.Seat(i).banked.Load()
	}
	if want := share.claimed.Load() << tickShift; total != want {
		t.Errorf("%d ticks were given out of %d", total, want)
	}
}

// Trees of ports below the classes of a group keep their own disciplines, and the
// group's rates hold for all of them.
func TestGroup(t *testing.T) {
	group := newSim(t, tenants(100*mbit, 2))
	ports := make([]*Tree, 4)
	for i := range ports {
		ports[i] = NewTree(group.tree.pool, uint64(i))
		spec := root("fq_codel")
		if i == 0 {
			spec = tbfSpec(5*mbit, 5000, 1<<20)
		}
		if err := ports[i].Apply(spec, 0); err != nil {
			t.Fatal(err)
		}
		ports[i].Offer(meta(1000, uint32(i)), 0)
		if err := ports[i].Under(group.tree, h1+0x100+Handle(i), 0); err != nil {
			t.Fatal(err)
		}
	}
	fill := func(until int64) {
		for now := group.now; now < until; now += 100_000 {
			for i, p := range ports {
				for p.Len() < 40 && p.Grouped() {
					p.Offer(meta(1000, uint32(i)), now)
				}
			}
			group.run(now)
		}
	}
	fill(3 * second)
	near(t, "by its tbf", float64(group.bytes(0, second, 3*second)), 2*5*mbit, .01)
	near(t, "the tenant's other", float64(group.bytes(1, second, 3*second)), 2*25*mbit, .01)
	near(t, "the other tenant", float64(group.bytes(2, second, 3*second)+group.bytes(3, second, 3*second)), 2*70*mbit, .01)

	// One takes another discipline, one leaves, one loses its class.
	if err := ports[0].Apply(root("pfifo"), group.now); err != nil {
		t.Fatal(err)
	}
	ports[2].Leave(group.now)
	for r := ports[2].Dequeue(group.now); r != 0; r = ports[2].Dequeue(group.now) {
		ports[2].Done(r)
	}
	spec := *group.tree.spec
	spec.Classes = spec.Classes[:len(spec.Classes)-1]
	if err := group.tree.Apply(&spec, group.now); err != nil {
		t.Fatal(err)
	}
	if ports[3].Grouped() {
		t.Error("a tree hangs below a class that is gone")
	}
	for r := ports[3].Dequeue(group.now); r != 0; r = ports[3].Dequeue(group.now) {
		ports[3].Done(r)
	}
	fill(4 * second)
	for _, p := range ports {
		p.Close()
	}
	group.run(10 * second)
	group.drained()
	for i, p := range ports {
		if p.mem != 0 || p.Len() != 0 {
			t.Errorf("port %d: %d bytes, %d frames are left", i, p.mem, p.Len())
		}
	}
}
