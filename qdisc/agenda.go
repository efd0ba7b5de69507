// SPDX-License-Identifier: Apache-2.0

package qdisc

// agenda is a heap of htb's classes by time. A class can stand in one of each
// kind.
type agenda struct {
	w    []*htbClass
	kind int
}

// first is the earliest time; never if there is none.
func (a *agenda) first() int64 {
	if len(a.w) == 0 {
		return never
	}
	return a.w[0].at[a.kind]
}

// set notes c for a time, instead of any other that it was noted for.
func (a *agenda) set(c *htbClass, at int64) {
	c.at[a.kind] = at
	if c.pos[a.kind] < 0 {
		c.pos[a.kind] = len(a.w)
		a.w = append(a.w, c)
	}
	a.sift(c.pos[a.kind])
}

// forget removes c if it is there.
func (a *agenda) forget(c *htbClass) {
	if c.pos[a.kind] >= 0 {
		a.remove(c)
	}
}

func (a *agenda) remove(c *htbClass) {
	k := a.kind
	last := len(a.w) - 1
	moved := a.w[last]
	a.w[last] = nil
	a.w = a.w[:last]
	if moved != c {
		moved.pos[k] = c.pos[k]
		a.w[c.pos[k]] = moved
		a.sift(moved.pos[k])
	}
	c.pos[k] = -1
}

// sift restores the order around place i.
func (a *agenda) sift(i int) {
	w, t := a.w, a.kind
	c := w[i]
	for i > 0 && c.at[t] < w[(i-1)/2].at[t] {
		w[i] = w[(i-1)/2]
		w[i].pos[t] = i
		i = (i - 1) / 2
	}
	for {
		k := 2*i + 1
		if k+1 < len(w) && w[k+1].at[t] < w[k].at[t] {
			k++
		}
		if k >= len(w) || w[k].at[t] >= c.at[t] {
			break
		}
		w[i] = w[k]
		w[i].pos[t] = i
		i = k
	}
	w[i], c.pos[t] = c, i
}
