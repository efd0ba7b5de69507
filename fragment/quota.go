// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"slices"

	"sluice/packet"
	"sluice/trace"
)

// share is what one port may have when used of total are taken: no more than
// perPort, and no more than is free. So one port may fill its quota, many get
// equal parts, and a port that comes late finds room (the dynamic thresholds of
// shared switch buffers, Choudhury and Hahne 1998).
func share(perPort, total, used int) int { return min(perPort, total-used) }

// maxEvictions is how many datagrams make room for one. Two, so that a port with
// more than its share comes down to it.
const maxEvictions = 2

// enter makes the datagram of k. If its port has too many, its oldest goes; nil
// if it has none that could.
//
// +checklocks:t.mu
func (t *Table) enter(k key, deadline uint32) *datagram {
	for range maxEvictions {
		p := t.ports[k.in]
		if p == nil || p.datagrams < share(t.limits.DatagramsPerPort, t.limits.Datagrams, t.total.datagrams) {
			break
		}
		t.evict(p.oldest())
	}
	if t.total.datagrams >= t.limits.Datagrams {
		return nil
	}
	p := t.ports[k.in]
	if p == nil {
		p = new(portUse)
		t.ports[k.in] = p
	}
	d := &datagram{key: k, deadline: deadline}
	t.datagrams[k] = d
	p.passing.push(d)
	p.datagrams++
	t.total.datagrams++
	return d
}

// oldest is the datagram that a port can do without best: one that is on its
// way, or else one whose first fragment is missing. Preconditions: there is one.
func (p *portUse) oldest() *datagram {
	if p.passing.head != nil {
		return p.passing.head
	}
	return p.waiting.head
}

// hold copies f to wait for the first fragment of d. Others of the port that
// wait for theirs for longer make room. False if that doesn't suffice.
//
// +checklocks:t.mu
func (t *Table) hold(d *datagram, f *packet.Frame) bool {
	p, cost := t.ports[d.key.in], f.Len()+heldCost
	for range maxEvictions {
		old := p.waiting.head
		if t.roomToHold(p, cost) || old == nil || old == d {
			break
		}
		t.evict(old)
	}
	if !t.roomToHold(p, cost) {
		return false
	}
	if d.in != &p.waiting {
		d.in.unlink(d)
		p.waiting.push(d)
	}
	d.held = append(d.held, Held{slices.Clone(f.Bytes()), f.Vnet, f.Label})
	d.bytes += cost
	p.addHeld(1, cost)
	t.total.addHeld(1, cost)
	return true
}

// roomToHold reports whether another fragment of a cost in bytes may wait.
//
// +checklocks:t.mu
func (t *Table) roomToHold(p *portUse, cost int) bool {
	return p.held < share(t.limits.HeldPerPort, t.limits.Held, t.total.held) &&
		p.bytes+cost <= share(t.limits.BytesPerPort, t.limits.Bytes, t.total.bytes)
}

// release gives the fragments of d that waited.
//
// +checklocks:t.mu
func (t *Table) release(d *datagram) []Held {
	held, p := d.held, t.ports[d.key.in]
	p.addHeld(-len(held), -d.bytes)
	t.total.addHeld(-len(held), -d.bytes)
	d.held, d.bytes = nil, 0
	if d.in == &p.waiting {
		d.in.unlink(d)
		p.passing.push(d)
	}
	return held
}

// kill makes d a datagram of which all that comes is refused for a reason. It
// stays until its time is over.
//
// +checklocks:t.mu
func (t *Table) kill(d *datagram, why trace.Reason) {
	t.release(d)
	d.dead, d.spans = why, nil
}

// +checklocks:t.mu
func (t *Table) evict(d *datagram) {
	t.evicted++
	t.remove(d)
}

// remove forgets a datagram, and its port with its last one.
//
// +checklocks:t.mu
func (t *Table) remove(d *datagram) {
	t.release(d)
	p := t.ports[d.key.in]
	d.in.unlink(d)
	delete(t.datagrams, d.key)
	p.datagrams--
	t.total.datagrams--
	if p.datagrams == 0 {
		delete(t.ports, d.key.in)
	}
}
