// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func logger(level slog.Level) (*slog.Logger, *eventQueue) {
	q := newEventQueue()
	return slog.New(&logHandler{queue: q, level: level}), q
}

func TestLogLineIsAnEvent(t *testing.T) {
	l, q := logger(slog.LevelInfo)
	l.Debug("not wanted")
	l.With("ns", "blue").WithGroup("port").With("index", 7).Warn("went away",
		"err", fmt.Errorf("link down"), slog.Group("mac", "own", true))
	e, ok := q.take()
	if !ok {
		t.Fatal("no event")
	}
	e.Time = time.Time{}
	want := Event{
		Kind: EventLog, Level: slog.LevelWarn, Message: "went away",
		Attrs: []string{"ns=blue", "port.index=7", "port.err=link down", "port.mac.own=true"},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if e, ok := q.take(); ok {
		t.Errorf("one event too many: %+v", e)
	}
}

func TestLogLineIsBounded(t *testing.T) {
	l, q := logger(slog.LevelInfo)
	var args []any
	for i := range 2 * maxAttrs {
		args = append(args, fmt.Sprint("key", i), strings.Repeat("x", 2*maxText))
	}
	l.Info(strings.Repeat("x", 2*maxText), args...)
	e, _ := q.take()
	if len(encode(e)) > maxInline {
		t.Errorf("event of %d bytes", len(encode(e)))
	}
}

func TestLogIsLimitedInRate(t *testing.T) {
	q := newEventQueue()
	now := time.Unix(1000, 0)
	passed := func(n int, step time.Duration) (ok int) {
		for range n {
			now = now.Add(step)
			if q.admit(now) {
				ok++
			}
		}
		return ok
	}
	if got := passed(1000, 0); got != maxQueue {
		t.Errorf("%d of a burst, want %d", got, maxQueue)
	}
	if got := passed(1000, 10*time.Millisecond); got != 10*eventsPerSecond {
		t.Errorf("%d in ten seconds, want %d", got, 10*eventsPerSecond)
	}
	q.push(Event{})
	if e, _ := q.take(); e.Lost != 2000-maxQueue-10*eventsPerSecond {
		t.Errorf("%d lost", e.Lost)
	}
}

func TestQueueKeepsTheNewest(t *testing.T) {
	q := newEventQueue()
	for i := range maxQueue + 10 {
		q.push(Event{Port: uint16(i)})
	}
	e, _ := q.take()
	if e.Port != 10 || e.Lost != 10 {
		t.Errorf("oldest event is %d, after %d lost", e.Port, e.Lost)
	}
	q.putBack(e)
	if again, _ := q.take(); again.Port != 10 || again.Lost != 10 {
		t.Errorf("put back and taken: %d, after %d lost", again.Port, again.Lost)
	}
	q.push(Event{})
	q.putBack(e) // there is no room for it any more
	if next, _ := q.take(); next.Port != 11 || next.Lost != 11 {
		t.Errorf("next event is %d, after %d lost", next.Port, next.Lost)
	}
}

// TestEventsWaitForAnAgent sends what came while nobody was there.
func TestEventsWaitForAnAgent(t *testing.T) {
	q := newEventQueue()
	q.push(Event{Kind: EventPortDown, Port: 4})
	q.sendAll(nil)
	a, b := connPair(t)
	q.sendAll(a)
	m, err := b.recv()
	var e Event
	if err == nil {
		err = decode(m.body, &e)
	}
	if err != nil || m.kind != kindEvent || e.Port != 4 {
		t.Errorf("message %d, event %+v, %v", m.kind, e, err)
	}
	// One that can't be sent waits for the next agent.
	a.close()
	q.push(Event{Kind: EventPortDown, Port: 5})
	q.sendAll(a)
	if e, ok := q.take(); !ok || e.Port != 5 {
		t.Errorf("event %+v, %v", e, ok)
	}
}
