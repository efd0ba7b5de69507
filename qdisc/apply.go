// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"sluice/trace"
)

// Bounds of a Spec.
const (
	maxQdiscs  = 4096
	maxClasses = 1 << 16
	maxFilters = 4096
)

// parentOf is a discipline that has others below it.
type parentOf interface {
	discipline
	// slot is where the discipline of a class is; nil if there is no such class, or
	// it isn't a leaf. What is in it may be nil.
	slot(class Handle) *discipline
	// grafted is called after the discipline of a class was changed.
	grafted(class Handle)
}

// classful is a discipline whose classes are made by tc class.
type classful interface {
	parentOf
	setClass(c *Class, now int64) error
	deleteClass(class Handle, now int64)
}

// create makes a discipline without parameters; nil if there is no such kind.
func create(kind string) discipline {
	if d := createFIFO(kind); d != nil {
		return d
	}
	switch kind {
	case "prio":
		return &prio{}
	case "tbf":
		return &tbf{}
	case "htb":
		return &htb{}
	case "codel":
		return &codel{}
	case "fq_codel":
		return &fqCodel{}
	case "fq":
		return &fq{}
	case "sfq":
		return &sfq{}
	case "drr":
		return &drr{}
	case "netem":
		return &netem{}
	}
	return nil
}

func createFIFO(kind string) discipline {
	switch kind {
	case "pfifo":
		return newFIFO(0)
	case "bfifo":
		return newBFIFO(0)
	case "pfifo_fast":
		return &fast{}
	case "ingress":
		return &ingress{}
	}
	return nil
}

// Check reports what is wrong with a Spec, by building it on the side.
func Check(s *Spec) error {
	t := NewTree(NewPool(Limits{Packets: 1, Bytes: slabLen}), 1)
	return t.build(s, 0)
}

// Apply makes the tree what the Spec says. What stays the same keeps its packets,
// tokens and statistics; what has other parameters is changed as it runs; what is
// of another kind, or has another handle, is replaced and its packets go to the new
// one. An error leaves all as it was. The Spec must not change afterwards.
func (t *Tree) Apply(s *Spec, now int64) error {
	if err := Check(s); err != nil {
		return err
	}
	return t.build(s, now)
}

func (t *Tree) build(s *Spec, now int64) error {
	if err := s.bounds(); err != nil {
		return err
	}
	t.maxMem = either(s.Memory, DefaultMemory)
	t.spec = s
	t.setRules(s, now)
	t.nodes = t.nodes[:0]
	root, err := s.rootOf()
	if err != nil {
		return err
	}
	if root == nil {
		t.clear()
		return nil
	}
	b := builder{t, s, now, map[Handle]bool{}}
	if err = b.fit(t.under, root, &t.root); err != nil {
		return err
	}
	if g, ok := t.root.(*ingress); ok {
		g.burst = smallestBurst(t.rules)
	}
	t.slack = slackOf(t.root)
	return b.unused()
}

func (s *Spec) bounds() error {
	switch {
	case len(s.Qdiscs) > maxQdiscs:
		return fmt.Errorf("qdiscs: %d, want at most %d", len(s.Qdiscs), maxQdiscs)
	case len(s.Classes) > maxClasses:
		return fmt.Errorf("classes: %d, want at most %d", len(s.Classes), maxClasses)
	case len(s.Filters) > maxFilters:
		return fmt.Errorf("filters: %d, want at most %d", len(s.Filters), maxFilters)
	case s.Memory < 0:
		return errors.New("memory: want no negative number")
	}
	for i := range s.Filters {
		if err := s.Filters[i].check(); err != nil {
			return fmt.Errorf("filter of %v, pref %d: %w", s.Filters[i].Parent, s.Filters[i].Prio, err)
		}
	}
	return nil
}

func (f *Filter) check() error {
	switch {
	case f.Kind != "u32" && f.Kind != "flower" && f.Kind != "fw" && f.Kind != "matchall":
		return fmt.Errorf("kind: %q is not supported", f.Kind)
	case f.Kind == "flower" && f.Flower == nil:
		return errors.New("flower: the matches are missing")
	case f.Police != nil && f.Police.Rate.Bytes > 0 && f.Police.Burst == 0:
		return errors.New("police: burst: missing beside a rate")
	}
	return nil
}

