// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"fmt"

	"sluice/trace"
)

const (
	sfqLimit   = 127
	sfqDivisor = 1024
	maxDepth   = 127 // SFQ_MAX_DEPTH
)

// sfq is stochastic fair queueing: flows that hash alike share a queue, queues
// take turns of a quantum of bytes each. When it is full, the longest loses its
// last packet.
type sfq struct {
	node
	flows    []robin
	active   flowList
	limit    int
	depth    int
	headDrop bool
	quantum  int64
	perturb  int64 // ns; 0: never
	seed     uint64
	renew    int64 // when the hash changes
	changes  uint64
}

// robin is one queue of sfq.
type robin struct {
	q      list
	qlen   int
	since  uint64 // the number of the change that gave it this length
	allot  int64
	link   int32
	queued bool
}

func (s *sfq) enqueue(r Ref, now int64) bool {
	if s.perturb > 0 && now >= s.renew && len(s.t.rules[s.handle]) == 0 {
		s.rehash(now)
	}
	i, ok := s.named(r, len(s.flows), now)
	if !ok {
		return false
	}
	if i == none {
		i = s.bucket(r)
	}
	w := &s.flows[i]
	if w.qlen >= s.depth {
		if !s.headDrop {
			return s.refuse(r, trace.QdiscFull)
		}
		s.lose(s.t.pool.pop(&w.q), trace.QdiscFull)
		s.t.pool.push(&w.q, r)
		s.added(r)
		return true
	}
	s.put(i, r)
	s.added(r)
	if s.qlen <= s.limit {
		return true
	}
	return s.overflow(r)
}

func (s *sfq) put(i int32, r Ref) {
	w := &s.flows[i]
	s.t.pool.push(&w.q, r)
	s.resize(w, 1)
	if !w.queued {
		w.queued, w.allot = true, s.quantum
		s.append(i)
	}
}

func (s *sfq) bucket(r Ref) int32 {
	h := uint32(mix(uint64(s.t.pool.at(r).Hash)^s.seed) >> 32)
	if s.seed == 0 {
		h = s.t.pool.at(r).Hash
	}
	return int32(uint64(h) * uint64(len(s.flows)) >> 32)
}

// resize counts a packet more or less in a queue.
func (s *sfq) resize(w *robin, by int) {
	w.qlen += by
	s.changes++
	w.since = s.changes
}

// longest is the queue that loses a packet: of several, that which came to this length
// last; if all have one packet, the one whose turn it is. It is the kernel's choice.
func (s *sfq) longest() int32 {
	most := s.active.head
	for i := most; i != none; i = s.flows[i].link {
		w, m := &s.flows[i], &s.flows[most]
		if w.qlen > m.qlen || w.qlen == m.qlen && w.since > m.since {
			most = i
		}
	}
	if s.flows[most].qlen == 1 {
		return s.active.head
	}
	return most
}

// overflow drops the tail of the longest queue, or its head.
func (s *sfq) overflow(r Ref) bool {
	longest := s.longest()
	w := &s.flows[longest]
	x := Ref(0)
	if s.headDrop {
		x = s.t.pool.pop(&w.q)
	} else {
		x = s.t.pool.popTail(&w.q)
	}
	if s.resize(w, -1); w.qlen == 0 {
		s.unlink(longest)
	}
	if x == r {
		s.removed(x)
		return s.refuse(x, trace.QdiscFull)
	}
	s.lose(x, trace.QdiscFull)
	return true
}

// rehash gives flows other neighbours. Packets that wait are sorted anew.
func (s *sfq) rehash(now int64) {
	var all list
	s.drain(&all)
	s.seed = s.t.random() | 1
	s.renew = now + s.perturb
	for r := s.t.pool.pop(&all); r != 0; {
		following := s.t.pool.pop(&all)
		s.put(s.bucket(r), r)
		r = following
	}
}

func (s *sfq) dequeue(int64) Ref {
	for s.active.head != none {
		i := s.active.head
		w := &s.flows[i]
		if w.allot <= 0 {
			w.allot += s.quantum
			s.active.head = w.link
			s.append(i)
			continue
		}
		r := s.t.pool.pop(&w.q)
		if s.resize(w, -1); w.qlen == 0 { // it has no turn any more, and is a new one with its next packet
			w.queued = false
			s.active.head = w.link
		}
		w.allot -= int64(s.t.pool.at(r).Wire)
		s.sent(r)
		return r
	}
	return 0
}

// unlink takes a queue out of the turns, wherever it is there.
func (s *sfq) unlink(i int32) {
	w := &s.flows[i]
	w.queued = false
	if s.active.head == i {
		s.active.head = w.link
		return
	}
	k := s.active.head
	for s.flows[k].link != i {
		k = s.flows[k].link
	}
	if s.flows[k].link = w.link; w.link == none {
		s.active.tail = k
	}
}

func (s *sfq) append(i int32) {
	s.flows[i].link = none
	if s.active.head == none {
		s.active.head = i
	} else {
		s.flows[s.active.tail].link = i
	}
	s.active.tail = i
}

func (s *sfq) next(now int64) int64 { return now }

func (s *sfq) drain(out *list) {
	for i := range s.flows {
		s.t.pool.move(&s.flows[i].q, out)
		s.flows[i] = robin{}
	}
	s.active.head = none
}

func (s *sfq) change(q *Qdisc, now int64) error {
	p := q.SFQ
	if p == nil {
		p = &SFQ{}
	}
	n := either(p.Divisor, sfqDivisor)
	switch {
	case n < 1 || n > maxFlows || n&(n-1) != 0:
		return fmt.Errorf("divisor: %d, want a power of two up to %d", n, maxFlows)
	case p.Limit < 0 || p.Depth < 0 || p.Perturb < 0:
		return fmt.Errorf("limit, depth, perturb: want no negative number")
	case p.Depth > maxDepth:
		return fmt.Errorf("depth: %d, want at most %d", p.Depth, maxDepth)
	case s.flows != nil && n != len(s.flows):
		return fmt.Errorf("divisor: cannot be changed from %d to %d, replace the qdisc instead", len(s.flows), n)
	}
	if s.flows == nil {
		s.flows = make([]robin, n)
		s.active.head = none
	}
	s.headDrop = p.HeadDrop
	s.limit, s.depth = either(p.Limit, sfqLimit), either(p.Depth, sfqLimit)
	s.quantum, s.perturb = int64(either(p.Quantum, defaultMTU)), int64(p.Perturb)*second
	s.renew = now + s.perturb
	for s.qlen > s.limit {
		s.overflow(0)
	}
	return nil
}

func (*sfq) xstats(*Report, int64) {}
