// SPDX-License-Identifier: Apache-2.0

package policy

import "sluice/policy/nft"

// Packets add elements to sets, `add @set { … }`. Steady traffic allocates nothing:
// an element that has gone is used again as soon as nobody can be looking at it, and
// the set's size bounds them all.

// arrival is the element that a packet adds, updates or deletes.
type arrival struct {
	op      nft.SetOp
	key     []uint64
	data    []uint64
	verdict verdict
	timeout int64 // 0: that of the set
	lasts   int64 // nanoseconds until it expires; 0: timeout
	specs   []StateSpec
	stmts   []nft.Stmt // that specs say
}

// arrive does to the set what a packet wants. nil: nothing was to be deleted, or
// there is no room for another, so that the rule ends.
func (s *set) arrive(a *arrival, gen uint64, now int64) *elem {
	if e := s.lively(a.key, gen, now); e != nil {
		if a.op == nft.SetAdd || a.op == nft.SetUpdate && e.timeout == 0 {
			return e
		}
		if a.op == nft.SetUpdate {
			e.expires.Store(now + a.life(s.timeout.Load()))
			return e
		}
	} else if a.op == nft.SetDelete {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.lively(a.key, gen, now) // somebody may have been faster
	switch {
	case a.op == nft.SetDelete:
		if e != nil {
			s.kill(e)
			s.changes.Add(1)
		}
		return e
	case e != nil:
		return e
	}
	return s.begin(a, now)
}

// lively is the element of exactly that key.
func (s *set) lively(key []uint64, gen uint64, now int64) *elem {
	return s.table.Load().find(key, hashKey(s.seed, key), gen, now)
}

// life is for how long an element whose timeout is given lives from now on.
func (a *arrival) life(timeout int64) int64 {
	if a.lasts != 0 {
		return a.lasts
	}
	if a.timeout != 0 {
		return a.timeout
	}
	return timeout
}

// begin adds a new element.
// +checklocks:s.mu
func (s *set) begin(a *arrival, now int64) *elem {
	s.reclaim()
	if s.size > 0 && s.n >= s.size {
		s.expireSome(sweepWhenFull, now)
		if s.n >= s.size {
			s.stats.Full++
			return nil
		}
	}
	e := s.spare(a)
	copy(e.key, a.key)
	copy(e.data, a.data)
	e.verdict, e.stmts = a.verdict, a.stmts
	e.hash = hashKey(s.seed, a.key)
	e.timeout = a.timeout
	if e.timeout == 0 {
		e.timeout = s.timeout.Load()
	}
	e.expires.Store(0)
	if e.timeout != 0 {
		e.expires.Store(now + a.life(e.timeout))
		s.timed = true
	}
	for i := range a.specs {
		e.states[i].set(&a.specs[i])
	}
	e.born = 0
	e.died.Store(alive)
	s.reserve(1)
	s.table.Load().link(e)
	s.n++
	s.changes.Add(1)
	return e
}

// spare is an element to be filled in: one that was used before, if there is one.
// +checklocks:s.mu
func (s *set) spare(a *arrival) *elem {
	for n := len(s.free); n > 0; n = len(s.free) {
		e := s.free[n-1]
		s.free = s.free[:n-1]
		if len(e.states) == len(a.specs) {
			return e
		}
	}
	words := make([]uint64, s.width+len(a.data))
	e := &elem{key: words[:s.width:s.width], states: make([]state, len(a.specs))}
	if len(a.data) > 0 {
		e.data = words[s.width:]
	}
	return e
}

// The number of buckets that are looked through for elements whose time is over.
const (
	sweepWhenFull = 64
	sweepEach     = 4096
)

// expire removes elements whose time is over: some of them each time, all of them
// within a few times.
func (s *set) expire(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reclaim()
	switch {
	case !s.timed:
		return
	case s.ranges:
		s.expireRanges(now)
		return
	}
	s.expireSome(max(sweepEach, len(s.table.Load().buckets)/16), now)
}

// +checklocks:s.mu
func (s *set) expireSome(buckets int, now int64) {
	t := s.table.Load()
	for range min(buckets, len(t.buckets)) {
		s.sweep = (s.sweep + 1) & (len(t.buckets) - 1)
		for e := t.buckets[s.sweep].Load(); e != nil; e = e.next[t.which].Load() {
			if e.died.Load() == alive && e.over(now) {
				s.kill(e)
				s.stats.Expired++
			}
		}
	}
}

// expireRanges: who looks at a range asks for its time anyway, so that it only has
// to leave the tree.
// +checklocks:s.mu
func (s *set) expireRanges(now int64) {
	for _, b := range *s.boxes.Load() {
		for _, e := range b.elems {
			if e.died.Load() == alive && e.over(now) {
				s.remove(e, 0)
				s.stats.Expired++
			}
		}
	}
	s.settle(s.grace.advance())
}
