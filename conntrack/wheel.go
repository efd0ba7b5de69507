// SPDX-License-Identifier: Apache-2.0

package conntrack

// The wheel has a list for each second of the next slots. A record hangs in the
// list of the second at which somebody has to look at it: when it is over, or at
// the end of the wheel, where it is hung up anew. A packet that gives it more
// time does not move it; one that takes much away puts it on a stack, without a
// lock, that the next turn empties.
const (
	slots = 512
	soon  = slots / 2 // timeouts below this are worth moving a record
)

// slotAt is the sentinel of a second's list, freeList that of the free records.
func (t *Table) slotAt(second uint32) uint32 { return uint32(len(t.recs)) + second%slots }
func (t *Table) freeList() uint32            { return uint32(len(t.recs)) + slots }

// schedule hangs a record up, to be looked at when it is over, but not in a turn
// that is over itself.
//
// +checklocks:t.mu
func (t *Table) schedule(i, expiry uint32) {
	t.wheel.push(t.slotAt(hangAt(expiry, t.turned)), i)
}

// hangAt is the second at which what is over at expiry is looked at, if all up to
// turned is done.
func hangAt(expiry, turned uint32) uint32 {
	return turned + uint32(min(max(int32(expiry-turned), 1), slots-1))
}

// lower is for a connection whose time has been cut: the next turn looks at it.
func (t *Table) lower(i uint32) {
	if !t.moved[i].CompareAndSwap(0, onStack) {
		return
	}
	for {
		top := t.movedTop.Load()
		t.moved[i].Store(onStack | top)
		if t.movedTop.CompareAndSwap(top, i+1) {
			return
		}
	}
}

// onStack marks a record that is on the stack, with the number of the one below
// it, plus one.
const onStack = 1 << 31

// batch is how many records are looked at while the table's lock is held.
const batch = 64

// restAfter is how many such batches it takes for a rest: less than a millisecond.
const restAfter = 16

// Expire ends the connections that are over, and returns how many. It is to be
// called about once a second, by one goroutine at a time. It looks at few records
// at a time while it holds the lock, so that no packet waits for long, and rests now
// and then, so that who forwards packets gets its processor.
func (t *Table) Expire(now uint32) int {
	t.turning.Lock()
	defer t.turning.Unlock()
	t.clock.Store(now)
	t.settle()
	n := 0
	for turns := 1; ; turns++ {
		ended, done := t.turnSome(now)
		n += ended
		if done {
			return n
		}
		if t.rest != nil && turns%restAfter == 0 {
			t.rest()
		}
	}
}

// settle empties the stack: what has less time now hangs up anew, and what is
// closing joins those that may give way.
func (t *Table) settle() {
	top := t.movedTop.Swap(0)
	for top != 0 {
		t.mu.Lock()
		for n := 0; n < batch && top != 0; n++ {
			i := top - 1
			top = t.moved[i].Load() &^ onStack
			t.moved[i].Store(0)
			t.settleOne(i)
		}
		t.mu.Unlock()
	}
}

// +checklocks:t.mu
func (t *Table) settleOne(i uint32) {
	r := &t.recs[i]
	if r.life.Load()&phaseMask != phaseLive {
		return
	}
	t.wheel.remove(i)
	t.schedule(i, r.expiry.Load())
	if !t.young.linked(i) && t.mayGiveWay(r) {
		t.young.push(t.use(r.port).young, i)
		t.refuse(r.port, false)
	}
}

// turnSome looks at some records of the second whose turn it is. done: all up to
// now have been looked at.
func (t *Table) turnSome(now uint32) (ended int, done bool) {
	var gone [batch]*lost
	t.mu.Lock()
	if int32(now-t.turned) > slots {
		t.turned = now - slots // each list once is enough
	}
	for n := 0; n < batch; {
		if int32(now-t.turned) <= 0 {
			done = true
			break
		}
		i := t.wheel.first(t.slotAt(t.turned + 1))
		if i >= uint32(len(t.recs)) {
			t.turned++
			n++
			continue
		}
		n++
		if l := t.lookAt(i, now, &t.last[ended]); l != nil {
			gone[ended] = l
			ended++
		}
	}
	t.mu.Unlock()
	for _, l := range gone[:ended] {
		t.mourn(l)
	}
	return ended, done
}

// lookAt ends a record that is over, or hangs it up anew. The list whose turn it
// is is that of turned+1, to which nothing can be added meanwhile.
//
// +checklocks:t.mu
func (t *Table) lookAt(i, now uint32, words *lost) *lost {
	r := &t.recs[i]
	life := r.life.Load()
	if life&phaseMask == phaseLive && r.over(now) {
		if l := t.end(i, life, now, words); l != nil {
			return l
		}
	}
	t.wheel.remove(i)
	t.turned++ // as it will be: the list of this second is not chosen again
	t.schedule(i, r.expiry.Load())
	t.turned--
	return nil
}

// lost is a connection that is being mourned: told to whoever wants to know.
type lost struct{ entry Entry }

// end ends a live connection under the table's lock. Nil if somebody else did. words
// are room for its last ones; nil: none yet.
//
// +checklocks:t.mu
func (t *Table) end(i, life, now uint32, words *lost) *lost {
	if !t.recs[i].die(life) {
		return nil
	}
	l := t.lastWords(i, now, words)
	t.unlink(i)
	t.free(i)
	return l
}

// lastWords describes a connection that is dying, if anybody wants to hear of it.
func (t *Table) lastWords(i, now uint32, words *lost) *lost {
	if !t.mourned(&t.recs[i]) {
		return t.nobody
	}
	l := words
	if l == nil {
		l = new(lost)
	}
	*l = lost{}
	t.recs[i].describe(i, &l.entry, uint32(len(t.recs)), now)
	l.entry.Status |= Dying
	return l
}

// mourned reports whether anybody wants to hear that a connection is gone.
func (t *Table) mourned(r *record) bool {
	return t.removed != nil && t.heeds(r.aux.Load(), r.bind(bindBackend)) || t.watchers.Load() > 0
}

// heeds reports whether who made the table has to hear of a connection.
func (t *Table) heeds(aux uint64, backend Bind) bool { return t.heed == nil || t.heed(aux, backend) }

// mourn tells of a connection that is gone. No lock is held.
func (t *Table) mourn(l *lost) {
	if l == nil {
		return
	}
	t.stats.deleted.Add(1)
	if l == t.nobody {
		return
	}
	if t.removed != nil {
		t.removed(&l.entry)
	}
	t.publish(EventDestroy, &l.entry)
}
