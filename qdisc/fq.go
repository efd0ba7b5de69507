// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"fmt"

	"sluice/trace"
)

// Defaults of fq, as in the kernel for an MTU of 1500.
const (
	fqLimit       = 10000
	fqFlowLimit   = 100
	fqBuckets     = 1024
	fqQuantum     = 2 * defaultMTU
	fqInitial     = 10 * defaultMTU
	fqLowRate     = 550_000 / 8
	fqRefillDelay = 40_000_000
	fqHorizon     = 10 * second
	prioControl   = 7 // TC_PRIO_CONTROL
)

// paced is one flow of fq.
type paced struct {
	q      list
	qlen   int
	credit int64
	due    int64 // of the next packet
	age    int64 // when it became empty
	link   int32 // in the list of new or old flows
	pos    int32 // in the heap of those that wait; none: in a list, or idle
	queued bool  // it is in a list
}

// fq is fair queueing with pacing: deficit round robin among flows, of which each
// sends at most at maxrate. A packet of an idle flow is of a new one, and new ones
// come first. Flows that hash alike share a queue.
type fq struct {
	node
	flows     []paced
	fresh     flowList
	old       flowList
	waits     []int32 // heap by due
	urgent    list    // of priority control, before all flows
	limit     int
	flowLimit int
	quantum   int64
	initial   int64
	refill    int64
	horizon   int64
	lowRate   uint64
	rate      pace
	ce        int64
	p         FQ
	throttled uint64
	st        FQReport
}

func (f *fq) enqueue(r Ref, now int64) bool {
	if f.qlen >= f.limit {
		return f.refuse(r, trace.QdiscFull)
	}
	if f.long(r, 0, &f.rate) {
		return f.eachSegment(r, now, f.put)
	}
	return f.put(r, now)
}

func (f *fq) put(r Ref, now int64) bool {
	it := f.t.pool.at(r)
	if it.Priority&0xf == prioControl {
		f.t.pool.push(&f.urgent, r)
		f.added(r)
		return true
	}
	i := int32(uint64(it.Hash) * uint64(len(f.flows)) >> 32)
	w := &f.flows[i]
	if it.due > now+f.horizon {
		if !f.p.HorizonCap {
			f.st.HorizonDrops++
			return f.refuse(r, trace.QdiscHorizon)
		}
		it.due = now + f.horizon
		f.st.HorizonCaps++
	}
	if w.qlen >= f.flowLimit {
		f.st.FlowsPlimit++
		return f.refuse(r, trace.QdiscFull)
	}
	it.at = now
	f.t.pool.push(&w.q, r)
	w.qlen++
	f.added(r)
	if !w.queued && w.pos == none {
		f.wakeFlow(i, now)
	}
	return true
}

// wakeFlow makes an idle flow a new one. One that was idle for long has credit
// again.
func (f *fq) wakeFlow(i int32, now int64) {
	w := &f.flows[i]
	switch {
	case w.age == 0:
		w.credit = f.initial
	case now-w.age > f.refill:
		w.credit = max(w.credit, f.quantum)
	}
	w.queued = true
	f.append(&f.fresh, i)
}

func (f *fq) dequeue(now int64) Ref {
	if r := f.t.pool.pop(&f.urgent); r != 0 {
		f.sent(r)
		return r
	}
	for len(f.waits) > 0 && f.flows[f.waits[0]].due <= now {
		i := f.waits[0]
		f.unthrottle(0)
		f.flows[i].queued = true
		f.append(&f.old, i)
	}
	for {
		l := &f.fresh
		if l.head == none {
			if l = &f.old; l.head == none {
				return 0
			}
		}
		i := l.head
		w := &f.flows[i]
		if w.credit <= 0 {
			w.credit += f.quantum
			f.shift(l)
			f.append(&f.old, i)
			continue
		}
		if r := f.give(l, i, now); r != 0 {
			return r
		}
	}
}

// give takes a packet of flow i, the head of l; 0 if the flow has to wait or is
// empty, and has left l.
func (f *fq) give(l *flowList, i int32, now int64) Ref {
	w := &f.flows[i]
	r := w.q.head
	if r == 0 {
		f.shift(l)
		if l == &f.fresh && f.old.head != none {
			f.append(&f.old, i)
			return 0
		}
		w.queued, w.age = false, max(now, 1)
		return 0
	}
	it := f.t.pool.at(r)
	if at := max(it.due, w.due); at > now {
		f.shift(l)
		w.queued, w.due = false, at
		f.throttle(i)
		return 0
	}
	f.t.pool.pop(&w.q)
	w.qlen--
	f.pay(w, r, now)
	f.sent(r)
	return r
}

