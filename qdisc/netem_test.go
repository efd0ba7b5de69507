// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func netemSpec(p Netem) *Spec {
	if p.Seed == 0 {
		p.Seed = 42
	}
	return &Spec{Qdiscs: []Qdisc{{Kind: "netem", Handle: h1, Parent: Root, Netem: &p}}}
}

// percent is a share in netem's words.
func percent(p float64) Percent { return Percent(math.Round(p / 100 * math.MaxUint32)) }

// feed sends n packets, gap ns apart, and returns the delay of each that arrived by
// its number; -1 if it did not. Duplicates are counted.
func feed(t *testing.T, p Netem, n int, gap int64) (delays []int64, dup int, s *sim) {
	t.Helper()
	p.Limit = maxNetem
	s = newSim(t, netemSpec(p))
	delays = make([]int64, n)
	for i := range delays {
		delays[i] = -1
	}
	s.late = func(d departure) {
		i := int(d.meta.Mark)
		if delays[i] >= 0 {
			dup++
			return
		}
		delays[i] = d.at - int64(i)*gap
	}
	for i := range n {
		s.run(int64(i) * gap)
		s.tree.Offer(Meta{Len: 100, Wire: 100, Segs: 1, Mark: uint32(i)}, int64(i)*gap)
	}
	s.run(int64(n)*gap + 100*second)
	s.drained()
	return delays, dup, s
}

// A fixed delay is exact, and keeps the order.
func TestDelay(t *testing.T) {
	delays, _, _ := feed(t, Netem{Delay: 10 * ms}, 1000, 100_000)
	for i, d := range delays {
		if d != 10*ms {
			t.Fatalf("packet %d was delayed by %d", i, d)
		}
	}
}

// ks is the Kolmogorov-Smirnov distance of a sample from a distribution.
func ks(sample []int64, cdf func(int64) float64) float64 {
	slices.Sort(sample)
	worst, n := 0., float64(len(sample))
	for i, x := range sample {
		if i+1 < len(sample) && sample[i+1] == x {
			continue // a jump ends with the last of equal ones
		}
		worst = max(worst, math.Abs(cdf(x)-float64(i+1)/n))
	}
	return worst
}

// Delays follow their distribution: p > 0.01 for 10,000 packets.
func TestDistributions(t *testing.T) {
	const n = 10_000
	bound := 1.628 / math.Sqrt(n)
	for _, name := range []string{"", "normal", "pareto", "paretonormal", "table"} {
		t.Run("of "+name, func(t *testing.T) {
			p := Netem{Delay: 100 * ms, Jitter: 10 * ms, Distribution: name, Seed: 3}
			if name == "table" {
				p.Table = []int16{-8192, 0, 0, 8192}
			}
			delays, _, _ := feed(t, p, n, second)
			cdf := func(x int64) float64 { return float64(x-90*ms) / (20 * ms) }
			if table, _ := distribution(name, p.Table); table != nil {
				var all []int64
				for i := range table {
					all = append(all, jittered(p.Delay, p.Jitter, uint32(i), table))
				}
				slices.Sort(all)
				cdf = func(x int64) float64 {
					k, _ := slices.BinarySearch(all, x+1)
					return float64(k) / float64(len(all))
				}
			}
			if d := ks(delays, cdf); d > bound {
				t.Errorf("distance %g, want at most %g", d, bound)
			}
		})
	}
}

