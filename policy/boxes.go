// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
)

// boxes finds the element whose ranges hold a key: a bounding volume hierarchy
// over the elements, each a box with one side for each field. It is immutable. The
// nodes lie in the order in which a search meets them; a search that fails at a
// node goes on at its skip, so that it needs no stack.
//
// Elements of one field don't overlap as a rule, and then it is a balanced search
// tree. A set keeps a few of them, each at least twice as large as the next: one
// that is new is merged with those that aren't, which makes adding one element a
// matter of O(log n) in the long run.
type boxes struct {
	nodes []boxNode
	sides []uint64 // of node i: its least key, and its greatest
	elems []*elem
	dead  int // elements that nobody sees any more; the set's lock guards it
}

// boxNode is a node; a leaf has elems[first:first+n].
type boxNode struct {
	skip     int32
	first, n int32
}

// leafSize is how many elements are looked at one after the other.
const leafSize = 4

// newBoxes builds the tree over elements, which it reorders.
func newBoxes(elems []*elem, fields []field, width int) *boxes {
	b := &boxes{elems: elems}
	for _, e := range elems {
		e.tree = b
	}
	b.build(0, len(elems), fields, width)
	return b
}

func (b *boxes) build(from, to int, fields []field, width int) {
	me := len(b.nodes)
	b.nodes = append(b.nodes, boxNode{})
	b.sides = append(b.sides, make([]uint64, 2*width)...)
	lo, hi := b.sides[2*width*me:][:width], b.sides[2*width*me+width:][:width]
	bound(lo, hi, b.elems[from:to], fields)
	if to-from <= leafSize {
		b.nodes[me] = boxNode{skip: int32(me + 1), first: int32(from), n: int32(to - from)}
		return
	}
	split(b.elems[from:to], fields)
	mid := (from + to) / 2
	b.build(from, mid, fields, width)
	b.build(mid, to, fields, width)
	b.nodes[me].skip = int32(len(b.nodes))
}

// bound makes lo and hi the box round elements.
func bound(lo, hi []uint64, elems []*elem, fields []field) {
	copy(lo, elems[0].key)
	copy(hi, elems[0].upper())
	for _, e := range elems[1:] {
		for _, f := range fields {
			if valueOf(e.key[f.at:], f.words).less(valueOf(lo[f.at:], f.words)) {
				copy(lo[f.at:f.at+f.words], e.key[f.at:])
			}
			if valueOf(hi[f.at:], f.words).less(valueOf(e.upper()[f.at:], f.words)) {
				copy(hi[f.at:f.at+f.words], e.upper()[f.at:])
			}
		}
	}
}

// upper is the last key of the element.
func (e *elem) upper() []uint64 {
	if e.end == nil {
		return e.key
	}
	return e.end
}

// split sorts elements by the field that has the most different values.
func split(elems []*elem, fields []field) {
	best, most := fields[0], -1
	if len(fields) > 1 {
		for _, f := range fields {
			if n := variety(elems, f); n > most {
				best, most = f, n
			}
		}
	}
	slices.SortFunc(elems, func(x, y *elem) int { return compareField(x.key, y.key, best) })
}

func compareField(x, y []uint64, f field) int {
	if c := cmp.Compare(x[f.at], y[f.at]); c != 0 || f.words == 1 {
		return c
	}
	return cmp.Compare(x[f.at+1], y[f.at+1])
}

// variety says how many values of a field a sample of the elements has.
func variety(elems []*elem, f field) int {
	const sample = 32
	step := max(1, len(elems)/sample)
	seen := make(map[value]struct{}, sample)
	for i := 0; i < len(elems); i += step {
		seen[valueOf(elems[i].key[f.at:], f.words)] = struct{}{}
	}
	return len(seen)
}

// find is the element that holds the key and exists for gen; of several the one
// that was there first. best is what was found elsewhere, or nil.
func (b *boxes) find(best *elem, key []uint64, fields []field, gen uint64, now int64) *elem {
	width := len(key)
	if width == 1 {
		return b.find1(key, gen, now)
	}
	for i := 0; i < len(b.nodes); {
		n := &b.nodes[i]
		if !inside(key, b.sides[2*width*i:2*width*(i+1)], fields) {
			i = int(n.skip)
			continue
		}
		for _, e := range b.elems[n.first : n.first+n.n] {
			if (best == nil || e.order < best.order) && e.holds(key, fields) && e.visible(gen, now) {
				best = e
			}
		}
		if best != nil && len(fields) == 1 {
			return best
		}
		i++
	}
	return best
}

// find1 is find for a key of one register.
func (b *boxes) find1(key []uint64, gen uint64, now int64) *elem {
	k := key[0]
	for i := 0; i < len(b.nodes); {
		n := &b.nodes[i]
		if s := b.sides[2*i : 2*i+2]; k < s[0] || s[1] < k {
			i = int(n.skip)
			continue
		}
		for _, e := range b.elems[n.first : n.first+n.n] {
			if e.key[0] <= k && k <= e.upper()[0] && e.visible(gen, now) {
				return e
			}
		}
		i++
	}
	return nil
}

// first is an element in whose box the key is, and which is as is says.
func (b *boxes) first(key []uint64, fields []field, is func(*elem) bool) *elem {
	width := len(key)
	for i := 0; i < len(b.nodes); {
		n := &b.nodes[i]
		if !inside(key, b.sides[2*width*i:2*width*(i+1)], fields) {
			i = int(n.skip)
			continue
		}
		for _, e := range b.elems[n.first : n.first+n.n] {
			if is(e) {
				return e
			}
		}
		i++
	}
	return nil
}

// inside reports whether the key is in the box whose sides are given.
func inside(key, sides []uint64, fields []field) bool {
	width := len(key)
	for _, f := range fields {
		if f.words == 1 {
			if k := key[f.at]; k < sides[f.at] || sides[width+f.at] < k {
				return false
			}
			continue
		}
		v := valueOf(key[f.at:], 2)
		if v.less(valueOf(sides[f.at:], 2)) || valueOf(sides[width+f.at:], 2).less(v) {
			return false
		}
	}
	return true
}
