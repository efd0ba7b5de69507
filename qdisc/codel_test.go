// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"math"
	"testing"

	"sluice/trace"
)

// Under constant overload of one flow CoDel drops at t0, and then after 100 ms,
// 100/√2, 100/√3 and so on: RFC 8289 §5.3, exactly.
func TestControlLaw(t *testing.T) {
	for _, kind := range []string{"codel", "fq_codel"} {
		t.Run(kind, func(t *testing.T) {
			spec := root(kind)
			spec.Qdiscs[0].Codel = &Codel{Limit: 100_000}
			spec.Qdiscs[0].FQCodel = &FQCodel{Limit: 100_000, NoECN: true}
			tree := newSim(t, spec).tree
			var drops []int64
			const step = 10_000 // one packet leaves each 10 us; two come in
			for now := int64(0); now < 2*second; now += step {
				tree.Offer(meta(1000, 1), now)
				tree.Offer(meta(1000, 1), now)
				if r := tree.Dequeue(now); r != 0 {
					tree.Done(r)
				}
				var n [trace.NumReasons]uint64
				tree.TakeDrops(&n)
				for range n[trace.QdiscAQM] {
					drops = append(drops, now)
				}
			}
			checkLaw(t, drops, step)
		})
	}
}

func checkLaw(t *testing.T, drops []int64, step int64) {
	t.Helper()
	if len(drops) < 20 {
		t.Fatalf("%d drops", len(drops))
	}
	next := drops[0]
	for i, at := range drops {
		if i > 0 {
			next += int64(math.Round(codelInterval / math.Sqrt(float64(i))))
		}
		if at < next || at >= next+step {
			t.Fatalf("drop %d at %d, want %d", i, at, next)
		}
	}
}

// reference is the pseudo-code of RFC 8289 §5, word for word.
type reference struct {
	queue                []int64 // times of packets of 1000 bytes
	firstAbove, dropNext int64
	count, lastCount     uint32
	dropping             bool
	drops                []int64
}

func (c *reference) dodequeue(now int64) (tstamp int64, ok, okToDrop bool) {
	if len(c.queue) == 0 {
		c.firstAbove = 0
		return 0, false, false
	}
	tstamp, c.queue = c.queue[0], c.queue[1:]
	if now-tstamp < codelTarget || len(c.queue)*1000 <= defaultMTU {
		c.firstAbove = 0
	} else if c.firstAbove == 0 {
		c.firstAbove = now + codelInterval
	} else if now >= c.firstAbove {
		okToDrop = true
	}
	return tstamp, true, okToDrop
}

func (c *reference) law(t int64, count uint32) int64 {
	return t + int64(math.Round(codelInterval/math.Sqrt(float64(count))))
}

func (c *reference) deque(now int64) (ts int64, ok bool) {
	ts, ok, drop := c.dodequeue(now)
	if !ok {
		c.dropping = false
		return ts, ok
	}
	if c.dropping {
		if !drop {
			c.dropping = false
		}
		for c.dropping && now >= c.dropNext {
			c.drops = append(c.drops, ts)
			c.count++
			if ts, ok, drop = c.dodequeue(now); !drop {
				c.dropping = false
			} else {
				c.dropNext = c.law(c.dropNext, c.count)
			}
		}
	} else if drop {
		c.drops = append(c.drops, ts)
		ts, ok, _ = c.dodequeue(now)
		c.dropping = true
		delta := c.count - c.lastCount
		c.count = 1
		if delta > 1 && now-c.dropNext < 16*codelInterval {
			c.count = delta
		}
		c.dropNext = c.law(now, c.count)
		c.lastCount = c.count
	}
	return ts, ok
}

