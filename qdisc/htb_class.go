// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// activate puts a class that has got packets where it belongs.
func (c *htbClass) activate() {
	h := c.h
	if c.pos[1] >= 0 {
		h.rests.remove(c)
	}
	c.active = 1 << c.prio
	c.link()
}

// rest is for a class whose discipline gives no packet now: it is as one that has
// none, until the discipline may.
func (c *htbClass) rest(now int64) {
	c.deactivate()
	if c.leaf.base().qlen > 0 {
		c.h.rests.set(c, max(due(c.leaf, now), now+1))
	}
}

// deactivate takes out a class that has no packet any more.
func (c *htbClass) deactivate() {
	c.unlink()
	c.active = 0
}

// link puts c, which is active, into the rows and feeds of its mode: borrowing
// goes up until a parent is in use in that priority anyway.
func (c *htbClass) link() {
	mask := c.active
	for c.mode == mayBorrow && c.above != nil && mask != 0 {
		p := c.above
		for m := mask; m != 0; m &= m - 1 {
			prio := bits.TrailingZeros8(m)
			if !p.feed[prio].empty() {
				mask &^= 1 << prio
			}
			p.feed[prio].add(c, prio)
		}
		p.active |= mask
		c = p
	}
	if c.mode != canSend {
		return
	}
	for m := mask; m != 0; m &= m - 1 {
		prio := bits.TrailingZeros8(m)
		c.h.row[c.level][prio].add(c, prio)
	}
	c.h.rows[c.level] |= mask
}

// unlink is the inverse of link.
func (c *htbClass) unlink() {
	mask := c.active
	for c.mode == mayBorrow && c.above != nil && mask != 0 {
		p, emptied := c.above, uint8(0)
		for m := mask; m != 0; m &= m - 1 {
			prio := bits.TrailingZeros8(m)
			p.feed[prio].leave(c, prio)
			if p.feed[prio].empty() {
				emptied |= 1 << prio
			}
		}
		p.active &^= emptied
		c, mask = p, emptied
	}
	if c.mode != canSend {
		return
	}
	for m := mask; m != 0; m &= m - 1 {
		prio := bits.TrailingZeros8(m)
		row := &c.h.row[c.level][prio]
		row.leave(c, prio)
		if row.empty() {
			c.h.rows[c.level] &^= 1 << prio
		}
	}
}

// purge gives up c's places in all rings. Preconditions: c isn't linked.
func (c *htbClass) purge() {
	for prio := range htbPrios {
		c.h.row[c.level][prio].remove(c, prio)
		if c.above != nil {
			c.above.feed[prio].remove(c, prio)
		}
	}
}

// modeAt is the mode that the tokens, more by passed, give; and how long until it
// changes, in ticks.
func (c *htbClass) modeAt(passed int64) (htbMode, int64) {
	if have := c.ctoken + passed; have < 0 {
		return cantSend, -have
	}
	if have := c.tokens + passed; have < 0 {
		return mayBorrow, -have
	}
	return canSend, 0
}

// remode brings c's mode up to date; wait is how long until it changes.
func (c *htbClass) remode(passed int64) (wait int64) {
	mode, wait := c.modeAt(passed)
	if mode == c.mode {
		return wait
	}
	if mode == cantSend {
		c.stats.Overlimits++
		c.h.stats.Overlimits++
	}
	if c.active != 0 {
		c.unlink()
		c.mode = mode
		c.link()
	}
	c.mode = mode
	return wait
}

// passed is the ticks by which c's buckets are to be filled.
func (c *htbClass) passed(now int64) int64 { return min(elapsed(now, c.seen), mostIdle) }

// charge takes tokens for bytes that c, a leaf, sent with what a class of level
// lent, from c and all above it.
func (c *htbClass) charge(level int, wire, segs uint32, now int64) {
	for ; c != nil; c = c.above {
		passed := c.passed(now)
		if c.level >= level {
			if c.level == level {
				c.lends++
			}
			c.tokens = spend(c.tokens+passed, c.burst, c.rate.ticks(wire))
		} else {
			c.borrows++
			c.tokens = c.tokens + passed
		}
		c.ctoken = spend(c.ctoken+passed, c.cburst, c.ceil.ticks(wire))
		c.seen = now
		c.schedule(now, c.remode(0))
		if c.level > 0 {
			c.stats.Bytes += uint64(wire)
			c.stats.Packets += uint64(segs)
		}
	}
}