func (s *Spec) rootOf() (*Qdisc, error) {
	var root *Qdisc
	for i := range s.Qdiscs {
		q := &s.Qdiscs[i]
		if q.Parent != Root && q.Parent != Ingress {
			continue
		}
		if root != nil {
			return nil, fmt.Errorf("qdisc %v: a second root beside %v", q.Handle, root.Handle)
		}
		root = q
	}
	if root == nil && len(s.Qdiscs) > 0 {
		return nil, fmt.Errorf("qdisc %v: there is no root", s.Qdiscs[0].Handle)
	}
	return root, nil
}

// clear drops all that waits, and has no discipline any more.
func (t *Tree) clear() {
	t.slack = 0
	if t.root == nil {
		return
	}
	var all list
	n := t.root.base()
	for m := n.up; m != nil; m = m.up {
		m.qlen -= n.qlen
		m.bytes -= n.bytes
	}
	drain(t.root, &all)
	for r := t.pool.pop(&all); r != 0; {
		following := t.pool.pop(&all)
		t.drop(r, trace.QdiscRemoved)
		r = following
	}
	t.root = nil
}

// Close drops all that waits, and leaves the group.
func (t *Tree) Close() {
	t.clear()
	t.Leave(0)
}

// builder brings a tree in line with a Spec.
type builder struct {
	t    *Tree
	s    *Spec
	now  int64
	seen map[Handle]bool // of disciplines
}

// fit makes what is in a slot below up the discipline q, with all below it.
func (b *builder) fit(up *node, q *Qdisc, slot *discipline) error {
	if q.Handle == 0 || q.Handle.Minor() != 0 {
		return fmt.Errorf("qdisc %v: handle: want a major number and a colon", q.Handle)
	}
	if b.seen[q.Handle] {
		return fmt.Errorf("qdisc %v: handle: is used twice", q.Handle)
	}
	b.seen[q.Handle] = true
	d := b.same(*slot, q)
	fresh := d == nil
	if fresh {
		var err error
		if d, err = b.make(up, q); err != nil {
			return fmt.Errorf("qdisc %v %s: %w", q.Handle, q.Kind, err)
		}
	}
	d.base().spec, d.base().parent = *q, q.Parent
	b.t.nodes = append(b.t.nodes, d)
	if err := b.below(d); err != nil {
		return err
	}
	if fresh {
		b.replace(up, slot, d)
	}
	return nil
}

// same changes d to q's parameters, if it is of q's kind and handle; nil if it has
// to be another one.
func (b *builder) same(d discipline, q *Qdisc) discipline {
	if d == nil || d.base().spec.Kind != q.Kind || d.base().handle != q.Handle {
		return nil
	}
	if !reflect.DeepEqual(d.base().spec, *q) && d.change(q, b.now) != nil {
		return nil // it can't as it runs; Check has seen that q is possible
	}
	return d
}

func (b *builder) make(up *node, q *Qdisc) (discipline, error) {
	d := create(q.Kind)
	if d == nil {
		return nil, fmt.Errorf("kind: %q is not supported", q.Kind)
	}
	n := d.base()
	n.t, n.up, n.handle, n.parent = b.t, up, q.Handle, q.Parent
	return d, d.change(q, b.now)
}

// replace puts d into the slot. Packets of what was there go to it.
func (b *builder) replace(up *node, slot *discipline, d discipline) {
	old := *slot
	*slot = d
	switch {
	case old == nil:
	case up != nil:
		up.requeue(b.now, old, func(r Ref, now int64) bool { return up.offer(d, r, now) })
	default:
		var all list
		drain(old, &all)
		for r := b.t.pool.pop(&all); r != 0; {
			following := b.t.pool.pop(&all)
			d.enqueue(r, b.now)
			r = following
		}
	}
}

