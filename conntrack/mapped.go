// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"math/bits"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Mapped is a file that is mapped, and memory for what leads to its connections: all
// of Open that can be done while another process still works on the file, to which
// nothing is written. It may be told to Follow that process: then its index has most
// connections already when it is opened. Its methods may be called from any goroutine.
type Mapped struct {
	table   *Table
	opening atomic.Bool // whoever follows is to stop

	mu sync.Mutex
	// known is what the index has of each record. Nil: nothing.
	// +checklocks:mu
	known []known
}

// known is a record as it was when it was entered into the chains. What names a
// connection does not change for as long as its life doesn't, so that a record of the
// same life is still the same connection. The sum finds what somebody else wrote there.
type known struct {
	life uint32 // 0: it is in no chain
	sum  uint32 // of the keys
	hash [2]uint32
}

// is reports whether a record is what it was.
func (k *known) is(r *record, life uint32) bool {
	return k.life == life && k.hash == r.hash && k.sum == sumOf(r)
}

// sumOf is a sum of what a record is found by.
func sumOf(r *record) uint32 {
	sum := uint64(0)
	for d := range r.keys {
		for i := range r.keys[d] {
			sum = bits.RotateLeft64(sum, 7) ^ r.keys[d][i].Load()
		}
	}
	return uint32(sum ^ sum>>32)
}

// Map does the first part of Open.
func Map(f *os.File, cfg Config) (*Mapped, error) {
	h, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(fileSize(h.entries)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, mapError(err)
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // only where shmem_enabled says "advise"
	t, err := newTable(mem, h.entries, h.secret, cfg)
	if err != nil {
		return nil, err
	}
	t.touch()
	return &Mapped{table: t}, nil
}

// Open does the rest, once. The process before must have ended.
func (m *Mapped) Open(now uint32) (*Table, Report) {
	m.opening.Store(true)
	m.mu.Lock()
	defer m.mu.Unlock()
	t, seen := m.table, m.known
	m.known = nil
	return t, t.rebuild(now, seen)
}

// Close unmaps what was not opened.
func (m *Mapped) Close() error {
	m.opening.Store(true)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = nil
	return m.table.Close()
}

// Follow brings the index up to date with what the process before has done since the
// last time. It is to be called every few seconds. Now and then, while it has much to
// do, it calls rest: it must not take a processor from the one that it follows.
func (m *Mapped) Follow(rest func()) {
	const step = 1 << 12 // records: Open waits for so many at most
	for from := 0; ; from += step {
		changed, more := m.followSome(from, step)
		if !more {
			return
		}
		if changed > step/8 {
			rest()
		}
	}
}

// followSome looks at some records. No more: that was the last one, or there is no time.
func (m *Mapped) followSome(from, n int) (changed int, more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opening.Load() {
		return 0, false
	}
	if m.known == nil {
		m.known = make([]known, len(m.table.recs))
	}
	to := min(from+n, len(m.known))
	for i := from; i < to; i++ {
		k := &m.known[i]
		life := m.table.recs[i].life.Load()
		if life == k.life || k.life == 0 && life&phaseMask != phaseLive {
			continue
		}
		changed++
		m.table.forgetKnown(uint32(i), k)
		if life&phaseMask == phaseLive {
			m.table.learn(uint32(i), life, k)
		}
	}
	return changed, to < len(m.known)
}

// learn enters a live record, of a table that another process works on, into the
// chains, if it stays what it is meanwhile. If a record has the same tuple, which may
// have been freed since it was entered, it is left for the next time.
func (t *Table) learn(i, life uint32, k *known) {
	r := &t.recs[i]
	keys, sum := [2]key{r.keys[Original].load(), r.keys[Reply].load()}, sumOf(r)
	if r.life.Load() != life || keys[Original] == keys[Reply] || !keys[Original].ofIP() || !keys[Reply].ofIP() {
		return
	}
	next := known{life: life, sum: sum}
	for d := range keys {
		next.hash[d] = t.secret.hash(&keys[d])
		for l := t.heads[next.hash[d]&t.mask].Load(); l&endOfChain == 0; l = t.next[nodeOf(l)].Load() {
			if hashOf(l) == next.hash[d] {
				return // most probably the same
			}
		}
	}
	t.chainUp(i, next.hash)
	*k = next
}

// forgetKnown takes a record that is in the chains out of them. The record itself may
// be another's by now.
func (t *Table) forgetKnown(i uint32, k *known) {
	if k.life != 0 {
		t.unchain(i, k.hash)
		*k = known{}
	}
}
