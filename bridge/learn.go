// SPDX-License-Identifier: Apache-2.0

package bridge

// learn enters a new station or moves a known one to the port that it was heard
// on. It returns the zero Ref if the station was not learned. This is the slow
// path of Input and the only writer that a packet can cause.
func (b *Bridge) learn(from *port, k uint64, now Tick) (r Ref, learned bool) {
	if b.hopeless(from, k) {
		return Ref{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// The port may have left since the frame was taken up; then what was
	// learned on it is forgotten already and must not come back.
	p, member := b.ports.Load().byIndex[from.Index]
	if !member {
		return Ref{}, false
	}
	if s, state := b.static.Load().guardian(k); s != nil && portOf(state) != from.Index {
		return Ref{}, false // it has just been set
	}
	if s, state := b.lookup(k); s != nil {
		return b.relearn(p, s, state, now)
	}
	return b.enter(p, k, now)
}

// hopeless reports, without the lock, that a new station would be refused: a
// flood of forged sources must not make the other ports' learning wait. A known
// station that moves is not hopeless, since it leaves its old port.
func (b *Bridge) hopeless(from *port, k uint64) bool {
	full := b.entries.Load() >= b.maxEntries
	over := from.learned.Load() >= b.maxPerPort
	if !full && !over {
		return false
	}
	if s, _ := b.table.find(k); s != nil {
		return false
	}
	b.refuse(over)
	return true
}

// refuse counts a station that was not learned.
func (b *Bridge) refuse(quota bool) {
	if quota {
		b.counts.refusedQuota.Add(1)
		return
	}
	b.counts.refusedFull.Add(1)
}

// enter puts a new station into the table.
//
// +checklocks:b.mu
func (b *Bridge) enter(p *port, k uint64, now Tick) (Ref, bool) {
	if p.learned.Load() >= b.maxPerPort {
		b.refuse(true)
		return Ref{}, false
	}
	s := b.table.vacant(k)
	if s == nil || b.entries.Load() >= b.maxEntries {
		b.refuse(false)
		return Ref{}, false
	}
	s.put(k, p.Index, now)
	b.entries.Add(1)
	p.learned.Add(1)
	b.counts.learned.Add(1)
	return Ref{s, s.state.Load()}, true
}

// relearn is for a station that has an entry: it moves, unless another worker
// did that first, or the control path has just made it static.
//
// +checklocks:b.mu
func (b *Bridge) relearn(p *port, s *slot, state uint64, now Tick) (Ref, bool) {
	if kindOf(state) != Dynamic {
		return Ref{}, false // the next frame takes the static entry's way
	}
	if portOf(state) == p.Index {
		s.touch(now)
		return Ref{s, state}, false
	}
	return b.move(p, s, portOf(state), now)
}

// move gives a station's entry to another port. If that one is at its quota, the
// old entry, now known to be wrong, is removed all the same: what is sent to the
// station is flooded and so still reaches it.
//
// +checklocks:b.mu
func (b *Bridge) move(p *port, s *slot, old uint16, now Tick) (Ref, bool) {
	if p.learned.Load() >= b.maxPerPort {
		b.remove(s, old)
		b.refuse(true)
		return Ref{}, false
	}
	if q, ok := b.ports.Load().byIndex[old]; ok {
		q.learned.Add(-1)
	}
	p.learned.Add(1)
	s.state.Store(s.nextState(p.Index, Dynamic))
	s.touch(now)
	b.counts.moved.Add(1)
	return Ref{s, s.state.Load()}, true
}