// below fits the classes of d, and the disciplines of these.
func (b *builder) below(d discipline) error {
	if c, ok := d.(classful); ok {
		if err := b.classes(c); err != nil {
			return err
		}
	}
	p, ok := d.(parentOf)
	if !ok {
		return nil
	}
	b.prune(p)
	for i := range b.s.Qdiscs {
		q := &b.s.Qdiscs[i]
		if q.Parent == Root || q.Parent == Ingress || q.Parent.Qdisc() != d.base().handle {
			continue
		}
		slot := p.slot(q.Parent)
		if slot == nil {
			return fmt.Errorf("qdisc %v %s: parent: there is no leaf class %v", q.Handle, q.Kind, q.Parent)
		}
		if err := b.fit(d.base(), q, slot); err != nil {
			return err
		}
		p.grafted(q.Parent)
	}
	return nil
}

// prune replaces disciplines of p's classes that the Spec doesn't have by the
// default ones.
func (b *builder) prune(p parentOf) {
	for _, class := range classesOf(p) {
		slot := p.slot(class)
		if slot == nil || *slot == nil || (*slot).base().handle == 0 || b.hasQdisc(class, (*slot).base().handle) {
			continue
		}
		n := p.base()
		switch h := p.(type) {
		case *netem:
			old := h.child
			h.child = nil
			n.requeue(b.now, old, func(r Ref, now int64) bool { n.added(r); h.hold(r, now); return true })
		case *tbf:
			b.replace(n, slot, n.adopt(newBFIFO(h.limit), class))
		default:
			b.replace(n, slot, n.adopt(newFIFO(defaultFrames), class))
		}
		p.grafted(class)
	}
}

func (b *builder) hasQdisc(class, handle Handle) bool {
	return slices.ContainsFunc(b.s.Qdiscs, func(q Qdisc) bool {
		return q.Handle == handle && (q.Parent == class || q.Parent.Qdisc() == class.Qdisc() && q.Parent.Qdisc() != 0 && q.Parent == class)
	})
}

// classesOf is the classes that p has, whether or not tc class made them.
func classesOf(p parentOf) (all []Handle) {
	switch d := p.(type) {
	case *htb:
		for _, c := range d.order {
			all = append(all, c.handle)
		}
	case *drr:
		for _, c := range d.order {
			all = append(all, c.spec.Handle)
		}
	case *prio:
		for i := range d.bands {
			all = append(all, MakeHandle(d.handle.Major(), uint16(i+1)))
		}
	default:
		all = []Handle{MakeHandle(p.base().handle.Major(), 1)}
	}
	return all
}

