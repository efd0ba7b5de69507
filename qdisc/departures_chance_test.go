// SPDX-License-Identifier: Apache-2.0

package qdisc_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// What is seen of a discipline with chances.
const (
	delays = "delays" // of the packets, and how like they are to that of the one before
	slots  = "slots"  // the time between those that leave at once
	losses = "losses" // how many follow each other that are lost, and that are not
	shares = "shares" // how many are two, marked, spoiled, or leave before those before them
)

// chance is a trial of which only the distributions can be the same.
type chance struct {
	lines []string
	what  string
	load  load
}

func (c *chance) name() string { return (&trial{lines: c.lines}).name() }

// chances are all of them.
func chances() []chance {
	every := func(n int, gap int64) load { return load{n: n, gap: gap, sizes: [2]int{100, 200}, ecn: 1} }
	const ms = 1_000_000
	return []chance{
		{root("netem delay 100ms 20ms"), delays, every(3000, 5*ms)},
		{root("netem delay 100ms 20ms 40%"), delays, every(3000, 5*ms)},
		{root("netem delay 100ms 20ms distribution normal"), delays, every(3000, 5*ms)},
		{root("netem delay 100ms 20ms distribution pareto"), delays, every(3000, 5*ms)},
		{root("netem delay 100ms 20ms distribution paretonormal"), delays, every(3000, 5*ms)},
		{root("netem slot 20ms 60ms"), slots, every(6000, 10*ms)},
		{root("netem slot distribution normal 50ms 10ms"), slots, every(6000, 10*ms)},
		{root("netem loss 10%"), losses, every(8000, ms)},
		{root("netem loss gemodel 5% 20% 90% 1%"), losses, every(8000, ms)},
		{root("netem loss state 5% 20% 30% 40% 2%"), losses, every(8000, ms)},
		{root("netem loss 20% ecn"), shares, every(12_000, ms)},
		{root("netem duplicate 15%"), shares, every(12_000, ms)},
		{root("netem corrupt 10%"), shares, every(12_000, ms)},
		{root("netem delay 10ms reorder 25%"), shares, every(12_000, 20*ms)},
		{root("netem delay 10ms reorder 50% gap 4"), shares, every(12_000, 20*ms)},
	}
}

// outcome is what chance did to n packets. Numbers are sorted.
type outcome struct {
	Name                         string
	N                            int
	Times                        []int64 `json:",omitempty"` // µs, of delays and slots; in records their differences
	Follow                       float64 `json:",omitempty"` // correlation of a delay with the one before
	Lost, Kept                   []int64 `json:",omitempty"` // lengths of runs
	Twice, Marked, Spoilt, Early int     `json:",omitempty"`
}

// watcher makes an outcome of packets that leave.
type watcher struct {
	offers  []offer
	first   []int64 // when they left, ns; 0: they did not
	outcome outcome
	gaps    []int64
	last    int64
}

func newWatcher(c *chance, offers []offer) *watcher {
	return &watcher{offers: offers, first: make([]int64, len(offers)), outcome: outcome{Name: c.name(), N: len(offers)}}
}

func (w *watcher) see(b []byte, at int64) {
	i := numberOf(b)
	if at-w.last > 1_000_000 {
		w.gaps = append(w.gaps, (at-w.last)/1000)
		w.last = at
	}
	if i < 0 || i >= len(w.offers) || !same(b, w.offers[i].bytes) {
		w.outcome.Spoilt++
		return
	}
	if w.first[i] > 0 {
		w.outcome.Twice++
		return
	}
	w.first[i] = at
	if b[15]&3 == 3 {
		w.outcome.Marked++
	}
	if at-w.offers[i].at < 1_000_000 {
		w.outcome.Early++
	}
}

// same reports whether b is frame, or that marked: the type of service and the checksum
// are others then.
func same(b, frame []byte) bool {
	if bytes.Equal(b, frame) {
		return true
	}
	marked := slices.Clone(frame)
	marked[15] |= 3
	return len(b) == len(frame) && bytes.Equal(b[:24], marked[:24]) && bytes.Equal(b[26:], marked[26:])
}

// done is the outcome, of which only what is asked for is kept.
func (w *watcher) done(what string) outcome {
	o := w.outcome
	if what == shares {
		return o
	}
	o.Twice, o.Marked, o.Spoilt, o.Early = 0, 0, 0, 0
	switch what {
	case delays:
		for i, at := range w.first {
			o.Times = append(o.Times, (at-w.offers[i].at)/1000)
		}
		o.Follow = math.Round(follow(o.Times)*1e3) / 1e3
	case slots:
		o.Times = w.gaps[1:]
	case losses:
		o.Kept, o.Lost = runs(w.first)
	}
	for _, l := range [][]int64{o.Times, o.Kept, o.Lost} {
		slices.Sort(l)
	}
	return o
}

// differences are the numbers of a list less those before them, which are shorter; sums
// undoes it.
func differences(x []int64) []int64 {
	for i := len(x) - 1; i > 0; i-- {
		x[i] -= x[i-1]
	}
	return x
}

func sums(x []int64) []int64 {
	for i := 1; i < len(x); i++ {
		x[i] += x[i-1]
	}
	return x
}

// runs is how many times other than 0 follow each other, and how many 0.
func runs(times []int64) (kept, lost []int64) {
	for i := 0; i < len(times); {
		k := i
		for k < len(times) && (times[k] > 0) == (times[i] > 0) {
			k++
		}
		if times[i] > 0 {
			kept = append(kept, int64(k-i))
		} else {
			lost = append(lost, int64(k-i))
		}
		i = k
	}
	return kept, lost
}

