// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/bridge/snoop"
)

// The defaults of Options.
const (
	DefaultAgeing     = 300 * time.Second // bridge(8), 802.1D-2004 table 7-5
	DefaultMaxEntries = 4096
	DefaultMaxPerPort = 1024
)

// Options are the bounds of a Bridge. Zero is the defaults.
type Options struct {
	// Ageing is how long a station is remembered that is not heard, in whole
	// seconds, rounded up. 0 means 300 s.
	Ageing time.Duration

	// MaxEntries bounds the learned stations; 48 bytes each are taken at once.
	// 0 means 4096.
	MaxEntries int

	// MaxPerPort bounds those learned on one port, so that one container cannot
	// use up the table. 0 means 1024.
	MaxPerPort int
}

// withDefaults fills in what is zero and rounds up the ageing.
func (o Options) withDefaults() Options {
	if o.Ageing <= 0 {
		o.Ageing = DefaultAgeing
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	if o.MaxPerPort <= 0 {
		o.MaxPerPort = DefaultMaxPerPort
	}
	return o
}

// Tick is a time in whole seconds since the dataplane started. Differences are
// taken modulo 2^32.
type Tick uint32

// Bridge is one learning bridge. All methods may be called from any goroutine;
// Input, Ref's methods, FloodPorts, Local and Port take no lock unless the
// source of a frame is new or has moved.
//
// Lock order: mu, then that of the snoop.Table, which calls nothing.
type Bridge struct {
	ageing     uint32 // ticks
	maxEntries int64
	maxPerPort int64

	ports  atomic.Pointer[portSet]   // stored under mu
	static atomic.Pointer[staticSet] // stored under mu
	table  table                     // read without, changed under mu

	neighbours atomic.Pointer[neighbourSet] // nil: none
	snoop      atomic.Pointer[snoop.Table]  // nil: off; stored under mu

	mu      sync.Mutex
	entries atomic.Int64 // dynamic entries; changed under mu
	counts  counts
}

// counts are the events that Stats shows.
type counts struct {
	learned, moved, aged      atomic.Uint64
	refusedFull, refusedQuota atomic.Uint64
}

// New makes a bridge without ports and entries.
func New(o Options) *Bridge {
	o = o.withDefaults()
	b := &Bridge{
		ageing:     uint32((o.Ageing + time.Second - 1) / time.Second),
		maxEntries: int64(o.MaxEntries),
		maxPerPort: int64(o.MaxPerPort),
		table:      newTable(o.MaxEntries),
	}
	b.ports.Store(&portSet{epoch: newEpoch()})
	b.static.Store(&staticSet{})
	return b
}

// Stats is what a bridge holds and did.
type Stats struct {
	Entries      int    `json:"entries"`       // learned stations now
	MaxEntries   int    `json:"max_entries"`   // their bound
	Static       int    `json:"static"`        // own and static entries now
	Learned      uint64 `json:"learned"`       // stations learned
	Moved        uint64 `json:"moved"`         // stations that came to another port
	Aged         uint64 `json:"aged"`          // stations not heard for the ageing time
	RefusedFull  uint64 `json:"refused_full"`  // frames of stations not learned, table full
	RefusedQuota uint64 `json:"refused_quota"` // the same, port at its quota
}

// Stats reads the counters; each is exact, but they are read one by one.
func (b *Bridge) Stats() Stats {
	return Stats{
		Entries:      int(b.entries.Load()),
		MaxEntries:   int(b.maxEntries),
		Static:       len(*b.static.Load()),
		Learned:      b.counts.learned.Load(),
		Moved:        b.counts.moved.Load(),
		Aged:         b.counts.aged.Load(),
		RefusedFull:  b.counts.refusedFull.Load(),
		RefusedQuota: b.counts.refusedQuota.Load(),
	}
}

// Flush forgets what was learned on a port; port 0 means on all.
func (b *Bridge) Flush(port uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(func(_ uint64, p uint16) bool { return port == 0 || p == port })
}

// forget removes the dynamic entries that are chosen.
//
// +checklocks:b.mu
func (b *Bridge) forget(chosen func(key uint64, port uint16) bool) {
	for i := range b.table.buckets {
		for j := range b.table.buckets[i] {
			s := &b.table.buckets[i][j]
			k := s.key.Load()
			if k == 0 {
				continue
			}
			if port := portOf(s.state.Load()); chosen(k, port) {
				b.remove(s, port)
			}
		}
	}
}

// remove empties a slot that port had.
//
// +checklocks:b.mu
func (b *Bridge) remove(s *slot, port uint16) {
	s.drop()
	b.entries.Add(-1)
	if p, ok := b.ports.Load().byIndex[port]; ok {
		p.learned.Add(-1)
	}
}

// Expire forgets the stations that were not heard for the ageing time and
// returns their number. A control goroutine calls it each second. It takes the
// lock only for what it removes, so that learning never waits for the scan.
func (b *Bridge) Expire(now Tick) int {
	n := 0
	for i := range b.table.buckets {
		for j := range b.table.buckets[i] {
			s := &b.table.buckets[i][j]
			if b.expired(s, now) && b.expire(s, now) {
				n++
			}
		}
	}
	return n
}

// expired reports whether a slot has an entry past its time.
func (b *Bridge) expired(s *slot, now Tick) bool {
	return s.key.Load() != 0 && s.idle(now) >= b.ageing
}

// expire removes the slot's entry if it is past its time, asked again under the
// lock. A touch that comes between is lost, and the station relearned from its
// next frame: its Refs are false.
func (b *Bridge) expire(s *slot, now Tick) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.expired(s, now) {
		return false
	}
	b.remove(s, portOf(s.state.Load()))
	b.counts.aged.Add(1)
	return true
}

// Entries appends a snapshot of all entries to dst: static and own ones, then
// learned ones, in no order. Ages are relative to now.
func (b *Bridge) Entries(dst []Entry, now Tick) []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, s := range *b.static.Load() {
		dst = append(dst, entry(k, s.state.Load(), 0))
	}
	for i := range b.table.buckets {
		for j := range b.table.buckets[i] {
			s := &b.table.buckets[i][j]
			if k := s.key.Load(); k != 0 {
				dst = append(dst, entry(k, s.state.Load(), s.idle(now)))
			}
		}
	}
	return dst
}