// The same load through both gives the same packets, through loads that come and go.
func TestAgainstTheRFC(t *testing.T) {
	spec := root("codel")
	spec.Qdiscs[0].Codel = &Codel{Limit: 1_000_000}
	spec.Memory = 1 << 40
	tree := newSim(t, spec).tree
	var ref reference
	for i := range int64(3_000_000) {
		now := i * 10_000
		load := []int64{3, 1, 2, 0, 5}[i/200_000%5] // in halves of what leaves
		if i%2 == 0 && load > 0 {
			for range load {
				m := meta(1000, 1)
				tree.Offer(m, now)
				ref.queue = append(ref.queue, now)
			}
		}
		ts, ok := ref.deque(now)
		r := tree.Dequeue(now)
		if (r != 0) != ok || ok && tree.pool.at(r).at != ts {
			t.Fatalf("at %d: the RFC's is of %d (%v), ours of %d", now, ts, ok, tree.pool.at(r).at)
		}
		if r != 0 {
			tree.Done(r)
		}
	}
	if got := tree.Report(0)[0].Codel.Drops; got != uint64(len(ref.drops)) || got < 100 {
		t.Errorf("%d drops, the RFC's %d", got, len(ref.drops))
	}
}

// A flow that takes part in ECN is marked and loses nothing.
func TestECN(t *testing.T) {
	for _, kind := range []string{"codel", "fq_codel"} {
		spec := root(kind)
		spec.Qdiscs[0].Codel = &Codel{Limit: 100_000, ECN: true}
		s := newSim(t, spec)
		s.line = 10 * mbit
		m := meta(1000, 1)
		m.ECN = ECT0
		s.cbr(m, 700_000, 0, 2*second)
		s.run(20 * second)
		marked := 0
		for _, d := range s.out {
			if d.meta.ECN == CE {
				marked++
			}
		}
		st := s.tree.Report(s.now)[0]
		if st.Stats.Drops != 0 || s.lost != 0 || marked < 20 {
			t.Errorf("%s: %d drops, %d marks", kind, st.Stats.Drops, marked)
		}
		s.drained()
	}
}

// ce_threshold marks what waited for longer, at once.
func TestCEThreshold(t *testing.T) {
	spec := root("fq_codel")
	spec.Qdiscs[0].FQCodel = &FQCodel{CEThreshold: ms}
	s := newSim(t, spec)
	s.line = 10 * mbit // 0.8 ms for each
	m := meta(1000, 1)
	m.ECN = ECT1
	for range 5 {
		s.tree.Offer(m, 0)
	}
	s.run(second)
	for i, d := range s.out {
		if (d.meta.ECN == CE) != (i >= 2) {
			t.Errorf("packet %d, at %d: %v", i, d.at, d.meta.ECN)
		}
	}
}

// A flood does not hold up a ping: RFC 8290 §1.
func TestFloodAndPing(t *testing.T) {
	spec := htbSpec(10*mbit, HTBClass{Rate: Rate{Bytes: 10 * mbit}, Burst: 1600, CBurst: 1600})
	spec.Qdiscs[0].HTB.Default = 10
	spec.Qdiscs = append(spec.Qdiscs, Qdisc{Kind: "fq_codel", Handle: 2 << 16, Parent: h1 + 10})
	s := newSim(t, spec)
	s.cbr(meta(1514, 1), 200_000, 0, 20*second) // 60 Mbit/s
	ping := meta(98, 2)
	s.cbr(ping, 100*ms, 33*ms, 20*second)
	var worst int64
	n := int64(0)
	s.late = func(d departure) {
		if d.meta.Mark == 2 {
			worst = max(worst, d.at-33*ms-n*100*ms)
			n++
		}
	}
	s.run(20 * second)
	quantum := ceilNS(span(defaultMTU, 10*mbit))
	if n != 200 || worst > 2*quantum+codelTarget {
		t.Errorf("%d pings, the slowest waited %d ns, want 200 and at most %d", n, worst, 2*quantum+codelTarget)
	}
	st := s.tree.Report(s.now)
	if st[1].Stats.Drops == 0 {
		t.Error("the flood lost nothing")
	}
}

// The published case of ns-3's suite: quantum 90, packets of 120 bytes.
func TestDeficits(t *testing.T) {
	spec := root("fq_codel")
	spec.Qdiscs[0].FQCodel = &FQCodel{Quantum: 90}
	s := newSim(t, spec)
	for range 4 {
		s.tree.Offer(meta(120, 1), 0)
	}
	f := s.tree.root.(*fqCodel)
	var w *subflow
	for i := range f.flows {
		if f.flows[i].queued {
			w = &f.flows[i]
		}
	}
	got := []int64{w.deficit}
	for range 4 {
		before := w.deficit
		s.tree.Done(s.tree.Dequeue(0))
		if before <= 0 {
			got = append(got, before+90)
		}
		got = append(got, w.deficit)
	}
	want := []int64{90, -30, 60, -60, 30, -90, 0, -120}
	for i := range want[:7] {
		if i < len(got) && got[i] != want[i] {
			t.Fatalf("deficits %v, want %v", got, want)
		}
	}
}

