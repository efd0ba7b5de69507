// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
)

// StateKind is a statement that remembers something, with nft(8)'s word.
type StateKind uint8

// The kinds.
const (
	CounterState StateKind = iota + 1
	QuotaState
	LimitState
	LastState
	ConnCountState
)

// String is nft's word.
func (k StateKind) String() string {
	names := [...]string{"", "counter", "quota", "limit", "last", "ct count"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// StateSpec is a statement that remembers something, as it was written.
type StateSpec struct {
	Kind   StateKind
	Invert bool // over: of quota, limit and ct count

	Packets, Bytes uint64 // of a counter: what it begins with; Bytes of a quota: what is used already
	Quota          uint64 // bytes

	Rate, Burst uint64 // of a limit: packets, or bytes, in Unit
	Unit        int64  // nanoseconds
	ByBytes     bool

	Conns uint32 // of ct count
}

// state is what such a statement remembers: of a rule, of an element, or an
// object with a name. It has no lock; what is in it is changed by one atomic
// operation each.
type state struct {
	StateSpec
	a, b atomic.Int64 // counter: packets, bytes; quota: bytes; limit: when its bucket would have been empty; last: when
	cost int64        // limit: nanoseconds that a packet takes from the bucket
	full int64        // limit: what the bucket holds
	list *connList    // of ct count
	mark uint64       // as good as nobody else's
}

// defaultBurst is NFT_LIMIT_PKT_BURST_DEFAULT.
const defaultBurst = 5

// never is a time before all others.
const never = math.MinInt64 / 2

func newState(spec *StateSpec) *state {
	s := &state{mark: rand.Uint64()}
	s.set(spec)
	return s
}

// set makes s a fresh statement.
func (s *state) set(spec *StateSpec) {
	s.StateSpec = *spec
	s.a.Store(0)
	s.b.Store(0)
	switch spec.Kind {
	case CounterState:
		s.a.Store(int64(spec.Packets))
		s.b.Store(int64(spec.Bytes))
	case QuotaState:
		s.a.Store(int64(spec.Bytes))
	case LastState:
		s.a.Store(never)
	case LimitState:
		s.setLimit()
	case ConnCountState:
		if s.list == nil {
			s.list = &connList{}
		}
		s.list.reset()
	}
}

// setLimit computes the bucket as nft_limit_init does, in the same integers.
func (s *state) setLimit() {
	rate, unit := max(s.Rate, 1), uint64(s.Unit)
	if s.ByBytes {
		s.full = int64(mulDiv(unit, rate+s.Burst, rate))
	} else {
		if s.Burst == 0 {
			s.Burst = defaultBurst
		}
		s.cost = int64(unit / rate)
		s.full = s.cost * int64(s.Burst)
	}
	s.a.Store(never)
}

// pass lets a packet of n bytes through the statement, and reports whether the
// rule goes on behind it.
func (s *state) pass(n int, p *Packet) bool {
	switch s.Kind {
	case CounterState:
		s.count(1, uint64(n))
	case QuotaState:
		over := uint64(s.a.Add(int64(n))) > s.Quota
		return over == s.Invert
	case LimitState:
		return s.take(n, p.Now) != s.Invert
	case LastState:
		s.a.Store(p.Now)
	case ConnCountState:
		return (s.list.count(p) > int(s.Conns)) == s.Invert
	}
	return true
}

// count adds to a counter.
func (s *state) count(packets, bytes uint64) {
	s.a.Add(int64(packets))
	s.b.Add(int64(bytes))
}

// take takes what a packet costs from the bucket; false if there isn't as much.
func (s *state) take(n int, now int64) bool {
	cost := s.cost
	if s.ByBytes {
		cost = int64(mulDiv(uint64(s.Unit), uint64(n), max(s.Rate, 1)))
	}
	for {
		was := s.a.Load()
		empty := max(was, now-s.full)
		if now-empty < cost {
			return false
		}
		if s.a.CompareAndSwap(was, empty+cost) {
			return true
		}
	}
}

// StateValue is what a statement remembers, for a listing and for a restart.
type StateValue struct {
	Kind           StateKind
	Packets, Bytes uint64 // of a counter; Bytes of a quota: used
	Debt           int64  // of a limit: nanoseconds that its bucket lacks
	Age            int64  // of last: nanoseconds ago; below zero: never
}

// value is what the statement remembers at a time.
func (s *state) value(now int64) StateValue {
	v := StateValue{Kind: s.Kind}
	switch s.Kind {
	case CounterState:
		v.Packets, v.Bytes = uint64(s.a.Load()), uint64(s.b.Load())
	case QuotaState: // what is beyond it isn't told, as nft_quota_do_dump
		v.Bytes = min(uint64(s.a.Load()), s.Quota)
	case LimitState:
		v.Debt = max(0, s.full-(now-s.a.Load()))
	case LastState:
		v.Age = -1
		if at := s.a.Load(); at != never {
			v.Age = max(0, now-at)
		}
	case ConnCountState:
	}
	return v
}

// restore is the opposite of value.
func (s *state) restore(v *StateValue, now int64) {
	if v.Kind != s.Kind {
		return
	}
	switch s.Kind {
	case CounterState:
		s.a.Store(int64(v.Packets))
		s.b.Store(int64(v.Bytes))
	case QuotaState:
		s.a.Store(int64(v.Bytes))
	case LimitState:
		s.a.Store(now - s.full + v.Debt)
	case LastState:
		if v.Age >= 0 {
			s.a.Store(now - v.Age)
		}
	case ConnCountState:
	}
}

// zero is `reset`: what was counted is forgotten.
func (s *state) zero() {
	if s.Kind == CounterState || s.Kind == QuotaState {
		s.a.Store(0)
		s.b.Store(0)
	}
}
