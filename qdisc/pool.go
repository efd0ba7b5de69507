// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"sluice/packet"
)

// Ref is a packet in a Pool. Zero is none.
type Ref uint32

// Meta is what disciplines know of a packet without looking into it.
type Meta struct {
	Len      uint32 // bytes of the frame as it is in memory
	Wire     uint32 // bytes of all frames on the wire that it stands for, with their headers
	Segs     uint32 // their number, at least 1
	Priority uint32 // as the kernel's skb->priority: a class's handle, or 0 to 15
	Mark     uint32 // as the kernel's skb->mark
	Hash     uint32 // of the flow
	Port     uint16 // the port that it leaves by; for the caller
	User     uint64 // for the caller
	ECN      ECN
}

// ECN is the codepoint of an IP packet, RFC 3168 §5.
type ECN uint8

// The codepoints. NotECT is also what isn't IP.
const (
	NotECT ECN = iota
	ECT1
	ECT0
	CE
)

// item is a packet in the pool.
type item struct {
	Meta
	next Ref
	at   int64 // when it was queued, ns
	due  int64 // when it may leave, ns
	mem  uint32
	lost bool // its bytes found no room when they had to be kept

	lent  uint32 // 1 + its number among the frames that the caller lent; 0: none
	buf   buffer // its bytes, if they were kept
	len   uint32
	vnet  packet.Vnet
	view  packet.View
	label packet.Label
	input uint16
}

// Limits bounds a Pool.
type Limits struct {
	Packets int // that wait at once
	Bytes   int // of their buffers; a multiple of slabLen
}

// Defaults of Limits.
const (
	DefaultPackets = 1 << 16
	DefaultBytes   = 64 << 20
)

// maxLent bounds the frames that a turn may lend.
const maxLent = 4096

// Pool holds the packets of all trees of a worker. It grows as far as its Limits
// and never shrinks. Not safe for concurrent use.
type Pool struct {
	limits  Limits
	items   []item // 0 is not used
	unused  Ref    // list
	waiting int
	mem     int64 // of the packets of all trees
	bufs    buffers
	lent    []loan
	cutter  packet.Segmenter
	source  packet.Frame // of the cutter
	scratch packet.Frame
}

// loan is a frame that still belongs to the caller.
type loan struct {
	frame *packet.Frame
	ref   Ref // 0: it has left
}

// NewPool is a pool; zero limits mean the defaults.
func NewPool(l Limits) *Pool {
	if l.Packets == 0 {
		l.Packets = DefaultPackets
	}
	if l.Bytes == 0 {
		l.Bytes = DefaultBytes
	}
	return &Pool{limits: l, items: make([]item, 1, 256), bufs: newBuffers(l.Bytes), lent: make([]loan, 0, 64)}
}

// Waiting is the number of packets in the pool.
func (p *Pool) Waiting() int { return p.waiting }

// Room reports whether another packet fits.
func (p *Pool) Room() bool { return p.waiting < p.limits.Packets }

// left is the room for bytes of buffers, and for packets.
func (p *Pool) left() (bytes int64, packets int) {
	return int64(p.limits.Bytes) - p.mem, p.limits.Packets - p.waiting
}

func (p *Pool) at(r Ref) *item { return &p.items[r] }

// make takes an item; 0 if there is none. Pointers to items are void after it.
func (p *Pool) make(m Meta) Ref {
	if p.waiting >= p.limits.Packets {
		return 0
	}
	return p.place(m)
}

// place is make without a bound.
func (p *Pool) place(m Meta) Ref {
	p.waiting++
	r := p.unused
	if r == 0 {
		p.items = append(p.items, item{Meta: m})
		return Ref(len(p.items) - 1)
	}
	p.unused = p.items[r].next
	p.items[r] = item{Meta: m}
	return r
}

// free gives the item and its bytes back.
func (p *Pool) free(r Ref) {
	it := p.at(r)
	if it.lent != 0 {
		p.lent[it.lent-1].ref = 0
	}
	if it.buf != 0 {
		p.bufs.free(it.buf)
	}
	it.buf, it.lent = 0, 0
	it.next = p.unused
	p.unused = r
	p.waiting--
}

// lend makes a packet of a frame that stays the caller's; 0 if there is no room.
func (p *Pool) lend(f *packet.Frame, m Meta) Ref {
	if len(p.lent) == maxLent {
		return 0
	}
	r := p.make(m)
	if r != 0 {
		p.lent = append(p.lent, loan{f, r})
		p.items[r].lent = uint32(len(p.lent))
	}
	return r
}