// Beyond its limit it drops from the fattest flow, and half of that at most.
func TestFattestFlow(t *testing.T) {
	spec := root("fq_codel")
	spec.Qdiscs[0].FQCodel = &FQCodel{Limit: 100}
	s := newSim(t, spec)
	for range 20 {
		s.tree.Offer(meta(1000, 1), 0)
	}
	for range 80 {
		s.tree.Offer(meta(1000, 2), 0)
	}
	if !s.tree.Offer(meta(1000, 1), 0) {
		t.Error("the thin flow's packet was dropped")
	}
	s.run(ms)
	if thin, fat := s.bytes(1, 0, ms)/1000, s.bytes(2, 0, ms)/1000; thin != 21 || fat != 40 {
		t.Errorf("%d and %d packets left, want 21 and 40", thin, fat)
	}
	s.drained()
}

// N greedy flows get the same, whatever their packets' size.
func TestFairness(t *testing.T) {
	for _, kind := range []string{"fq_codel", "fq", "sfq"} {
		for _, n := range []int{2, 10} {
			s := newSim(t, root(kind))
			s.line = 100 * mbit
			used := map[int32]bool{}
			for i, flows := uint32(0), 0; flows < n; i++ {
				m := meta(300+100*i%1200, i)
				bucket := int32(uint64(m.Hash) * 1024 >> 32)
				if used[bucket] {
					continue // a collision: they share
				}
				used[bucket] = true
				flows++
				s.greedy(m, 12)
			}
			s.run(2 * second)
			var shares []float64
			for _, f := range s.sources {
				shares = append(shares, float64(s.bytes(int(f.meta.Mark), second, 2*second)))
			}
			if j := jain(shares); j < .99 {
				t.Errorf("%s, %d flows: Jain's index %g of %v", kind, n, j, shares)
			}
		}
	}
}

// fq lets each flow send at maxrate, with even gaps.
func TestPacing(t *testing.T) {
	spec := root("fq")
	spec.Qdiscs[0].FQ = &FQ{MaxRate: 10 * mbit, Quantum: 1000, InitialQuantum: 1000}
	s := newSim(t, spec)
	s.greedy(meta(1000, 1), 50)
	s.greedy(meta(1000, 2), 50)
	s.run(second)
	for flow := 1; flow <= 2; flow++ {
		last := int64(-1)
		for _, d := range s.out {
			if d.meta.Mark != uint32(flow) {
				continue
			}
			if gap := d.at - last; last >= 0 && gap != 800_000 {
				t.Fatalf("flow %d: %d ns between packets at %d, want 800000", flow, gap, d.at)
			}
			last = d.at
		}
	}
	near(t, "both", float64(s.bytes(-1, 0, second)), 20*mbit, .002)
}

// drr shares by the classes' quanta, and drops what has none.
func TestDRR(t *testing.T) {
	spec := root("drr")
	for i, q := range []uint32{1000, 3000} {
		spec.Classes = append(spec.Classes, Class{Kind: "drr", Handle: h1 + 10 + Handle(i), Parent: h1, DRR: &DRRClass{Quantum: q}})
	}
	s := newSim(t, spec)
	s.line = 100 * mbit
	s.greedy(to(meta(700, 0), 0), 30)
	s.greedy(to(meta(1100, 0), 1), 30)
	s.run(2 * second)
	near(t, "3 to 1", float64(s.bytes(1, 0, s.now))/float64(s.bytes(0, 0, s.now)), 3, .01)
	if s.tree.Offer(meta(100, 5), s.now) {
		t.Error("a packet without a class was taken")
	}
	if err := s.tree.Apply(root("drr"), s.now); err != nil {
		t.Fatal(err)
	}
	s.drained()
}
