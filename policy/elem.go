// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"slices"
	"sync/atomic"

	"sluice/policy/nft"
)

// elem is an element of a set or a map. What has no atomic type in it doesn't
// change while the element can be found.
type elem struct {
	key  []uint64 // its fields side by side, see value.wide
	end  []uint64 // of a range: the last key, of each field for itself; else nil
	data []uint64 // what a map has for it
	last []uint64 // of data that is a range: its end; else nil

	verdict verdict    // of a verdict map
	object  *state     // of a map to objects
	states  []state    // its own counter, limit…
	stmts   []nft.Stmt // as they are written
	source  *nft.Elem

	hash    uint64
	order   uint64 // of elements that overlap the lower is the one
	born    uint64 // generation from which it exists; 0: always
	died    atomic.Uint64
	expires atomic.Int64 // nanoseconds; 0: never
	timeout int64        // that it was added with; 0: none
	gone    bool         // nobody can see it any more; the set's lock guards it
	tree    *boxes       // that it is in
	life    atomic.Uint32

	next [2]atomic.Pointer[elem] // in its bucket, see table
}

// alive is what elem.died is until it dies.
const alive = math.MaxUint64

// visible reports whether the element exists for one who has pinned gen.
func (e *elem) visible(gen uint64, now int64) bool {
	return e.born <= gen && gen < e.died.Load() && !e.over(now)
}

// over reports whether the element's time has passed.
func (e *elem) over(now int64) bool {
	x := e.expires.Load()
	return x != 0 && x <= now
}

// holds reports whether key is the element's, or in its range.
func (e *elem) holds(key []uint64, fields []field) bool {
	if e.end == nil {
		return slices.Equal(e.key, key)
	}
	for _, f := range fields {
		v := valueOf(key[f.at:], f.words)
		if v.less(valueOf(e.key[f.at:], f.words)) || valueOf(e.end[f.at:], f.words).less(v) {
			return false
		}
	}
	return true
}

// field is one part of a key.
type field struct{ at, words, bytes int }

// fieldsOf lays out the parts of a key, and says how many registers they take.
func fieldsOf(specs []nft.Spec) (fields []field, n int) {
	for _, s := range specs {
		f := field{at: n, words: words(int(s.Bits)), bytes: s.Bytes()}
		fields = append(fields, f)
		n += f.words
	}
	return fields, n
}

// unpack turns the bytes of a key in the tree into registers.
func unpack(s string, fields []field, n int) []uint64 {
	if s == "" {
		return nil
	}
	key := make([]uint64, n)
	for _, f := range fields {
		number([]byte(s[:f.bytes])).wide(f.words, key[f.at:])
		s = s[f.bytes:]
	}
	return key
}

// pack is the opposite of unpack.
func pack(key []uint64, fields []field) string {
	var b []byte
	for _, f := range fields {
		b = append(b, make([]byte, f.bytes)...)
		valueOf(key[f.at:], f.words).put(b[len(b)-f.bytes:])
	}
	return string(b)
}
