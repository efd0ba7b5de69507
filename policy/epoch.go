// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"sync"
	"sync/atomic"
)

// Theory of operation: who may still see what.
//
// Two numbers order all changes. The *generation* counts transactions. What a
// transaction makes (an element, a chain's code) carries the generation that it
// begins with, and what it takes away the one that it ends with; whoever evaluates
// pins a snapshot, whose generation says what of all that exists. So a transaction
// is seen whole or not at all, over any number of hooks, and costs what it changes.
//
// The *epoch* says when memory may be used again: it grows whenever something was
// unlinked, and each reader notes the epoch at which it pinned. Once all readers
// have pinned at or after the epoch of an unlinking, or are idle, nobody can be
// looking at what was unlinked.

// epochs are the epoch and those who read.
type epochs struct {
	now atomic.Uint64

	mu      sync.Mutex
	readers atomic.Pointer[[]*reader]
}

// reader is one goroutine that evaluates.
type reader struct {
	pinned atomic.Uint64 // epoch; 0: it looks at nothing
	_      [56]byte      // a cache line of its own
}

func newEpochs() *epochs {
	e := &epochs{}
	e.now.Store(1)
	e.readers.Store(&[]*reader{})
	return e
}

// join makes a reader.
func (e *epochs) join() *reader {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &reader{}
	next := append((*e.readers.Load())[:len(*e.readers.Load()):len(*e.readers.Load())], r)
	e.readers.Store(&next)
	return r
}

// leave forgets a reader.
func (e *epochs) leave(r *reader) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var next []*reader
	for _, x := range *e.readers.Load() {
		if x != r {
			next = append(next, x)
		}
	}
	e.readers.Store(&next)
}

// advance ends an epoch: what was unlinked before is unlinked at its result.
func (e *epochs) advance() uint64 { return e.now.Add(1) }

// passed is the epoch at or after which all readers have pinned.
func (e *epochs) passed() uint64 {
	least := uint64(math.MaxUint64)
	for _, r := range *e.readers.Load() {
		if p := r.pinned.Load(); p != 0 {
			least = min(least, p)
		}
	}
	return least
}
