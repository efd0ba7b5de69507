// SPDX-License-Identifier: Apache-2.0

package bridge

// staticSet is an immutable set of the entries that the control path made. It
// stands apart from the learned table, so that an attached container's entry
// never competes with what a hostile one has made the bridge learn.
//
// A slot of it is written twice in its life: at birth, and when it leaves the
// set, by state = 0, which makes its Refs false. It is never used again.
type staticSet map[uint64]*slot

// staticState is the only state word of a static slot while it lives.
func staticState(e StaticEntry) uint64 {
	k := Static
	if e.Own {
		k = Own
	}
	return genUnit | uint64(k)<<kindShift | uint64(e.Port)
}

// find returns the slot of a key and its state; nil if it is not there, or just
// left.
func (ss staticSet) find(key uint64) (*slot, uint64) {
	s := ss[key]
	if s == nil {
		return nil, 0
	}
	state := s.state.Load()
	if state == 0 {
		return nil, 0
	}
	return s, state
}

// SetStatic replaces the set of own and static entries: those not in it are
// gone, and Refs to them false, when SetStatic returns; unchanged ones keep
// their Refs. What was learned about the same stations is forgotten. The set
// has no bound but the caller's. A later duplicate of a station replaces the
// earlier.
func (b *Bridge) SetStatic(entries []StaticEntry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.static.Load()
	next := make(staticSet, len(entries))
	for _, e := range entries {
		k := key(e.MAC, e.VLAN)
		s := old[k]
		if s == nil || s.state.Load() != staticState(e) {
			s = new(slot)
			s.state.Store(staticState(e))
		}
		next[k] = s
	}
	b.static.Store(&next)
	b.retire(old, next)
	b.newEpoch()
}

// forgetStatic removes the entries of the ports chosen from the static set.
//
// +checklocks:b.mu
func (b *Bridge) forgetStatic(chosen func(port uint16) bool) {
	old := *b.static.Load()
	next := make(staticSet, len(old))
	for k, s := range old {
		if !chosen(portOf(s.state.Load())) {
			next[k] = s
		}
	}
	b.static.Store(&next)
	b.retire(old, next)
}

// retire ends what the new static set replaces: slots of the old one, and
// learned entries of the same stations. The new set is public already, so a
// learner that waits for the lock finds it.
//
// +checklocks:b.mu
func (b *Bridge) retire(old, next staticSet) {
	for k, s := range old {
		if next[k] != s {
			s.state.Store(0)
		}
	}
	for k := range next {
		if s, state := b.table.find(k); s != nil {
			b.remove(s, portOf(state))
		}
	}
}
