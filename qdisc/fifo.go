// SPDX-License-Identifier: Apache-2.0

package qdisc

import "sluice/trace"

// defaultFrames is the length of a device's queue, txqueuelen of a veth.
const defaultFrames = 1000

// fifo is pfifo, with a limit in frames, or bfifo, with one in bytes.
type fifo struct {
	node
	q       list
	limit   int64
	inBytes bool
}

func newFIFO(frames int64) *fifo { return &fifo{limit: frames} }

func newBFIFO(bytes int64) *fifo { return &fifo{limit: bytes, inBytes: true} }

func (f *fifo) enqueue(r Ref, _ int64) bool {
	if !f.room(r) {
		return f.refuse(r, trace.QdiscFull)
	}
	f.t.pool.push(&f.q, r)
	f.added(r)
	return true
}

func (f *fifo) room(r Ref) bool {
	if f.inBytes {
		return f.bytes+int64(f.t.pool.at(r).Wire) <= f.limit
	}
	return int64(f.qlen) < f.limit
}

func (f *fifo) dequeue(int64) Ref {
	r := f.t.pool.pop(&f.q)
	if r != 0 {
		f.sent(r)
	}
	return r
}

func (f *fifo) look(int64) (Ref, bool) { return f.q.head, true }

func (f *fifo) next(now int64) int64 { return now }

func (f *fifo) drain(out *list) { f.t.pool.move(&f.q, out) }

func (f *fifo) change(q *Qdisc, _ int64) error {
	p := q.FIFO
	switch {
	case p != nil && p.Limit > 0:
		f.limit = p.Limit
	case f.inBytes:
		f.limit = defaultFrames * 1514
	default:
		f.limit = defaultFrames
	}
	return nil
}

func (*fifo) xstats(*Report, int64) {}

// bands is the number of bands of pfifo_fast.
const bands = 3

// prioMapTable gives each of the 16 priorities a band: the kernel's prio2band.
var prioMapTable = [16]uint8{1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1}

// fast is pfifo_fast: three bands, each full by itself, the lower one first.
type fast struct {
	node
	q   [bands]list
	len [bands]int
}

func (f *fast) enqueue(r Ref, _ int64) bool {
	b := prioMapTable[f.t.pool.at(r).Priority&0xf]
	if f.len[b] >= defaultFrames {
		return f.refuse(r, trace.QdiscFull)
	}
	f.t.pool.push(&f.q[b], r)
	f.len[b]++
	f.added(r)
	return true
}

func (f *fast) dequeue(int64) Ref {
	for b := range f.q {
		if r := f.t.pool.pop(&f.q[b]); r != 0 {
			f.len[b]--
			f.sent(r)
			return r
		}
	}
	return 0
}

func (f *fast) look(int64) (Ref, bool) {
	for b := range f.q {
		if r := f.q[b].head; r != 0 {
			return r, true
		}
	}
	return 0, true
}

func (f *fast) next(now int64) int64 { return now }

func (f *fast) drain(out *list) {
	for b := range f.q {
		f.t.pool.move(&f.q[b], out)
		f.len[b] = 0
	}
}

func (*fast) change(*Qdisc, int64) error { return nil }

func (*fast) xstats(*Report, int64) {}
