// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"math/bits"
)

// Theory of operation.
//
// The hash of a key chooses a set of eight slots and, by its top byte, a tag.
// The eight tags of a set are one word in a dense array of set headers, so a
// look-up reads one header, compares eight tags at once, and then as a rule
// one slot: two or three cache lines in all. Slots never move, nothing is
// linked and nothing is allocated after NewCache.
//
// A full set evicts by the clock: the hand passes over slots that were looked
// up since it came by last and clears that mark. A new entry starts without
// the mark, so that a flood of flows with one packet each wanders round the
// unmarked slots and leaves the busy flows alone.
//
// Why not a Go map: it grows, it has no bound but by a scan, and its deletion
// and hashing cost twice what this does.

const (
	ways      = 8
	lowBits   = 0x0101010101010101
	highBits  = 0x8080808080808080
	tagShift  = 56 // the top byte is the tag, the low bits choose the set
	allInUse  = 1<<ways - 1
	defaultIn = 4096
)

// set is the header of eight slots; its masks have bit i for slot i.
type set struct {
	tags   uint64 // byte i is the tag of slot i
	used   uint8
	marked uint8 // looked up since the clock's hand came by
	hand   uint8 // slot that the clock looks at next
}

// slot is one entry: 72 bytes and the value.
type slot[V any] struct {
	key Key
	gen uint64
	val V
}

// Cache is one worker's flow cache: a bounded map from Key to V. It is not safe
// for concurrent use. It takes 74 bytes and the size of V for each entry, all
// of it at once, and never more.
type Cache[V any] struct {
	sets  []set
	slots []slot[V] // of set i: slots[ways*i : ways*i+ways]
	n     int       // slots in use, of any generation
	last  int       // slot of the last Insert
	stats Stats
}

// Stats counts what a Cache did since it was made.
type Stats struct {
	Hits      uint64 `json:"hits"`
	Misses    uint64 `json:"misses"`
	Inserts   uint64 `json:"inserts"`
	Evictions uint64 `json:"evictions"` // of entries of the current generation
}

// NewCache makes a cache of at least that many entries, rounded up to a power
// of two and at least 8. Zero or less means 4096.
func NewCache[V any](entries int) *Cache[V] {
	if entries <= 0 {
		entries = defaultIn
	}
	n := 1 << bits.Len(uint(max(entries, ways)-1))
	return &Cache[V]{sets: make([]set, n/ways), slots: make([]slot[V], n)}
}

// Lookup returns the value of key k, nil if it is absent or of another
// generation. h is k's hash, by the same seed for all calls. The value is the
// caller's to change until the next Insert, Delete or Flush, which may give the
// slot to another key.
func (c *Cache[V]) Lookup(k *Key, h uint64, gen uint64) *V {
	i := h & uint64(len(c.sets)-1)
	s := &c.sets[i]
	for m := s.match(h); m != 0; m &= m - 1 {
		w := uint64(bits.TrailingZeros64(m)) / 8
		e := &c.slots[i*ways+w]
		if e.gen == gen && e.key == *k && s.used>>w&1 != 0 {
			s.marked |= 1 << w
			c.stats.Hits++
			return &e.val
		}
	}
	c.stats.Misses++
	return nil
}

// match returns a word whose byte i is not zero if slot i may have h's tag. It
// is never zero for a slot that has; a rare other slot (the byte above a match,
// by a carry, and an empty one) is told apart by its key and the used mask.
func (s *set) match(h uint64) uint64 {
	x := s.tags ^ h>>tagShift*lowBits
	return (x - lowBits) &^ x & highBits
}

// Insert gives key k a slot and returns its value, zeroed, for the caller to
// fill in; the pointer is good as Lookup's is. An entry of the same key is
// replaced; else an empty slot is taken, or one of another generation, or the
// one that the clock chooses.
func (c *Cache[V]) Insert(k *Key, h uint64, gen uint64) *V {
	i := h & uint64(len(c.sets)-1)
	s := &c.sets[i]
	w, found := c.find(k, h)
	if !found {
		w = c.vacate(i, gen)
	}
	s.tags = s.tags&^(0xff<<(8*w)) | h>>tagShift<<(8*w)
	s.used |= 1 << w
	s.marked &^= 1 << w
	c.last = int(i*ways + w)
	e := &c.slots[c.last]
	*e = slot[V]{key: *k, gen: gen}
	c.stats.Inserts++
	return &e.val
}

// Slot is the number of the slot that the last Insert took, below Cap: for what the
// caller keeps beside the values.
func (c *Cache[V]) Slot() int { return c.last }

// find returns the slot within its set that holds k, of any generation.
func (c *Cache[V]) find(k *Key, h uint64) (w uint64, ok bool) {
	i := h & uint64(len(c.sets)-1)
	s := &c.sets[i]
	for m := s.match(h); m != 0; m &= m - 1 {
		w = uint64(bits.TrailingZeros64(m)) / 8
		if s.used>>w&1 != 0 && c.slots[i*ways+w].key == *k {
			return w, true
		}
	}
	return 0, false
}

// vacate returns a slot of set i that may be overwritten.
func (c *Cache[V]) vacate(i, gen uint64) (w uint64) {
	s := &c.sets[i]
	if s.used != allInUse {
		c.n++
		return uint64(bits.TrailingZeros8(^s.used))
	}
	for w = range uint64(ways) {
		if c.slots[i*ways+w].gen != gen {
			return w
		}
	}
	c.stats.Evictions++
	return s.evict()
}

// evict moves the clock's hand to the next slot without a mark, and past it. A
// second round finds every mark cleared.
func (s *set) evict() uint64 {
	for s.marked>>s.hand&1 != 0 {
		s.marked &^= 1 << s.hand
		s.hand = (s.hand + 1) % ways
	}
	w := s.hand
	s.hand = (s.hand + 1) % ways
	return uint64(w)
}

// Delete removes key k, of any generation, if it is there.
func (c *Cache[V]) Delete(k *Key, h uint64) {
	w, ok := c.find(k, h)
	if !ok {
		return
	}
	i := h & uint64(len(c.sets)-1)
	c.sets[i].used &^= 1 << w
	c.sets[i].marked &^= 1 << w
	c.slots[i*ways+w] = slot[V]{} // lets go of what V points to
	c.n--
}

// Flush removes every entry. The statistics go on.
func (c *Cache[V]) Flush() {
	clear(c.sets)
	clear(c.slots)
	c.n = 0
}

// Len is the number of slots in use, entries of past generations included: they
// are as good as absent, but their slot is reused only when it is needed.
func (c *Cache[V]) Len() int { return c.n }

// Cap is the number of entries that the cache has room for.
func (c *Cache[V]) Cap() int { return len(c.slots) }

// Stats returns the counters. Like all else it may be called by the owner only.
func (c *Cache[V]) Stats() Stats { return c.stats }
