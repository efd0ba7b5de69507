// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// index finds dynamic entries: an array of lists, chosen by a keyed hash so that
// nobody can aim at one of them. Readers take no lock; changes are made under
// Table.mu.
//
// An entry is never put back, and keeps its next when it is removed: a reader that
// stands on it goes on to entries that were in the list a moment ago. It may miss
// one that is just being put in, which is what it would have found an instant
// earlier.
type index struct {
	seed  maphash.Seed
	lists []atomic.Pointer[entry]
}

func newIndex(entries int) index {
	return index{maphash.MakeSeed(), make([]atomic.Pointer[entry], 2*entries)}
}

func (x *index) list(k key) *atomic.Pointer[entry] {
	var b [18]byte
	copy(b[:], k.addr[:])
	binary.NativeEndian.PutUint16(b[16:], k.dev)
	i, _ := bits.Mul64(maphash.Bytes(x.seed, b[:]), uint64(len(x.lists)))
	return &x.lists[i]
}

// find returns the entry of a key; nil if there is none.
func (x *index) find(k key) *entry {
	for e := x.list(k).Load(); e != nil; e = e.next.Load() {
		if e.key == k {
			return e
		}
	}
	return nil
}

// insert puts in an entry whose key is not there.
//
// Preconditions: Table.mu is held.
func (x *index) insert(e *entry) {
	head := x.list(e.key)
	e.next.Store(head.Load())
	head.Store(e)
}

// remove takes out an entry that is there.
//
// Preconditions: Table.mu is held.
func (x *index) remove(e *entry) {
	at := x.list(e.key)
	for at.Load() != e {
		at = &at.Load().next
	}
	at.Store(e.next.Load())
}
