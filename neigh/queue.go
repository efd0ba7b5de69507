// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"slices"

	"sluice/packet"
)

// Held is a packet that waits for the MAC of its next hop.
type Held struct {
	Port  uint16 // the container's port that it came by; 0: the host stack
	Vnet  packet.Vnet
	Label packet.Label // what rules said of it, which its queue is to know
	Frame []byte       // whole Ethernet frame; its first 6 bytes are to become the MAC
}

// queueOverhead is what each packet counts for beside its bytes, some of what
// Linux counts (skb->truesize): packets that are small must not be many.
const queueOverhead = 768

// cost is what the packet counts for.
func (h Held) cost() int { return len(h.Frame) + queueOverhead }

// queue is the packets that one entry holds, in the order in which they came.
type queue struct {
	held   []Held
	shares []share // by ports that have some, in no order
	bytes  int     // costs
}

// share is what packets of one port take of a queue.
type share struct {
	port  uint16
	bytes int
}

// take empties the queue.
func (q *queue) take() []Held {
	held := q.held
	*q = queue{}
	return held
}

// add puts a packet at the end.
func (q *queue) add(h Held) {
	q.held = append(q.held, h)
	q.weigh(h.Port, h.cost())
}

// weigh notes n bytes more, or fewer, of a port.
func (q *queue) weigh(port uint16, n int) {
	q.bytes += n
	for i := range q.shares {
		s := &q.shares[i]
		if s.port != port {
			continue
		}
		if s.bytes += n; s.bytes == 0 {
			*s = q.shares[len(q.shares)-1]
			q.shares = q.shares[:len(q.shares)-1]
		}
		return
	}
	q.shares = append(q.shares, share{port, n})
}

// pop takes out the oldest packet of a port; false if there is none.
func (q *queue) pop(port uint16) (Held, bool) {
	i := slices.IndexFunc(q.held, func(h Held) bool { return h.Port == port })
	if i < 0 {
		return Held{}, false
	}
	h := q.held[i]
	q.held = slices.Delete(q.held, i, i+1)
	q.weigh(port, -h.cost())
	return h, true
}

// heaviest is the port whose packets take most room when one of n bytes by port is
// added, among those that have any here, port itself before its equals: a
// container that floods a next hop pushes out its own packets and not those of
// others.
func (q *queue) heaviest(port uint16, n int) uint16 {
	best, most := port, -1
	for _, s := range q.shares {
		if s.port == port {
			s.bytes += n
		}
		if s.bytes > most || s.bytes == most && s.port == port {
			best, most = s.port, s.bytes
		}
	}
	return best
}

// hold puts a copy of a packet into the queue of an entry. What gives way to it is
// named by its port in pushed. It is not taken if its port holds as much as it may
// elsewhere, or if it is larger than any queue.
//
// +checklocks:t.mu
func (t *Table) hold(e *entry, h Held) (pushed []uint16, ok bool) {
	cost := h.cost()
	if cost > t.limits.QueueBytes {
		return nil, false
	}
	for t.bytesOf(h.Port)+cost > t.limits.QueueBytesPerPort {
		if !t.push(e, h.Port) {
			return pushed, false
		}
		pushed = append(pushed, h.Port)
	}
	for e.queue.bytes+cost > t.limits.QueueBytes {
		port := e.queue.heaviest(h.Port, cost)
		t.push(e, port)
		pushed = append(pushed, port)
	}
	h.Frame = append(t.spare[:0], h.Frame...)
	t.spare = nil
	e.queue.add(h)
	t.account(h.Port).bytes += cost
	t.stats.HeldBytes += cost
	return pushed, true
}

// bytesOf is what the held packets of a port count for.
//
// +checklocks:t.mu
func (t *Table) bytesOf(port uint16) int {
	if a := t.accounts[port]; a != nil {
		return a.bytes
	}
	return 0
}

// push takes the oldest packet of a port out of a queue; false if there is none.
// Its buffer is kept for the one that is to come in: what a flood allocates is
// bounded too.
//
// +checklocks:t.mu
func (t *Table) push(e *entry, port uint16) bool {
	h, ok := e.queue.pop(port)
	if !ok {
		return false
	}
	t.uncharge(h)
	t.stats.Pushed++
	if cap(h.Frame) > cap(t.spare) {
		t.spare = h.Frame
	}
	return true
}

// uncharge notes that a packet is held no more.
//
// +checklocks:t.mu
func (t *Table) uncharge(h Held) {
	t.account(h.Port).bytes -= h.cost()
	t.stats.HeldBytes -= h.cost()
	t.settle(h.Port)
}

// drain takes all packets out of the queue of an entry.
//
// +checklocks:t.mu
func (t *Table) drain(e *entry) []Held {
	held := e.queue.take()
	for _, h := range held {
		t.uncharge(h)
	}
	return held
}

// release sends what an entry held to its MAC.
//
// +checklocks:t.mu
func (t *Table) release(e *entry, o *outbox) {
	mac := e.mac()
	for _, h := range t.drain(e) {
		copy(h.Frame, mac[:])
		o.add(e.key.dev, h.Vnet, h.Label, h.Frame)
	}
}

// outbox is the frames that one call has to send when it has let go of the lock.
type outbox []outgoing

type outgoing struct {
	dev   uint16
	vnet  packet.Vnet
	label packet.Label
	frame []byte
}

func (o *outbox) add(dev uint16, vnet packet.Vnet, label packet.Label, frame []byte) {
	*o = append(*o, outgoing{dev, vnet, label, frame})
}

// send empties the outbox.
func (o outbox) send(sink Sink) {
	for _, x := range o {
		sink.Emit(x.dev, x.vnet, x.label, x.frame)
	}
}
