// SPDX-License-Identifier: Apache-2.0

package bridge

// Ref is a decision's memory of the FDB entry that it used: while Valid, a
// look-up of the same station would give the same port. A flow-cache entry keeps
// the Refs of its source and its destination, and so stays right or is absent
// without a generation of the whole table. Zero is no entry and never Valid.
type Ref struct {
	s    *slot
	want uint64
}

// Valid reports whether the entry is still what it was. Once it is false, after
// a move, expiry, flush, the removal of the port or a change of the static set,
// it stays false, even if the same station is learned again on the same port.
// One atomic load.
func (r Ref) Valid() bool { return r.s != nil && r.s.state.Load() == r.want }

// Port is the port that the entry says; 0 if the Ref is zero.
func (r Ref) Port() uint16 { return portOf(r.want) }

// Touch notes that the station was heard, as Input does for the source of a
// frame. It writes only if the tick changed, and nothing if the Ref is not
// Valid.
func (r Ref) Touch(now Tick) {
	if r.Valid() {
		r.s.touch(now)
	}
}

// newEpoch makes the slot that Refs of an epoch point to.
func newEpoch() *slot {
	s := new(slot)
	s.state.Store(genUnit)
	return s
}

// newEpoch begins a new epoch: the Refs of the one before are false. It hangs on
// the port set, which a frame that is just being decided takes up first: what it
// finds later may be newer than its epoch, never older.
//
// +checklocks:b.mu
func (b *Bridge) newEpoch() {
	old := b.ports.Load()
	next := *old
	next.epoch = newEpoch()
	b.ports.Store(&next)
	old.epoch.state.Store(0)
}

// epochRef is a Ref for a source that needs no entry. Its touches refresh
// nothing.
func (ps *portSet) epochRef() Ref { return Ref{ps.epoch, genUnit} }
