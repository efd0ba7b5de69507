// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"

	"sluice/packet"
	"sluice/trace"
)

// Entry is one line of the table, as `ip -s neigh` shows it.
type Entry struct {
	Device    uint16     `json:"device"`
	Addr      netip.Addr `json:"addr"`
	MAC       packet.MAC `json:"mac,omitzero"` // zero unless it is usable
	State     State      `json:"state"`
	Router    bool       `json:"router,omitempty"`
	Used      uint32     `json:"used"`      // seconds since the last packet; 0 for permanent ones, as the next two
	Confirmed uint32     `json:"confirmed"` // seconds since it was known to be there
	Updated   uint32     `json:"updated"`   // seconds since state or MAC changed
	Probes    uint8      `json:"probes,omitempty"`
	Held      int        `json:"held,omitempty"` // packets that wait for it
}

// Entries appends a snapshot of all entries to dst: permanent ones, then dynamic
// ones, in no order.
func (t *Table) Entries(dst []Entry, now Tick) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, e := range t.conf.Load().static {
		dst = append(dst, Entry{Device: k.dev, Addr: k.ip(), MAC: e.mac(), State: Permanent, Router: e.router})
	}
	for _, e := range t.all {
		dst = append(dst, e.show(now))
	}
	return dst
}

// show is the line of a dynamic entry.
//
// Preconditions: Table.mu is held.
func (e *entry) show(now Tick) Entry {
	w := e.word.Load()
	x := Entry{
		Device: e.key.dev, Addr: e.key.ip(), MAC: macOf(w), State: stateOf(w), Router: e.router,
		Used: now.since(Tick(e.used.Load())), Confirmed: now.since(e.confirmed), Updated: now.since(e.updated),
		Held: len(e.queue.held),
	}
	switch x.State {
	case Delay:
		x.Updated = now.since(Tick(e.suspected.Load()))
	case Incomplete, Probe, Failed:
		x.Probes = e.probes
	case None, Reachable, Stale, Permanent, numStates:
	}
	return x
}

// Flush forgets dynamic entries: those of a device, 0 meaning all, and an address,
// the zero Addr meaning all. What they held is reported by the next Tick. It
// returns their number.
func (t *Table) Flush(dev uint16, addr netip.Addr) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for i := len(t.all) - 1; i >= 0; i-- { //nolint:modernize // see collect
		e := t.all[i]
		if dev != 0 && dev != e.key.dev || addr.IsValid() && keyOf(e.key.dev, addr) != e.key {
			continue
		}
		t.lose(e, trace.NeighFailed)
		t.remove(e)
		n++
	}
	return n
}

// RemovePort forgets the entries that are on account of an ingress port that leaves:
// its index may come back with another container behind it, who owes nothing and
// whom nobody knows yet. What they held is reported by the next Tick.
func (t *Table) RemovePort(port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := len(t.all) - 1; i >= 0; i-- { //nolint:modernize // see collect
		e := t.all[i]
		if e.debt.kind != settled && e.debt.port == port {
			t.lose(e, trace.PortRemoved)
			t.remove(e)
		}
	}
}

// Stats is what a table holds and did, in the words of `ip -s ntable` where it has
// them.
type Stats struct {
	Entries    int    `json:"entries"`     // dynamic entries now
	MaxEntries int    `json:"max_entries"` // their bound
	Static     int    `json:"static"`      // permanent entries now
	HeldBytes  int    `json:"held_bytes"`  // of held packets now, with their overhead
	Created    uint64 `json:"created"`     // dynamic entries made (allocs)
	Refused    uint64 `json:"refused"`     // not made: table or port's share full (table_fulls)
	Forced     uint64 `json:"forced"`      // taken away because the table was full
	Failed     uint64 `json:"failed"`      // did not answer (res_failed)
	Pushed     uint64 `json:"pushed"`      // held packets that gave way to newer ones (unres_discards)
	Solicited  uint64 `json:"solicited"`   // questions sent
}

// Stats reads the counters.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Entries, s.MaxEntries, s.Static = len(t.all), t.limits.Entries, len(t.conf.Load().static)
	return s
}