// The computed tables are iproute2's.
func TestTables(t *testing.T) {
	for _, name := range []string{"normal", "pareto", "paretonormal"} {
		files, _ := filepath.Glob("/usr/lib/*/tc/" + name + ".dist")
		more, _ := filepath.Glob("/usr/lib/tc/" + name + ".dist")
		if files = append(files, more...); len(files) == 0 {
			t.Skip("iproute2's tables are not installed")
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := distribution(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		var want []int
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			for f := range strings.FieldsSeq(line) {
				x, _ := strconv.Atoi(f)
				want = append(want, x)
			}
		}
		if len(want) != len(got) {
			t.Fatalf("%s: %d entries, want %d", name, len(got), len(want))
		}
		for i := range want {
			if d := int(got[i]) - want[i]; d < -1 || d > 1 {
				t.Fatalf("%s: entry %d is %d, want %d", name, i, got[i], want[i])
			}
		}
	}
}

// binomial fails if hits of n is not within 99.9 % of probability p.
func binomial(t *testing.T, what string, hits, n int, p float64) {
	t.Helper()
	if d := 3.29 * math.Sqrt(p*(1-p)/float64(n)); math.Abs(float64(hits)/float64(n)-p) > d {
		t.Errorf("%s: %g, want %g ± %g", what, float64(hits)/float64(n), p, d)
	}
}

// runs is the number of lost packets, and of bursts of them.
func runs(delays []int64) (lost, bursts int) {
	for i, d := range delays {
		if d >= 0 {
			continue
		}
		lost++
		if i == 0 || delays[i-1] >= 0 {
			bursts++
		}
	}
	return lost, bursts
}

func TestLoss(t *testing.T) {
	const n = 100_000
	t.Run("random", func(t *testing.T) {
		delays, _, _ := feed(t, Netem{Loss: percent(10)}, n, 1000)
		lost, _ := runs(delays)
		binomial(t, "loss", lost, n, .1)
	})
	t.Run("correlated", func(t *testing.T) {
		delays, _, _ := feed(t, Netem{Loss: percent(10), LossCor: percent(50)}, n, 1000)
		lost, bursts := runs(delays)
		near(t, "loss", float64(lost)/n, .1, .1)
		// After a loss the next is lost with .5 + .5·.1.
		near(t, "mean burst", float64(lost)/float64(bursts), 1/(1-.55), .1)
	})
	t.Run("gemodel", func(t *testing.T) {
		g := Gemodel{P: percent(1), R: percent(10), H: percent(30), K1: percent(.1)}
		delays, _, _ := feed(t, Netem{Gemodel: &g}, 5*n, 1000)
		lost, _ := runs(delays)
		near(t, "loss", float64(lost)/(5*n), .01/.11*.7+.1/.11*.001, .05)
	})
	t.Run("gilbert bursts", func(t *testing.T) {
		g := Gemodel{P: percent(2), R: percent(20)}
		delays, _, _ := feed(t, Netem{Gemodel: &g}, 5*n, 1000)
		lost, bursts := runs(delays)
		near(t, "loss", float64(lost)/(5*n), .02/.22, .05)
		near(t, "mean burst", float64(lost)/float64(bursts), 5, .05)
	})
	t.Run("state", func(t *testing.T) {
		m := State4{P13: percent(1), P31: percent(10), P32: percent(70), P23: percent(5), P14: percent(1)}
		delays, _, _ := feed(t, Netem{State: &m}, 5*n, 1000)
		lost, _ := runs(delays)
		near(t, "loss", float64(lost)/(5*n), stationary(.01, .10, .70, .05, .01), .05)
	})
}

// stationary is the share of the two states of loss in the chain's steady state.
func stationary(p13, p31, p32, p23, p14 float64) float64 {
	x := []float64{1, 0, 0, 0} // gap received, burst received, burst lost, gap lost
	for range 10_000 {
		x = []float64{
			x[0]*(1-p13-p14) + x[2]*p31 + x[3],
			x[1]*(1-p23) + x[2]*p32,
			x[0]*p13 + x[1]*p23 + x[2]*(1-p31-p32),
			x[0] * p14,
		}
	}
	return x[2] + x[3]
}

func TestDuplicate(t *testing.T) {
	_, dup, s := feed(t, Netem{Duplicate: percent(5), Delay: ms}, 50_000, 1000)
	binomial(t, "duplicates", dup, 50_000, .05)
	if got := s.tree.Report(0)[0].Netem.Duplicated; got != uint64(dup) {
		t.Errorf("%d counted, %d seen", got, dup)
	}
}

// Of each gap packets the last one goes at once with its probability; without a
// gap, any one does.
func TestReorder(t *testing.T) {
	const n = 50_000
	for _, gap := range []uint32{1, 5} {
		delays, _, _ := feed(t, Netem{Delay: 10 * ms, Reorder: percent(25), Gap: gap}, n, 400_000)
		atOnce := 0
		for _, d := range delays {
			if d == 0 {
				atOnce++
			} else if d != 10*ms {
				t.Fatalf("delayed by %d", d)
			}
		}
		// A packet goes at once after gap-1 others and as many more as the die says.
		p := 1 / (float64(gap) - 1 + 1/.25)
		near(t, "at once", float64(atOnce)/n, p, .05)
	}
}

// With jitter packets overtake each other, with a delay only they don't.
func TestJitterReorders(t *testing.T) {
	delays, _, _ := feed(t, Netem{Delay: 20 * ms, Jitter: 5 * ms}, 5000, 400_000)
	inversions := 0
	for i := 1; i < len(delays); i++ {
		if delays[i]+400_000 < delays[i-1] {
			inversions++
		}
	}
	near(t, "inversions", float64(inversions)/5000, .47, .05) // as the kernel: measured .47
}

// The rate spaces packets exactly, with overheads and cells, and a delay counts
// from the last packet's end.
func TestNetemRate(t *testing.T) {
	for _, c := range []struct {
		p    Netem
		want int64
	}{
		{Netem{Rate: 1_000_000}, 100_000},
		{Netem{Rate: 1_000_000, Overhead: 20}, 120_000},
		{Netem{Rate: 1_000_000, CellSize: 48, CellOverhead: 5}, 159_000},
		{Netem{Rate: 1_000_000, Delay: 50_000}, 100_000},
	} {
		c.p.Limit = 1000
		s := newSim(t, netemSpec(c.p))
		for range 100 {
			s.tree.Offer(meta(100, 0), 0)
		}
		s.run(second)
		for i, d := range s.out {
			if at := c.p.Delay + int64(i+1)*c.want; d.at != at && c.p.Delay == 0 {
				t.Fatalf("packet %d left at %d, want %d", i, d.at, at)
			}
			if i > 0 && d.at-s.out[i-1].at != c.want {
				t.Fatalf("packet %d left %d after the last one, want %d", i, d.at-s.out[i-1].at, c.want)
			}
		}
		s.drained()
	}
}

// The same seed gives the same packets, another one others.
func TestSeed(t *testing.T) {
	p := Netem{Loss: percent(20), Delay: ms, Jitter: ms / 2, Duplicate: percent(3)}
	run := func(seed uint64) []int64 {
		p.Seed = seed
		delays, _, _ := feed(t, p, 2000, 50_000)
		return delays
	}
	if a, b := run(7), run(7); !slices.Equal(a, b) {
		t.Error("two runs of one seed differ")
	}
	if a, b := run(7), run(8); slices.Equal(a, b) {
		t.Error("two seeds give the same")
	}
}

// Slots let packets go in bursts.
func TestSlots(t *testing.T) {
	s := newSim(t, netemSpec(Netem{Slot: &Slot{Min: 10 * ms, Max: 10 * ms, Packets: 5}}))
	s.cbr(meta(100, 1), ms, 0, second)
	s.run(5 * second)
	byTime := map[int64]int{}
	for _, d := range s.out {
		byTime[d.at]++
	}
	for at, n := range byTime {
		if n > 5 {
			t.Errorf("%d packets at %d, want at most 5", n, at)
		}
	}
	if len(s.out) != 1000 {
		t.Errorf("%d packets left", len(s.out))
	}
	s.drained()
}

// netem may have a discipline of its own behind the delay.
func TestNetemChild(t *testing.T) {
	spec := netemSpec(Netem{Delay: 10 * ms})
	spec.Qdiscs = append(spec.Qdiscs, Qdisc{Kind: "tbf", Handle: 2 << 16, Parent: h1 + 1, TBF: &TBF{Rate: Rate{Bytes: mbit}, Burst: 2000, Limit: 1 << 20}})
	s := newSim(t, spec)
	s.greedy(meta(1000, 1), 20)
	s.run(2 * second)
	s.envelope(mbit, 2000, 0)
	near(t, "rate", float64(s.bytes(-1, second, 2*second)), mbit, .01)
	if s.out[0].at != 10*ms {
		t.Errorf("the first one left at %d", s.out[0].at)
	}
	if err := s.tree.Apply(netemSpec(Netem{Delay: 10 * ms}), s.now); err != nil {
		t.Fatal(err)
	}
	s.sources = nil
	s.run(3 * second)
	s.drained()
}
