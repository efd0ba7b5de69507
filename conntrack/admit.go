// SPDX-License-Identifier: Apache-2.0

package conntrack

import "fmt"

// PortLimits bounds the connections that packets of one port began.
type PortLimits struct {
	Quota   int // as many at most; 0: no quota
	Reserve int // that many are its own, whatever the others have
}

// portUse is what one port has in the table, guarded by Table.mu.
type portUse struct {
	limits PortLimits
	own    bool // limits were set for it, and are not the table's
	used   int
	young  uint32 // sentinel of its connections that may give way, the oldest first
	order  int    // its place in Table.byUse
}

// unmet is the part of the reserve that is not in use.
func (u *portUse) unmet() int { return max(u.limits.Reserve-u.used, 0) }

// excess is the part of what is in use that is not of the reserve.
func (u *portUse) excess() int { return u.used - u.limits.Reserve }

// SetPort changes the limits of a port. It is an error if the reserves of all
// ports are more than the table holds. Connections beyond a smaller quota stay.
func (t *Table) SetPort(port uint16, l PortLimits) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.use(port)
	sum := l.Reserve
	for _, other := range t.ports {
		if other != u {
			sum += other.limits.Reserve
		}
	}
	if sum > len(t.recs) {
		return fmt.Errorf("conntrack: %d entries reserved for all ports, the table has %d", sum, len(t.recs))
	}
	t.refuse(port, false)
	t.unmet -= u.unmet()
	u.limits, u.own = l, true
	t.unmet += u.unmet()
	return nil
}

// RemovePort gives up the limits of a port. Its connections stay as long as their
// timeouts, or generations, let them.
func (t *Table) RemovePort(port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u, ok := t.ports[port]; ok {
		t.refuse(port, false)
		t.unmet -= u.unmet()
		u.limits, u.own = PortLimits{Quota: t.portLimits.Quota}, false
		t.forget(port, u)
	}
}

// PortUse is the number of connections of a port.
func (t *Table) PortUse(port uint16) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u, ok := t.ports[port]; ok {
		return u.used
	}
	return 0
}

// Refuses reports whether a port has all connections of its quota, and none that may
// give way: what would begin one is dropped then, before anything is done for it, and
// counted here. It takes no lock. Confirm finds it out first, and what makes room for
// another ends it.
func (t *Table) Refuses(port uint16) bool {
	if t.refusing[port/32].Load()>>(port%32)&1 == 0 {
		return false
	}
	t.stats.drop.Add(1)
	return true
}

// refuse notes whether there is no room for a port.
//
// +checklocks:t.mu
func (t *Table) refuse(port uint16, on bool) {
	word, bit := &t.refusing[port/32], uint32(1)<<(port%32)
	old := word.Load()
	switch {
	case on && old&bit == 0:
		word.Store(old | bit)
	case !on && old&bit != 0:
		word.Store(old &^ bit)
	}
}

// use is the entry of a port, which is made with the limits of the table.
//
// +checklocks:t.mu
func (t *Table) use(port uint16) *portUse {
	if u, ok := t.ports[port]; ok {
		return u
	}
	u := &portUse{limits: PortLimits{Quota: t.portLimits.Quota}, young: t.youngOf(port), order: len(t.byUse)}
	t.young.reset(u.young)
	t.ports[port] = u
	t.byUse = append(t.byUse, u)
	return u
}

// forget drops the entry of a port that has nothing and is promised nothing.
//
// +checklocks:t.mu
func (t *Table) forget(port uint16, u *portUse) {
	if u.used > 0 || u.own {
		return
	}
	last := t.byUse[len(t.byUse)-1]
	t.byUse[u.order], last.order = last, u.order
	t.byUse = t.byUse[:len(t.byUse)-1]
	delete(t.ports, port)
}

// youngOf is the sentinel of a port's list.
func (t *Table) youngOf(port uint16) uint32 { return uint32(len(t.recs)) + uint32(port) }

// admit takes a record for a connection of a port, over at expiry, and makes room
// for it if it has to.
func (t *Table) admit(port uint16, expiry, now uint32) (uint32, Outcome) {
	t.mu.Lock()
	u := t.use(port)
	l, out := t.room(u, now)
	if out == Quota && !t.young.linked(u.young) {
		t.refuse(port, true)
	}
	var i uint32
	if out == Inserted {
		i = t.take(port, expiry)
	}
	t.mu.Unlock()
	t.mourn(l)
	return i, out
}

