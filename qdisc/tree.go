// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"math/rand/v2"

	"sluice/packet"
	"sluice/trace"
)

// Tree is the disciplines of one direction of one port, or a group's, below
// whose classes those of ports hang (see Under). It belongs to one worker: not safe for concurrent use.
type Tree struct {
	pool  *Pool
	root  discipline // nil: none
	spec  *Spec
	nodes []discipline // of the spec, in its order
	rules map[Handle][]*rule
	prng  rand.PCG

	under *node // the portal of a group, of which group and class speak; nil: none
	group *htb
	class Handle

	slack       int64
	mem, maxMem int64
	drops       [trace.NumReasons]uint64
	anyDrop     bool
}

// NewTree is a tree without a discipline: nothing can be enqueued before Apply.
// All trees of a worker have its pool. What is random comes from the seed.
func NewTree(p *Pool, seed uint64) *Tree {
	t := &Tree{pool: p, spec: &Spec{}, maxMem: DefaultMemory}
	t.prng.Seed(seed, seed)
	return t
}

// Active reports whether there is a discipline.
func (t *Tree) Active() bool { return t.root != nil }

// Len is the number of frames that wait.
func (t *Tree) Len() int {
	if t.root == nil {
		return 0
	}
	return t.root.base().qlen
}

// Backlog is the bytes that wait, as on the wire.
func (t *Tree) Backlog() int64 {
	if t.root == nil {
		return 0
	}
	return t.root.base().bytes
}

// Enqueue takes a frame, which stays the caller's until Pool.Keep; false if it was
// dropped. Time is ns of any clock that never goes back. Preconditions: Active;
// f.View was parsed without fault and f.Vnet passed CheckVnet; Len, Wire and Segs
// of m are f's.
func (t *Tree) Enqueue(f *packet.Frame, m Meta, now int64) bool {
	if t.full(m) {
		return false
	}
	return t.admit(t.pool.lend(f, m), m, now)
}

// Offer is Enqueue for a packet without bytes: for tests and for simulations.
func (t *Tree) Offer(m Meta, now int64) bool {
	if t.full(m) {
		return false
	}
	return t.admit(t.pool.make(m), m, now)
}

// full drops what would break the tree's bound, before it costs anything. The bound is
// the smaller the fuller the pool is, that of all trees: as much as is left of it, times
// some (Choudhury, Hahne 1998, dynamic thresholds). So it is never full, and who has
// little in it finds room whatever others have.
func (t *Tree) full(m Meta) bool {
	bytes, packets := t.pool.left()
	if t.mem+int64(sizeFor(int(m.Len))) <= min(t.maxMem, 2*bytes) && t.Len() <= 8*packets {
		return false
	}
	t.noRoom(m)
	return true
}

// account counts memory of packets, of the tree and of the pool.
func (t *Tree) account(bytes int64) {
	t.mem += bytes
	t.pool.mem += bytes
}

func (t *Tree) noRoom(m Meta) {
	t.root.base().stats.Drops++
	t.dropped(trace.QdiscMemory, int(m.Segs))
}

func (t *Tree) admit(r Ref, m Meta, now int64) bool {
	if r == 0 {
		t.noRoom(m)
		return false
	}
	t.charge(r)
	if t.under != nil {
		return t.pass(r, now)
	}
	return t.root.enqueue(r, now)
}

// orphan drops a packet of a tree without a discipline.
func (t *Tree) orphan(r Ref) bool {
	t.drop(r, trace.QdiscRemoved)
	return false
}

// charge counts the memory of a packet; false if that is too much.
func (t *Tree) charge(r Ref) bool {
	it := t.pool.at(r)
	it.mem = sizeFor(int(it.Len))
	t.account(int64(it.mem))
	return t.mem <= t.maxMem
}

// Dequeue gives the packet that leaves now; 0 if there is none. It is the caller's
// until Done.
func (t *Tree) Dequeue(now int64) Ref {
	for t.root != nil && (t.root.base().qlen > 0) {
		r := take(t.root, now)
		if r == 0 || !t.pool.at(r).lost {
			return r
		}
		t.drop(r, trace.QdiscMemory) // there was no memory for its bytes when it had to wait
	}
	return 0
}

// Done gives a packet back that Dequeue gave, after it was sent.
func (t *Tree) Done(r Ref) {
	t.account(-int64(t.pool.at(r).mem))
	t.pool.free(r)
}

// NextTime is when Dequeue may have a packet, after it had none; the greatest
// int64 if nothing waits.
func (t *Tree) NextTime(now int64) int64 {
	if t.root == nil {
		return never
	}
	return due(t.root, now)
}

// Take is Dequeue for a caller who goes on with the frame, as with one that just
// came in. A frame that was lent is the caller's again, and r is 0; of one that was
// kept *f shares the bytes until Done(r). It has the mark that filters gave it. False if
// there is none.
func (t *Tree) Take(now int64, f *packet.Frame) (r Ref, ok bool) {
	if r = t.Dequeue(now); r == 0 {
		return 0, false
	}
	mark := t.pool.at(r).Mark
	if t.pool.Load(r, f) {
		f.Mark = mark
		return r, true
	}
	if lent := t.pool.Frame(r); lent != nil {
		*f = *lent
	}
	f.Mark = mark
	t.Done(r)
	return 0, true
}

// Requeue is for a packet of Dequeue that could not be sent: it is the next one
// again.
func (t *Tree) Requeue(r Ref) {
	n := t.root.base()
	it := t.pool.at(r)
	n.stats.Bytes -= uint64(it.Wire)
	n.stats.Packets -= uint64(it.Segs)
	n.stats.Requeues++
	n.added(r)
	if n.ahead != 0 { // two of them: the later one is lost
		n.lose(r, trace.QdiscFull)
		return
	}
	n.ahead = r
}

// drop ends a packet.
func (t *Tree) drop(r Ref, why trace.Reason) {
	it := t.pool.at(r)
	t.dropped(why, int(it.Segs))
	t.account(-int64(it.mem))
	t.pool.free(r)
}

func (t *Tree) dropped(why trace.Reason, n int) {
	if n > 0 {
		t.drops[why] += uint64(n)
		t.anyDrop = true
	}
}

// TakeDrops adds the packets that were dropped since the last call to counts, by
// reason.
func (t *Tree) TakeDrops(counts *[trace.NumReasons]uint64) {
	if !t.anyDrop {
		return
	}
	for i, n := range t.drops {
		counts[i] += n
	}
	t.drops, t.anyDrop = [trace.NumReasons]uint64{}, false
}

// copy is a second packet like r; 0 if there is no room.
func (t *Tree) copy(r Ref) Ref {
	if t.mem+int64(t.pool.at(r).mem) > t.maxMem {
		return 0
	}
	c := t.pool.clone(r)
	if c != 0 {
		t.charge(c)
	}
	return c
}

// split cuts a super-frame; nobody has counted the memory of its segments yet.
func (t *Tree) split(r Ref) (segs list, lost int) {
	t.account(-int64(t.pool.at(r).mem))
	return t.pool.split(r)
}

func (t *Tree) random() uint64 { return t.prng.Uint64() }
