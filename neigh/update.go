// SPDX-License-Identifier: Apache-2.0

package neigh

import "sluice/packet"

// news is what a message says of a neighbour.
type news struct {
	mac    packet.MAC
	port   uint16 // that it came by
	hasMAC bool
	state  State // Reachable if it answers a question of ours, else Stale

	// override: the MAC may replace another. weak: if it may not, a Reachable entry
	// is no longer believed (RFC 4861 §7.2.5).
	override, weak bool

	tellsRouter, router bool // whether it is a router

	create bool // an entry is made if there is none
	locked bool // ARP: an entry that has just changed keeps its MAC, so that of several answers the first counts
	living bool // a failed entry doesn't take it: who answers too late is asked again
}

// update is what an entry makes of news: neigh_update of Linux, RFC 4861 §7.2.5.
//
// +checklocks:t.mu
func (t *Table) update(d *device, e *entry, n news, now Tick, o *outbox) {
	was, mac := e.state(), e.mac()
	if !n.hasMAC {
		if !was.Usable() {
			return // nothing to use
		}
		n.mac = mac
	}
	next, ok := judge(was, n.mac == mac, n)
	if !ok {
		return
	}
	if was.Usable() && n.mac != mac && !n.override {
		n.mac, n.tellsRouter = mac, false // only doubted
	}
	if n.tellsRouter {
		e.router = n.router
	}
	n.state = next
	t.enter(d, e, n, now)
	if !was.Usable() {
		t.resolved(e, now, o)
	}
}

// judge is the state that follows from news, if it is to be believed at all. same:
// its MAC is the one that is known.
func judge(was State, same bool, n news) (next State, ok bool) {
	switch {
	case !was.Usable():
		return n.state, true
	case !same && !n.override:
		return Stale, n.weak && was.connected()
	case same && n.state == Stale:
		return was, true
	}
	return n.state, true
}

// enter puts an entry into the state with the MAC of n, and sets its timer. What changes
// nothing leaves the time of the last change alone, so that repeated answers don't
// move the lock time of ARP.
//
// +checklocks:t.mu
func (t *Table) enter(d *device, e *entry, n news, now Tick) {
	was, next, moved := e.state(), n.state, n.mac != e.mac()
	if next == Reachable {
		e.confirmed = now
	} else if moved {
		e.confirmed = now - 2*reachableTime
	}
	if next == was && !moved {
		return
	}
	t.revive(e)
	e.become(next, n.mac, now)
	if next == Reachable && was != Reachable {
		e.due = now + Tick(d.reachable(e))
	}
	if next == Reachable || !was.Usable() && e.debt.kind == unresolved {
		t.answer(e, n.port)
	}
}

// resolved lets go of what an entry held that has got a MAC. Packets for a stale
// one are a reason to probe it, as any other packet is.
//
// +checklocks:t.mu
func (t *Table) resolved(e *entry, now Tick, o *outbox) {
	if len(e.queue.held) > 0 {
		e.use(e.word.Load(), now)
	}
	t.release(e, o)
}
