// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/policy/nft"
)

// set is a set, map or verdict map while it is in use. Look-ups take no lock;
// what changes it, be it a transaction or a packet, holds mu.
type set struct {
	handle  uint64
	name    string
	fields  []field
	width   int // registers of a key
	dfields []field
	dwidth  int // registers of a value
	seed    [2]uint64
	ranges  bool         // found by boxes, else by table
	timeout atomic.Int64 // nanoseconds; 0: none
	size    int          // 0: no bound
	dynamic bool
	stmts   []nft.Stmt     // of each new element
	objects nft.ObjectKind // that the values are names of
	grace   *epochs

	table   atomic.Pointer[table]
	boxes   atomic.Pointer[[]*boxes]
	other   atomic.Pointer[[]*elem] // catch-all elements, of which one is visible; nil: none
	changes atomic.Uint64           // how often packets changed what look-ups find

	mu    sync.Mutex
	n     int     // elements that are alive, expired ones included
	timed bool    // some of them expire
	grown uint64  // epoch at which the table was replaced
	dying []dying // they stay linked until nobody sees them
	limbo []*elem // unlinked; reused when nobody can stand on them
	since []uint64
	free  []*elem
	sweep int // bucket at which the next Expire goes on
	stats SetStats
}

// SetStats counts what happened to a set.
type SetStats struct {
	Full    uint64 // a packet's element found no room
	Expired uint64 // elements whose time was over
}

// dying is an element, and the epoch since which nobody who pins sees it; of a
// transaction that is not published yet the highest.
type dying struct {
	e     *elem
	epoch uint64
}

// defaultDynamicSize is the bound of a set that packets add to, if it has none of
// its own, as in nft(8).
const defaultDynamicSize = 65535

func newSet(s *nft.Set, seed [2]uint64, grace *epochs) *set {
	t := &set{handle: s.Handle, name: s.Name, seed: seed, grace: grace, ranges: s.Interval, dynamic: s.Dynamic}
	t.fields, t.width = fieldsOf(s.Key)
	if !isVerdicts(s) {
		t.dfields, t.dwidth = fieldsOf(s.Data)
	}
	t.objects = s.ObjKind
	t.configure(s)
	if t.ranges {
		t.boxes.Store(&[]*boxes{})
	} else {
		t.table.Store(newTable(s.Elems.Len(), 0))
	}
	return t
}

// isVerdicts reports whether the values of a map are verdicts.
func isVerdicts(s *nft.Set) bool { return len(s.Data) == 1 && s.Data[0].Type == nft.TypeVerdict }

// configure takes over what of a set may change while it is in use.
func (s *set) configure(tree *nft.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timeout.Store(int64(tree.Timeout))
	s.size, s.stmts = int(tree.Size), tree.Stmts
	if s.dynamic && s.size == 0 {
		s.size = defaultDynamicSize
	}
}

// find is what the set has for a key, or nil. The catch-all element is not asked.
func (s *set) find(key []uint64, gen uint64, now int64) *elem {
	if !s.ranges {
		return s.table.Load().find(key, hashKey(s.seed, key), gen, now)
	}
	var best *elem
	for _, b := range *s.boxes.Load() {
		if best = b.find(best, key, s.fields, gen, now); best != nil && len(s.fields) == 1 {
			return best
		}
	}
	return best
}

// rest is the catch-all element, or nil.
func (s *set) rest(gen uint64, now int64) *elem {
	all := s.other.Load()
	if all == nil {
		return nil
	}
	for _, e := range *all {
		if e.visible(gen, now) {
			return e
		}
	}
	return nil
}

// exact is the element with just that key, of which ranges are not looked into.
func (s *set) exact(key, end []uint64, gen uint64) *elem {
	is := func(e *elem) bool {
		return e.born <= gen && gen < e.died.Load() && slices.Equal(e.key, key) && (!s.ranges || slices.Equal(e.upper(), end))
	}
	if s.ranges {
		for _, b := range *s.boxes.Load() {
			if e := b.first(key, s.fields, is); e != nil {
				return e
			}
		}
		return nil
	}
	t := s.table.Load()
	for e := t.bucket(hashKey(s.seed, key)).Load(); e != nil; e = e.next[t.which].Load() {
		if is(e) {
			return e
		}
	}
	return nil
}

// insert adds elements that exist from generation gen on.
// +checklocks:s.mu
func (s *set) insert(elems []*elem, gen uint64) {
	for _, e := range elems {
		e.born = gen
		e.died.Store(alive)
		s.timed = s.timed || e.expires.Load() != 0
	}
	s.n += len(elems)
	if s.ranges {
		s.boxes.Store(s.merged(*s.boxes.Load(), elems))
		return
	}
	s.reserve(len(elems))
	t := s.table.Load()
	for _, e := range elems {
		e.hash = hashKey(s.seed, e.key)
		t.link(e)
	}
}

// reserve makes room for n more elements in the table, if it may: while there are
// readers of the table before this one its links are in use, and buckets get longer.
// +checklocks:s.mu
func (s *set) reserve(n int) {
	t := s.table.Load()
	if t.n+n <= len(t.buckets) || s.grace.passed() < s.grown {
		return
	}
	s.table.Store(t.grown(2 * (t.n + n)))
	s.grown = s.grace.advance()
}

