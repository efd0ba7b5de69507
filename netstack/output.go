// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"

	"sluice/bridge"
	"sluice/neigh"
	"sluice/packet"
	"sluice/router"
	"sluice/trace"
	"sluice/veth"
)

// Theory of operation.
//
// What a turn sends is collected per output port and leaves at the turn's end,
// one sendmmsg for each port. A record is a frame number and the next record of
// the same port, so a frame that is flooded costs four bytes for each port and
// no copy. Records are bounded; when they are used up, everything is sent early.
//
// Ports of different VLANs want different tags of the same frame. They get the same
// buffer all the same: the beginning that a port wants is made apart from it, and
// the kernel puts both together (sendmmsg with two pieces for a message).
//
//	lists     port 3: head 1, tail 4          records   1: frame 0, next 2
//	touched   [3, 7]                                    2: frame 1, next 4
//	                                                    3: frame 1, next 0  (port 7)
//	                                                    4: frame 2, next 0

// maxRecords bounds the frames that wait for the end of a turn: 64 frames to 64
// ports each. Record 0 is not used, it is the end of a list.
const maxRecords = 4096

// cutFrames is the number of buffers for the segments of frames to ports without
// offload; when they are used up they are sent.
const cutFrames = 32

// record is one frame on one port's list.
type record struct {
	frame uint16 // its number, and tagged
	next  uint16 // 0: the last
}

// tagged marks a record whose frame leaves with another tag: output.tags has what
// is done to it.
const tagged = 1 << 15

// departure is a port by which a frame leaves, and how.
type departure struct {
	port *port
	tag  bridge.Tag
}

// list is what waits for one port. Zero is empty.
type list struct{ head, tail uint16 }

// wire is a frame's length as counters want it.
type wire struct {
	packets, bytes uint64
	gso            bool
}

// output sorts the frames of a turn by port and sends them.
type output struct {
	records []record
	tags    []bridge.Tag // of the records that say so
	used    int          // records in use, record 0 included
	lists   []list       // by port index
	touched []uint16

	tx     *veth.Sender
	sizes  [budget]wire                 // of the frames that tx holds
	heads  [budget][packet.HeadLen]byte // their beginnings, where these are others
	result veth.SendResult

	cut    *veth.Batch // buffers for segments
	cutN   int         // buffers of cut that tx refers to
	cutter packet.Segmenter
	share  []departure // of the segments of one flooded frame

	queues *queues // nil until a port has some
	worker *worker

	from   *port      // where the frames of the turn came from
	reply  []byte     // of autoconfiguration
	handed int        // frames given to host stacks since their last turn
	tick   neigh.Tick // of the round
	clock  clock
	asked  router.Packet // what a router is asked about just now
	outlet outlet        // of that router
}

// sink is where a router's frames go, on account of a port.
func (o *output) sink(s *space, from uint16) *outlet {
	o.outlet = outlet{space: s, from: from}
	return &o.outlet
}

func (o *output) open() (err error) {
	o.records, o.tags = make([]record, maxRecords), make([]bridge.Tag, maxRecords)
	o.used = 1
	if o.tx, err = veth.NewSender(budget); err != nil {
		return fmt.Errorf("send list: %w", err)
	}
	if o.cut, err = veth.NewBatch(cutFrames); err != nil {
		return fmt.Errorf("segment buffers: %w", err)
	}
	return nil
}

// fit makes room for port indices below n. It allocates only when the view has
// a higher port than any before.
func (o *output) fit(n int) {
	if n > len(o.lists) {
		o.lists = make([]list, n)
		o.touched = make([]uint16, 0, n)
		o.share = make([]departure, 0, n)
	}
}

func (o *output) full() bool { return o.used == len(o.records) }

// add appends frame i to the list of a port. Preconditions: not full.
func (o *output) add(index uint16, i int) {
	r := uint16(o.used)
	o.records[r] = record{frame: uint16(i)}
	o.used++
	l := &o.lists[index]
	if l.head == 0 {
		l.head = r
		o.touched = append(o.touched, index)
	} else {
		o.records[l.tail].next = r
	}
	l.tail = r
}

