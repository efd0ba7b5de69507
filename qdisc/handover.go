// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"sync/atomic"

	"sluice/packet"
)

// Handover takes frames from one worker to another that owns the tree which they
// are for: a ring of copies with one producer and one consumer, without locks.
//
//	producer: Push … (wakes the consumer if that returns first)
//	consumer: for n := range Len { Frame(n) -> Tree.Enqueue }; Pool.Keep; Release(n)
type Handover struct {
	entries []handed
	frames  []packet.Frame // the consumer's
	mem     []byte
	wrote   uint64 // the producer's position in mem
	tail    atomic.Uint64
	_       [56]byte
	head    atomic.Uint64
	read    atomic.Uint64 // the consumer's position in mem
	_       [48]byte
}

// handed is a frame in the ring.
type handed struct {
	Meta
	at, end uint64 // in mem
	len     uint32
	vnet    packet.Vnet
	view    packet.View
	label   packet.Label
	input   uint16
}

// NewHandover is a ring for at most as many frames and bytes as are given; bytes
// are rounded up to what holds two frames of any length.
func NewHandover(frames, bytes int) *Handover {
	return &Handover{
		entries: make([]handed, frames), frames: make([]packet.Frame, frames),
		mem: make([]byte, max(bytes, 2*packet.BufLen)),
	}
}

// Push copies a frame into the ring; ok is false if there is no room, and the frame
// is to be dropped. first is true if the ring was empty: the consumer may sleep.
// Only the producer calls it.
func (h *Handover) Push(f *packet.Frame, m Meta) (first, ok bool) {
	tail := h.tail.Load()
	if tail-h.head.Load() == uint64(len(h.entries)) {
		return false, false
	}
	size, n := uint64(len(h.mem)), uint64(packet.Headroom+f.Len())
	at := h.wrote
	if at%size+n > size { // the end is too short
		at += size - at%size
	}
	if at+n-h.read.Load() > size {
		return false, false
	}
	b := h.mem[at%size : at%size+n]
	copy(b[packet.Headroom:], f.Bytes())
	h.entries[tail%uint64(len(h.entries))] = handed{
		Meta: m, at: at, end: at + n, len: uint32(f.Len()), vnet: f.Vnet, view: f.View, input: f.InPort, label: f.Label,
	}
	h.wrote = at + n
	h.tail.Store(tail + 1)
	return h.head.Load() == tail, true
}

// Len is the number of frames that wait. Only the consumer calls it, and what
// follows.
func (h *Handover) Len() int { return int(h.tail.Load() - h.head.Load()) }

// Frame is the i-th frame that waits; it is good until Release.
func (h *Handover) Frame(i int) (*packet.Frame, Meta) {
	k := (h.head.Load() + uint64(i)) % uint64(len(h.entries))
	e, f := &h.entries[k], &h.frames[k]
	at := e.at % uint64(len(h.mem))
	f.SetBuf(h.mem[at : at+packet.Headroom+uint64(e.len)])
	f.Reset(packet.Headroom, int(e.len))
	f.Vnet, f.View, f.InPort, f.Label = e.vnet, e.view, e.input, e.label
	return f, e.Meta
}

// Release gives the first n frames back to the producer.
func (h *Handover) Release(n int) {
	if n == 0 {
		return
	}
	head := h.head.Load() + uint64(n)
	h.read.Store(h.entries[(head-1)%uint64(len(h.entries))].end)
	h.head.Store(head)
}
