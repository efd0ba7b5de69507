// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Bounds, and what they are unless a Config says otherwise.
const (
	DefaultEntries = 1 << 16
	MaxEntries     = 1 << 28
	DefaultChain   = 64 // tuples of one hash bucket; the kernel has 50 to 80
	maxPorts       = 1 << 16
)

// Config is how a table is made. Zero fields take the default.
type Config struct {
	Entries int         // of NewTable; a file has a number of its own
	Chain   int         // longest chain (DefaultChain)
	Zone    *ZoneConfig // of zones that have none of their own (Kernel)
	Quota   int         // of ports that have no limits of their own (none)

	// Confirmed and Removed are called after a connection has come or gone, by
	// whoever did it, without any lock: of one that goes at once, Removed may be the
	// first. The Entry is good during the call.
	Confirmed, Removed func(*Entry)
	// Heed says of which connections, by their Aux and Backend, these have to hear. They
	// may hear of others too. Nil: of all.
	Heed func(aux uint64, backend Bind) bool

	// Rest is called by Expire now and then, without any lock, while it has much to
	// do. Nil: it does all in one go.
	Rest func()
}

// Table tracks connections. All its methods may be called from any goroutine.
//
// Lock order: turning, mu, the lock of a record, stripes in the order of their
// numbers; but whoever holds a record's lock takes no other.
type Table struct {
	recs   []record
	mem    []byte // the mapping that recs lies in
	index  []byte // that of heads and next
	secret hashKey

	mask    uint32          // hash & mask is a bucket
	heads   []atomic.Uint64 // link to the first node of each bucket's chain
	next    []atomic.Uint64 // link from each node to the next
	stripes [numStripes]stripe
	chain   int

	zones     atomic.Pointer[[]*ZoneConfig]
	otherZone ZoneConfig
	endpoints []atomic.Uint32 // generations
	backends  []atomic.Uint32

	confirmed func(*Entry)
	removed   func(*Entry)
	heed      func(uint64, Bind) bool

	clock    atomic.Uint32 // the second of the last turn, for who has no better one
	nobody   *lost
	stats    counts
	events   events
	watchers atomic.Int32

	moved    []atomic.Uint32 // the stack of wheel.go, for each record the one below
	movedTop atomic.Uint32

	rest func()

	turning sync.Mutex  // one turn of the wheel at a time
	last    [batch]lost // of who is ended in one batch, under turning

	refusing [maxPorts / 32]atomic.Uint32 // bits of ports, see Refuses; written under mu

	mu sync.Mutex
	// +checklocks:mu
	wheel links // by second; the free records have a list too
	// +checklocks:mu
	young links // by port, those that may give way
	// +checklocks:mu
	turned uint32 // last second whose list is done
	// +checklocks:mu
	highest uint32 // records from here on were never used
	// +checklocks:mu
	numFree int
	// +checklocks:mu
	used int
	// +checklocks:mu
	unmet int // of all reserves
	// +checklocks:mu
	ports map[uint16]*portUse
	// +checklocks:mu
	byUse []*portUse // in no order
	// +checklocks:mu
	turn       int // the next one to be looked at for victims
	portLimits PortLimits
	settingUp  sync.Mutex // SetZone
}

// NewTable makes a table in private memory.
func NewTable(cfg Config) (*Table, error) {
	n := cfg.Entries
	if n == 0 {
		n = DefaultEntries
	}
	if err := checkEntries(n); err != nil {
		return nil, err
	}
	secret, err := newSecret()
	if err != nil {
		return nil, err
	}
	mem, err := private(int(fileSize(n)))
	if err != nil {
		return nil, err
	}
	return newTable(mem, n, secret, cfg)
}

// private maps memory of this process: in large pages, if there are any, since
// what is looked up by a hash is all over it.
func private(size int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, mapError(err)
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	return mem, nil
}

