// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"
	"sync/atomic"

	"sluice/packet"
)

// key names an entry. IPv4 is in it as IPv4-mapped IPv6, which is nobody's
// address by itself.
type key struct {
	addr [16]byte
	dev  uint16
}

func keyOf(dev uint16, addr netip.Addr) key { return key{addr.As16(), dev} }

// ip is the address of the key.
func (k key) ip() netip.Addr { return netip.AddrFrom16(k.addr).Unmap() }

// is4 reports whether it is one of ARP.
func (k key) is4() bool { return netip.AddrFrom16(k.addr).Is4In6() }

// The word of an entry: is its MAC to be used, its state, its MAC. The first and
// the last are what a Ref compares.
const (
	stateShift = 48
	stateMask  = 0x7f << stateShift
	usable     = 1 << 63
	macMask    = 1<<stateShift - 1
)

func word(s State, mac packet.MAC) uint64 {
	w := uint64(s)<<stateShift | mac.Key()
	if s.Usable() {
		w |= usable
	}
	return w
}

func stateOf(w uint64) State { return State(w & stateMask >> stateShift) }

func macOf(w uint64) packet.MAC {
	return packet.MAC{byte(w >> 40), byte(w >> 32), byte(w >> 24), byte(w >> 16), byte(w >> 8), byte(w)}
}

// entry is one neighbour. Its memory is used for one key only and never again:
// a Ref or a reader that holds on to one that was removed sees a word of 0.
type entry struct {
	key  key
	next atomic.Pointer[entry] // in the bucket; written under Table.mu
	word atomic.Uint64         // written under Table.mu, but for suspect
	used atomic.Uint32         // tick of the last packet

	// suspected is when the state became Delay.
	suspected atomic.Uint32

	// What follows is written under Table.mu.

	confirmed Tick // it was there
	updated   Tick // state or MAC changed
	due       Tick // of the timer, if the state has one; of Delay it is suspected + delayTime
	probes    uint8
	router    bool // said so: NTF_ROUTER
	index     int  // in Table.all
	debt      debt
	queue     queue
}

// use notes that a packet goes to the entry, whose word was w: it wakes a stale
// one up. Workers may be a tick apart, so the stamp never goes back.
func (e *entry) use(w uint64, now Tick) {
	if stateOf(w) == Stale {
		e.suspect(w, now)
	}
	if used := e.used.Load(); int32(uint32(now)-used) > 0 {
		e.used.Store(uint32(now))
	}
}

// suspect begins Delay. It takes no lock: of several that see the entry stale
// one makes the change, the others find it made, and all mean the same tick.
// A writer that changes the entry at this moment wins; what it writes is a sign
// of life, or the end of the entry.
func (e *entry) suspect(w uint64, now Tick) {
	e.suspected.Store(uint32(now))
	e.word.CompareAndSwap(w, word(Delay, macOf(w)))
}

// state is the state now.
func (e *entry) state() State { return stateOf(e.word.Load()) }

// mac is the MAC now; zero unless it is usable.
func (e *entry) mac() packet.MAC { return macOf(e.word.Load()) }

// become changes state and MAC.
//
// Preconditions: Table.mu is held.
func (e *entry) become(s State, mac packet.MAC, now Tick) {
	e.updated = now
	if s == Delay {
		e.suspected.Store(uint32(now))
	}
	e.word.Store(word(s, mac))
}

// lastUse is the last packet or sign of life, whichever came later.
//
// Preconditions: Table.mu is held.
func (e *entry) lastUse() Tick {
	used := Tick(e.used.Load())
	if used.since(e.confirmed) == 0 {
		return e.confirmed
	}
	return used
}
