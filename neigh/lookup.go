// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"

	"sluice/packet"
)

// find is the entry of a key, a permanent one before a dynamic one; nil if there
// is none.
func (t *Table) find(k key) *entry {
	if e := t.conf.Load().static[k]; e != nil {
		return e
	}
	return t.index.find(k)
}

// Lookup returns the MAC of a neighbour to which a packet goes; not ok if it has
// none that may be used: see Resolve. A stale entry becomes Delay. It takes no
// lock and allocates nothing.
func (t *Table) Lookup(dev uint16, addr netip.Addr, now Tick) (mac packet.MAC, r Ref, ok bool) {
	e := t.find(keyOf(dev, addr))
	if e == nil {
		return packet.MAC{}, Ref{}, false
	}
	w := e.word.Load()
	if w&usable == 0 {
		return packet.MAC{}, Ref{}, false
	}
	e.use(w, now)
	return macOf(w), newRef(e, w), true
}

// State is the state of a neighbour, for the choice among several next hops. It
// takes no lock and changes nothing.
func (t *Table) State(dev uint16, addr netip.Addr) State {
	if e := t.find(keyOf(dev, addr)); e != nil {
		return e.state()
	}
	return None
}
