// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"runtime"
	"sync/atomic"
)

// recordSize is the size of a record in the file: four cache lines.
const recordSize = 256

// Phases of a record: the lower two bits of its life word. Above them is the
// generation, which grows by one each time that the record is freed, so that a
// Conn of an earlier use is not valid for a later one.
const (
	phaseFree  = iota
	phaseFresh // being filled in: not yet to be found
	phaseLive
	phaseDying // no longer to be found
	phaseMask  = 3
	lifeStep   = 4
)

// The binds of a record.
const (
	bindOrigin = iota
	bindTarget
	bindBackend
	numBinds
)

// record is one connection, in the file. It has no pointers, and all of its
// words are aligned, so that a process that is killed between any two stores
// leaves each word old or new.
//
// What names the connection (keys, hash, port, start) is written once, in the
// fresh phase. What follows a packet is written under lock.
type record struct {
	life atomic.Uint32
	lock atomic.Uint32 // odd while somebody writes what follows a packet

	keys   [2]sharedKey
	expiry atomic.Uint32 // second at which it is over
	status atomic.Uint32

	hash  [2]uint32 // of keys, under the secret of the file
	start uint32    // second of the first packet
	mark  atomic.Uint32
	label [2]atomic.Uint64
	acct  [2]counter
	aux   atomic.Uint64

	bindGen   [numBinds]uint32
	bindID    [numBinds]uint16
	port      uint16 // whose quota it uses
	outDevice uint16
	_         uint16
	state     atomic.Uint32 // of TCP or SCTP
	track     track
}

// counter counts one direction.
type counter struct{ packets, bytes atomic.Uint64 }

// add is not one addition of hardware, since the record's lock is held.
func (c *counter) add(packets, bytes uint64) {
	c.packets.Store(c.packets.Load() + packets)
	c.bytes.Store(c.bytes.Load() + bytes)
}

// track is what a stateful protocol remembers of a connection. SCTP has its own
// meaning for the fields, see sctp.go. The others use none of it.
type track struct {
	peer     [2]peer
	lastSeq  uint32
	lastAck  uint32
	lastEnd  uint32
	lastWin  uint16
	last     class // kind of the last segment
	lastDir  Dir
	lastFlag uint8
	lastWS   uint8 // window scale of the last SYN that was let through
	retrans  uint8
	_        uint8
}

// peer is what a TCP connection's sender in one direction has shown, after van
// Rooij's "Real Stateful TCP Packet Filtering in IP Filter" (2000).
type peer struct {
	end    uint32 // highest sequence number sent, plus length
	maxEnd uint32 // highest that the other side has room for
	maxWin uint32 // largest window announced; 0: nothing was heard
	maxAck uint32
	scale  uint8
	flags  uint8
	_      uint16
}

// nextUse is the life of a free record whose life was that.
func nextUse(life uint32) uint32 { return life&^phaseMask + lifeStep }

// acquire locks what follows a packet. The lock is held for some tens of
// nanoseconds, by two workers at most: those of the two directions.
func (r *record) acquire() {
	for spin := 0; ; spin++ {
		v := r.lock.Load()
		if v&1 == 0 && r.lock.CompareAndSwap(v, v+1) {
			return
		}
		if spin > 100 { // its holder has been taken off its CPU
			runtime.Gosched()
		}
	}
}

func (r *record) release() { r.lock.Store(r.lock.Load() + 1) }

// acquireIf locks the record if its life is still want, and says so.
func (r *record) acquireIf(want uint32) bool {
	if r.life.Load() != want {
		return false
	}
	r.acquire()
	if r.life.Load() == want {
		return true
	}
	r.release()
	return false
}

// die ends the live phase, and reports whether this call did it.
func (r *record) die(want uint32) bool {
	if want&phaseMask != phaseLive || !r.acquireIf(want) {
		return false
	}
	r.life.Store(want&^phaseMask | phaseDying)
	r.release()
	return true
}

// over reports whether the record's time is up.
func (r *record) over(now uint32) bool { return int32(r.expiry.Load()-now) <= 0 }
