// SPDX-License-Identifier: Apache-2.0

package neigh

import "sluice/packet"

// Ref is a decision's memory of the entry that it used: while Valid, a packet for
// the same next hop would get the same MAC. Zero is no entry and never Valid.
type Ref struct {
	e    *entry
	want uint64 // of the word, without the state
}

// Valid reports whether the entry still has its MAC and may be used. It is false
// once the neighbour has failed, moved to another MAC or been removed. One atomic
// load.
func (r Ref) Valid() bool {
	return r.e != nil && r.e.word.Load()&^stateMask == r.want
}

// MAC is where the decision sends; zero if the Ref is zero.
func (r Ref) MAC() packet.MAC { return macOf(r.want) }

// Touch notes that a packet goes to the neighbour, as Lookup does. It writes only
// if the tick changed or the entry was stale, and nothing if the Ref is not Valid.
func (r Ref) Touch(now Tick) {
	if r.e == nil {
		return
	}
	if w := r.e.word.Load(); w&^stateMask == r.want {
		r.e.use(w, now)
	}
}

func newRef(e *entry, w uint64) Ref { return Ref{e, w &^ stateMask} }
