// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"testing"
)

func root(kind string) *Spec {
	return &Spec{Qdiscs: []Qdisc{{Kind: kind, Handle: h1, Parent: Root}}}
}

// No packet of a band leaves while a lower band holds one.
func TestStrictOrder(t *testing.T) {
	for _, kind := range []string{"pfifo_fast", "prio"} {
		t.Run(kind, func(t *testing.T) {
			s := newSim(t, root(kind))
			s.line = 100 * mbit
			for i := range uint32(16) {
				m := meta(1000, i)
				m.Priority = i
				s.cbr(m, int64(700_000+i*13_000), int64(i)*20_000, 400*ms)
			}
			var waiting [bands]int
			band := func(m Meta) int { return int(prioMapTable[m.Priority]) }
			s.late = func(d departure) {
				for b := range band(d.meta) {
					if waiting[b] > 0 {
						t.Fatalf("at %d: band %d left while %d of band %d wait", d.at, band(d.meta), waiting[b], b)
					}
				}
				waiting[band(d.meta)]--
			}
			for step := int64(0); step < 500*ms; step += 50_000 {
				s.now = step
				for _, f := range s.sources {
					for f.at <= step && f.at < f.until {
						if s.tree.Offer(f.meta, step) {
							waiting[band(f.meta)]++
						}
						f.at += f.gap
					}
				}
				s.leave()
			}
			s.run(10 * second)
			s.drained()
		})
	}
}

// Drops begin at the limit, in each band by itself.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		q    Qdisc
		size uint32
		want int
	}{
		{"pfifo", Qdisc{Kind: "pfifo", FIFO: &FIFO{Limit: 7}}, 1500, 7},
		{"pfifo default", Qdisc{Kind: "pfifo"}, 1500, 1000},
		{"bfifo", Qdisc{Kind: "bfifo", FIFO: &FIFO{Limit: 4499}}, 1500, 2},
		{"bfifo full", Qdisc{Kind: "bfifo", FIFO: &FIFO{Limit: 4500}}, 1500, 3},
		{"pfifo_fast", Qdisc{Kind: "pfifo_fast"}, 100, 1000},
		{"codel", Qdisc{Kind: "codel", Codel: &Codel{Limit: 12}}, 100, 12},
		{"netem", Qdisc{Kind: "netem", Netem: &Netem{Limit: 9, Delay: ms}}, 100, 9},
		{"sfq", Qdisc{Kind: "sfq"}, 100, 127},
		{"fq flow", Qdisc{Kind: "fq"}, 100, 100},
		{"fq", Qdisc{Kind: "fq", FQ: &FQ{Limit: 5}}, 100, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.Handle, c.q.Parent = h1, Root
			s := newSim(t, &Spec{Qdiscs: []Qdisc{c.q}})
			for i := range 1200 {
				if ok := s.tree.Offer(meta(c.size, 1), 0); ok != (i < c.want) {
					t.Fatalf("packet %d: taken is %v", i, ok)
				}
			}
			if got := s.tree.Report(0)[0].Stats.Drops; got != uint64(1200-c.want) {
				t.Errorf("%d drops, want %d", got, 1200-c.want)
			}
			s.run(second)
			s.drained()
		})
	}
}

// The tree's own memory is bounded whatever the discipline's limit is.
func TestMemory(t *testing.T) {
	spec := root("pfifo")
	spec.Memory = 10 * int64(sizeFor(1500))
	s := newSim(t, spec)
	for i := range 20 {
		if ok := s.tree.Offer(meta(1500, 0), 0); ok != (i < 10) {
			t.Fatalf("packet %d: taken is %v", i, ok)
		}
	}
	s.run(ms)
	s.drained()
}

// Bands of prio may have any discipline, and filters or a class's handle as the
// priority choose it.
func TestPrioBands(t *testing.T) {
	spec := &Spec{
		Qdiscs: []Qdisc{
			{Kind: "prio", Handle: h1, Parent: Root, Prio: &Prio{Bands: 4, Map: []uint8{3}}},
			{Kind: "tbf", Handle: 2 << 16, Parent: h1 + 1, TBF: &TBF{Rate: Rate{Bytes: mbit}, Burst: 2000, Limit: 1 << 20}},
		},
		Filters: []Filter{{Parent: h1, Prio: 1, Kind: "fw", Mark: 7, Class: h1 + 1}},
	}
	s := newSim(t, spec)
	s.greedy(meta(1000, 7), 20)
	m := meta(1000, 8)
	m.Priority = uint32(h1) + 2
	s.cbr(m, ms, 0, second)
	s.run(2 * second)
	near(t, "band 0 by tbf", float64(s.bytes(7, second, 2*second)), mbit, .01)
	for i, c := range s.tree.Report(s.now)[0].Classes {
		if want := []uint64{0, 1_000_000, 0, 0}[i]; i > 0 && c.Stats.Bytes != want {
			t.Errorf("band %d sent %d, want %d", i, c.Stats.Bytes, want)
		}
	}
	// Fewer bands: what waits in the last ones is not lost.
	for range 10 {
		s.tree.Offer(Meta{Len: 100, Wire: 100, Segs: 1, Priority: uint32(h1) + 4}, s.now)
	}
	spec2 := &Spec{Qdiscs: []Qdisc{{Kind: "prio", Handle: h1, Parent: Root}}}
	if err := s.tree.Apply(spec2, s.now); err != nil {
		t.Fatal(err)
	}
	before := len(s.out)
	s.sources = nil
	s.run(3 * second)
	if got := len(s.out) - before; got != 30 {
		t.Errorf("%d packets left, want the 10 of band 3 and the 20 of tbf", got)
	}
	s.drained()
}

// Any discipline can be replaced by any other while packets wait.
func TestReplaceKeepsPackets(t *testing.T) {
	kinds := []Qdisc{
		{Kind: "pfifo"},
		{Kind: "bfifo"},
		{Kind: "pfifo_fast"},
		{Kind: "prio"},
		{Kind: "tbf", TBF: &TBF{Rate: Rate{Bytes: 10 * mbit}, Burst: 5000, Limit: 1 << 20}},
		{Kind: "htb"},
		{Kind: "codel"},
		{Kind: "fq_codel"},
		{Kind: "fq", FQ: &FQ{MaxRate: mbit}},
		{Kind: "sfq"},
		{Kind: "netem", Netem: &Netem{Delay: 100 * ms}},
		{Kind: "ingress"},
	}
	for _, from := range kinds {
		for _, to := range kinds {
			from.Handle, from.Parent, to.Handle, to.Parent = h1, Root, 2<<16, Root
			s := newSim(t, &Spec{Qdiscs: []Qdisc{from}})
			for i := range 60 {
				s.tree.Offer(meta(1000, uint32(i)), 0)
			}
			s.run(ms)
			if err := s.tree.Apply(&Spec{Qdiscs: []Qdisc{to}}, s.now); err != nil {
				t.Fatal(err)
			}
			s.run(10 * second)
			if len(s.out) != 60 {
				t.Errorf("%s to %s: %d packets left, want 60", from.Kind, to.Kind, len(s.out))
			}
			s.drained()
			s.tree.Offer(meta(1000, 1), s.now)
			if err := s.tree.Apply(&Spec{}, s.now); err != nil || s.tree.Active() {
				t.Error("not deleted", err)
			}
			s.drained()
		}
	}
}