// merged are the trees with more elements: in a new one, together with those of
// trees that are not much larger.
func (s *set) merged(all []*boxes, elems []*elem) *[]*boxes {
	if len(elems) == 0 {
		return &all
	}
	all, elems = slices.Clone(all), slices.Clone(elems)
	for len(all) > 0 && len(all[len(all)-1].elems) < 2*len(elems) {
		elems = append(elems, living(all[len(all)-1].elems)...)
		all = all[:len(all)-1]
	}
	all = append(all, newBoxes(elems, s.fields, s.width))
	return &all
}

// living are the elements that somebody may still see.
func living(elems []*elem) []*elem {
	var some []*elem
	for _, e := range elems {
		if !e.gone {
			some = append(some, e)
		}
	}
	return some
}

// remove ends an element with generation gen, which is not published yet.
// +checklocks:s.mu
func (s *set) remove(e *elem, gen uint64) {
	if e.died.Load() != alive {
		return
	}
	e.died.Store(gen)
	e.life.Add(1)
	s.n--
	s.dying = append(s.dying, dying{e, math.MaxUint64})
}

// settle says with which epoch what was removed cannot be seen any more.
// +checklocks:s.mu
func (s *set) settle(epoch uint64) {
	for i := len(s.dying) - 1; i >= 0 && s.dying[i].epoch == math.MaxUint64; i-- {
		s.dying[i].epoch = epoch
	}
}

// kill ends an element at once, for everybody. One that a transaction has ended
// already goes with that.
// +checklocks:s.mu
func (s *set) kill(e *elem) {
	if e.died.Load() != alive {
		return
	}
	e.died.Store(0)
	e.life.Add(1)
	s.n--
	s.table.Load().unlink(e)
	s.limbo, s.since = append(s.limbo, e), append(s.since, s.grace.advance())
}

// setOther makes e the catch-all element from generation gen on; nil: none.
// +checklocks:s.mu
func (s *set) setOther(e *elem, gen uint64) {
	var next []*elem
	if all := s.other.Load(); all != nil {
		for _, x := range *all {
			if x.died.Load() == alive {
				x.died.Store(gen)
				x.life.Add(1)
				next = append(next, x) // the one before is all that somebody may see
			}
		}
	}
	if e != nil {
		e.born = gen
		e.died.Store(alive)
		next = append(next, e)
	}
	s.other.Store(&next)
}

// reclaim unlinks what nobody sees, and makes reusable what nobody stands on.
// +checklocks:s.mu
func (s *set) reclaim() {
	if len(s.dying)+len(s.limbo) == 0 {
		return
	}
	passed := s.grace.passed()
	n := 0
	for n < len(s.limbo) && passed >= s.since[n] {
		s.reuse(s.limbo[n])
		n++
	}
	s.limbo, s.since = slices.Delete(s.limbo, 0, n), slices.Delete(s.since, 0, n)
	n = 0
	for n < len(s.dying) && passed >= s.dying[n].epoch {
		e := s.dying[n].e
		if e.gone = true; e.tree != nil {
			e.tree.dead++
		}
		n++
	}
	if n == 0 {
		return
	}
	if s.ranges {
		s.dropBoxes()
	} else {
		s.unlink(s.dying[:n])
	}
	s.dying = slices.Delete(s.dying, 0, n)
}

// reuse keeps the element for a packet that adds one.
// +checklocks:s.mu
func (s *set) reuse(e *elem) {
	if s.dynamic && e.source == nil {
		s.free = append(s.free, e)
	}
}

// +checklocks:s.mu
func (s *set) unlink(dead []dying) {
	t := s.table.Load()
	for i := range dead {
		t.unlink(dead[i].e)
		s.limbo = append(s.limbo, dead[i].e)
	}
	epoch := s.grace.advance()
	for range dead {
		s.since = append(s.since, epoch)
	}
}

// dropBoxes rebuilds trees of which half is dead.
// +checklocks:s.mu
func (s *set) dropBoxes() {
	all := *s.boxes.Load()
	if !slices.ContainsFunc(all, (*boxes).rotten) {
		return
	}
	var kept []*boxes
	var loose []*elem
	for _, b := range all {
		if b.rotten() {
			loose = append(loose, living(b.elems)...)
		} else {
			kept = append(kept, b)
		}
	}
	s.boxes.Store(s.merged(kept, loose))
}

func (b *boxes) rotten() bool { return 2*b.dead >= len(b.elems) }

// each goes through the elements that exist for gen.
func (s *set) each(gen uint64, now int64, yield func(*elem) bool) {
	for e := range s.all() {
		if e.visible(gen, now) && !yield(e) {
			return
		}
	}
}

// all goes through all elements that are there, those too that nobody sees.
func (s *set) all() iter.Seq[*elem] {
	return func(yield func(*elem) bool) {
		if all := s.other.Load(); all != nil && !eachOf(*all, yield) {
			return
		}
		if s.ranges {
			for _, b := range *s.boxes.Load() {
				if !eachOf(b.elems, yield) {
					return
				}
			}
			return
		}
		s.table.Load().walk(yield)
	}
}

func eachOf(all []*elem, yield func(*elem) bool) bool {
	for _, e := range all {
		if !yield(e) {
			return false
		}
	}
	return true
}
