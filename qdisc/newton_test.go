// SPDX-License-Identifier: Apache-2.0

package qdisc

// LinuxLaw gives CoDel the kernel's root: a number of 16 bits, that is improved by one of
// Newton's steps with each drop, and that of 2 is ½ for it. So beside a kernel all but
// this can be compared.
func (t *Tree) LinuxLaw() {
	roots := map[*control]*newton{}
	law := func(a *aqm, c *control, at int64) int64 {
		if roots[c] == nil {
			roots[c] = &newton{}
		}
		return roots[c].next(a, c, at)
	}
	for _, d := range t.nodes {
		switch d := d.(type) {
		case *codel:
			d.law = law
		case *fqCodel:
			d.law = law
		}
	}
}

// newton is the kernel's 1/√count of a queue.
type newton struct {
	inverse       uint32 // of 1<<16
	count, before uint32 // at the last drop, and lastCount then
}

// next is the kernel's codel_control_law, in its ticks of 1,024 ns, and what it did to the
// root since the last drop.
func (r *newton) next(a *aqm, c *control, at int64) int64 {
	began := c.count == c.lastCount
	switch ended := c.count + r.before; {
	case began && c.count == 1:
		r.inverse = 1<<16 - 1
	case began && ended > r.count: // the drop that ended the last time of dropping
		r.step(ended)
		r.step(c.count)
	default:
		r.step(c.count)
	}
	r.count, r.before = c.count, c.lastCount
	return (at>>10 + (a.interval>>10)*int64(r.inverse)>>16) << 10
}

func (r *newton) step(count uint32) {
	x := r.inverse << 16
	square := uint32(uint64(x) * uint64(x) >> 32)
	y := (3<<32 - uint64(count)*uint64(square)) >> 2
	r.inverse = uint32(y * uint64(x) >> 31 >> 16)
}
