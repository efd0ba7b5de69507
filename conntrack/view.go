// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"os"

	"golang.org/x/sys/unix"
)

// View is a table that another process works on, to be read. It takes no lock, asks
// nobody, and writes nothing, so that it costs who works on the table nothing but the
// memory's bandwidth. It may be used by one goroutine at a time.
//
// That process reads what strangers send, so the file is taken for hostile: any bytes
// give entries, and no read waits for a lock that nobody gives back. Nobody may shorten
// the file, which the sandbox of the dataplane forbids.
type View struct {
	recs []record
	mem  []byte
}

// viewStep is how many records one call of Entries looks at: some tens of milliseconds.
const viewStep = 1 << 20

// NewView maps a file that CreateFile made. It does not keep f.
func NewView(f *os.File) (*View, error) {
	h, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(fileSize(h.entries)), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, mapError(err)
	}
	return &View{recordsOf(mem, h.entries), mem}, nil
}

// Close unmaps the table. A second Close does nothing.
func (v *View) Close() error {
	mem := v.mem
	v.recs, v.mem = nil, nil
	if mem == nil {
		return nil
	}
	if err := unix.Munmap(mem); err != nil {
		return mapError(err)
	}
	return nil
}

// Entries calls yield, as Table.Entries, for connections from a place in the table on,
// and returns the place to go on from, which is never 0; 0: that was the end. It returns
// when yield was given one and says no, and after a number of records in any case. A
// connection that lasts has its place for all of its life, so that a list in parts has
// each once. Conn of the entries is zero.
func (v *View) Entries(f *Filter, from, now uint32, yield func(*Entry) bool) (next uint32) {
	n := uint32(len(v.recs))
	if from >= n {
		return 0
	}
	end := from + min(n-from, viewStep)
	s := f.sieve()
	var e Entry
	for i := from; i < end; i++ {
		r := &v.recs[i]
		if r.life.Load()&phaseMask != phaseLive || r.over(now) || !s.passes(r) {
			continue
		}
		if r.glance(i, &e, n, now) && f.Match(&e) && !yield(&e) {
			end = i + 1
			break
		}
	}
	if end == n {
		return 0
	}
	return end
}

// glance describes a record that others may write. Whether it is of one moment, its lock
// tells: that is a number that is odd while somebody writes, and another one afterwards.
// It is not waited for: who held it may be dead. Then counters and state may be of two
// moments; the tuples never are, which are written once, before the record is live.
func (r *record) glance(i uint32, e *Entry, n, now uint32) bool {
	const tries = 100 // a writer takes some tens of nanoseconds
	life := r.life.Load()
	for try := 0; life&phaseMask == phaseLive; try++ {
		lock := r.lock.Load()
		r.describe(i, e, n, now)
		if r.life.Load() != life {
			return false
		}
		if lock&1 == 0 && r.lock.Load() == lock || try == tries {
			return e.Original.Src.IsValid() && e.Reply.Src.IsValid()
		}
	}
	return false
}
