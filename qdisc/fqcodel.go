// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"fmt"

	"sluice/trace"
)

// Defaults of fq_codel: RFC 8290 §5.2, and the kernel's where that has none.
const (
	fqCodelLimit  = 10240
	fqCodelFlows  = 1024
	fqCodelMemory = 32 << 20
	fqCodelBatch  = 64
	maxFlows      = 65536
)

// none ends a list of flows.
const none = -1

// subflow is one queue of fq_codel.
type subflow struct {
	control
	q       list
	bytes   int64
	deficit int64
	link    int32 // in the list of new or old flows
	queued  bool  // it is in one
}

// flowList is flows in order, by number. Empty: head is none.
type flowList struct{ head, tail int32 }

// fqCodel is fq_codel, RFC 8290: a CoDel queue for each flow, new flows first,
// deficit round robin among the others.
type fqCodel struct {
	node
	aqm
	st       codelStats
	flows    []subflow
	fresh    flowList // new_flows
	old      flowList
	current  int32 // the flow that CoDel takes from
	limit    int
	quantum  int64
	memory   int64
	maxMem   int64
	batch    int
	over     uint64
	overMem  uint64
	newFlows uint64
}

func (f *fqCodel) enqueue(r Ref, now int64) bool {
	if f.qlen == 0 {
		f.allIdle()
	}
	it := f.t.pool.at(r)
	it.at = now
	i, ok := f.named(r, len(f.flows), now)
	if !ok {
		return false
	}
	if i == none {
		i = int32(uint64(it.Hash) * uint64(len(f.flows)) >> 32)
	}
	w := &f.flows[i]
	w.bytes += int64(it.Wire)
	f.memory += int64(it.mem)
	f.t.pool.push(&w.q, r)
	f.added(r)
	if !w.queued {
		w.queued = true
		w.deficit = f.quantum
		f.newFlows++
		f.append(&f.fresh, i)
	}
	if f.qlen > f.limit || f.memory > f.maxMem {
		return f.overflow(r)
	}
	return true
}

// allIdle takes all flows out of the lists: they are empty, and new ones with their next
// packet. The kernel finds out when it asks for a packet and there is none.
func (f *fqCodel) allIdle() {
	for _, l := range []*flowList{&f.fresh, &f.old} {
		for ; l.head != none; f.shift(l) {
			f.flows[l.head].queued = false
		}
	}
}

// overflow drops from the head of the fattest flow: half of it, but no more than
// a batch. The packet that just came may be among those; then it wasn't taken.
func (f *fqCodel) overflow(r Ref) bool {
	tooMany := f.memory > f.maxMem
	fattest := 0
	for i := range f.flows {
		if f.flows[i].bytes > f.flows[fattest].bytes {
			fattest = i
		}
	}
	w := &f.flows[fattest]
	half, dropped, self := w.bytes/2, int64(0), false
	f.current = int32(fattest)
	for n := 0; n < f.batch && (n == 0 || dropped < half) && w.q.head != 0; n++ {
		x := f.pull()
		dropped += int64(f.t.pool.at(x).Wire)
		w.count++
		f.over++
		if tooMany {
			f.overMem++
		}
		if x == r {
			self = true
			f.removed(x)
			f.stats.Drops++
			f.t.drop(x, trace.QdiscFull)
			continue
		}
		f.lose(x, trace.QdiscFull)
	}
	return !self
}

func (f *fqCodel) pull() Ref {
	w := &f.flows[f.current]
	r := f.t.pool.pop(&w.q)
	if r != 0 {
		it := f.t.pool.at(r)
		w.bytes -= int64(it.Wire)
		f.memory -= int64(it.mem)
	}
	return r
}

func (f *fqCodel) backlog() int64 { return f.bytes }

func (f *fqCodel) discard(r Ref) { f.lose(r, trace.QdiscAQM) }

