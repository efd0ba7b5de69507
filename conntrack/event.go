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

// eventRing is how many events wait for those who listen.
const eventRing = 4096

// events is a ring that all listeners read, each from a place of its own.
type events struct {
	mu sync.Mutex
	// +checklocks:mu
	ring []Event
	// +checklocks:mu
	written uint64
}

// Watch is one listener. It may be used by one goroutine at a time.
type Watch struct {
	t    *Table
	read uint64
}

// Watch begins to listen: from now on state changes cost a lock and a copy.
func (t *Table) Watch() *Watch {
	t.events.mu.Lock()
	defer t.events.mu.Unlock()
	if t.events.ring == nil {
		t.events.ring = make([]Event, eventRing)
	}
	t.watchers.Add(1)
	return &Watch{t, t.events.written}
}

// Read copies the events since the last Read into dst, and says how many were
// lost because it came too late.
func (w *Watch) Read(dst []Event) (n int, lost uint64) {
	e := &w.t.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if behind := e.written - w.read; behind > eventRing {
		lost = behind - eventRing
		w.read += lost
	}
	for n < len(dst) && w.read < e.written {
		dst[n] = e.ring[w.read%eventRing]
		n++
		w.read++
	}
	return n, lost
}

// Close ends listening. It may be called once.
func (w *Watch) Close() { w.t.watchers.Add(-1) }

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
	t.events.mu.Lock()
	t.events.ring[t.events.written%eventRing] = Event{kind, *e}
	t.events.written++
	t.events.mu.Unlock()
}
