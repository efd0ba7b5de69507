// SPDX-License-Identifier: Apache-2.0

package conntrack

// Report is what Open found in a file.
type Report struct {
	Kept     int // connections that go on
	Repaired int // of them, TCP whose windows were being written: they are learned anew
	Torn     int // records that were being made or ended: dropped
	Expired  int // connections that were over: dropped
	Bad      int // records that contradict themselves or another: dropped
}

// rebuild makes chains, wheel and counts from the records. Before it the table is
// empty, and nobody else has it.
func (t *Table) rebuild(now uint32) (rep Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turned = now
	t.clock.Store(now)
	for i := range t.recs {
		r := &t.recs[i]
		if r.life.Load() != 0 { // what was ever used is below highest
			t.highest = uint32(i) + 1
		}
	}
	for i := range t.highest {
		r := &t.recs[i]
		if t.takeOver(i, r, now, &rep) {
			rep.Kept++
			continue
		}
		r.lock.Store(0)
		r.life.Store(nextUse(r.life.Load()))
		t.wheel.reset(i)
		t.young.reset(i)
		t.wheel.push(t.freeList(), i)
		t.numFree++
	}
	return rep
}

// takeOver links a record of the process before, if it is a connection.
//
// +checklocks:t.mu
func (t *Table) takeOver(i uint32, r *record, now uint32, rep *Report) bool {
	switch r.life.Load() & phaseMask {
	case phaseFree:
		return false
	case phaseFresh, phaseDying:
		rep.Torn++
		return false
	}
	switch {
	case r.over(now):
		rep.Expired++
		return false
	case !t.plausible(r):
		rep.Bad++
		return false
	case t.repair(r):
		rep.Repaired++
	}
	u := t.use(r.port)
	t.count(u, 1)
	t.schedule(i, r.expiry.Load())
	t.young.reset(i)
	if t.mayGiveWay(r) {
		t.young.push(u.young, i)
	}
	t.chainUp(i, r.hash)
	return true
}

// plausible reports whether a record's words fit together, and no other record
// has its tuples. A record that is live has been written whole, so this fails
// only if somebody else wrote into the file.
func (t *Table) plausible(r *record) bool {
	for d := range r.keys {
		k := r.keys[d].load()
		if t.secret.hash(&k) != r.hash[d] || k.family() != 4 && k.family() != 6 {
			return false
		}
		if c, _ := t.holder(&k, r.hash[d]); c != (Conn{}) {
			return false
		}
	}
	return r.keys[Original].load() != r.keys[Reply].load() &&
		r.state.Load() < max(numTCPStates, numSCTPStates) && r.track.last <= classNone && r.track.lastDir <= Reply
}

// repair frees the lock of a record whose writer was killed, and reports whether
// the windows had to be given up: what half of a segment has changed is learned
// anew from the next ones, as of a connection whose beginning was missed.
func (t *Table) repair(r *record) bool {
	if r.lock.Load()&1 == 0 {
		return false
	}
	r.lock.Store(0)
	if proto, _ := t.judged(r, Original); proto == 6 {
		last := r.track.last
		r.track = track{last: last, lastDir: r.track.lastDir}
		for d := range r.track.peer {
			r.track.peer[d].flags = liberal | sackPermitted
		}
		return true
	}
	return false
}
