// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"errors"
	"fmt"

	"sluice/trace"
)

// Trees across ports.
//
// A group is one tree more, of htb, whose classes are the node, its namespaces
// and their containers. The trees of ports hang below the containers' classes:
// what is enqueued at a port is judged and held by the port's own disciplines, and
// leaves when the classes above have tokens for it. Guarantees and ceilings hold for
// all ports below a class, wherever their packets come from.
//
//	1:1 node ── 1:10 namespace ── 1:11 container ── [portal] ── tree of a port
//
// All of it belongs to one worker.

// portal is a leaf of a group's class that stands for the tree of a port.
type portal struct {
	node
	tree *Tree
}

func (p *portal) enqueue(r Ref, now int64) bool {
	if p.tree.root == nil {
		return p.tree.orphan(r)
	}
	return p.offer(p.tree.root, r, now)
}

func (p *portal) dequeue(now int64) Ref {
	if p.tree.root == nil {
		return 0
	}
	for {
		r := take(p.tree.root, now)
		if r == 0 {
			return 0
		}
		p.sent(r)
		if !p.t.pool.at(r).lost {
			p.tree.release(r)
			return r
		}
		p.tree.drop(r, trace.QdiscMemory)
	}
}

// pass puts a packet of a port below the group's class. A super-frame is cut that is
// beyond the class's quantum, or slow at its ceiling: else whoever sends large ones
// would get more at each turn.
func (t *Tree) pass(r Ref, now int64) bool {
	c := t.group.classes[t.class]
	if !t.group.long(r, uint64(c.quantum), &c.ceil) {
		return t.group.put(c, r, now)
	}
	n := t.root.base()
	segs, lost := t.split(r)
	n.stats.Drops += uint64(lost)
	t.dropped(trace.QdiscMemory, lost)
	taken := false
	for s := t.pool.pop(&segs); s != 0; {
		following := t.pool.pop(&segs)
		if !t.charge(s) {
			n.refuse(s, trace.QdiscMemory)
		} else if t.group.put(c, s, now) {
			taken = true
		}
		s = following
	}
	return taken
}

// release ends the tree's account of a packet that the group has now.
func (t *Tree) release(r Ref) {
	it := t.pool.at(r)
	t.account(-int64(it.mem))
	it.mem = 0
}

func (p *portal) next(now int64) int64 { return p.tree.NextTime(now) }

func (p *portal) drain(out *list) {
	if p.tree.root == nil {
		return
	}
	var all list
	drain(p.tree.root, &all)
	for r := p.t.pool.pop(&all); r != 0; {
		following := p.t.pool.pop(&all)
		p.tree.release(r)
		p.t.pool.push(out, r)
		r = following
	}
}

func (*portal) change(*Qdisc, int64) error { return nil }

func (*portal) xstats(*Report, int64) {}

// Under hangs t below a leaf class of a group: from then on its packets come out of
// the group. What waits in it stays. Preconditions: both have the same pool.
func (t *Tree) Under(group *Tree, class Handle, now int64) error {
	h, ok := group.root.(*htb)
	if !ok {
		return errors.New("the group's root is not htb")
	}
	slot := h.slot(class)
	if slot == nil {
		return fmt.Errorf("class %v: no such leaf", class)
	}
	t.Leave(now)
	p := &portal{tree: t}
	h.adopt(p, class)
	old := *slot
	*slot = p
	t.under, t.group, t.class = &p.node, h, class
	if t.root != nil {
		n := t.root.base()
		n.up = &p.node
		p.qlen, p.bytes = n.qlen, n.bytes
		for m := p.up; m != nil; m = m.up {
			m.qlen += n.qlen
			m.bytes += n.bytes
		}
	}
	h.requeue(now, old, func(r Ref, now int64) bool { return h.offer(p, r, now) })
	h.grafted(class)
	group.slack = min(group.slack, t.slack)
	return nil
}

// Leave takes t out of its group, with what waits in it.
func (t *Tree) Leave(int64) {
	if t.under == nil {
		return
	}
	h, class := t.group, t.class
	for m := t.under.up; m != nil; m = m.up {
		m.qlen -= t.under.qlen
		m.bytes -= t.under.bytes
	}
	t.detach()
	if slot := h.slot(class); slot != nil {
		*slot = h.adopt(newFIFO(defaultFrames), class)
		h.grafted(class)
	}
}

func (t *Tree) detach() {
	if t.root != nil {
		t.root.base().up = nil
	}
	t.under, t.group, t.class = nil, nil, 0
}

// Grouped reports whether t's packets come out of a group.
func (t *Tree) Grouped() bool { return t.under != nil }
