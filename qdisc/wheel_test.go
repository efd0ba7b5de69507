// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"math/rand/v2"
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
