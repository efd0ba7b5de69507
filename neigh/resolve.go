// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"

	"sluice/packet"
	"sluice/trace"
)

// Resolution is what became of a packet that was given to Resolve.
type Resolution struct {
	// Reason is None if the packet was taken: it is held, or was sent, since its
	// neighbour had just answered. Else it is to be dropped: NeighFull, there may
	// not be another entry; NeighQueue, its port may not hold more; NeighFailed,
	// there is no such device, or that is no neighbour's address.
	Reason trace.Reason

	// Pushed are the ports of older packets that gave way to this one, to be
	// counted as NeighQueue. Mostly nil.
	Pushed []uint16
}

// Resolve takes a copy of a packet for a neighbour that Lookup has no MAC of, and
// asks for it. When the answer comes the packet goes to sink, when none comes to
// Tick's failed. Without a frame it only asks, and not even that if the neighbour
// is usable or asked already: to see whether a next hop is back that had failed.
// A failed entry is asked anew at once, as in Linux.
func (t *Table) Resolve(dev uint16, addr netip.Addr, h Held, now Tick, sink Sink) Resolution {
	var o outbox
	r := t.resolve(dev, addr, h, now, &o)
	o.send(sink)
	return r
}

func (t *Table) resolve(dev uint16, addr netip.Addr, h Held, now Tick, o *outbox) Resolution {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.conf.Load().devices[dev]
	if d == nil || !d.mayHave(addr) {
		return Resolution{Reason: trace.NeighFailed}
	}
	e := t.find(keyOf(dev, addr))
	if e != nil && e.state().Usable() {
		t.forward(e, h, now, o)
		return Resolution{}
	}
	return t.await(d, e, keyOf(dev, addr), h, now, o)
}

// forward sends a packet whose neighbour was resolved since it was looked up.
//
// +checklocks:t.mu
func (t *Table) forward(e *entry, h Held, now Tick, o *outbox) {
	if len(h.Frame) < packet.EthernetLen {
		return
	}
	e.use(e.word.Load(), now)
	mac := e.mac()
	o.add(e.key.dev, h.Vnet, h.Label, append(mac[:], h.Frame[len(mac):]...))
}

// await holds a packet at an entry that is asked for, which may have to be made
// and may be nil, or has to be asked anew.
//
// +checklocks:t.mu
func (t *Table) await(d *device, e *entry, k key, h Held, now Tick, o *outbox) Resolution {
	if e == nil {
		e = t.create(k, debt{unresolved, h.Port}, now)
	} else if e.state() == Failed && !t.again(e, h.Port) {
		e = nil
	}
	if e == nil {
		return Resolution{Reason: trace.NeighFull}
	}
	var r Resolution
	ok := true
	if len(h.Frame) >= packet.EthernetLen {
		r.Pushed, ok = t.hold(e, h)
	}
	if !ok {
		r.Reason = trace.NeighQueue
	}
	if e.state() != Incomplete {
		t.ask(d, e, now, o)
	}
	return r
}

// again puts a failed entry that a port wants anew on its account, unless it is on
// another's already.
//
// +checklocks:t.mu
func (t *Table) again(e *entry, port uint16) bool {
	if e.debt.kind == unresolved {
		t.revive(e)
		return true
	}
	d := debt{unresolved, port}
	if !t.room(d) {
		t.stats.Refused++
		return false
	}
	t.charge(e, d)
	return true
}

// ask begins Incomplete, with the first question.
//
// +checklocks:t.mu
func (t *Table) ask(d *device, e *entry, now Tick, o *outbox) {
	e.used.Store(uint32(now))
	e.become(Incomplete, packet.MAC{}, now)
	e.probes = 0
	t.solicit(d, e, now, o)
}

// solicit asks once more, everybody or, in Probe, the neighbour itself.
//
// +checklocks:t.mu
func (t *Table) solicit(d *device, e *entry, now Tick, o *outbox) {
	e.probes++
	e.due = now + retransTime
	s := packet.Solicitation{MAC: d.MAC, Target: e.key.ip(), To: e.mac()}
	s.Source = d.source(s.Target, e.queue.newest())
	if b := packet.AppendSolicitation(nil, s); b != nil {
		o.add(d.Index, packet.Vnet{}, packet.Label{}, b)
		t.stats.Solicited++
	}
}
