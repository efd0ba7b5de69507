// SPDX-License-Identifier: Apache-2.0

package conntrack

import "sync"

// EventKind is what happened to a connection.
type EventKind uint8

// The kinds, as conntrack -E has them.
const (
	EventNew EventKind = iota
	EventUpdate
	EventDestroy
)

// String is the word of conntrack -E.
func (k EventKind) String() string {
	names := [...]string{"NEW", "UPDATE", "DESTROY"}
	if int(k) < len(names) {
		return names[k]
	}
	return "UNKNOWN"
}

// Event is one thing that happened, and the connection right after it.
type Event struct {
	Kind  EventKind
	Entry Entry
}

// eventRing is how many events wait for those who listen: a second of ten thousand new
// connections has some sixty thousand. They are kept as they travel, without a pointer,
// and only while somebody listens.
const eventRing = 1 << 16

// events is a ring that all listeners read, each from a place of its own.
type events struct {
	mu sync.Mutex
	// +checklocks:mu
	ring []eventBytes
	// +checklocks:mu
	written uint64
	// +checklocks:mu
	watches int
}

// Watch is one listener. It may be used by one goroutine at a time.
type Watch struct {
	t    *Table
	read uint64
}

// Watch begins to listen: from now on state changes cost a lock and a copy.
func (t *Table) Watch() *Watch {
	e := &t.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watches == 0 {
		e.ring = make([]eventBytes, eventRing)
	}
	e.watches++
	t.watchers.Add(1)
	return &Watch{t, e.written}
}

// Read appends the events since the last Read to dst, so many at most, for DecodeEvents,
// and says how many were lost because it came too late.
func (w *Watch) Read(dst []byte, most int) (_ []byte, lost uint64) {
	const step = 256 // who has an event to tell waits for so many copies at most
	for most > 0 {
		n, gone := 0, uint64(0)
		dst, n, gone = w.readSome(dst, min(most, step))
		lost, most = lost+gone, most-n
		if n < step {
			break
		}
	}
	return dst, lost
}

func (w *Watch) readSome(dst []byte, most int) (_ []byte, n int, lost uint64) {
	e := &w.t.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if behind := e.written - w.read; behind > eventRing {
		lost = behind - eventRing
		w.read += lost
	}
	for ; n < most && w.read < e.written; n++ {
		dst = append(dst, e.ring[w.read%eventRing][:]...)
		w.read++
	}
	return dst, n, lost
}

// Close ends listening. It may be called once.
func (w *Watch) Close() {
	e := &w.t.events
	e.mu.Lock()
	defer e.mu.Unlock()
	w.t.watchers.Add(-1)
	if e.watches--; e.watches == 0 {
		e.ring = nil
	}
}

// tell publishes what happened to a connection that is in the table.
func (t *Table) tell(kind EventKind, c Conn, now uint32) {
	if t.watchers.Load() == 0 {
		return
	}
	var e Entry
	if c.Entry(&e, now) {
		t.publish(kind, &e)
	}
}

func (t *Table) publish(kind EventKind, e *Entry) {
	if t.watchers.Load() == 0 {
		return
	}
	var b eventBytes
	b.encode(kind, e)
	t.events.mu.Lock()
	defer t.events.mu.Unlock()
	if t.events.ring == nil {
		return // the last listener has just gone
	}
	t.events.ring[t.events.written%eventRing] = b
	t.events.written++
}
