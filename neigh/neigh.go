// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"sluice/packet"
)

// The defaults of Limits: those of Linux (ip-sysctl, neigh/default) where it has
// them.
const (
	DefaultEntries           = 1024   // gc_thresh3
	DefaultCollect           = 128    // gc_thresh1
	DefaultUnresolvedPerPort = 64     //
	DefaultLearnedPerPort    = 256    //
	DefaultAnsweredPerPort   = 512    // half of them
	DefaultQueueBytes        = 212992 // unres_qlen_bytes
	DefaultQueueBytesPerPort = 1 << 20
)

// The timers, in ticks: those of RFC 4861 §10 and of ip-sysctl.
const (
	reachableTime  = 30  // base_reachable_time; each device has its own between half of it and half as much again
	randomizeEvery = 300 // how often that is thrown anew
	delayTime      = 5   // delay_first_probe_time
	retransTime    = 1   // retrans_time
	multicastTries = 3   // mcast_solicit
	unicastTries   = 3   // ucast_solicit
	staleTime      = 60  // gc_stale_time
	freshTime      = 5   // what is younger is not forced out
	lockTime       = 1   // locktime of ARP: of several answers the first counts
)

// Tick is a time in whole seconds since the dataplane started. Differences are
// taken modulo 2^32.
type Tick uint32

// since is how many ticks passed from then to t; 0 if then is ahead, as it may be
// by another worker's clock.
func (t Tick) since(then Tick) uint32 { return uint32(max(int32(t-then), 0)) }

// reached reports whether t is at or past due.
func (t Tick) reached(due Tick) bool { return int32(t-due) >= 0 }

// Sink takes the frames that the table makes or lets go: whole Ethernet frames,
// to be sent from the device's local port. The callee copies what it keeps, and
// may call back: the table holds no lock meanwhile.
type Sink interface {
	Emit(device uint16, vnet packet.Vnet, label packet.Label, frame []byte)
}

// Limits are the bounds of a Table. Zero is the defaults.
type Limits struct {
	// Entries bounds the dynamic entries (gc_thresh3). 0 means 1024.
	Entries int

	// Collect is how many there may be before those are taken away that nobody
	// has used for a minute (gc_thresh1). 0 means 128.
	Collect int

	// UnresolvedPerPort bounds the entries that packets of one port are waiting
	// for, or that failed: a container that scans a subnet takes no more. 0 means 64.
	UnresolvedPerPort int

	// LearnedPerPort bounds the entries that exist because somebody behind a port
	// spoke first. 0 means 256.
	LearnedPerPort int

	// AnsweredPerPort bounds the entries that were wanted and are behind a port; more
	// of them are on account of who wanted them. 0 means 512.
	AnsweredPerPort int

	// QueueBytes bounds the packets that one entry holds, with queueOverhead for
	// each (unres_qlen_bytes). 0 means 212992.
	QueueBytes int

	// QueueBytesPerPort bounds those that came by one port, in all entries
	// together. 0 means 1 MiB.
	QueueBytesPerPort int
}

// withDefaults fills in what is zero.
func (l Limits) withDefaults() Limits {
	for _, x := range []struct {
		p *int
		n int
	}{
		{&l.Entries, DefaultEntries},
		{&l.Collect, DefaultCollect},
		{&l.UnresolvedPerPort, DefaultUnresolvedPerPort},
		{&l.LearnedPerPort, DefaultLearnedPerPort},
		{&l.AnsweredPerPort, DefaultAnsweredPerPort},
		{&l.QueueBytes, DefaultQueueBytes},
		{&l.QueueBytesPerPort, DefaultQueueBytesPerPort},
	} {
		if *x.p <= 0 {
			*x.p = x.n
		}
	}
	return l
}

// Table is the neighbours of one namespace. All methods may be called from any
// goroutine; Lookup, State and Ref's methods take no lock.
type Table struct {
	limits Limits
	conf   atomic.Pointer[config] // stored under mu
	index  index                  // read without, changed under mu

	mu sync.Mutex
	// +checklocks:mu
	all []*entry // dynamic entries, in no order
	// +checklocks:mu
	accounts map[uint16]*account // by ingress port
	// +checklocks:mu
	forced *Tick // when room was last made by force; nil: never
	// +checklocks:mu
	rnd *rand.Rand
	// +checklocks:mu
	spare []byte // buffer of a packet that was pushed out
	// +checklocks:mu
	stats Stats
	// +checklocks:mu
	leaving outbox // what a Commit left for the next Tick to send
	// +checklocks:mu
	lost []Failure // and to report
}

// New makes a table without devices and entries.
func New(l Limits) *Table {
	return newTable(l, rand.Uint64())
}

func newTable(l Limits, seed uint64) *Table {
	l = l.withDefaults()
	t := &Table{
		limits:   l,
		index:    newIndex(l.Entries),
		accounts: make(map[uint16]*account),
		rnd:      rand.New(rand.NewPCG(seed, 0)),
	}
	t.conf.Store(&config{})
	return t
}

// create makes an entry for a key that has none, on an account. Nil if the
// account or the table is full.
//
// +checklocks:t.mu
func (t *Table) create(k key, d debt, now Tick) *entry {
	if !t.room(d) || !t.space(now) {
		t.stats.Refused++
		return nil
	}
	e := &entry{key: k, confirmed: now, updated: now, index: len(t.all)}
	e.used.Store(uint32(now))
	t.charge(e, d)
	t.all = append(t.all, e)
	t.index.insert(e)
	t.stats.Created++
	return e
}

// remove takes an entry out for good: it is in nobody's hands after this but those
// of readers, who see that it is None. The packets that it holds must be gone.
//
// +checklocks:t.mu
func (t *Table) remove(e *entry) {
	t.revive(e)
	e.word.Store(0)
	t.index.remove(e)
	last := t.all[len(t.all)-1]
	t.all[e.index], last.index = last, e.index
	t.all[len(t.all)-1] = nil
	t.all = t.all[:len(t.all)-1]
	t.charge(e, debt{})
}

// revive notes that an entry is about to leave the state Failed.
//
// +checklocks:t.mu
func (t *Table) revive(e *entry) {
	if e.state() == Failed {
		t.died(e, -1)
	}
}