func (f *fqCodel) dequeue(now int64) Ref {
	for {
		l := &f.fresh
		if l.head == none {
			if l = &f.old; l.head == none {
				return 0
			}
		}
		i := l.head
		w := &f.flows[i]
		if w.deficit <= 0 {
			w.deficit += f.quantum
			f.shift(l)
			f.append(&f.old, i)
			continue
		}
		f.current = i
		r := w.release(f.t.pool, &f.aqm, f, &f.st, now)
		if r != 0 {
			w.deficit -= int64(f.t.pool.at(r).Wire)
			f.sent(r)
			return r
		}
		f.shift(l)
		if l == &f.fresh && f.old.head != none { // else a flow of single packets would always be new
			f.append(&f.old, i)
		} else {
			w.queued = false
		}
	}
}

func (f *fqCodel) append(l *flowList, i int32) {
	f.flows[i].link = none
	if l.head == none {
		l.head = i
	} else {
		f.flows[l.tail].link = i
	}
	l.tail = i
}

func (f *fqCodel) shift(l *flowList) { l.head = f.flows[l.head].link }

func (f *fqCodel) next(now int64) int64 { return now }

func (f *fqCodel) drain(out *list) {
	for _, l := range []*flowList{&f.fresh, &f.old} {
		for ; l.head != none; f.shift(l) {
			w := &f.flows[l.head]
			f.t.pool.move(&w.q, out)
			w.bytes, w.queued = 0, false
		}
	}
	f.memory = 0
}

func (f *fqCodel) change(q *Qdisc, now int64) error {
	p := q.FQCodel
	if p == nil {
		p = &FQCodel{}
	}
	if err := p.check(); err != nil {
		return err
	}
	n := either(p.Flows, fqCodelFlows)
	if f.flows != nil && n != len(f.flows) {
		return fmt.Errorf("flows: cannot be changed from %d to %d, replace the qdisc instead", len(f.flows), n)
	}
	f.limit, f.batch = either(p.Limit, fqCodelLimit), either(p.DropBatch, fqCodelBatch)
	f.quantum, f.maxMem = int64(either(p.Quantum, defaultMTU)), either(p.MemoryLimit, fqCodelMemory)
	f.ceSelector, f.ceMask = p.CESelector, p.CEMask
	if f.flows == nil {
		f.flows = make([]subflow, n)
		f.fresh.head, f.old.head = none, none
	}
	for f.qlen > f.limit || f.memory > f.maxMem && f.qlen > 0 {
		if r := f.dequeue(now); r != 0 {
			f.undo(r)
		}
	}
	return f.set(p.Target, p.Interval, p.CEThreshold, !p.NoECN)
}

// undo drops a packet that dequeue gave, as if it had not been sent.
func (f *fqCodel) undo(r Ref) {
	it := f.t.pool.at(r)
	f.stats.Bytes -= uint64(it.Wire)
	f.stats.Packets -= uint64(it.Segs)
	f.added(r)
	f.lose(r, trace.QdiscFull)
}

func (p *FQCodel) check() error {
	switch {
	case p.Flows < 0 || p.Flows > maxFlows:
		return fmt.Errorf("flows: %d, want 1 to %d", p.Flows, maxFlows)
	case p.Limit < 0 || p.DropBatch < 0 || p.MemoryLimit < 0:
		return fmt.Errorf("limit, drop_batch, memory_limit: want no negative number")
	}
	return nil
}

// either is x, or if that is zero the default.
func either[T int | int64 | uint32 | uint64](x, def T) T {
	if x == 0 {
		return def
	}
	return x
}

func (f *fqCodel) xstats(rep *Report, _ int64) {
	rep.FQCodel = &FQCodelReport{
		MaxPacket: f.st.maxPacket, DropOverlimit: f.over, NewFlowCount: f.newFlows, ECNMark: f.st.marks,
		NewFlows: f.count(f.fresh), OldFlows: f.count(f.old), CEMark: f.st.ceMarks,
		MemoryUsed: f.memory, DropOvermemory: f.overMem,
	}
}

func (f *fqCodel) count(l flowList) (n int) {
	for i := l.head; i != none; i = f.flows[i].link {
		n++
	}
	return n
}
