// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Events leave the sandbox over the control connection. While there is no agent
// the newest wait for the next one; what comes too fast is counted and lost, so
// that a container can't flood its node's log.
const (
	// maxQueue is the number of events that wait.
	maxQueue = 256
	// eventsPerSecond is the rate of log events in the long run; a burst may
	// fill the queue.
	eventsPerSecond = 50
	// eventTimeout bounds the wait for an agent that does not read.
	eventTimeout = time.Second
	// maxText and maxAttrs bound the strings of an event.
	maxText  = 1024
	maxAttrs = 32
)

// eventReplaced tells an agent that another one took over. Client makes
// ErrReplaced of it.
const eventReplaced EventKind = "replaced"

// eventQueue holds the events that were not sent yet.
type eventQueue struct {
	wake chan struct{} // capacity 1: there is something to do

	mu sync.Mutex
	// +checklocks:mu
	queue []Event
	// lost counts those dropped since the last one that was sent.
	// +checklocks:mu
	lost uint64
	// tokens are the log events that may come now, as of refilled.
	// +checklocks:mu
	tokens float64
	// +checklocks:mu
	refilled time.Time
}

func newEventQueue() *eventQueue {
	return &eventQueue{wake: make(chan struct{}, 1), tokens: maxQueue}
}

// push queues e. The oldest one makes room if need be.
func (q *eventQueue) push(e Event) {
	q.mu.Lock()
	if len(q.queue) == maxQueue {
		q.queue = q.queue[1:]
		q.lost++
	}
	q.queue = append(q.queue, e)
	q.mu.Unlock()
	q.poke()
}

// pushLog queues a line of the log unless there were too many of late.
func (q *eventQueue) pushLog(e Event) {
	if q.admit(e.Time) {
		q.push(e)
	}
}

// admit is a token bucket on the time of the events.
func (q *eventQueue) admit(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if d := now.Sub(q.refilled); d > 0 {
		q.tokens = min(maxQueue, q.tokens+d.Seconds()*eventsPerSecond)
		q.refilled = now
	}
	if q.tokens < 1 {
		q.lost++
		return false
	}
	q.tokens--
	return true
}

// poke lets the sender look again.
func (q *eventQueue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the oldest event and marks it with what was lost before it.
func (q *eventQueue) take() (Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		return Event{}, false
	}
	e := q.queue[0]
	q.queue = q.queue[1:]
	e.Lost, q.lost = e.Lost+q.lost, 0
	return e, true
}

// putBack undoes take for an event that could not be sent.
func (q *eventQueue) putBack(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == maxQueue {
		q.lost += e.Lost + 1
		return
	}
	q.queue = append([]Event{e}, q.queue...)
}

// send sends what is queued to whatever agent there is, until done is closed.
func (q *eventQueue) send(agent func() *conn, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-q.wake:
			q.sendAll(agent())
		}
	}
}

// sendAll empties the queue into c. One that does not read is closed: its agent
// hangs, and its session must not.
func (q *eventQueue) sendAll(c *conn) {
	for c != nil {
		e, ok := q.take()
		if !ok {
			return
		}
		if sendEvent(c, e) != nil {
			q.putBack(e)
			c.close()
			return
		}
	}
}

func sendEvent(c *conn, e Event) error {
	return c.send(message{kind: kindEvent, body: encode(e)}, time.Now().Add(eventTimeout))
}

// logHandler is the slog.Handler whose records become events.
type logHandler struct {
	queue  *eventQueue
	level  slog.Level
	prefix string // of keys: the open groups
	attrs  []string
}

// Enabled says whether records of the level are wanted.
func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// Handle queues the record.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	e := Event{
		Kind: EventLog, Time: r.Time, Level: r.Level, Message: clip(r.Message),
		Attrs: append([]string(nil), h.attrs...),
	}
	r.Attrs(func(a slog.Attr) bool {
		e.Attrs = appendAttr(e.Attrs, h.prefix, a)
		return true
	})
	h.queue.pushLog(e)
	return nil
}

// WithAttrs returns a handler that adds the attributes to each record.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.attrs = append([]string(nil), h.attrs...)
	for _, a := range attrs {
		n.attrs = appendAttr(n.attrs, h.prefix, a)
	}
	return &n
}

// WithGroup returns a handler that puts the name before each key.
func (h *logHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.prefix += name + "."
	return &n
}

func appendAttr(list []string, prefix string, a slog.Attr) []string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, in := range v.Group() {
			list = appendAttr(list, prefix+a.Key+".", in)
		}
		return list
	}
	if len(list) >= maxAttrs {
		return list
	}
	return append(list, clip(prefix+a.Key+"="+v.String()))
}

// clip bounds a string of an event.
func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}