// addAs is add for a frame that leaves with another tag.
func (o *output) addAs(index uint16, i int, tag bridge.Tag) {
	o.add(index, i)
	if tag.Op != bridge.TagKeep {
		o.records[o.used-1].frame |= tagged
		o.tags[o.used-1] = tag
	}
}

// frame is what record r stands for.
func (o *output) frame(r uint16, frames []packet.Frame) (*packet.Frame, bridge.Tag) {
	n := o.records[r].frame
	if n&tagged == 0 {
		return &frames[n], bridge.Tag{}
	}
	return &frames[n&^tagged], o.tags[r]
}

// flush sends everything and leaves the lists empty.
func (o *output) flush(v *view, frames []packet.Frame) {
	for _, index := range o.touched {
		p, r := v.ports[index], o.lists[index].head
		o.lists[index] = list{}
		switch {
		case p.link != nil:
			o.toHost(p, frames, r)
		case p.queues[egress] != nil && o.queues != nil:
			o.toQueue(v, p, frames, r)
		default:
			o.toPort(p, frames, r)
		}
	}
	o.touched = o.touched[:0]
	o.used = 1
	if o.queues != nil {
		o.queues.pool.Keep() // the frames' buffers are about to be used again
	}
}

// toPort sends the list that begins at record r to a container.
func (o *output) toPort(p *port, frames []packet.Frame, r uint16) {
	for ; r != 0; r = o.records[r].next {
		f, tag := o.frame(r, frames)
		o.depart(p, f, tag)
	}
	o.push(p)
}

// depart puts a frame on the send list, as the port wants it.
func (o *output) depart(p *port, f *packet.Frame, tag bridge.Tag) {
	switch {
	case !p.offload && (f.Vnet.IsGSO() || f.Vnet.NeedsCsum()):
		o.segment(p, f, tag)
	case tag.Op != bridge.TagKeep:
		o.appendAs(p, f, tag)
	default:
		o.append(p, f)
	}
}

// append puts a frame on the send list, which is sent first if it is full.
func (o *output) append(p *port, f *packet.Frame) {
	if o.tx.Len() == budget {
		o.push(p)
	}
	o.sizes[o.tx.Len()] = sizeOf(f)
	o.tx.Append(f)
}

// appendAs is append for a frame that leaves with another tag. That the tag fits,
// the bridge has seen; a frame that it does not fit would be a defect, and is lost.
func (o *output) appendAs(p *port, f *packet.Frame, tag bridge.Tag) {
	if tag.Op == bridge.TagKeep {
		o.append(p, f)
		return
	}
	if o.tx.Len() == budget {
		o.push(p)
	}
	k := o.tx.Len()
	n, skip, ok := f.Head(&o.heads[k], tag.Op != bridge.TagPush, tag.TPID, tag.TCI)
	if !ok {
		drop(p, trace.VLANEgress, 1)
		return
	}
	o.sizes[k] = sizeOf(f)
	longer := n - packet.VnetLen - skip
	o.sizes[k].bytes += o.sizes[k].packets * uint64(longer)
	o.tx.AppendWith(o.heads[k][:n], f, skip)
}

func sizeOf(f *packet.Frame) wire {
	n, bytes := f.Segments()
	return wire{packets: uint64(n), bytes: uint64(bytes), gso: f.Vnet.IsGSO()}
}

// segment sends a frame to a port that takes neither segmentation offload nor
// partial checksums. A sum is completed in place: the other ports that get the
// same buffer can only be glad of it.
func (o *output) segment(p *port, f *packet.Frame, tag bridge.Tag) {
	if !f.Vnet.IsGSO() && packet.CompleteChecksum(f) {
		o.appendAs(p, f, tag)
		return
	}
	if !o.cutter.Init(f) {
		drop(p, trace.NotSegmentable, 1)
		return
	}
	for {
		if o.cutN == len(o.cut.Frames) || o.tx.Len() == budget {
			o.push(p)
		}
		s := &o.cut.Frames[o.cutN]
		if !o.cutter.Next(s) {
			return
		}
		o.cutN++
		o.appendAs(p, s, tag)
	}
}

