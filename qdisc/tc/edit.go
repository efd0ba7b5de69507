// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"fmt"
	"slices"

	"sluice/qdisc"
)

// firstAuto is the first handle of a discipline that was given none, as the kernel's.
const firstAuto = 0x8001

// lastPref is the preference of the first filter that was given none; the next one is
// before it.
const lastPref = 49152

// Apply is the Spec that s becomes by the command. s is not changed. It is of the
// direction that the command speaks of.
func (c *Command) Apply(s *qdisc.Spec) (*qdisc.Spec, error) {
	n := &qdisc.Spec{
		Qdiscs: slices.Clone(s.Qdiscs), Classes: slices.Clone(s.Classes), Filters: slices.Clone(s.Filters), Memory: s.Memory,
	}
	var err error
	switch c.Object {
	case "qdisc":
		err = c.editQdisc(n)
	case "class":
		err = c.editClass(n)
	case "filter":
		err = c.editFilter(n)
	}
	if err == nil && c.Verb != "show" {
		err = qdisc.Check(n)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", c.Object, c.Verb, err)
	}
	return n, nil
}

// find is the discipline that the command speaks of: by its parent, or its handle.
func (c *Command) find(s *qdisc.Spec) int {
	return slices.IndexFunc(s.Qdiscs, func(q qdisc.Qdisc) bool {
		if c.Qdisc.Parent != 0 {
			return q.Parent == c.Qdisc.Parent && (c.Verb == "replace" || c.Qdisc.Handle == 0 || q.Handle == c.Qdisc.Handle || c.Verb == "add")
		}
		return q.Handle == c.Qdisc.Handle
	})
}

func (c *Command) editQdisc(s *qdisc.Spec) error {
	q, i := c.Qdisc, c.find(s)
	switch c.Verb {
	case "add":
		if i >= 0 {
			return fmt.Errorf("%v has qdisc %s %v already, use replace or change", q.Parent, s.Qdiscs[i].Kind, s.Qdiscs[i].Handle)
		}
		return addQdisc(s, q)
	case "change":
		if i < 0 {
			return errors.New("there is no such qdisc, use add")
		}
		return changeQdisc(&s.Qdiscs[i], q)
	case "replace":
		if i < 0 {
			return addQdisc(s, q)
		}
		old := &s.Qdiscs[i]
		if old.Kind == q.Kind && (q.Handle == 0 || q.Handle == old.Handle) {
			return changeQdisc(old, q)
		}
		removeQdisc(s, old.Handle)
		return addQdisc(s, q)
	case "delete":
		if i < 0 {
			return errors.New("there is no such qdisc")
		}
		removeQdisc(s, s.Qdiscs[i].Handle)
	}
	return nil
}

func changeQdisc(old *qdisc.Qdisc, q qdisc.Qdisc) error {
	if old.Kind != q.Kind {
		return fmt.Errorf("kind: is %s, use replace for %s", old.Kind, q.Kind)
	}
	q.Handle, q.Parent = old.Handle, old.Parent
	*old = q
	return nil
}

func addQdisc(s *qdisc.Spec, q qdisc.Qdisc) error {
	used := func(h qdisc.Handle) bool {
		return slices.ContainsFunc(s.Qdiscs, func(o qdisc.Qdisc) bool { return o.Handle == h })
	}
	if q.Handle == 0 {
		for q.Handle = qdisc.MakeHandle(firstAuto, 0); used(q.Handle); q.Handle += 1 << 16 {
		}
	}
	if used(q.Handle) {
		return fmt.Errorf("handle: %v is another qdisc's", q.Handle)
	}
	s.Qdiscs = append(s.Qdiscs, q)
	return nil
}

// removeQdisc takes out a discipline with its classes, filters and all below it.
func removeQdisc(s *qdisc.Spec, h qdisc.Handle) {
	isRoot := false
	s.Qdiscs = slices.DeleteFunc(s.Qdiscs, func(q qdisc.Qdisc) bool {
		isRoot = isRoot || q.Handle == h && (q.Parent == qdisc.Root || q.Parent == qdisc.Ingress)
		return q.Handle == h
	})
	if isRoot {
		s.Qdiscs, s.Classes, s.Filters = nil, nil, nil
		return
	}
	s.Classes = slices.DeleteFunc(s.Classes, func(c qdisc.Class) bool { return c.Handle.Qdisc() == h })
	s.Filters = slices.DeleteFunc(s.Filters, func(f qdisc.Filter) bool { return f.Parent.Qdisc() == h })
	for _, q := range slices.Clone(s.Qdiscs) {
		if q.Parent != qdisc.Root && q.Parent.Qdisc() == h {
			removeQdisc(s, q.Handle)
		}
	}
}

func (c *Command) editClass(s *qdisc.Spec) error {
	k := c.Class
	i := slices.IndexFunc(s.Classes, func(o qdisc.Class) bool { return o.Handle == k.Handle })
	if k.Parent == k.Handle.Qdisc() && k.Kind == "htb" {
		k.Parent = qdisc.Root // as tc shows it
	}
	switch {
	case c.Verb == "add" && i >= 0:
		return fmt.Errorf("class %v is there already, use replace or change", k.Handle)
	case (c.Verb == "change" || c.Verb == "delete") && i < 0:
		return fmt.Errorf("there is no class %v", k.Handle)
	case c.Verb == "delete":
		return removeClass(s, i)
	case i < 0:
		return addClass(s, k)
	}
	old := &s.Classes[i]
	if k.Parent != 0 && k.Parent != old.Parent {
		return fmt.Errorf("parent: class %v is below %v, delete it first", k.Handle, old.Parent)
	}
	k.Parent = old.Parent
	*old = k
	return nil
}