// spend takes a cost from a bucket.
func spend(tokens, depth, cost int64) int64 {
	return max(min(tokens, depth)-cost, 1-mostIdle)
}

// schedule notes when c's mode changes.
func (c *htbClass) schedule(now, wait int64) {
	if c.mode == canSend {
		if c.pos[0] >= 0 {
			c.h.waits.remove(c)
		}
		return
	}
	c.h.waits.set(c, now+max(ceilNS(wait), 1))
}

// wake brings classes up to date whose time has come.
func (h *htb) wake(now int64) {
	for h.waits.first() <= now {
		c := h.waits.w[0]
		c.schedule(now, c.remode(c.passed(now)))
	}
	for h.rests.first() <= now {
		c := h.rests.w[0]
		h.rests.remove(c)
		if c.leaf.base().qlen > 0 {
			c.activate()
		}
	}
}

// setClass makes or changes a class. A class that gets its first child is a leaf
// no longer: its packets go to that child.
func (h *htb) setClass(s *Class, now int64) error {
	p := s.HTB
	if err := p.Check(); err != nil {
		return err
	}
	c := h.classes[s.Handle]
	fresh := c == nil
	if fresh {
		c = &htbClass{h: h, handle: s.Handle, pos: [2]int{-1, -1}, mode: canSend, seen: now}
		for prio := range c.feed {
			c.feed[prio].kind = inFeed
		}
		if err := h.place(c, s.Parent); err != nil {
			return err
		}
	}
	if c.active != 0 {
		c.unlink()
		defer c.link()
	}
	c.purge()
	c.spec = *s
	rate, ceil := c.rate, c.ceil
	c.rate, c.ceil = pace{p.Rate}, pace{p.Ceil}
	if !c.ceil.on() {
		c.ceil = c.rate
	}
	if !fresh {
		passed := c.passed(now)
		c.tokens = convert(min(c.tokens+passed, c.burst), &rate, &c.rate)
		c.ctoken = convert(min(c.ctoken+passed, c.cburst), &ceil, &c.ceil)
		c.seen = now
	}
	c.burst, c.cburst = span(p.Burst, c.rate.Bytes), span(p.CBurst, c.ceil.Bytes)
	c.quantum = h.quantum(p)
	if fresh {
		c.tokens, c.ctoken = c.burst, c.cburst
		c.prio = int(p.Prio)
		c.leaf = h.adopt(newFIFO(defaultFrames), s.Handle)
		h.enter(c, now)
		return nil
	}
	if c.level == 0 && c.active != 0 {
		c.active = 1 << p.Prio
	}
	c.prio = int(p.Prio)
	c.settle(now)
	return nil
}

// convert makes tokens of one rate those of another. They stand for bytes: who owes some
// doesn't wait for them as long as it would have at a rate that is no more.
func convert(tokens int64, from, to *pace) int64 {
	bytes := volume(max(tokens, -tokens), from.Bytes)
	ticks := min(span(bytes, to.Bytes), mostIdle-1)
	if tokens < 0 {
		return -ticks
	}
	return ticks
}

// settle gives c the mode of its tokens after its parameters have changed.
// Preconditions: c isn't linked.
func (c *htbClass) settle(now int64) {
	c.tokens, c.ctoken = min(c.tokens, c.burst), min(c.ctoken, c.cburst)
	mode, wait := c.modeAt(0)
	c.mode = mode
	c.schedule(now, wait)
}

// Check reports what is wrong with the parameters.
func (p *HTBClass) Check() error {
	switch {
	case p == nil || p.Rate.Bytes == 0:
		return errors.New("rate: missing")
	case p.Ceil.Bytes != 0 && p.Ceil.Bytes < p.Rate.Bytes:
		return fmt.Errorf("ceil: %d bytes/s is below the rate of %d", p.Ceil.Bytes, p.Rate.Bytes)
	case p.Prio >= htbPrios:
		return fmt.Errorf("prio: %d, want 0 to %d", p.Prio, htbPrios-1)
	}
	return nil
}

func (h *htb) quantum(p *HTBClass) uint32 {
	if p.Quantum != 0 {
		return p.Quantum
	}
	return uint32(min(max(p.Rate.Bytes/uint64(h.r2q), minQuantum), maxQuantum))
}

