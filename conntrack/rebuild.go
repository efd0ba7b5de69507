// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Report is what Open found in a file.
type Report struct {
	Kept     int // connections that go on
	Repaired int // of them, TCP whose windows were being written: they are learned anew
	Torn     int // records that were being made or ended: dropped
	Expired  int // connections that were over: dropped
	Bad      int // records that contradict themselves or another: dropped
}

func (r *Report) add(o *Report) {
	r.Kept += o.Kept
	r.Repaired += o.Repaired
	r.Torn += o.Torn
	r.Expired += o.Expired
	r.Bad += o.Bad
}

// Packets wait while a table is rebuilt, so all processors do it. The records are cut
// into shards, which are read from first to last by whoever is free. A shard hangs its
// records up in runs of its own, that become lists when all are read; only the chains
// are everybody's. Those are all over the memory: what a few records will need of them
// is asked for at once, before the first of them needs it, so that the waits overlap.
const (
	shardSize = 1 << 14
	maxShards = 1 << 8 // of larger tables the shards are larger
	together  = 16     // records whose chains are asked for at once
)

// shard is a part of the records, and what was found in it.
type shard struct {
	from, to uint32
	highest  uint32 // records from here on were never used
	rep      Report
	wheel    [slots + 1]run // the last one of free records
	free     int
	ports    map[uint16]*portRun
	port     uint16   // the last one asked for
	portRun  *portRun // and its entry, nil before
	seen     []known  // of all records; nil: nothing
	fresh    []uint32 // records that are not in the chains yet, if seen
	twice    []uint32 // records with a tuple that another has
	batch    [together]uint32
	waiting  int // of batch
}

// run is a list without a sentinel. Zero is not an empty one: see none.
type run struct{ first, last uint32 }

// none is the record that is not there.
const none = ^uint32(0)

// portRun is what a shard has of a port.
type portRun struct {
	used  int
	young run
}

// rebuild makes chains, wheel and counts from the records. Before it the table is
// empty but for those in its chains that were seen, and nobody else has it.
func (t *Table) rebuild(now uint32, seen []known) (rep Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turned = now
	t.clock.Store(now)
	shards := t.cut(seen)
	each(shards, func(s *shard) { s.read(t, now) })
	if seen != nil { // what is gone has left the chains only now
		each(shards, func(s *shard) { s.enterFresh(t) })
	}
	for i := range shards {
		t.highest = max(t.highest, shards[i].highest)
	}
	for i := range shards {
		t.join(&shards[i])
		rep.add(&shards[i].rep)
	}
	for i := range shards {
		for _, r := range shards[i].twice {
			t.unlink(r)
			t.free(r)
			rep.Kept--
			rep.Bad++
		}
	}
	return rep
}

// each does something to all shards, by all processors.
func each(shards []shard, do func(*shard)) {
	var next atomic.Int32
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(shards)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(shards); i = next.Add(1) - 1 {
				do(&shards[i])
			}
		})
	}
	wg.Wait()
}

// cut makes the shards.
func (t *Table) cut(seen []known) []shard {
	n := uint32(len(t.recs))
	size := max(shardSize, (n+maxShards-1)/maxShards)
	shards := make([]shard, 0, maxShards)
	for from := uint32(0); from < n; from += size {
		s := shard{from: from, to: min(from+size, n), seen: seen, ports: map[uint16]*portRun{}}
		for w := range s.wheel {
			s.wheel[w].first = none
		}
		shards = append(shards, s)
	}
	return shards
}

// read goes through the records of a shard. Those behind the last one that was ever
// used are left alone: whether they are free or were never used, the next shards know.
func (s *shard) read(t *Table, now uint32) {
	s.highest = s.from
	for i := s.from; i < s.to; i++ {
		r := &t.recs[i]
		if r.life.Load() == 0 {
			s.know(t, i, 0)
			continue
		}
		for ; s.highest < i; s.highest++ {
			s.drop(t, s.highest)
		}
		s.highest = i + 1
		in := s.know(t, i, r.life.Load())
		if s.takeOver(t, r, in, now) {
			s.keep(t, i, r, in, now)
		} else {
			if in {
				t.unchain(i, s.seen[i].hash)
			}
			s.drop(t, i)
		}
	}
	s.chainUp(t)
}

// know reports whether a record is in the chains already, as what it is now. What it
// was before is taken out.
func (s *shard) know(t *Table, i, life uint32) bool {
	if s.seen == nil || s.seen[i].life == 0 {
		return false
	}
	if s.seen[i].is(&t.recs[i], life) {
		return true
	}
	t.forgetKnown(i, &s.seen[i])
	return false
}

// drop makes a record a free one.
//
// +checklocksignore: nobody else has the table yet.
func (s *shard) drop(t *Table, i uint32) {
	r := &t.recs[i]
	r.lock.Store(0)
	r.life.Store(nextUse(r.life.Load()))
	t.young.reset(i)
	t.wheel.extend(&s.wheel[slots], i)
	s.free++
}