func addClass(s *qdisc.Spec, k qdisc.Class) error {
	if k.Parent == 0 {
		return errors.New("parent: missing")
	}
	if p := k.Parent; p.Minor() != 0 && p != qdisc.Root {
		dropLeaf(s, p)
	}
	s.Classes = append(s.Classes, k)
	return nil
}

// dropLeaf takes out the discipline of a class that is a leaf no longer.
func dropLeaf(s *qdisc.Spec, class qdisc.Handle) {
	for _, q := range slices.Clone(s.Qdiscs) {
		if q.Parent == class {
			removeQdisc(s, q.Handle)
		}
	}
}

func removeClass(s *qdisc.Spec, i int) error {
	h := s.Classes[i].Handle
	for _, o := range s.Classes {
		if o.Parent == h {
			return fmt.Errorf("class %v has class %v below it", h, o.Handle)
		}
	}
	for _, f := range s.Filters {
		if f.Class == h {
			return fmt.Errorf("class %v: filters of %v lead to it", h, f.Parent)
		}
	}
	dropLeaf(s, h)
	s.Classes = slices.Delete(s.Classes, i, i+1)
	return nil
}

func (c *Command) editFilter(s *qdisc.Spec) error {
	f := c.Filter
	if err := c.placeFilter(s, &f); err != nil {
		return err
	}
	if c.Verb == "delete" {
		return c.removeFilters(s, f)
	}
	i := -1
	if c.hasPrio && f.Handle != 0 {
		i = slices.IndexFunc(s.Filters, func(o qdisc.Filter) bool { return sameFilter(&o, &f) })
	}
	switch {
	case c.Verb == "add" && i >= 0:
		return errors.New("the filter is there already, use replace or change")
	case c.Verb == "change" && i < 0:
		return errors.New("there is no such filter: want its pref and handle")
	case i >= 0:
		s.Filters[i] = f
		return nil
	}
	enumerate(s, &f, c.hasPrio)
	s.Filters = append(s.Filters, f)
	return nil
}

// placeFilter makes the parent of a filter the handle of a discipline that is there.
func (c *Command) placeFilter(s *qdisc.Spec, f *qdisc.Filter) error {
	if f.Parent == qdisc.Root || f.Parent == qdisc.Ingress {
		root := slices.IndexFunc(s.Qdiscs, func(q qdisc.Qdisc) bool { return q.Parent == f.Parent || c.from && q.Parent == qdisc.Ingress })
		if root < 0 {
			return fmt.Errorf("parent: there is no %v qdisc", f.Parent)
		}
		f.Parent = s.Qdiscs[root].Handle
	}
	at := slices.IndexFunc(s.Qdiscs, func(q qdisc.Qdisc) bool { return q.Handle == f.Parent.Qdisc() })
	if at < 0 {
		return fmt.Errorf("parent: there is no qdisc %v", f.Parent.Qdisc())
	}
	switch q := s.Qdiscs[at]; q.Kind {
	case "prio", "htb", "drr", "fq_codel", "sfq", "ingress":
		return nil
	default:
		return fmt.Errorf("parent: %s %v asks no filters, want prio, htb, drr, fq_codel, sfq or ingress", q.Kind, q.Handle)
	}
}

func sameFilter(a, b *qdisc.Filter) bool {
	return a.Parent == b.Parent && a.Prio == b.Prio && a.Handle == b.Handle && (a.Kind == b.Kind || b.Kind == "")
}

// enumerate gives a filter the preference and the handle that it was not given.
func enumerate(s *qdisc.Spec, f *qdisc.Filter, hasPrio bool) {
	if !hasPrio || f.Prio == 0 {
		f.Prio = freePref(s, f.Parent)
	}
	if f.Handle != 0 || f.Kind == "fw" {
		return
	}
	if f.Handle = 1; f.Kind == "u32" {
		f.Handle = 0x800
	}
	for _, o := range s.Filters {
		if o.Parent == f.Parent && o.Prio == f.Prio && o.Handle >= f.Handle {
			f.Handle = o.Handle + 1
		}
	}
}

// freePref is a preference before those that were given to others.
func freePref(s *qdisc.Spec, parent qdisc.Handle) uint32 {
	pref := uint32(lastPref)
	for _, o := range s.Filters {
		if o.Parent == parent && o.Prio <= pref && o.Prio > lastPref/2 {
			pref = o.Prio - 1
		}
	}
	return pref
}

// removeFilters takes out those of a parent, of a preference, or one.
func (c *Command) removeFilters(s *qdisc.Spec, f qdisc.Filter) error {
	before := len(s.Filters)
	s.Filters = slices.DeleteFunc(s.Filters, func(o qdisc.Filter) bool {
		switch {
		case o.Parent != f.Parent, f.Kind != "" && o.Kind != f.Kind, c.hasPrio && o.Prio != f.Prio:
			return false
		}
		return f.Handle == 0 || o.Handle == f.Handle
	})
	if len(s.Filters) == before {
		return errors.New("there is no such filter")
	}
	return nil
}
