// SPDX-License-Identifier: Apache-2.0

package conntrack

// links are doubly linked lists of record numbers, in two flat arrays. Each list
// begins and ends at a sentinel, a number beyond those of the records. A record
// is in one list of a links at most; one that is in none points to itself.
type links struct{ prev, next []uint32 }

// newLinks makes room for n records and some sentinels, all in no list.
func newLinks(n, sentinels int) links {
	l := links{make([]uint32, n+sentinels), make([]uint32, n+sentinels)}
	return l
}

// reset makes i a list of its own: an empty one, or a record in none.
func (l links) reset(i uint32) { l.prev[i], l.next[i] = i, i }

// push puts i at the end of the list of sentinel s.
func (l links) push(s, i uint32) {
	last := l.prev[s]
	l.prev[i], l.next[i] = last, s
	l.next[last], l.prev[s] = i, i
}

// remove takes i out of its list.
func (l links) remove(i uint32) {
	p, n := l.prev[i], l.next[i]
	l.next[p], l.prev[n] = n, p
	l.reset(i)
}

// linked reports whether i is in a list.
func (l links) linked(i uint32) bool { return l.next[i] != i }

// first is the first of the list of s, or s itself if it is empty.
func (l links) first(s uint32) uint32 { return l.next[s] }

// extend puts i at the end of a run, which may be empty.
func (l links) extend(r *run, i uint32) {
	if r.first == none {
		r.first = i
	} else {
		l.next[r.last], l.prev[i] = i, r.last
	}
	r.last = i
}

// join puts a run, which may be empty, at the end of the list of sentinel s.
func (l links) join(s uint32, r run) {
	if r.first == none {
		return
	}
	last := l.prev[s]
	l.next[last], l.prev[r.first] = r.first, last
	l.next[r.last], l.prev[s] = s, r.last
}