// place finds the parent of a new class, and makes that an inner one.
func (h *htb) place(c *htbClass, parent Handle) error {
	if parent == Root || parent == h.handle {
		return nil
	}
	p := h.classes[parent]
	if p == nil {
		return fmt.Errorf("parent: there is no class %v", parent)
	}
	depth := 1
	for q := p; q != nil; q = q.above {
		depth++
	}
	if depth > htbLevels {
		return fmt.Errorf("parent: class %v would be level %d, at most %d are possible", c.handle, depth, htbLevels)
	}
	c.above = p
	return nil
}

// enter makes c one of the classes, and c's parent an inner class.
func (h *htb) enter(c *htbClass, now int64) {
	h.classes[c.handle] = c
	i, _ := slices.BinarySearchFunc(h.order, c.handle, func(a *htbClass, x Handle) int { return int(int64(a.handle) - int64(x)) })
	h.order = slices.Insert(h.order, i, c)
	if c.above == nil {
		return
	}
	p := c.above
	p.children++
	if p.leaf != nil {
		h.inner(p, c, now)
	}
}

// inner makes leaf p an inner class, and gives its packets to its child c. Levels
// are counted from the leaves, but as in the kernel all inner classes stand at
// the level of their depth, the top at 7: only their order matters.
func (h *htb) inner(p, c *htbClass, now int64) {
	if p.active != 0 {
		p.deactivate()
	}
	h.rests.forget(p)
	p.purge()
	old := p.leaf
	p.leaf = nil
	p.level = htbLevels - 1
	if p.above != nil {
		p.level = p.above.level - 1
	}
	h.requeue(now, old, func(r Ref, now int64) bool { return h.put(c, r, now) })
	h.t.forget(old)
	p.tokens, p.ctoken = p.burst, p.cburst
}

// deleteClass takes a class out. Preconditions: it has no children.
func (h *htb) deleteClass(x Handle, now int64) {
	c := h.classes[x]
	if c.active != 0 {
		c.deactivate()
	}
	c.purge()
	h.waits.forget(c)
	h.rests.forget(c)
	delete(h.classes, x)
	h.order = slices.DeleteFunc(h.order, func(o *htbClass) bool { return o == c })
	if p := c.above; p != nil {
		if p.children--; p.children == 0 {
			p.purge()
			p.level = 0
			p.leaf = h.adopt(newFIFO(defaultFrames), p.handle)
		}
	}
	if c.leaf == nil {
		return
	}
	heir := h.heir()
	h.requeue(now, c.leaf, func(r Ref, now int64) bool {
		if heir != nil {
			return h.put(heir, r, now)
		}
		return h.putDirect(r)
	})
	h.t.forget(c.leaf)
}

func (h *htb) slot(class Handle) *discipline {
	c := h.classes[class]
	if c == nil || c.leaf == nil {
		return nil
	}
	return &c.leaf
}

// grafted is told that the class has another discipline, and perhaps packets.
func (h *htb) grafted(class Handle) {
	c := h.classes[class]
	switch n := c.leaf.base().qlen; {
	case n == 0 && c.active != 0:
		c.deactivate()
	case n > 0 && c.active == 0:
		c.activate()
	}
}

func (h *htb) xstats(rep *Report, now int64) {
	rep.HTB = &HTBReport{Direct: h.directed, R2Q: h.r2q, Default: h.fallback, DirectFrames: h.maxDirect}
	for _, c := range h.order {
		rep.Classes = append(rep.Classes, c.report(now))
	}
}

func (c *htbClass) report(now int64) ClassReport {
	passed := c.passed(now)
	r := ClassReport{
		Kind: "htb", Handle: c.handle, Parent: c.spec.Parent, Stats: c.stats, Spec: &c.spec,
		HTB: &HTBClassReport{
			Lends: c.lends, Borrows: c.borrows, Level: c.level, Quantum: c.quantum,
			Tokens: min(c.tokens+passed, c.burst) >> tickShift, CTokens: min(c.ctoken+passed, c.cburst) >> tickShift,
		},
	}
	if c.leaf != nil {
		b := c.leaf.base()
		r.Leaf, r.Stats.Qlen, r.Stats.Backlog = b.handle, b.qlen, b.bytes
	}
	return r
}
