// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"fmt"
	"testing"
)

// The rate over ten seconds is exact: the bound is what is left of the burst, and
// one packet.
func TestLongRunRate(t *testing.T) {
	for _, kind := range []string{"tbf", "htb"} {
		for _, rate := range []uint64{1, 10, 100, 1000} {
			for _, size := range []uint32{64, 512, 1400} {
				t.Run(fmt.Sprintf("%s/%dMbit/%d", kind, rate, size), func(t *testing.T) { longRun(t, kind, rate*mbit, size) })
			}
		}
	}
}

func longRun(t *testing.T, kind string, rate uint64, size uint32) {
	t.Helper()
	const burst = 15000
	seconds := 10.
	if packets := seconds * float64(rate) / float64(size); packets > 1e6 {
		seconds *= 1e6 / packets // as exact, and not as long
	}
	s := newSim(t, tbfSpec(rate, burst, 1<<20))
	if kind == "htb" {
		s = newSim(t, htbSpec(rate, HTBClass{Rate: Rate{Bytes: rate}}))
	}
	sum := 0.
	s.late = func(d departure) { sum += float64(d.meta.Wire) }
	s.greedy(to(meta(size, 0), 0), 10)
	s.run(int64(seconds * second))
	got := (sum - burst) / seconds
	if over := got - float64(rate) - float64(size)/seconds; over > 1 {
		t.Errorf("%g bytes/s more than the rate", over)
	}
	near(t, "rate", got, float64(rate), max(.0001, 2*float64(size)/seconds/float64(rate)))
}

// In no window there leaves more than rate·t + burst, whatever comes in.
func TestEnvelope(t *testing.T) {
	for _, c := range []struct {
		rate, burst uint64
	}{{1 * mbit, 3000}, {10 * mbit, 20000}, {1000 * mbit, 125000}, {10000 * mbit, 1 << 20}} {
		s := newSim(t, tbfSpec(c.rate, c.burst, 1<<20))
		for i, size := range []uint32{64, 1514, 700} {
			gap := ceilNS(span(uint64(size), c.rate)) * int64(2+i)
			s.cbr(meta(size, uint32(i)), gap, int64(i)*3*ms, 300*ms)
			s.cbr(meta(size, uint32(i)), gap/2, 400*ms, 500*ms) // after a pause
		}
		s.run(5 * second)
		s.envelope(c.rate, c.burst, 0)
		s.drained()
		if len(s.out) == 0 {
			t.Error("nothing left")
		}
	}
}

// With a peak rate the bucket doesn't empty at once.
func TestPeakRate(t *testing.T) {
	spec := tbfSpec(10*mbit, 100_000, 1<<20)
	spec.Qdiscs[0].TBF.Peak, spec.Qdiscs[0].TBF.MTU = Rate{Bytes: 20 * mbit}, 2000
	s := newSim(t, spec)
	s.greedy(meta(1000, 0), 50)
	s.run(second)
	s.envelope(20*mbit, 2000, 0)
	s.envelope(10*mbit, 100_000, 0)
	near(t, "peak", float64(s.bytes(-1, 0, 50*ms)), 20*mbit*.05, .02)
	near(t, "rate", float64(s.bytes(-1, 500*ms, second)), 10*mbit*.5, .01)
}

// A queue of tbf holds what rate·latency is, drops begin exactly at the limit, and
// nobody waits for longer.
func TestLatency(t *testing.T) {
	const rate, burst, size = 10 * mbit, 10000, 1000
	limit := int64(rate/50) + burst // 20 ms
	s := newSim(t, tbfSpec(rate, burst, limit))
	for range 100 {
		room := s.tree.Backlog()+size <= limit
		if s.tree.Offer(meta(size, 0), 0) != room {
			t.Fatal("dropped before the limit, or not at it")
		}
	}
	if got, want := s.tree.Len(), int(limit/size); got != want {
		t.Errorf("%d packets wait, want %d", got, want)
	}
	s.run(second)
	if last, most := s.out[len(s.out)-1].at, int64(20*ms+size*second/rate); last > most {
		t.Errorf("waited for %d ns, want at most %d", last, most)
	}
	if got := s.tree.Report(s.now)[0].Stats.Drops; got != uint64(100-limit/size) {
		t.Errorf("%d drops", got)
	}
	s.drained()
}