// follow is the correlation of numbers with those before them.
func follow(x []int64) float64 {
	mean, variance := moments(x)
	product := 0.
	for i, v := range x {
		if i > 0 {
			product += (float64(v) - mean) * (float64(x[i-1]) - mean)
		}
	}
	return product / (variance * float64(len(x)-1))
}

// distance is that of Kolmogorov and Smirnov between two sorted samples, as a share of
// what is exceeded once in a thousand times.
func distance(a, b []int64) float64 {
	far, i, k := 0., 0, 0
	for i < len(a) && k < len(b) {
		x := min(a[i], b[k])
		for ; i < len(a) && a[i] == x; i++ {
		}
		for ; k < len(b) && b[k] == x; k++ {
		}
		far = max(far, math.Abs(float64(i)/float64(len(a))-float64(k)/float64(len(b))))
	}
	n, m := float64(len(a)), float64(len(b))
	return far / (1.95 * math.Sqrt((n+m)/(n*m)))
}

// apart is how far two shares are apart, likewise.
func apart(a, n, b, m int) float64 {
	p, q := float64(a)/float64(n), float64(b)/float64(m)
	mean := float64(a+b) / float64(n+m)
	return math.Abs(p-q) / max(3.29*math.Sqrt(mean*(1-mean)*(1/float64(n)+1/float64(m))), 1e-9)
}

// means is how far the means of two samples are apart, likewise.
func means(a, b []int64) float64 {
	m, v := moments(a)
	n, w := moments(b)
	return math.Abs(m-n) / (3.29 * math.Sqrt(v/float64(len(a))+w/float64(len(b))))
}

func moments(x []int64) (mean, variance float64) {
	for _, v := range x {
		mean += float64(v) / float64(len(x))
	}
	for _, v := range x {
		variance += (float64(v) - mean) * (float64(v) - mean) / float64(len(x)-1)
	}
	return mean, variance
}

// TestSameChancesAsRecorded: what netem does by chance, it does as often, and as much, as
// a kernel's.
func TestSameChancesAsRecorded(t *testing.T) {
	docs, err := os.ReadFile("../docs/departures.md")
	if err != nil {
		t.Fatal(err)
	}
	records := recordsOf[outcome](t, "testdata/chances.jsonl", func(o outcome) string { return o.Name })
	for _, c := range chances() {
		t.Run(c.name(), func(t *testing.T) {
			kernel, ok := records[c.name()]
			if !ok {
				t.Fatal("no record of it: make oracle-qdisc")
			}
			kernel.Times = sums(kernel.Times)
			most := 0.
			for what, d := range c.compare(&kernel, c.ours(t)) {
				if most = max(most, d); d > 1 {
					t.Errorf("%s: %.2f times what is exceeded once in a thousand times", what, d)
				}
			}
			row := fmt.Sprintf("| `%s` | %d | %s | %.2f |", c.name(), kernel.N, c.what, most)
			if !strings.Contains(string(docs), row) {
				t.Errorf("docs/departures.md lacks the row\n%s", row)
			}
		})
	}
}

// ours is what our discipline does.
func (c *chance) ours(t *testing.T) *outcome {
	t.Helper()
	more := c.load
	more.n = 20_000
	w := newWatcher(c, more.offers(c.name()))
	ours(t, c.lines, w.offers, w.see)
	o := w.done(c.what)
	return &o
}

// compare is the distances of what is to be compared.
func (c *chance) compare(a, b *outcome) map[string]float64 {
	switch c.what {
	case shares:
		return map[string]float64{
			"twice":  apart(a.Twice, a.N, b.Twice, b.N),
			"marked": apart(a.Marked, a.N, b.Marked, b.N),
			"spoilt": apart(a.Spoilt, a.N, b.Spoilt, b.N),
			"early":  apart(a.Early, a.N, b.Early, b.N),
		}
	case losses:
		return map[string]float64{
			"runs of losses": distance(a.Lost, b.Lost), "their mean": means(a.Lost, b.Lost),
			"runs without": distance(a.Kept, b.Kept), "mean of those": means(a.Kept, b.Kept),
		}
	}
	return map[string]float64{
		"times":       distance(a.Times, b.Times),
		"correlation": math.Abs(a.Follow-b.Follow) * math.Sqrt(float64(a.N)) / 3.29,
	}
}

// TestOtherChancesAreTold: what is compared isn't blind for parameters that differ by little.
func TestOtherChancesAreTold(t *testing.T) {
	records := recordsOf[outcome](t, "testdata/chances.jsonl", func(o outcome) string { return o.Name })
	for _, c := range chances() {
		other := strings.NewReplacer("100ms 20ms", "100ms 24ms", "20ms 60ms", "20ms 66ms", "50ms 10ms", "50ms 14ms",
			"loss 10%", "loss 13%", "gemodel 5% 20%", "gemodel 5% 14%", "state 5% 20%", "state 5% 15%", "loss 20%", "loss 24%",
			"duplicate 15%", "duplicate 18%", "corrupt 10%", "corrupt 13%", "reorder 25%", "reorder 29%", "reorder 50%", "reorder 65%").Replace(c.lines[0])
		kernel := records[c.name()]
		kernel.Times = sums(kernel.Times)
		most := 0.
		for _, d := range c.compare(&kernel, (&chance{[]string{other}, c.what, c.load}).ours(t)) {
			most = max(most, d)
		}
		if most < 1 {
			t.Errorf("%s is like %s: %.2f", other, c.name(), most)
		}
	}
}