// classes makes d's classes those of the Spec: the ones that are gone go first,
// from the bottom; parents come before their children.
func (b *builder) classes(d classful) error {
	mine, err := b.classesFor(d)
	if err != nil {
		return err
	}
	b.dismiss(d, mine)
	for i := range b.s.Classes {
		if c := mine[b.s.Classes[i].Handle]; c != nil {
			if err := b.class(d, mine, c, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// dismiss deletes the classes that the Spec doesn't have. One can go when what is
// below it has gone.
func (b *builder) dismiss(d classful, mine map[Handle]*Class) {
	have := classesOf(d)
	for went := true; went; {
		went = false
		for _, x := range have {
			if d.slot(x) != nil && !stays(d, mine, x) {
				d.deleteClass(x, b.now)
				went = true
			}
		}
	}
}

// classesFor is the Spec's classes of d.
func (b *builder) classesFor(d classful) (map[Handle]*Class, error) {
	mine := map[Handle]*Class{}
	for i := range b.s.Classes {
		c := &b.s.Classes[i]
		if c.Handle.Qdisc() != d.base().handle {
			continue
		}
		if c.Handle.Minor() == 0 || mine[c.Handle] != nil {
			return nil, fmt.Errorf("class %v: classid: want another minor number for each class, and not 0", c.Handle)
		}
		if c.Kind != d.base().spec.Kind {
			return nil, fmt.Errorf("class %v: kind: %q below a qdisc of kind %s", c.Handle, c.Kind, d.base().spec.Kind)
		}
		mine[c.Handle] = c
	}
	return mine, nil
}

// class makes or changes a class after its parent.
func (b *builder) class(d classful, mine map[Handle]*Class, c *Class, depth int) error {
	if depth > htbLevels {
		return fmt.Errorf("class %v: parent: more than %d levels, or a circle", c.Handle, htbLevels)
	}
	if p := mine[c.Parent]; p != nil {
		if err := b.class(d, mine, p, depth+1); err != nil {
			return err
		}
	}
	delete(mine, c.Handle)
	if err := d.setClass(c, b.now); err != nil {
		return fmt.Errorf("class %v: %w", c.Handle, err)
	}
	return nil
}

// stays reports whether the Spec has a class, with the parents that it has now.
func stays(d classful, mine map[Handle]*Class, x Handle) bool {
	want := mine[x]
	if want == nil {
		return false
	}
	h, ok := d.(*htb)
	if !ok {
		return true
	}
	have := h.classes[x]
	return have.spec.Parent == want.Parent && (have.above == nil || stays(d, mine, have.above.handle))
}

// unused reports what of the Spec has no place in the tree.
func (b *builder) unused() error {
	for i := range b.s.Qdiscs {
		if q := &b.s.Qdiscs[i]; !b.seen[q.Handle] {
			return fmt.Errorf("qdisc %v %s: parent: there is no class %v", q.Handle, q.Kind, q.Parent)
		}
	}
	for i := range b.s.Classes {
		c := &b.s.Classes[i]
		found := slices.ContainsFunc(b.t.nodes, func(d discipline) bool {
			_, ok := d.(classful)
			return ok && d.base().handle == c.Handle.Qdisc()
		})
		if !found {
			return fmt.Errorf("class %v: there is no qdisc %v that has such classes", c.Handle, c.Handle.Qdisc())
		}
	}
	return nil
}

// adopt makes d a child of n that tc doesn't show.
func (n *node) adopt(d discipline, class Handle) discipline {
	c := d.base()
	c.t, c.up, c.parent = n.t, n, class
	return d
}

// inherit moves the packets of one child to another.
func (n *node) inherit(from, to discipline, now int64) {
	n.requeue(now, from, func(r Ref, now int64) bool { return n.offer(to, r, now) })
}

// forget is for a discipline whose class has gone.
func (t *Tree) forget(d discipline) {
	if p, ok := d.(*portal); ok {
		p.tree.detach()
	}
	t.nodes = slices.DeleteFunc(t.nodes, func(o discipline) bool { return o == d })
}

// setRules takes over the filters. Those that stay the same keep their policers and
// counts.
func (t *Tree) setRules(s *Spec, now int64) {
	old := t.rules
	t.rules = nil
	for i := range s.Filters {
		f := &s.Filters[i]
		at := f.Parent
		if at == Ingress {
			if root, err := s.rootOf(); err == nil && root != nil {
				at = root.Handle
			}
		}
		if t.rules == nil {
			t.rules = map[Handle][]*rule{}
		}
		t.rules[at] = append(t.rules[at], t.ruleFor(f, old[at], now))
	}
	for _, rules := range t.rules {
		slices.SortStableFunc(rules, func(a, b *rule) int { return cmp.Compare(a.Prio, b.Prio) })
	}
}

func (t *Tree) ruleFor(f *Filter, old []*rule, now int64) *rule {
	for _, o := range old {
		if reflect.DeepEqual(o.Filter, f) {
			o.Filter = f
			return o
		}
	}
	r := &rule{Filter: f}
	if f.Police != nil {
		r.police = newPolicer(*f.Police, now)
	}
	return r
}

// smallestBurst is that of all policers; 0 if there is none.
func smallestBurst(rules map[Handle][]*rule) (burst uint64) {
	for _, at := range rules {
		for _, f := range at {
			if f.police != nil && f.police.rate.on() && (burst == 0 || f.police.Burst < burst) {
				burst = f.police.Burst
			}
		}
	}
	return burst
}
