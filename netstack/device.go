// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/packet"
	"sluice/qdisc"
	"sluice/trace"
)

// Theory of operation.
//
// A device may have a queueing discipline, too: the gateway of a network, one end of a
// link, a socket uplink. It has what is routed to the device, whatever comes behind it.
// A packet that its router sends there, rewritten already, ends its turn in the device's
// tree. When that lets it go it begins a turn of the device's, from where it left the way
// of others: the bridge, the other end of the link, the uplink's stack.
//
//	router -- tree of the device -- due ... round --> bridge --> port, and its tree
//	                                              --> router of the other namespace
//	                                              --> uplink stack
//
// The queue belongs to the worker that has the packets of the device's host stack;
// others hand over to it as to a port's. It is served in rounds only, so that no turn is
// within another. A flow remembers that its packets go there, and what is behind the
// queue is remembered by itself.

// wait puts frame i, which has come to the end of a part of its way, into the queue of the
// device that it leaves by.
func (t *turn) wait(c *crossing, out *port, i int) {
	c.hop.queued = true
	t.keepExit(c, out)
	t.toDevice(c.in, out, i)
}

// detain is wait for frame i that the router behind device p has made or kept.
func (t *turn) detain(p *port, i int) {
	f := &t.frames[i]
	f.InPort = p.index
	if reason := inspect(f); reason != trace.None {
		drop(p, reason, 1)
		return
	}
	t.toDevice(p, p, i)
}

// toDevice puts frame i into the queue of a device. What that sends is work that the
// sender answers for, as if it had gone there at once.
func (t *turn) toDevice(in, out *port, i int) {
	f := &t.frames[i]
	if out == nil {
		drop(in, trace.PortRemoved, 1)
		return
	}
	if !t.affords(in, work(f, out)) {
		return
	}
	if out.outside != nil && in.sock != nil && !in.sock.local.take(priceAt(out, f), &t.out.clock) {
		segs, _ := f.Segments()
		drop(in, trace.LocalRate, segs)
		return
	}
	t.out.detain(out, f)
}

// detain puts a frame into the queue of a device, or hands it over to the worker whose
// that is.
func (o *output) detain(p *port, f *packet.Frame) {
	s := o.queues
	m := qdisc.MetaOf(f, s.seed)
	m.Port = p.index
	if p.worker() != o.worker {
		o.handOver(p, f, m)
		return
	}
	q := s.all[queueID(p.index, egress)]
	if q == nil {
		drop(p, trace.QdiscRemoved, int(m.Segs))
		return
	}
	q.tree.Enqueue(f, m, o.now())
	s.count(q)
	s.wheel.Set(q.id(), 0) // served in the next round, when it has a copy
}

// setOut takes on their way what the queue of a device lets go.
func (t *turn) setOut(q *queue) {
	p := t.view.port(q.port)
	t.letGo(q, func(frames []packet.Frame) { t.setOutAll(p, frames) })
}

// setOutAll is one turn of a device, with frames that were in its queue.
func (t *turn) setOutAll(p *port, frames []packet.Frame) {
	if len(frames) == 0 {
		return
	}
	t.begin(p, frames)
	for i := range frames {
		t.goOn(p, i)
	}
	t.end(p)
}

// goOn takes frame i from the queue of device p to what is behind it.
func (t *turn) goOn(p *port, i int) {
	f := &t.frames[i]
	if reason := inspect(f); reason != trace.None {
		drop(p, reason, 1)
		return
	}
	switch {
	case p.outside != nil: // the stack knows connections by the port that they come from
		t.over(&crossing{in: p}, p, i)
	case p.bridge == nil:
		f.InPort, f.Label = p.index, packet.Label{} // a mark doesn't leave its namespace
		t.framing.begin(t)
		t.over(&crossing{in: p, ration: &p.link.released}, p, i)
	default:
		f.InPort = p.index
		if d, cacheable := t.flows.find(f, t.view.gen); d != nil {
			t.replay(p, d, i)
		} else {
			t.examine(p, i, cacheable)
		}
	}
}
