// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
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
	watchRing = 1 << 16
	// watchMost bounds how often the dataplane is asked for more at once.
	watchMost = 16
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
	// ring has the latest: event n is at n % watchRing. Nil: nobody listens.
	// +checklocks:mu
	ring []watched
	// +checklocks:mu
	first uint64 // number of the oldest that is kept
	// +checklocks:mu
	next uint64 // number of the next event; the first is 1
	// +checklocks:mu
	polled time.Time
	// heard is who told the latest; another one tells only what is after it was asked.
	// +checklocks:mu
	heard *dataplane.Client
	// +checklocks:mu
	idle *time.Timer
}

// connEvents is conntrack -E, a second of it.
func (a *Agent) connEvents(ctx context.Context, q query) (*api.Page, error) {
	r, err := a.connRequest(q.namespace, q.words)
	if err != nil {
		return nil, err
	}
	p := &connPage{connRequest: r, lines: q.lines}
	p.Next = q.from
	for end := time.Now().Add(watchWait); ; pause(ctx, watchEvery) {
		if err := a.watch.poll(ctx, a.plane); err != nil {
			return nil, err
		}
		a.watch.collect(p)
		told := q.from == 0 || p.Entries > 0 || p.Lost > 0
		if told || time.Now().After(end) || errors.Is(ctx.Err(), context.Canceled) {
			return &p.Page, nil
		}
	}
}

// poll hears what is new, if that was not done a moment ago.
func (w *connWatch) poll(ctx context.Context, p *plane) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle == nil {
		w.next = max(w.next, 1)
		w.first = w.next
		w.ring = make([]watched, watchRing)
		w.idle = time.AfterFunc(watchIdle, func() { w.end(p) })
	}
	w.idle.Reset(watchIdle)
	now := time.Now()
	if now.Sub(w.polled) < watchEvery/2 {
		return nil
	}
	w.polled = now
	for range watchMost {
		var by *dataplane.Client
		e, err := asked(ctx, p, func(ctx context.Context, c *dataplane.Client) (dataplane.ConnEvents, error) {
			by = c
			return c.ConnEvents(ctx)
		})
		if err != nil {
			return err
		}
		if w.heard != nil && w.heard != by {
			w.gap(1)
		}
		w.heard = by
		w.hear(&e, now)
		if !e.More {
			break
		}
	}
	return nil
}

// hear keeps the events of an answer.
//
// +checklocks:w.mu
func (w *connWatch) hear(e *dataplane.ConnEvents, now time.Time) {
	if e.Lost > 0 {
		w.gap(min(e.Lost, 1<<32))
	}
	ring, next := w.ring, w.next
	conntrack.DecodeEvents(e.Events, func(ev *conntrack.Event) {
		ring[next%watchRing] = watched{*ev, now}
		next++
	})
	w.next = next
	if w.next-w.first > watchRing {
		w.first = w.next - watchRing
	}
}

// gap is what a listener has missed: numbers that no event has. Where nobody knows how
// many that are, it is one.
//
// +checklocks:w.mu
func (w *connWatch) gap(lost uint64) {
	w.next += lost
	w.first = w.next
}

// end stops listening.
func (w *connWatch) end(p *plane) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle, w.ring, w.heard = nil, nil, nil
	w.gap(1) // for who comes back
	_, _ = asked(context.Background(), p, func(ctx context.Context, c *dataplane.Client) (struct{}, error) {
		return struct{}{}, c.CloseConnEvents(ctx)
	})
}

// collect adds the events that the request asks for and has not got, from Next on, as
// far as there is room.
func (w *connWatch) collect(p *connPage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Next == 0 || p.Next > w.next {
		p.Next = w.next
		return
	}
	if p.Next < w.first {
		p.Lost += w.first - p.Next
		p.Next = w.first
	}
	for ; p.Next < w.next && len(p.Body) < pageBytes; p.Next++ {
		if e := &w.ring[p.Next%watchRing]; p.Kinds[e.Kind] && !p.none && p.Filter.Match(&e.Entry) {
			p.addEvent(e)
		}
	}
}

func (p *connPage) addEvent(e *watched) {
	p.Entries++
	if !p.lines {
		p.Body = appendJSON(p.Body, api.ConnectionEvent{
			Time: e.at, Kind: strings.ToLower(e.Kind.String()), Connection: p.public(&e.Entry), Line: string(e.Append(nil, p.Flags)),
		})
		return
	}
	if p.Stamped {
		p.Body = fmt.Appendf(p.Body, "[%d.%06d]\t", e.at.Unix(), e.at.Nanosecond()/1000)
	}
	p.Body = append(e.Append(p.Body, p.Flags), '\n')
}