// room sees to it that a port may have one more, and returns who gave way.
//
// +checklocks:t.mu
func (t *Table) room(u *portUse, now uint32) (*lost, Outcome) {
	if q := u.limits.Quota; q > 0 && u.used >= q {
		if l := t.sacrifice(u, now); l != nil {
			return l, Inserted
		}
		return nil, Quota
	}
	if u.excess() >= 0 && t.used+t.unmet >= len(t.recs) {
		if l := t.makeRoom(u, now); l != nil {
			return l, Inserted
		}
		return nil, Full
	}
	return nil, Inserted
}

// makeRoom ends a connection that may give way: of the port itself or of the one
// of some others that is furthest beyond its reserve. So a port that has little
// finds room however much the others have.
//
// +checklocks:t.mu
func (t *Table) makeRoom(u *portUse, now uint32) *lost {
	const tries = 16 // of perhaps thousands: the next packet tries others
	most := u
	for range min(tries, len(t.byUse)) {
		t.turn = (t.turn + 1) % len(t.byUse)
		if v := t.byUse[t.turn]; t.young.linked(v.young) && (v.excess() > most.excess() || !t.young.linked(most.young)) {
			most = v
		}
	}
	if most.excess() <= 0 {
		return nil
	}
	return t.sacrifice(most, now)
}

// sacrifice ends the oldest connection of a port that is not assured, or is
// closing. Those on the list that have become assured leave it here.
//
// +checklocks:t.mu
func (t *Table) sacrifice(u *portUse, now uint32) *lost {
	const tries = 64
	for range tries {
		i := t.young.first(u.young)
		if i == u.young {
			return nil
		}
		t.young.remove(i)
		r := &t.recs[i]
		life := r.life.Load()
		switch {
		case life&phaseMask != phaseLive: // being filled in, or on its way out
			continue
		case !t.mayGiveWay(r) && !r.over(now):
			continue
		}
		if l := t.end(i, life, now, nil); l != nil {
			t.stats.earlyDrop.Add(1)
			return l
		}
	}
	return nil
}

// mayGiveWay reports whether a connection is half open, or nearly over.
func (t *Table) mayGiveWay(r *record) bool {
	proto := uint8(r.keys[Original][4].Load() >> 8)
	return Status(r.status.Load())&Assured == 0 || closing(proto, r.state.Load())
}

// take takes a free record for a port. There is one, since what is in use is
// less than the table holds.
//
// +checklocks:t.mu
func (t *Table) take(port uint16, expiry uint32) uint32 {
	u := t.use(port) // anew: who gave way may have been the last of this port
	var i uint32
	// Records that were never used go first only as long as few are free: a freed
	// one rests for a while, and the file's pages are touched no earlier than needed.
	const resting = 256
	if int(t.highest) < len(t.recs) && t.numFree < resting {
		i = t.highest
		t.highest++
	} else {
		i = t.wheel.first(t.freeList())
		t.wheel.remove(i)
		t.numFree--
	}
	r := &t.recs[i]
	r.life.Store(r.life.Load()&^phaseMask | phaseFresh)
	r.port = port
	r.expiry.Store(expiry)
	t.count(u, 1)
	t.wheel.reset(i)
	t.schedule(i, expiry)
	t.young.reset(i)
	t.young.push(u.young, i)
	return i
}

// count changes what a port has, and with it what is promised.
//
// +checklocks:t.mu
func (t *Table) count(u *portUse, by int) {
	t.unmet -= u.unmet()
	u.used += by
	t.unmet += u.unmet()
	t.used += by
}

// free gives back a record that nothing leads to any more.
//
// +checklocks:t.mu
func (t *Table) free(i uint32) {
	r := &t.recs[i]
	t.wheel.remove(i)
	t.young.remove(i)
	u := t.use(r.port)
	t.count(u, -1)
	t.refuse(r.port, false)
	t.forget(r.port, u)
	r.life.Store(nextUse(r.life.Load()))
	t.wheel.push(t.freeList(), i)
	t.numFree++
}

// giveBack frees a fresh record that was not linked.
func (t *Table) giveBack(i uint32) {
	t.mu.Lock()
	t.free(i)
	t.mu.Unlock()
}