// Keep copies all frames that were lent and have not left: after it the caller
// may do with them as it likes. The end of every turn calls it.
func (p *Pool) Keep() {
	for i := range p.lent {
		if r := p.lent[i].ref; r != 0 {
			p.keep(r)
		}
	}
	clear(p.lent)
	p.lent = p.lent[:0]
}

// keep gives a packet bytes of its own. If there is no room for them the packet
// is lost: it keeps its place, and is dropped when it comes to the head.
func (p *Pool) keep(r Ref) {
	it := p.at(r)
	if it.lent == 0 {
		return
	}
	loan := &p.lent[it.lent-1]
	it.lent = 0
	it.lost = !p.store(it, loan.frame)
	loan.ref, loan.frame = 0, nil
}

// store copies f into a buffer of the item's own.
func (p *Pool) store(it *item, f *packet.Frame) bool {
	n := f.Len()
	it.buf = p.bufs.take(packet.Headroom + n)
	if it.buf == 0 {
		return false
	}
	copy(p.bufs.bytes(it.buf)[packet.Headroom:], f.Bytes())
	it.len, it.vnet, it.view, it.input, it.label = uint32(n), f.Vnet, f.View, f.InPort, f.Label
	return true
}

// Frame is the packet's frame, for reading and for sending. It is good until the
// next call of the pool's or its trees' methods. Nil for a packet without bytes.
func (p *Pool) Frame(r Ref) *packet.Frame {
	it := p.at(r)
	if it.lent != 0 {
		return p.lent[it.lent-1].frame
	}
	if it.buf == 0 {
		return nil
	}
	p.load(it, &p.scratch)
	return &p.scratch
}

// Load is Frame into a Frame of the caller's, which shares the packet's buffer.
// False if the packet has no bytes of its own.
func (p *Pool) Load(r Ref, f *packet.Frame) bool {
	it := p.at(r)
	if it.buf == 0 {
		return false
	}
	p.load(it, f)
	return true
}

func (p *Pool) load(it *item, f *packet.Frame) {
	f.SetBuf(p.bufs.bytes(it.buf))
	f.Reset(packet.Headroom, int(it.len))
	f.Vnet, f.View, f.InPort, f.Label = it.vnet, it.view, it.input, it.label
}

// bytes is the frame's bytes and what was found in them; nil if it has none.
func (p *Pool) bytes(r Ref) ([]byte, *packet.View) {
	it := p.at(r)
	if it.lent != 0 {
		f := p.lent[it.lent-1].frame
		return f.Bytes(), &f.View
	}
	if it.buf == 0 {
		return nil, nil
	}
	return p.bufs.bytes(it.buf)[packet.Headroom : packet.Headroom+it.len], &it.view
}

// Meta is what the pool knows of a packet.
func (p *Pool) Meta(r Ref) *Meta { return &p.at(r).Meta }

// clone makes a second packet of the same bytes; 0 if there is no room.
func (p *Pool) clone(r Ref) Ref {
	c := p.make(p.at(r).Meta)
	if c == 0 {
		return 0
	}
	f := p.Frame(r)
	if f != nil && !p.store(p.at(c), f) {
		p.free(c)
		return 0
	}
	return c
}

// own gives the packet bytes that may be changed. False if that can't be.
func (p *Pool) own(r Ref) bool {
	p.keep(r)
	return !p.at(r).lost
}

// markCE sets the packet's codepoint to CE, and mends the header's checksum
// (RFC 3168 §5; RFC 1624). False if the sender doesn't take part in ECN.
func (p *Pool) markCE(r Ref) bool {
	if x := p.at(r).ECN; x == NotECT || x == CE {
		return x == CE
	}
	if b, _ := p.bytes(r); b != nil {
		if !p.own(r) {
			return false
		}
		b, v := p.bytes(r)
		setCE(b, v)
	}
	p.at(r).ECN = CE
	return true
}

// list is packets in order, first in, first out. Zero is empty.
type list struct{ head, tail Ref }

func (p *Pool) push(l *list, r Ref) {
	p.at(r).next = 0
	if l.head == 0 {
		l.head = r
	} else {
		p.at(l.tail).next = r
	}
	l.tail = r
}

func (p *Pool) pushHead(l *list, r Ref) {
	p.at(r).next = l.head
	if l.head == 0 {
		l.tail = r
	}
	l.head = r
}

// popTail takes the last one, which takes as long as the list is.
func (p *Pool) popTail(l *list) Ref {
	last, before := l.head, Ref(0)
	for last != l.tail {
		before, last = last, p.at(last).next
	}
	if before == 0 {
		l.head, l.tail = 0, 0
	} else {
		p.at(before).next, l.tail = 0, before
	}
	return last
}

func (p *Pool) pop(l *list) Ref {
	r := l.head
	if r != 0 {
		l.head = p.at(r).next
	}
	return r
}
