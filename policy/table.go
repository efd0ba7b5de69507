// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/bits"
	"slices"
	"sync/atomic"
)

// table finds elements by their exact key: buckets with about one element each. It
// is read without a lock while one writer changes it. An element has two links, and
// a table uses one of them: the next table, twice as large, is linked by the other
// while this one is still read.
type table struct {
	buckets []atomic.Pointer[elem]
	which   uint8
	n       int // elements, also dead ones that are still linked
}

const leastBuckets = 8

func newTable(n int, which uint8) *table {
	size := max(leastBuckets, 1<<bits.Len(uint(max(n, 1)-1)))
	return &table{buckets: make([]atomic.Pointer[elem], size), which: which}
}

func (t *table) bucket(h uint64) *atomic.Pointer[elem] {
	return &t.buckets[h&uint64(len(t.buckets)-1)]
}

// find is the element with that key which exists for gen, or nil.
func (t *table) find(key []uint64, h, gen uint64, now int64) *elem {
	for e := t.bucket(h).Load(); e != nil; e = e.next[t.which].Load() {
		if e.hash == h && e.visible(gen, now) && slices.Equal(e.key, key) {
			return e
		}
	}
	return nil
}

// link puts an element into its bucket.
func (t *table) link(e *elem) {
	b := t.bucket(e.hash)
	e.next[t.which].Store(b.Load())
	b.Store(e)
	t.n++
}

// unlink takes an element out. Its own link stays, for those who stand on it.
func (t *table) unlink(e *elem) {
	at := t.bucket(e.hash)
	for x := at.Load(); x != nil; x = at.Load() {
		if x == e {
			at.Store(e.next[t.which].Load())
			t.n--
			return
		}
		at = &x.next[t.which]
	}
}

// walk goes through all that is linked.
func (t *table) walk(yield func(*elem) bool) {
	for i := range t.buckets {
		for e := t.buckets[i].Load(); e != nil; e = e.next[t.which].Load() {
			if !yield(e) {
				return
			}
		}
	}
}

// grown is a table for n elements with all that this one has.
func (t *table) grown(n int) *table {
	next := newTable(n, t.which^1)
	for i := range t.buckets {
		for e := t.buckets[i].Load(); e != nil; e = e.next[t.which].Load() {
			next.link(e)
		}
	}
	return next
}

// hashKey hashes the registers of a key with two secret words, so that nobody who
// doesn't know them can choose keys that meet in one bucket.
func hashKey(seed [2]uint64, key []uint64) uint64 {
	h := seed[0]
	for _, w := range key {
		hi, lo := bits.Mul64(h^w, seed[1]|1)
		h = hi ^ lo ^ bits.RotateLeft64(w, 32)
	}
	hi, lo := bits.Mul64(h^seed[1], 0x9e3779b97f4a7c15)
	return hi ^ lo
}
