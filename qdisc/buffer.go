// SPDX-License-Identifier: Apache-2.0

package qdisc

import "sluice/packet"

// slabLen is the size of the pieces in which a pool takes memory.
const slabLen = 1 << 20

// bufferTable is the sizes of buffers. A frame gets the smallest that holds it: a
// pure acknowledgement, a full frame of an ordinary and of a jumbo MTU, and
// super-frames. All are multiples of a cache line.
var bufferTable = [...]int{320, 1664, 4608, 9216, 17408, 34816, packet.BufLen}

// buffer is a buffer of a pool: its slab and its place there. Zero is none.
type buffer uint32

// slab is a piece of memory that is cut into buffers of one size.
type slab struct {
	mem    []byte
	size   int
	unused []uint16 // places
	used   int
	class  int
	pos    int // in open; -1 if it has no place left
}

// buffers hands out buffers. A slab whose buffers are all free can be cut anew for
// another size.
type buffers struct {
	slabs []slab // 0 is not used
	max   int
	open  [len(bufferTable)][]uint16 // slabs with a free place
	spare []uint16                   // slabs without a used one, which are in no class
}

func newBuffers(bytes int) buffers {
	return buffers{slabs: make([]slab, 1), max: max(bytes/slabLen, 1)}
}

// classOf is the smallest size that holds n bytes.
func classOf(n int) int {
	for c, size := range bufferTable {
		if n <= size {
			return c
		}
	}
	return len(bufferTable) - 1
}

// sizeFor is what a frame of n bytes costs.
func sizeFor(n int) uint32 { return uint32(bufferTable[classOf(packet.Headroom+n)]) }

// take gives a buffer of at least n bytes; 0 if there is none.
func (b *buffers) take(n int) buffer {
	c := classOf(n)
	if len(b.open[c]) == 0 && !b.grow(c) {
		return 0
	}
	id := b.open[c][len(b.open[c])-1]
	s := &b.slabs[id]
	last := len(s.unused) - 1
	place := s.unused[last]
	s.unused = s.unused[:last]
	s.used++
	if last == 0 {
		b.close(id)
	}
	return buffer(id)<<16 | buffer(place)
}

// free takes a buffer back.
func (b *buffers) free(x buffer) {
	id := uint16(x >> 16)
	s := &b.slabs[id]
	s.unused = append(s.unused, uint16(x))
	s.used--
	if s.pos < 0 {
		s.pos = len(b.open[s.class])
		b.open[s.class] = append(b.open[s.class], id)
	}
	if s.used == 0 && len(b.open[s.class]) > 1 {
		b.close(id)
		b.spare = append(b.spare, id)
	}
}

func (b *buffers) bytes(x buffer) []byte {
	s := &b.slabs[x>>16]
	at := int(x&0xffff) * s.size
	return s.mem[at : at+s.size : at+s.size]
}

// close takes a slab from the open ones of its class.
func (b *buffers) close(id uint16) {
	s := &b.slabs[id]
	open := b.open[s.class]
	last := len(open) - 1
	open[s.pos] = open[last]
	b.slabs[open[s.pos]].pos = s.pos
	b.open[s.class] = open[:last]
	s.pos = -1
}

// grow gives class c another slab: a spare one, an idle one of another class, or
// new memory.
func (b *buffers) grow(c int) bool {
	var id uint16
	switch {
	case len(b.spare) > 0:
		id = b.spare[len(b.spare)-1]
		b.spare = b.spare[:len(b.spare)-1]
	case len(b.slabs) <= b.max:
		id = uint16(len(b.slabs))
		b.slabs = append(b.slabs, slab{mem: make([]byte, slabLen), unused: make([]uint16, 0, slabLen/bufferTable[0])})
	default:
		if id = b.idle(); id == 0 {
			return false
		}
	}
	b.cut(id, c)
	return true
}

// idle takes the last slab of a class that uses none of it; 0 if there is none.
func (b *buffers) idle() uint16 {
	for c := range b.open {
		for _, id := range b.open[c] {
			if b.slabs[id].used == 0 {
				b.close(id)
				return id
			}
		}
	}
	return 0
}

// cut makes the slab one of class c.
func (b *buffers) cut(id uint16, c int) {
	s := &b.slabs[id]
	s.class, s.size, s.used = c, bufferTable[c], 0
	s.unused = s.unused[:0]
	for i := range slabLen / s.size {
		s.unused = append(s.unused, uint16(i))
	}
	s.pos = len(b.open[c])
	b.open[c] = append(b.open[c], id)
}