// pay takes credit for a packet, and says when the flow's next may leave.
func (f *fq) pay(w *paced, r Ref, now int64) {
	it := f.t.pool.at(r)
	if f.ce > 0 && now-max(it.at, it.due) > f.ce && f.t.pool.markCE(r) {
		f.st.CEMark++
	}
	w.credit -= int64(it.Wire)
	if !f.rate.on() || f.p.NoPacing {
		return
	}
	bytes := it.Wire
	if f.rate.Bytes <= f.lowRate {
		w.credit = 0
	} else if bytes = max(bytes, uint32(f.quantum)); w.credit > 0 {
		return
	}
	wait := min(ceilNS(f.rate.ticks(bytes)), second)
	if w.due > 0 { // late wakes are made good, as far as half
		wait -= min(wait/2, now-w.due)
	}
	w.due = now + wait
}

func (f *fq) next(now int64) int64 {
	if f.urgent.head != 0 {
		return now
	}
	if len(f.waits) == 0 {
		return never
	}
	return f.flows[f.waits[0]].due
}

func (f *fq) append(l *flowList, i int32) {
	f.flows[i].link = none
	if l.head == none {
		l.head = i
	} else {
		f.flows[l.tail].link = i
	}
	l.tail = i
}

func (f *fq) shift(l *flowList) { l.head = f.flows[l.head].link }

// throttle puts flow i into the heap.
func (f *fq) throttle(i int32) {
	f.throttled++
	f.waits = append(f.waits, i)
	f.rise(len(f.waits) - 1)
}

// unthrottle takes the flow at place k out of the heap.
func (f *fq) unthrottle(k int) {
	f.flows[f.waits[k]].pos = none
	last := len(f.waits) - 1
	f.waits[k] = f.waits[last]
	f.waits = f.waits[:last]
	if k < last {
		f.fall(k)
	}
}

func (f *fq) rise(k int) {
	i := f.waits[k]
	for k > 0 && f.flows[f.waits[(k-1)/2]].due > f.flows[i].due {
		f.waits[k] = f.waits[(k-1)/2]
		f.flows[f.waits[k]].pos = int32(k)
		k = (k - 1) / 2
	}
	f.waits[k], f.flows[i].pos = i, int32(k)
}

func (f *fq) fall(k int) {
	i := f.waits[k]
	for {
		c := 2*k + 1
		if c+1 < len(f.waits) && f.flows[f.waits[c+1]].due < f.flows[f.waits[c]].due {
			c++
		}
		if c >= len(f.waits) || f.flows[f.waits[c]].due >= f.flows[i].due {
			break
		}
		f.waits[k] = f.waits[c]
		f.flows[f.waits[k]].pos = int32(k)
		k = c
	}
	f.waits[k], f.flows[i].pos = i, int32(k)
}

func (f *fq) drain(out *list) {
	f.t.pool.move(&f.urgent, out)
	for i := range f.flows {
		f.t.pool.move(&f.flows[i].q, out)
		f.flows[i] = paced{pos: none}
	}
	f.fresh.head, f.old.head = none, none
	f.waits = f.waits[:0]
}

func (f *fq) change(q *Qdisc, now int64) error {
	p := q.FQ
	if p == nil {
		p = &FQ{}
	}
	n := either(p.Buckets, fqBuckets)
	if n < 1 || n > maxFlows || n&(n-1) != 0 {
		return fmt.Errorf("buckets: %d, want a power of two up to %d", n, maxFlows)
	}
	var waiting list
	if f.flows != nil && n != len(f.flows) { // another hash: sort anew
		f.drain(&waiting)
	}
	f.p = *p
	f.limit, f.flowLimit = either(p.Limit, fqLimit), either(p.FlowLimit, fqFlowLimit)
	f.quantum, f.initial = int64(either(p.Quantum, fqQuantum)), int64(either(p.InitialQuantum, fqInitial))
	f.refill, f.horizon = either(p.RefillDelay, fqRefillDelay), either(p.Horizon, fqHorizon)
	f.lowRate, f.ce = either(p.LowRate, fqLowRate), p.CEThreshold
	f.rate = pace{Rate{Bytes: p.MaxRate}}
	if len(f.flows) != n {
		f.flows = make([]paced, n)
		f.waits = make([]int32, 0, n)
		f.fresh.head, f.old.head = none, none
		for i := range f.flows {
			f.flows[i].pos = none
		}
	}
	f.again(&waiting, now)
	return nil
}

// again puts back what was drained.
func (f *fq) again(waiting *list, now int64) {
	for r := f.t.pool.pop(waiting); r != 0; {
		following := f.t.pool.pop(waiting)
		wire := int64(f.t.pool.at(r).Wire)
		f.removed(r)
		if !f.put(r, now) {
			for m := f.up; m != nil; m = m.up {
				m.qlen--
				m.bytes -= wire
			}
		}
		r = following
	}
}

func (f *fq) xstats(rep *Report, now int64) {
	st := f.st
	st.Throttled = f.throttled
	for i := range f.flows {
		w := &f.flows[i]
		switch {
		case w.pos != none:
			st.Flows++
			st.ThrottledFlows++
		case w.queued:
			st.Flows++
		case w.age > 0:
			st.Flows++
			st.InactiveFlows++
		}
	}
	if len(f.waits) > 0 {
		st.NextDelay = f.flows[f.waits[0]].due - now
	}
	rep.FQ = &st
}
