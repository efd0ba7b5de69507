// SPDX-License-Identifier: Apache-2.0

package qdisc

import "sync/atomic"

// Share divides the rate of one class among the trees of several workers. Each
// worker has a seat and an HTB of its own, in which the class is filled with time
// that it claims here: each tick since the start is given out exactly once, so all
// of them together never get more than the rate, and its bursts. A worker that
// claims gives the others their parts, by the weight of what waits with each of
// them (the quanta of their active leaves); who has nothing to send gets nothing,
// and when nobody has, all get the same. Without locks: a claim is one
// compare-and-swap, and an addition for each other seat, at most once a lease.
type Share struct {
	claimed atomic.Int64 // ns: the time that was given out
	_       [56]byte
	seats   []ShareSeat
}

// ShareSeat is a worker's part of a Share.
type ShareSeat struct {
	of     *Share
	weight atomic.Int64 // of what waits
	banked atomic.Int64 // ticks that were given to it and not taken up yet
	_      [40]byte
}

// lease is the time that is left unclaimed, so that a packet costs no shared
// cache line: 20 us.
const lease = 20_000

// NewShare is a share for workers 0 to n-1, from now on.
func NewShare(n int, now int64) *Share {
	s := &Share{seats: make([]ShareSeat, n)}
	s.claimed.Store(now)
	for i := range s.seats {
		s.seats[i].of = s
	}
	return s
}

// Seat is worker i's.
func (s *Share) Seat(i int) *ShareSeat { return &s.seats[i] }

// claim is the ticks that the seat has got since it last asked.
func (t *ShareSeat) claim(now int64) int64 {
	s := t.of
	for was := s.claimed.Load(); now-was >= lease; was = s.claimed.Load() {
		if s.claimed.CompareAndSwap(was, now) {
			s.divide(elapsed(now, was))
			break
		}
	}
	if t.banked.Load() == 0 {
		return 0
	}
	return t.banked.Swap(0)
}

// divide gives each seat its part. What rounding leaves is the last one's.
func (s *Share) divide(ticks int64) {
	sum, idle := s.sum(), int64(0)
	if sum == 0 {
		sum, idle = int64(len(s.seats)), 1
	}
	left, last := ticks, 0
	for i := range s.seats {
		w := max(s.seats[i].weight.Load(), idle)
		if w <= 0 {
			continue
		}
		part := min(scale(ticks, w, sum), left)
		s.seats[i].banked.Add(part)
		left, last = left-part, i
	}
	s.seats[last].banked.Add(left)
}

func (s *Share) sum() (sum int64) {
	for i := range s.seats {
		sum += max(s.seats[i].weight.Load(), 0)
	}
	return sum
}

// whole is how long it takes until the seat gets a part of that many ticks.
func (t *ShareSeat) whole(part int64) int64 {
	w, sum := t.weight.Load(), t.of.sum()
	if w <= 0 || sum <= w {
		return part + lease<<tickShift
	}
	return min(scale(part, sum, w), tickSecond) + lease<<tickShift
}

// scale is x·a/b without overflow, for x up to a day of ticks.
func scale(x, a, b int64) int64 { return int64(float64(x) * (float64(a) / float64(b))) }