// newTable makes an empty table over mapped memory, which is its own from now on.
func newTable(mem []byte, n int, secret hashKey, cfg Config) (*Table, error) {
	buckets := 1 << bits.Len(uint(max(n, numStripes)*2-1)) // at least one for each tuple
	index, err := private(8 * (buckets + 2*n))
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	words := wordsOf(index, buckets+2*n)
	t := &Table{
		recs: recordsOf(mem, n), mem: mem, index: index, secret: secret,
		mask:  uint32(buckets - 1),
		heads: words[:buckets], next: words[buckets:],
		chain: cfg.Chain, otherZone: Kernel(),
		endpoints: make([]atomic.Uint32, maxPorts), backends: make([]atomic.Uint32, maxPorts),
		confirmed: cfg.Confirmed, removed: cfg.Removed, heed: cfg.Heed, rest: cfg.Rest, nobody: new(lost),
		moved: make([]atomic.Uint32, n),
		wheel: newLinks(n, slots+1), young: newLinks(n, maxPorts),
		ports: map[uint16]*portUse{}, portLimits: PortLimits{Quota: cfg.Quota},
	}
	if t.chain == 0 {
		t.chain = DefaultChain
	}
	if cfg.Zone != nil {
		t.otherZone = *cfg.Zone
	}
	for b := range t.heads {
		t.heads[b].Store(uint64(b) | endOfChain)
	}
	for s := range uint32(slots) {
		t.wheel.reset(t.slotAt(s))
	}
	t.wheel.reset(t.freeList())
	return t, nil
}

// Close unmaps the table. Nothing of it may be in use any more, nor any Conn.
func (t *Table) Close() error {
	mem, index := t.mem, t.index
	t.recs, t.heads, t.next, t.mem, t.index = nil, nil, nil, nil, nil
	if mem == nil {
		return nil
	}
	if err := errors.Join(unix.Munmap(mem), unix.Munmap(index)); err != nil {
		return mapError(err)
	}
	return nil
}

// Len is the number of connections, those included that are over and were not
// looked at yet.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.used
}

// Cap is the number of connections that there is room for.
func (t *Table) Cap() int { return len(t.recs) }

// SetZone says how connections of a zone are tracked, from the next packet on.
func (t *Table) SetZone(zone uint16, c ZoneConfig) {
	t.settingUp.Lock()
	defer t.settingUp.Unlock()
	var zones []*ZoneConfig
	if old := t.zones.Load(); old != nil {
		zones = *old
	}
	next := make([]*ZoneConfig, max(len(zones), int(zone)+1))
	copy(next, zones)
	next[zone] = &c
	t.zones.Store(&next)
}

// zone is the configuration of a zone.
func (t *Table) zone(zone uint16) *ZoneConfig {
	if zones := t.zones.Load(); zones != nil && int(zone) < len(*zones) {
		if c := (*zones)[zone]; c != nil {
			return c
		}
	}
	return &t.otherZone
}

// SetEndpoint says which generation of an endpoint there is now. Connections that
// are bound to another end at their next packet. 0: it is not known, and nothing
// ends, as it is after Open. Never: it is gone.
func (t *Table) SetEndpoint(id uint16, gen uint32) { t.endpoints[id].Store(gen) }

// SetBackend is SetEndpoint for a backend.
func (t *Table) SetBackend(id uint16, gen uint32) { t.backends[id].Store(gen) }

// Taken reports whether a connection of the zone has the tuple, in either
// direction, so that no other can.
func (t *Table) Taken(zone uint16, tu Tuple) bool {
	t.stats.searched.Add(1)
	c, _ := t.Find(zone, tu)
	if c == (Conn{}) || c.record().over(t.clock.Load()) {
		return false
	}
	t.stats.found.Add(1)
	return true
}

// Find is the connection that has the tuple, and the direction in which. The zero
// Conn if there is none.
func (t *Table) Find(zone uint16, tu Tuple) (Conn, Dir) {
	k, ok := keyOf(zone, &tu)
	if !ok {
		return Conn{}, Original
	}
	c, d, _ := t.find(&k, t.secret.hash(&k))
	return c, d
}
