// SPDX-License-Identifier: Apache-2.0

package conntrack

import "sync"

// A node is one of the two tuples of a record: number<<1 | direction. Nodes of
// one hash bucket are a chain, singly linked, that is read without a lock. A link
// has the hash of the node that it leads to in its upper half, so that a chain is
// followed without a look at records that don't matter. A chain ends with its own
// bucket's number, marked; a reader that meets another bucket's was led astray by
// a record that was freed and used again, and begins anew.
const endOfChain = 1 << 31

// linkTo makes a link to a node.
func linkTo(node, hash uint32) uint64 { return uint64(hash)<<32 | uint64(node) }

// nodeOf and hashOf are the halves of a link.
func nodeOf(l uint64) uint32 { return uint32(l) }
func hashOf(l uint64) uint32 { return uint32(l >> 32) }

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
		l := t.heads[bucket].Load()
		for ; l&endOfChain == 0; l = t.next[nodeOf(l)].Load() {
			if hashOf(l) != h {
				continue
			}
			n := nodeOf(l)
			r := &t.recs[n>>1]
			life := r.life.Load()
			if life&phaseMask == phaseLive && r.keys[n&1].equal(k) && r.life.Load() == life {
				return Conn{t, n >> 1, life}, Dir(n & 1), true
			}
		}
		if nodeOf(l) == bucket|endOfChain {
			return Conn{}, 0, false
		}
		t.stats.restart.Add(1)
	}
	return Conn{}, 0, false
}

// lockBoth locks the stripes of two hashes, in the order of their numbers.
//
// +checklocksignore: the analysis does not know locks that are chosen by number.
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

// unlockBoth unlocks what lockBoth returned.
//
// +checklocksignore: as lockBoth.
func unlockBoth(s [2]*stripe) {
	s[0].Unlock()
	if s[1] != nil {
		s[1].Unlock()
	}
}

// link enters a fresh record into both chains, if neither of its tuples is that
// of another connection. One that is over and stands in the way is dead. Where both are
// the same, of who speaks with itself, what comes next is taken for an answer: Linux, too,
// has the reply's node first.
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
	r := &t.recs[i]
	t.chainUp(i, h)
	r.life.Store(r.life.Load()&^phaseMask | phaseLive)
	return Inserted, Conn{}
}

// chainUp puts both nodes of a record at the heads of their chains, whose stripes
// are locked: the reply's before the other, if that is one chain.
func (t *Table) chainUp(i uint32, h [2]uint32) {
	for d := range uint32(2) {
		head, n := &t.heads[h[d]&t.mask], i<<1|d
		t.next[n].Store(head.Load())
		head.Store(linkTo(n, h[d]))
	}
}

// holder is the live connection that has a tuple, and whether its chain is as
// long as one may be. Its stripe is locked.
func (t *Table) holder(k *key, h uint32) (c Conn, long bool) {
	length := 0
	for l := t.heads[h&t.mask].Load(); l&endOfChain == 0; l = t.next[nodeOf(l)].Load() {
		length++
		if hashOf(l) != h {
			continue
		}
		n := nodeOf(l)
		r := &t.recs[n>>1]
		if life := r.life.Load(); life&phaseMask == phaseLive && r.keys[n&1].equal(k) {
			return Conn{t, n >> 1, life}, false
		}
	}
	return Conn{}, length >= t.chain
}

// unlink takes both tuples of a record out of their chains.
func (t *Table) unlink(i uint32) { t.unchain(i, t.recs[i].hash) }

// unchain is unlink for a record that had those hashes when it was entered.
func (t *Table) unchain(i uint32, h [2]uint32) {
	s := t.lockBoth(h)
	defer unlockBoth(s)
	for d := range uint32(2) {
		from := &t.heads[h[d]&t.mask]
		for l := from.Load(); l&endOfChain == 0; l = from.Load() {
			if nodeOf(l) == i<<1|d {
				from.Store(t.next[nodeOf(l)].Load())
				break
			}
			from = &t.next[nodeOf(l)]
		}
	}
}
