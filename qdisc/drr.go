// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"fmt"
	"slices"

	"sluice/trace"
)

// drrClass is a class of drr.
type drrClass struct {
	spec    Class
	quantum int64
	deficit int64
	leaf    discipline
	stats   Stats
	queued  bool // it is in the list of active ones
	next    *drrClass
}

// drr is deficit round robin (Shreedhar, Varghese 1996) among classes, to which
// filters assign packets. What has no class is dropped.
type drr struct {
	node
	classes    map[Handle]*drrClass
	order      []*drrClass
	head, tail *drrClass // active
}

func (d *drr) enqueue(r Ref, now int64) bool {
	class := Handle(d.t.pool.at(r).Priority)
	c := d.classes[class]
	if c == nil {
		to, v := d.classify(r, now)
		if v != accepted {
			return d.judge(r, v)
		}
		if c = d.classes[to]; c == nil {
			return d.refuse(r, trace.QdiscUnclassified)
		}
	}
	return d.put(c, r, now)
}

func (d *drr) put(c *drrClass, r Ref, now int64) bool {
	ok := d.offer(c.leaf, r, now)
	if !ok {
		c.stats.Drops++
	}
	if !c.queued && c.leaf.base().qlen > 0 {
		c.deficit = c.quantum
		d.append(c)
	}
	return ok
}

func (d *drr) append(c *drrClass) {
	c.queued, c.next = true, nil
	if d.head == nil {
		d.head = c
	} else {
		d.tail.next = c
	}
	d.tail = c
}

func (d *drr) shift() *drrClass {
	c := d.head
	d.head = c.next
	c.queued = false
	return c
}

// dequeue gives each active class its turn, twice at most for those whose
// discipline holds back.
func (d *drr) dequeue(now int64) Ref {
	held := 0
	for d.head != nil && held <= len(d.order) {
		c := d.head
		r := peek(c.leaf, now)
		if r == 0 {
			d.shift()
			if c.leaf.base().qlen > 0 {
				held++
				d.append(c)
			}
			continue
		}
		wire := int64(d.t.pool.at(r).Wire)
		if wire > c.deficit {
			c.deficit += c.quantum
			d.append(d.shift())
			continue
		}
		c.deficit -= wire
		c.stats.Bytes += uint64(wire)
		c.stats.Packets += uint64(d.t.pool.at(r).Segs)
		take(c.leaf, now)
		if c.leaf.base().qlen == 0 {
			d.shift()
		}
		d.sent(r)
		return r
	}
	return 0
}

func (d *drr) next(now int64) int64 {
	at := int64(never)
	for c := d.head; c != nil; c = c.next {
		at = min(at, due(c.leaf, now))
	}
	return at
}

func (d *drr) drain(out *list) {
	for _, c := range d.order {
		drain(c.leaf, out)
	}
	for d.head != nil {
		d.shift()
	}
}

func (d *drr) change(*Qdisc, int64) error {
	if d.classes == nil {
		d.classes = map[Handle]*drrClass{}
	}
	return nil
}

func (d *drr) setClass(s *Class, _ int64) error {
	if s.Parent != d.handle && s.Parent != Root {
		return fmt.Errorf("parent: %v, classes of drr are all below %v", s.Parent, d.handle)
	}
	c := d.classes[s.Handle]
	if c == nil {
		c = &drrClass{leaf: d.adopt(newFIFO(defaultFrames), s.Handle)}
		d.classes[s.Handle] = c
		d.order = append(d.order, c)
	}
	c.spec, c.quantum = *s, defaultMTU
	if s.DRR != nil && s.DRR.Quantum > 0 {
		c.quantum = int64(s.DRR.Quantum)
	}
	return nil
}

// deleteClass takes a class out, and drops what it holds: no other would have
// been its packets' class.
func (d *drr) deleteClass(x Handle, _ int64) {
	c := d.classes[x]
	var all list
	drain(c.leaf, &all)
	for r := d.t.pool.pop(&all); r != 0; {
		following := d.t.pool.pop(&all)
		d.lose(r, trace.QdiscUnclassified)
		r = following
	}
	d.t.forget(c.leaf)
	delete(d.classes, x)
	d.order = slices.DeleteFunc(d.order, func(o *drrClass) bool { return o == c })
	if c.queued {
		d.unlink(c)
	}
}

func (d *drr) unlink(c *drrClass) {
	var kept []*drrClass
	for d.head != nil {
		if o := d.shift(); o != c {
			kept = append(kept, o)
		}
	}
	for _, o := range kept {
		d.append(o)
	}
}

func (d *drr) slot(class Handle) *discipline {
	if c := d.classes[class]; c != nil {
		return &c.leaf
	}
	return nil
}

func (d *drr) grafted(class Handle) {
	c := d.classes[class]
	if !c.queued && c.leaf.base().qlen > 0 {
		c.deficit = c.quantum
		d.append(c)
	}
}

func (d *drr) xstats(rep *Report, _ int64) {
	for _, c := range d.order {
		b := c.leaf.base()
		r := ClassReport{Kind: "drr", Handle: c.spec.Handle, Parent: c.spec.Parent, Leaf: b.handle, Stats: c.stats, Spec: &c.spec, Deficit: c.deficit}
		r.Stats.Qlen, r.Stats.Backlog = b.qlen, b.bytes
		rep.Classes = append(rep.Classes, r)
	}
}
