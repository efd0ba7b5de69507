// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"math"
	"testing"
)

// departure is a packet that left.
type departure struct {
	at   int64
	meta Meta
}

// sim runs one tree in virtual time: sources offer packets, a line takes them as
// fast as the tree and its own rate allow.
type sim struct {
	t       *testing.T
	tree    *Tree
	now     int64
	line    uint64 // bytes/s; 0: no limit
	free    int64  // when the line is free again
	sources []*flowSource
	out     []departure
	lost    int
	late    func(d departure) // instead of out, if it isn't nil
}

// flowSource offers packets: every gap ns, or, if backlog is set, so that always as
// many of its packets wait.
type flowSource struct {
	meta    Meta
	gap     int64
	at      int64 // of the next one
	until   int64
	backlog int
	queued  int
}

func newSim(t *testing.T, s *Spec) *sim {
	t.Helper()
	tree := NewTree(NewPool(Limits{Packets: 1 << 20, Bytes: 1 << 40}), 1)
	if err := tree.Apply(s, 0); err != nil {
		t.Fatal(err)
	}
	return &sim{t: t, tree: tree}
}

// meta is a packet of n bytes of a flow.
func meta(n, flow uint32) Meta {
	return Meta{Len: n, Wire: n, Segs: 1, Hash: uint32(mix(uint64(flow)+1) >> 32), Mark: flow}
}

func (s *sim) cbr(m Meta, gap, from, until int64) {
	s.sources = append(s.sources, &flowSource{meta: m, gap: gap, at: from, until: until})
}

func (s *sim) greedy(m Meta, n int) *flowSource {
	f := &flowSource{meta: m, backlog: n, until: math.MaxInt64}
	s.sources = append(s.sources, f)
	return f
}

// run goes on until a time.
func (s *sim) run(until int64) {
	for s.now <= until {
		s.arrive()
		s.leave()
		next := s.tree.NextTime(s.now)
		if s.line > 0 {
			next = max(next, s.free)
		}
		for _, f := range s.sources {
			if f.backlog == 0 && f.at < f.until {
				next = min(next, f.at)
			}
		}
		if next == never || next > until {
			s.now = until
			return
		}
		if next <= s.now {
			next = s.now + 1
		}
		s.now = next
	}
}

func (s *sim) arrive() {
	for _, f := range s.sources {
		for f.backlog == 0 && f.at <= s.now && f.at < f.until {
			if !s.tree.Offer(f.meta, f.at) {
				s.lost++
			}
			f.at += f.gap
		}
		for f.backlog > 0 && f.queued < f.backlog && s.now < f.until {
			if !s.tree.Offer(f.meta, s.now) {
				s.lost++
				break
			}
			f.queued++
		}
	}
}

func (s *sim) leave() {
	for s.line == 0 || s.free <= s.now {
		r := s.tree.Dequeue(s.now)
		if r == 0 {
			return
		}
		m := *s.tree.pool.Meta(r)
		s.tree.Done(r)
		if s.line > 0 {
			s.free = max(s.free, s.now) + ceilNS(span(uint64(m.Wire), s.line))
		}
		if s.late != nil {
			s.late(departure{s.now, m})
		} else {
			s.out = append(s.out, departure{s.now, m})
		}
		s.gone(m)
	}
}

// gone lets a greedy source offer another.
func (s *sim) gone(m Meta) {
	for _, f := range s.sources {
		if f.backlog > 0 && f.meta.Mark == m.Mark {
			f.queued--
			s.arrive()
			return
		}
	}
}

// bytes is what left of flow, or of all (any negative flow), between two times.
func (s *sim) bytes(flow int, from, to int64) (sum int64) {
	for _, d := range s.out {
		if d.at >= from && d.at < to && (flow < 0 || d.meta.Mark == uint32(flow)) {
			sum += int64(d.meta.Wire)
		}
	}
	return sum
}

// near fails unless got is within tolerance (a share) of want.
func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*want {
		t.Errorf("%s: %g, want %g ± %g %%", what, got, want, tolerance*100)
	}
}

// envelope fails if in any window of the output more than rate·t + burst + slack
// leaves.
func (s *sim) envelope(rate, burst uint64, slack int64) {
	s.t.Helper()
	worst := int64(math.MaxInt64) // of sum before a packet - rate·at
	sum := int64(0)
	for _, d := range s.out {
		allowed := int64(float64(d.at) * float64(rate) / second)
		worst = min(worst, sum-allowed)
		sum += int64(d.meta.Wire)
		if over := sum - allowed - worst - int64(burst) - slack; over > 0 {
			s.t.Fatalf("at %d ns: %d bytes more than rate·t + burst", d.at, over)
		}
	}
}

// jain is Jain's index of fairness.
func jain(shares []float64) float64 {
	sum, squares := 0., 0.
	for _, x := range shares {
		sum += x
		squares += x * x
	}
	return sum * sum / (float64(len(shares)) * squares)
}

// total checks that no packet, no byte and no memory was left behind or counted
// twice.
func (s *sim) drained() {
	s.t.Helper()
	for _, d := range s.tree.nodes {
		if n := d.base(); n.qlen != 0 || n.bytes != 0 {
			s.t.Errorf("%s %v: %d frames, %d bytes are left", n.spec.Kind, n.handle, n.qlen, n.bytes)
		}
	}
	if s.tree.mem != 0 || s.tree.pool.Waiting() != 0 {
		s.t.Errorf("%d bytes of memory, %d packets are left", s.tree.mem, s.tree.pool.Waiting())
	}
}

const (
	mbit = 1_000_000 / 8
	ms   = 1_000_000
	h1   = Handle(1 << 16)
)

func tbfSpec(rate, burst uint64, limit int64) *Spec {
	return &Spec{Qdiscs: []Qdisc{{Kind: "tbf", Handle: h1, Parent: Root, TBF: &TBF{Rate: Rate{Bytes: rate}, Burst: burst, Limit: limit}}}}
}

// htbSpec is htb with a class 1:1 and leaves below it.
func htbSpec(top uint64, leaves ...HTBClass) *Spec {
	s := &Spec{
		Qdiscs:  []Qdisc{{Kind: "htb", Handle: h1, Parent: Root, HTB: &HTB{}}},
		Classes: []Class{{Kind: "htb", Handle: h1 + 1, Parent: Root, HTB: &HTBClass{Rate: Rate{Bytes: top}, Burst: 15000, CBurst: 15000}}},
	}
	for i := range leaves {
		l := leaves[i]
		l.Burst, l.CBurst = either(l.Burst, 15000), either(l.CBurst, 15000)
		s.Classes = append(s.Classes, Class{Kind: "htb", Handle: h1 + 10 + Handle(i), Parent: h1 + 1, HTB: &l})
	}
	return s
}

// to sends a packet to class 1:10+i by its priority.
func to(m Meta, i int) Meta {
	m.Priority, m.Mark = uint32(h1)+10+uint32(i), uint32(i)
	return m
}
