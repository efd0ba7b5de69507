// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// Theory of operation.
//
// The table of learned stations is an array of buckets of eight slots. The
// keyed hash of a station gives it two buckets, and it is put into the one with
// more room; there it stays until it is forgotten. With half as many slots
// again as entries allowed, two choices leave practically no full pair of
// buckets before the bound on entries is hit, without ever moving an entry.
// That an entry never moves is what makes a Ref possible.
//
// A slot is two words and a time stamp:
//
//	key    valid 1 | - 3 | VLAN 12 | MAC 48          0: empty
//	state  generation 46 | kind 2 | port 16
//	seen   tick of the last frame from the station
//
// All changes are made under Bridge.mu. Each stores a new generation into state,
// so a state word never comes back in its slot (46 bits last for 80 days of ten
// million changes of one slot in a second), and a Ref that holds the old word is
// false for good. To put another key into a slot, a writer
//
//	1. stores key = 0   2. stores the new state   3. stores the new key
//
// Readers take no lock. They read state, key, state: if both states are the
// same, none of the writer's step 2 came between, so the key that was read is
// the state's own (or 0, between 1 and 2 or 2 and 3) and never the one before or
// after. Go's atomics are sequentially consistent, which this needs. If the
// states differ, the entry moved or left meanwhile, and reading again gives a
// newer truth. A reader may miss an entry that is just being put in; the frame
// is then flooded, as it would have been an instant earlier.
//
// Touching is one store to seen, and only if the tick changed. It may hit a slot
// that was just given to another station; that one was heard in the same tick
// too, so nothing is lost.

const (
	ways = 8

	// slotsPerEntry is 3/2: the table is at most two thirds full.
	slotsNum, slotsDen = 3, 2

	vlanShift = 48
	vlanBits  = 0xfff << vlanShift
	keyValid  = 1 << 63

	portBits  = 16
	kindBits  = 2
	kindShift = portBits
	genUnit   = 1 << (portBits + kindBits)

	// lookupTries bounds a reader that keeps meeting a writer in its slot.
	lookupTries = 4
)

// slot is one entry; 32 bytes, so that the words that a Ref reads and the stamp
// that it writes share a cache line.
type slot struct {
	key   atomic.Uint64
	state atomic.Uint64
	seen  atomic.Uint32
	_     [12]byte
}

// bucket is the eight slots that a hash names.
type bucket [ways]slot

// nextState is the state of the slot's next incarnation.
//
// Preconditions: Bridge.mu is held.
func (s *slot) nextState(port uint16, k Kind) uint64 {
	gen := s.state.Load()&^(genUnit-1) + genUnit
	return gen | uint64(k)<<kindShift | uint64(port)
}

// put gives an empty slot to a station that was learned. See the order of writes above.
//
// Preconditions: Bridge.mu is held; key is 0.
func (s *slot) put(key uint64, port uint16, now Tick) {
	s.state.Store(s.nextState(port, Dynamic))
	s.seen.Store(uint32(now))
	s.key.Store(key)
}

// drop empties the slot.
//
// Preconditions: Bridge.mu is held.
func (s *slot) drop() {
	s.key.Store(0)
	s.state.Store(s.nextState(0, kindNone))
}

// read returns the state of key's entry if the slot is key's.
func (s *slot) read(key uint64) (state uint64, ok bool) {
	for range lookupTries {
		state = s.state.Load()
		if s.key.Load() != key {
			return 0, false
		}
		if s.state.Load() == state {
			return state, true
		}
	}
	return 0, false
}

// touch notes that the station was heard. Workers may be a tick apart, so the
// stamp never goes back.
func (s *slot) touch(now Tick) {
	if seen := s.seen.Load(); int32(uint32(now)-seen) > 0 {
		s.seen.Store(uint32(now))
	}
}

// idle is how long the station was not heard, in ticks.
func (s *slot) idle(now Tick) uint32 {
	d := int32(uint32(now) - s.seen.Load())
	return uint32(max(d, 0))
}

func portOf(state uint64) uint16 { return uint16(state) }
func kindOf(state uint64) Kind   { return Kind(state >> kindShift & (1<<kindBits - 1)) }

// table is the array of learned stations.
type table struct {
	seed    maphash.Seed
	buckets []bucket
}

// newTable makes a table that holds that many entries.
func newTable(entries int) table {
	slots := entries * slotsNum / slotsDen
	return table{seed: maphash.MakeSeed(), buckets: make([]bucket, max(2, (slots+ways-1)/ways))}
}

// pair returns the two buckets of a key; they are never the same.
func (t *table) pair(key uint64) (first, second *bucket) {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], key)
	h := maphash.Bytes(t.seed, b[:])
	n := uint64(len(t.buckets))
	// Two halves of the hash, each scaled to n by a multiplication.
	i, _ := bits.Mul64(h, n)
	j, _ := bits.Mul64(h<<32, n-1)
	if j >= i {
		j++
	}
	return &t.buckets[i], &t.buckets[j]
}

// find returns the slot of a key and its state; nil if it is not there.
func (t *table) find(key uint64) (s *slot, state uint64) {
	first, second := t.pair(key)
	if s, state = first.find(key); s != nil {
		return s, state
	}
	return second.find(key)
}

func (b *bucket) find(key uint64) (*slot, uint64) {
	for i := range b {
		s := &b[i]
		if s.key.Load() != key {
			continue
		}
		if state, ok := s.read(key); ok {
			return s, state
		}
	}
	return nil, 0
}

// vacant returns an empty slot for a key in the emptier one of its buckets; nil
// if both are full.
//
// Preconditions: Bridge.mu is held; the key is not in the table.
func (t *table) vacant(key uint64) *slot {
	first, second := t.pair(key)
	s, free := first.vacant()
	if s2, free2 := second.vacant(); free2 > free {
		s = s2
	}
	return s
}

// vacant returns an empty slot and the number of them.
func (b *bucket) vacant() (s *slot, free int) {
	for i := range b {
		if b[i].key.Load() == 0 {
			s = &b[i]
			free++
		}
	}
	return s, free
}
