// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"sluice/api"
	"sluice/conntrack"
	"sluice/dataplane"
)

// Times and sizes of listening to events of connections.
const (
	watchEvery = 200 * time.Millisecond
	// watchWait is how long a request waits for the first event.
	watchWait = time.Second
	// watchIdle is when nobody listens any more: listening costs the dataplane a lock
	// for each event.
	watchIdle = 5 * time.Second
	watchRing = 8192
)

// watched is an event and when it was heard of.
type watched struct {
	conntrack.Event
	at time.Time
}

// connWatch is what was heard last, for any number of listeners. It works only while
// somebody asks. Its zero value is ready.
type connWatch struct {
	mu sync.Mutex
	// +checklocks:mu
	ring []watched // the latest, in order
	// +checklocks:mu
	next uint64 // number of the next event; the first is 1
	// +checklocks:mu
	polled time.Time
	// +checklocks:mu
	idle *time.Timer
}

// connEvents is conntrack -E, a second of it.
func (a *Agent) connEvents(ctx context.Context, q query) (*api.ConnectionEvents, error) {
	r, err := a.connRequest(q.namespace, q.words)
	if err != nil {
		return nil, err
	}
	out := &api.ConnectionEvents{Next: q.after, Events: []api.ConnectionEvent{}}
	for end := time.Now().Add(watchWait); ; pause(ctx, watchEvery) {
		if err := a.watch.poll(ctx, a.plane); err != nil {
			return nil, err
		}
		a.watch.collect(r, out)
		told := q.after == 0 || len(out.Events) > 0 || out.Lost > 0
		if told || time.Now().After(end) || errors.Is(ctx.Err(), context.Canceled) {
			return out, nil
		}
	}
}

// poll hears what is new, if that was not done a moment ago.
func (w *connWatch) poll(ctx context.Context, p *plane) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle == nil {
		w.next = max(w.next, 1)
		w.idle = time.AfterFunc(watchIdle, func() { w.end(p) })
	}
	w.idle.Reset(watchIdle)
	now := time.Now()
	if now.Sub(w.polled) < watchEvery/2 {
		return nil
	}
	w.polled = now
	e, err := asked(ctx, p, func(ctx context.Context, c *dataplane.Client) (dataplane.ConnEvents, error) { return c.ConnEvents(ctx) })
	if err != nil {
		return err
	}
	w.hear(&e, now)
	return nil
}

// hear keeps the events of an answer.
//
// +checklocks:w.mu
func (w *connWatch) hear(e *dataplane.ConnEvents, now time.Time) {
	if e.Lost > 0 { // a gap in the numbers is what a listener has missed
		w.ring = nil
		w.next += min(e.Lost, 1<<32)
	}
	for i := range e.Events {
		if e.Events[i].Kind <= conntrack.EventDestroy && tellable(&e.Events[i].Entry) {
			w.ring = append(w.ring, watched{e.Events[i], now})
			w.next++
		}
	}
	if n := len(w.ring) - watchRing; n > 0 {
		w.ring = append([]watched(nil), w.ring[n:]...)
	}
}

// end stops listening.
func (w *connWatch) end(p *plane) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle, w.ring = nil, nil
	_, _ = asked(context.Background(), p, func(ctx context.Context, c *dataplane.Client) (struct{}, error) {
		return struct{}{}, c.CloseConnEvents(ctx)
	})
}

// collect adds the events that the request asks for and has not got.
func (w *connWatch) collect(r *connRequest, out *api.ConnectionEvents) {
	w.mu.Lock()
	defer w.mu.Unlock()
	after := out.Next
	out.Next = w.next
	if after == 0 || after > w.next {
		return
	}
	first := w.next - uint64(len(w.ring))
	if after < first {
		out.Lost += first - after
	}
	for i := range w.ring {
		e := &w.ring[i]
		if first+uint64(i) < after || !r.Kinds[e.Kind] || r.none || !r.Filter.Match(&e.Entry) {
			continue
		}
		out.Events = append(out.Events, api.ConnectionEvent{
			Time: e.at, Kind: strings.ToLower(e.Kind.String()), Connection: r.public(&e.Entry), Line: string(e.Append(nil, r.Flags)),
		})
	}
}