// keep hangs up a connection that goes on.
//
// +checklocksignore: as drop.
func (s *shard) keep(t *Table, i uint32, r *record, in bool, now uint32) {
	s.rep.Kept++
	p := s.use(r.port)
	p.used++
	t.young.reset(i)
	if t.mayGiveWay(r) {
		t.young.extend(&p.young, i)
	}
	t.wheel.extend(&s.wheel[hangAt(r.expiry.Load(), now)%slots], i)
	switch {
	case in:
	case s.seen != nil:
		s.fresh = append(s.fresh, i)
	default:
		s.enterSoon(t, i)
	}
}

// enterFresh enters what nobody had seen.
func (s *shard) enterFresh(t *Table) {
	for _, i := range s.fresh {
		s.enterSoon(t, i)
	}
	s.chainUp(t)
}

// enterSoon enters a record into the chains, together with others.
func (s *shard) enterSoon(t *Table, i uint32) {
	s.batch[s.waiting] = i
	if s.waiting++; s.waiting == together {
		s.chainUp(t)
	}
}

// use is the entry of a port; records of one port stand together often.
func (s *shard) use(port uint16) *portRun {
	if s.portRun != nil && s.port == port {
		return s.portRun
	}
	p := s.ports[port]
	if p == nil {
		p = &portRun{young: run{first: none}}
		s.ports[port] = p
	}
	s.port, s.portRun = port, p
	return p
}

// takeOver reports whether a record is a connection that goes on. Of one that is in
// the chains the keys have been looked at.
func (s *shard) takeOver(t *Table, r *record, in bool, now uint32) bool {
	switch r.life.Load() & phaseMask {
	case phaseFree:
		return false
	case phaseFresh, phaseDying:
		s.rep.Torn++
		return false
	}
	switch {
	case r.over(now):
		s.rep.Expired++
		return false
	case !r.plausible() || !in && !t.named(r):
		s.rep.Bad++
		return false
	case t.repair(r):
		s.rep.Repaired++
	}
	return true
}

// chainUp enters what waits into the chains.
func (s *shard) chainUp(t *Table) {
	ids := s.batch[:s.waiting]
	s.waiting = 0
	var firsts [2 * together]uint64
	for j, i := range ids {
		h := &t.recs[i].hash
		firsts[2*j], firsts[2*j+1] = t.heads[h[0]&t.mask].Load(), t.heads[h[1]&t.mask].Load()
	}
	for _, l := range firsts[:2*len(ids)] {
		if l&endOfChain == 0 {
			t.next[nodeOf(l)].Load()
		}
	}
	for _, i := range ids {
		if !t.enter(i<<1) || !t.enter(i<<1|1) {
			s.twice = append(s.twice, i)
		}
	}
}

// enter puts a node at the head of its chain, while others do the same; false if
// another one in it has the same tuple.
func (t *Table) enter(n uint32) bool {
	r := &t.recs[n>>1]
	h := r.hash[n&1]
	head := &t.heads[h&t.mask]
	for {
		first := head.Load()
		for l := first; l&endOfChain == 0; l = t.next[nodeOf(l)].Load() {
			if hashOf(l) != h {
				continue
			}
			k := r.keys[n&1].load()
			if t.recs[nodeOf(l)>>1].keys[nodeOf(l)&1].equal(&k) {
				return false
			}
		}
		t.next[n].Store(first)
		if head.CompareAndSwap(first, linkTo(n, h)) {
			return true
		}
	}
}

// join makes the runs of a shard parts of the lists.
//
// +checklocks:t.mu
func (t *Table) join(s *shard) {
	for ; s.highest < min(s.to, t.highest); s.highest++ {
		s.drop(t, s.highest)
	}
	for w := range uint32(slots) {
		t.wheel.join(t.slotAt(w), s.wheel[w])
	}
	t.wheel.join(t.freeList(), s.wheel[slots])
	t.numFree += s.free
	for port, p := range s.ports {
		u := t.use(port)
		t.count(u, p.used)
		t.young.join(u.young, p.young)
	}
}

// plausible reports whether a record's words fit together. A record that is live
// has been written whole, so this fails only if somebody else wrote into the file,
// or it was copied while it changed.
func (r *record) plausible() bool {
	return r.state.Load() < max(numTCPStates, numSCTPStates) && r.track.last <= classNone && r.track.lastDir <= Reply
}

// named is plausible for what names the connection.
func (t *Table) named(r *record) bool {
	var keys [2]key
	for d := range r.keys {
		keys[d] = r.keys[d].load()
		if t.secret.hash(&keys[d]) != r.hash[d] || !keys[d].ofIP() {
			return false
		}
	}
	return keys[Original] != keys[Reply]
}

// ofIP reports whether the key is of one of the families.
func (k *key) ofIP() bool { return k.family() == 4 || k.family() == 6 }

// repair frees the lock of a record whose writer was killed, and reports whether
// the windows had to be given up: what half of a segment has changed is learned
// anew from the next ones, as of a connection whose beginning was missed.
func (t *Table) repair(r *record) bool {
	if r.lock.Load()&1 == 0 {
		return false
	}
	r.lock.Store(0)
	if proto, _ := t.judged(r, Original); proto == 6 {
		last := r.track.last
		r.track = track{last: last, lastDir: r.track.lastDir}
		for d := range r.track.peer {
			r.track.peer[d].flags = liberal | sackPermitted
		}
		return true
	}
	return false
}
