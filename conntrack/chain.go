// SPDX-License-Identifier: Apache-2.0

package conntrack

import "sync"

// A node is one of the two tuples of a record: number<<1 | direction. Nodes of
// one hash bucket are a chain, singly linked, that is read without a lock. A
// chain ends with its own bucket's number, marked; a reader that meets another
// bucket's was led astray by a record that was freed and used again, and begins
// anew.
const endOfChain = 1 << 31

// stripes are the locks of the chains: bucket b is changed under stripe b modulo
// their number.
const numStripes = 256

type stripe struct {
	sync.Mutex
	_ [56]byte // each on a cache line of its own
}

// find is the connection that has a packet of key k, and the packet's direction
// in it. It may be over.
func (t *Table) find(k *key, h uint32) (Conn, Dir, bool) {
	bucket := h & t.mask
	for range 8 {
		n := t.heads[bucket].Load()
		for n&endOfChain == 0 {
			r := &t.recs[n>>1]
			life := r.life.Load()
			if life&phaseMask == phaseLive && r.keys[n&1].equal(k) && r.life.Load() == life {
				return Conn{t, n >> 1, life}, Dir(n & 1), true
			}
			n = t.next[n].Load()
		}
		if n == bucket|endOfChain {
			return Conn{}, 0, false
		}
		t.stats.restart.Add(1)
	}
	return Conn{}, 0, false
}

// lockBoth locks the stripes of two hashes, in the order of their numbers.
func (t *Table) lockBoth(h [2]uint32) (unlock [2]*stripe) {
	a, b := h[0]&t.mask%numStripes, h[1]&t.mask%numStripes
	if a > b {
		a, b = b, a
	}
	t.stripes[a].Lock()
	if a == b {
		return [2]*stripe{&t.stripes[a]}
	}
	t.stripes[b].Lock()
	return [2]*stripe{&t.stripes[a], &t.stripes[b]}
}

func unlockBoth(s [2]*stripe) {
	s[0].Unlock()
	if s[1] != nil {
		s[1].Unlock()
	}
}

// link enters a fresh record into both chains, if neither of its tuples is that
// of another connection. One that is over and stands in the way is dead.
func (t *Table) link(i uint32, keys *[2]key, h [2]uint32, now uint32) (out Outcome, dead Conn) {
	s := t.lockBoth(h)
	defer unlockBoth(s)
	for d := range keys {
		c, long := t.holder(&keys[d], h[d])
		switch {
		case c != Conn{} && c.record().over(now):
			return Clash, c
		case c != Conn{} && d == int(Original):
			return Raced, Conn{}
		case c != Conn{}:
			return Clash, Conn{}
		case long:
			return ChainLong, Conn{}
		}
	}
	if keys[0] == keys[1] {
		return Clash, Conn{} // its answers would be taken for itself
	}
	r := &t.recs[i]
	for d := range uint32(2) {
		bucket, n := h[d]&t.mask, i<<1|d
		t.next[n].Store(t.heads[bucket].Load())
		t.heads[bucket].Store(n)
	}
	r.life.Store(r.life.Load()&^phaseMask | phaseLive)
	return Inserted, Conn{}
}

// holder is the live connection that has a tuple, and whether its chain is as
// long as one may be. Its stripe is locked.
func (t *Table) holder(k *key, h uint32) (c Conn, long bool) {
	length := 0
	for n := t.heads[h&t.mask].Load(); n&endOfChain == 0; n = t.next[n].Load() {
		r := &t.recs[n>>1]
		if life := r.life.Load(); life&phaseMask == phaseLive && r.keys[n&1].equal(k) {
			return Conn{t, n >> 1, life}, false
		}
		length++
	}
	return Conn{}, length >= t.chain
}

// unlink takes both tuples of a record out of their chains.
func (t *Table) unlink(i uint32) {
	h := t.recs[i].hash
	s := t.lockBoth(h)
	defer unlockBoth(s)
	for d := range uint32(2) {
		link := &t.heads[h[d]&t.mask]
		for n := link.Load(); n&endOfChain == 0; n = link.Load() {
			if n == i<<1|d {
				link.Store(t.next[n].Load())
				break
			}
			link = &t.next[n]
		}
	}
}