// scatter sends the segments of a flooded frame to each port of share, and leaves
// that empty. Preconditions: the send list is empty.
func (o *output) scatter(f *packet.Frame) {
	if !o.cutter.Init(f) {
		for _, d := range o.share {
			drop(d.port, trace.NotSegmentable, 1)
		}
	}
	for n := o.cutSome(); n > 0; n = o.cutSome() {
		for _, d := range o.share {
			for i := range n {
				o.appendAs(d.port, &o.cut.Frames[i], d.tag)
			}
			o.push(d.port)
		}
	}
	o.share = o.share[:0]
}

// cutSome fills the buffers for segments with those that come next, and returns
// their number; 0 if there are no more.
func (o *output) cutSome() (n int) {
	for n < len(o.cut.Frames) && o.cutter.Next(&o.cut.Frames[n]) {
		n++
	}
	return n
}

// push sends the send list by one system call and counts what became of it.
func (o *output) push(p *port) {
	if o.tx.Len() == 0 {
		return
	}
	o.tx.Flush(p.sock.fd, &o.result)
	o.cutN = 0
	// If frames were lost, the first ones are taken as those that were sent:
	// exact unless the kernel refused one in the middle.
	o.count(p, o.sizes[:o.result.Sent])
	p.counters.Add(trace.TxCalls, 1)
	if o.result.Lost == 0 {
		return
	}
	for r, n := range o.result.Dropped {
		drop(p, trace.Reason(r), int(n))
	}
}

// count adds sent frames to a port's counters.
func (o *output) count(p *port, sent []wire) {
	var sum wire
	gso := uint64(0)
	for i := range sent {
		sum.packets += sent[i].packets
		sum.bytes += sent[i].bytes
		if sent[i].gso {
			gso++
		}
	}
	p.counters.AddTx(sum.packets, sum.bytes)
	p.counters.Add(trace.TxGSO, gso)
}

// toHost hands the list that begins at record r to the host stack behind a local
// port.
func (o *output) toHost(p *port, frames []packet.Frame, r uint16) {
	var sum tally
	for ; r != 0; r = o.records[r].next {
		f, tag := o.frame(r, frames)
		o.handed++
		switch {
		case o.from.sock != nil && !o.from.sock.local.take(priceAt(p, f), &o.clock):
			n, _ := f.Segments()
			drop(o.from, trace.LocalRate, n)
		case p.outside != nil:
			o.toOutside(p, f, tag, o.records[r].next, frames, &sum)
		case f.Vnet.GSOType == packet.GSOUDPL4:
			o.datagrams(p, f, tag, &sum)
		default:
			o.hand(p, f, tag, &sum)
		}
	}
	p.counters.AddTx(sum.packets, sum.bytes)
	p.counters.Add(trace.TxGSO, sum.gso)
}

// toOutside hands a frame to the stack of a socket uplink; next is the record behind it.
func (o *output) toOutside(p *port, f *packet.Frame, tag bridge.Tag, next uint16, frames []packet.Frame, sum *tally) {
	if next != 0 {
		if later, _ := o.frame(next, frames); outdone(f, later) {
			sum.frame(f)
			return
		}
	}
	p.link.approach(&o.worker.mail)
	o.hand(p, f, tag, sum)
	if p.link.proxy.Owes() {
		o.worker.debt.take(p.link.proxy)
	}
}

// hand gives a frame to those at local port p who have a use for it: the neighbour
// table, autoconfiguration, and the host stack.
func (o *output) hand(p *port, f *packet.Frame, tag bridge.Tag, sum *tally) {
	// What came by another network's router says nothing of this one, nor does what is
	// in a VLAN.
	if o.from.local == p && wants(&f.View, tag) {
		if heard(&f.View) {
			p.space.router.Hear(p.index, f, o.tick, o.sink(p.space, o.from.index))
		}
		if o.configures(p, f) || p.learn != nil && o.learns(p, f) {
			return
		}
	}
	p.link.hand(o.from, p, f, tag, sum)
}

// datagrams hands a train of UDP datagrams to a host stack one by one: gVisor
// would take it for a single one. The buffers for segments are free: toPort has
// sent what it had there.
func (o *output) datagrams(p *port, f *packet.Frame, tag bridge.Tag, sum *tally) {
	if !o.cutter.Init(f) {
		drop(p, trace.NotSegmentable, 1)
		return
	}
	for s := &o.cut.Frames[0]; o.cutter.Next(s); o.handed++ {
		p.link.hand(o.from, p, s, tag, sum)
	}
}
