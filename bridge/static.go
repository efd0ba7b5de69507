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

// guardian returns the untagged entry of a station that is tagged; nil if there is
// none. Whoever has a MAC has it in every VLAN: there is no other port that a
// frame of it may come from, but for an entry of its own in that VLAN.
func (ss staticSet) guardian(key uint64) (*slot, uint64) {
	if key&vlanBits == 0 {
		return nil, 0
	}
	return ss.find(key &^ vlanBits)
}

// SetStatic replaces the set of own and static entries: those not in it are
// gone, and Refs to them false, when SetStatic returns; unchanged ones keep
// their Refs. What was learned about the same stations is forgotten; about
// those without a VLAN, in all VLANs. The set has no bound but the caller's. A
// later duplicate of a station replaces the earlier.
func (b *Bridge) SetStatic(entries []StaticEntry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.install(b.change(b.ports.Load(), newStaticSet(entries, *b.static.Load())))
}

// newStaticSet makes the set of the entries given; those that were in the old set
// keep their slot.
func newStaticSet(entries []StaticEntry, old staticSet) staticSet {
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
	return next
}

// without is the set but for the entries of ports that were members and are none
// any more.
func (ss staticSet) without(was, is *portSet) staticSet {
	next := make(staticSet, len(ss))
	for k, s := range ss {
		if port := portOf(s.state.Load()); is.has(port) || !was.has(port) {
			next[k] = s
		}
	}
	return next
}
