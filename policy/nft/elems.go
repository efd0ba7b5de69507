// SPDX-License-Identifier: Apache-2.0

package nft

import "iter"

// Elems are the elements of a set in the order of their keys: a balanced tree
// whose versions share what is equal, so that a change costs what it changes.
type Elems struct{ root *node }

// node is one of a treap. Its priority is a hash of its key, so that equal
// contents have equal trees.
type node struct {
	elem        *Elem
	left, right *node
	prio        uint32
	size        int
}

// Len is how many there are.
func (e Elems) Len() int { return e.root.len() }

func (n *node) len() int {
	if n == nil {
		return 0
	}
	return n.size
}

// All goes through the elements in the order of their keys.
func (e Elems) All() iter.Seq[*Elem] {
	return func(yield func(*Elem) bool) { e.root.walk(yield) }
}

func (n *node) walk(yield func(*Elem) bool) bool {
	return n == nil || n.left.walk(yield) && yield(n.elem) && n.right.walk(yield)
}

// Find is the element with exactly that first key, or nil.
func (e Elems) Find(key string) *Elem {
	n := e.root
	for n != nil && n.elem.Key != key {
		if key < n.elem.Key {
			n = n.left
		} else {
			n = n.right
		}
	}
	if n == nil {
		return nil
	}
	return n.elem
}

// Floor is the last element whose first key is not above key, or nil.
func (e Elems) Floor(key string) *Elem {
	var best *Elem
	for n := e.root; n != nil; {
		if n.elem.Key <= key {
			best, n = n.elem, n.right
		} else {
			n = n.left
		}
	}
	return best
}

// Ceil is the first element whose first key is not below key, or nil.
func (e Elems) Ceil(key string) *Elem {
	var best *Elem
	for n := e.root; n != nil; {
		if n.elem.Key >= key {
			best, n = n.elem, n.left
		} else {
			n = n.right
		}
	}
	return best
}

// With is e with elem in it, in the place of one with the same first key.
func (e Elems) With(elem *Elem) Elems {
	l, _, r := split(e.root, elem.Key)
	n := &node{elem: elem, prio: hashKey(elem.Key), size: 1}
	return Elems{merge(merge(l, n), r)}
}

// Without is e without the element of that first key.
func (e Elems) Without(key string) Elems {
	l, _, r := split(e.root, key)
	return Elems{merge(l, r)}
}

// Changed goes through what differs between two versions: an element that is
// gone has no second, a new one no first. Parts that are shared cost nothing.
func Changed(a, b Elems) iter.Seq2[*Elem, *Elem] {
	return func(yield func(*Elem, *Elem) bool) { changed(a.root, b.root, yield) }
}

func changed(a, b *node, yield func(was, is *Elem) bool) bool {
	switch {
	case a == b:
		return true
	case a == nil:
		return b.walk(func(e *Elem) bool { return yield(nil, e) })
	case b == nil:
		return a.walk(func(e *Elem) bool { return yield(e, nil) })
	}
	bl, bm, br := split(b, a.elem.Key)
	if !changed(a.left, bl, yield) {
		return false
	}
	if (bm == nil || bm.elem != a.elem) && !yield(a.elem, bm.value()) {
		return false
	}
	return changed(a.right, br, yield)
}

func (n *node) value() *Elem {
	if n == nil {
		return nil
	}
	return n.elem
}

// hashKey is FNV-1a with its low bits spread.
func hashKey(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	h ^= h >> 15
	h *= 0x2c1b3c6d
	return h ^ h>>12
}

// with is n with other children.
func (n *node) with(l, r *node) *node {
	if l == n.left && r == n.right {
		return n
	}
	return &node{elem: n.elem, prio: n.prio, left: l, right: r, size: l.len() + 1 + r.len()}
}

// split takes apart what is below key, at it and above it.
func split(n *node, key string) (l, at, r *node) {
	switch {
	case n == nil:
		return nil, nil, nil
	case key < n.elem.Key:
		l, at, r = split(n.left, key)
		return l, at, n.with(r, n.right)
	case key > n.elem.Key:
		l, at, r = split(n.right, key)
		return n.with(n.left, l), at, r
	}
	return n.left, n, n.right
}

// merge joins two trees, all of l below all of r.
func merge(l, r *node) *node {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case l.prio > r.prio:
		return l.with(l.left, merge(l.right, r))
	}
	return r.with(merge(l, r.left), r.right)
}