// What a frame costs on the wire beyond its own bytes counts.
func TestOverheadAndCells(t *testing.T) {
	for _, c := range []struct {
		rate Rate
		size uint32
		want uint64
	}{
		{Rate{Bytes: 1000}, 100, 100},
		{Rate{Bytes: 1000, Overhead: 24}, 100, 124},
		{Rate{Bytes: 1000, Overhead: -14}, 100, 86},
		{Rate{Bytes: 1000, Overhead: -200}, 100, 0},
		{Rate{Bytes: 1000, MPU: 84}, 60, 84},
		{Rate{Bytes: 1000, ATM: true}, 48, 53},
		{Rate{Bytes: 1000, ATM: true, Overhead: 10}, 48, 106},
	} {
		p := pace{c.rate}
		if got := p.Cost(c.size); got != c.want {
			t.Errorf("%+v: %d bytes cost %d, want %d", c.rate, c.size, got, c.want)
		}
	}
}

// Rounding is never for the sender.
func TestSpanRoundsUp(t *testing.T) {
	for _, rate := range []uint64{1, 3, 999, 1 << 20, 375_000_000, 12_500_000_000, 1 << 40} {
		for _, n := range []uint64{0, 1, 64, 1514, 65536, 1 << 30} {
			ticks := span(n, rate)
			if back := volume(ticks, rate); back < n && ticks < 86400*tickSecond {
				t.Errorf("%d bytes at %d: %d ticks let through %d", n, rate, ticks, back)
			}
		}
	}
}

// A super-frame is cut if it is beyond the burst or longer than a millisecond at the
// rate, and stays whole otherwise. The bytes on the wire are the same.
func TestSuperFrames(t *testing.T) {
	super := Meta{Len: 64_000, Wire: 66_000, Segs: 44}
	for _, c := range []struct {
		name        string
		rate, burst uint64
		frames      int
	}{
		{"whole at 10 Gbit/s", 10_000 * mbit, 1 << 20, 1},
		{"beyond the burst", 10_000 * mbit, 30_000, 44},
		{"slow", 100 * mbit, 1 << 20, 44},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSim(t, tbfSpec(c.rate, c.burst, 1<<20))
			if !s.tree.Offer(super, 0) {
				t.Fatal("dropped")
			}
			if s.tree.Len() != c.frames || s.tree.Backlog() != 66_000 {
				t.Errorf("%d frames of %d bytes wait, want %d of 66000", s.tree.Len(), s.tree.Backlog(), c.frames)
			}
			s.run(second)
			s.envelope(c.rate, c.burst, 0)
			st := s.tree.Report(s.now)[0].Stats
			if st.Bytes != 66_000 || st.Packets != 44 {
				t.Errorf("sent %d bytes, %d packets", st.Bytes, st.Packets)
			}
			s.drained()
		})
	}
}

// A new rate is in force at once and loses nothing.
func TestChangeOfRate(t *testing.T) {
	s := newSim(t, tbfSpec(10*mbit, 10_000, 1<<20))
	for range 500 {
		s.tree.Offer(meta(1000, 0), 0)
	}
	s.run(100 * ms)
	if err := s.tree.Apply(tbfSpec(20*mbit, 10_000, 1<<20), s.now); err != nil {
		t.Fatal(err)
	}
	s.run(5 * second)
	if len(s.out) != 500 {
		t.Errorf("%d packets left, want 500", len(s.out))
	}
	near(t, "before", float64(s.bytes(-1, 20*ms, 100*ms)), 10*mbit*.08, .02)
	near(t, "after", float64(s.bytes(-1, 101*ms, 181*ms)), 20*mbit*.08, .02)
	s.drained()
}

// A burst that is smaller than what waits does not jam the queue.
func TestSmallerBurst(t *testing.T) {
	s := newSim(t, tbfSpec(1000*mbit, 100_000, 1<<20))
	super := Meta{Len: 64_000, Wire: 66_000, Segs: 44}
	s.tree.Offer(super, 0)
	s.tree.Offer(super, 0)
	s.tree.Offer(super, 0)
	if err := s.tree.Apply(tbfSpec(1000*mbit, 3000, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	s.run(second)
	if got := s.bytes(-1, 0, second+1); got != 3*66_000 {
		t.Errorf("%d bytes left, want all 198000", got)
	}
	s.envelope(1000*mbit, 100_000, 0)
	s.drained()
}
