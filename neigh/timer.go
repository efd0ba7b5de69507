// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"
	"slices"

	"sluice/packet"
	"sluice/trace"
)

// Failure is packets that go nowhere.
type Failure struct {
	Device uint16
	Addr   netip.Addr
	// Reason is NeighFailed if the neighbour did not answer: their senders are to
	// be told (RFC 1122 §3.3.1.1, RFC 4861 §7.2.2). PortRemoved if the device left.
	Reason trace.Reason
	// Held are the packets in the order in which they came. They are the callee's.
	// None if the neighbour answered once and now does no more.
	Held []Held
}

// Tick does what time does: entries change their state, questions are repeated,
// packets are given up, what nobody needs is taken away. One goroutine calls it
// each second. What neighbours did not answer to goes to failed, which is called
// without the lock.
func (t *Table) Tick(now Tick, sink Sink, failed func(Failure)) {
	o, lost := t.tick(now)
	o.send(sink)
	for _, f := range lost {
		failed(f)
	}
}

func (t *Table) tick(now Tick) (outbox, []Failure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.leaving
	t.leaving = nil
	c := t.conf.Load()
	for _, d := range c.devices {
		t.throw(d.clock, now)
	}
	for _, e := range t.all {
		if d := c.devices[e.key.dev]; d != nil {
			t.advance(d, e, now, &o)
		}
	}
	t.collect(now)
	lost := t.lost
	t.lost = nil
	return o, lost
}

// throw sets a device's reachable times now and then to something between half and
// one and a half of the base.
//
// +checklocks:t.mu
func (t *Table) throw(c *clock, now Tick) {
	if c.running && now.since(c.thrown) < randomizeEvery {
		return
	}
	c.reachable4 = reachableTime/2 + t.rnd.Uint32N(reachableTime+1)
	c.reachable6 = reachableTime/2 + t.rnd.Uint32N(reachableTime+1)
	c.thrown, c.running = now, true
}

// advance is neigh_timer_handler of Linux.
//
// +checklocks:t.mu
func (t *Table) advance(d *device, e *entry, now Tick, o *outbox) {
	switch w := e.word.Load(); stateOf(w) {
	case Reachable:
		if now.reached(e.due) {
			t.doubt(d, e, now)
		}
	case Delay:
		if now.reached(Tick(e.suspected.Load()) + delayTime) {
			e.become(Probe, macOf(w), now)
			e.probes = 0
			t.solicit(d, e, now, o)
		}
	case Incomplete:
		t.repeat(d, e, multicastTries, now, o)
	case Probe:
		t.repeat(d, e, unicastTries, now, o)
	case None, Stale, Failed, Permanent, numStates:
	}
}

// doubt ends Reachable, unless the neighbour has given a sign of life since the
// timer was set. One that is in use is to be probed soon.
//
// +checklocks:t.mu
func (t *Table) doubt(d *device, e *entry, now Tick) {
	e.due = e.confirmed + Tick(d.reachable(e))
	if !now.reached(e.due) {
		return
	}
	next := Stale
	if now.since(Tick(e.used.Load())) <= delayTime {
		next = Delay
	}
	e.become(next, e.mac(), now)
}

// repeat asks again, or gives up after so many times.
//
// +checklocks:t.mu
func (t *Table) repeat(d *device, e *entry, tries uint8, now Tick, o *outbox) {
	switch {
	case !now.reached(e.due):
	case e.probes < tries:
		t.solicit(d, e, now, o)
	default:
		t.fail(e, now)
	}
}

// fail gives an entry up.
//
// +checklocks:t.mu
func (t *Table) fail(e *entry, now Tick) {
	e.become(Failed, packet.MAC{}, now)
	t.died(e, 1)
	t.stats.Failed++
	t.lose(e, trace.NeighFailed)
}

// lose gives up what an entry holds.
//
// +checklocks:t.mu
func (t *Table) lose(e *entry, why trace.Reason) {
	if held := t.drain(e); len(held) > 0 {
		t.lost = append(t.lost, Failure{e.key.dev, e.key.ip(), why, held})
	}
}

// collect takes away what nobody has used for long, if there is much, and what
// failed: soon if there is much.
//
// +checklocks:t.mu
func (t *Table) collect(now Tick) {
	many := len(t.all) >= t.limits.Collect
	// Backwards, since remove puts the last one, seen already, in the place of
	// another; without an iterator, which the analysis of locks can't follow.
	for i := len(t.all) - 1; i >= 0; i-- { //nolint:modernize // see above
		e := t.all[i]
		switch e.state() {
		case Failed:
			age := now.since(e.updated)
			if age >= staleTime || many && age >= freshTime {
				t.remove(e)
			}
		case Stale:
			if many && now.since(e.lastUse()) >= staleTime {
				t.remove(e)
			}
		case None, Incomplete, Reachable, Delay, Probe, Permanent, numStates:
		}
	}
}

// space makes sure that there may be one more entry. If the table is full, an
// eighth of it has to go: what failed or was neither used nor changed for some
// seconds, the longest unused first. It looks for them once a tick, so that a full
// table costs no more than an empty one.
//
// +checklocks:t.mu
func (t *Table) space(now Tick) bool {
	if len(t.all) < t.limits.Entries {
		return true
	}
	if t.forced != nil && *t.forced == now {
		return false
	}
	t.forced = &now
	idle := t.idle(now)
	for _, e := range idle[:min(len(idle), max(1, t.limits.Entries/8))] {
		t.remove(e)
		t.stats.Forced++
	}
	return len(t.all) < t.limits.Entries
}

// idle is the entries that may be forced out, in that order.
//
// +checklocks:t.mu
func (t *Table) idle(now Tick) []*entry {
	var idle []*entry
	for _, e := range t.all {
		s := e.state()
		if s == Failed || s != Incomplete && now.since(e.lastUse()) >= freshTime && now.since(e.updated) >= freshTime {
			idle = append(idle, e)
		}
	}
	slices.SortFunc(idle, func(x, y *entry) int {
		return int(now.since(y.lastUse())) - int(now.since(x.lastUse()))
	})
	return idle
}
