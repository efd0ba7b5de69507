// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/bits"
	"slices"

	"sluice/packet"
	"sluice/policy/nft"
)

// Rules that follow each other often ask for the same fields: an address, a port, a
// device. An index says of some of them, for each value that such a field may have,
// which rules may be met; the others are passed over. All rules are still there, and
// those that are left are evaluated whole, in their order: what is passed over would
// have failed before it did anything.
//
// Only what flow caches have in their key is asked, so that the flow's next packet
// would pass over the same ones; of a packet that has no such field in its key the
// index asks nothing, and leaves out only rules that want another protocol.

const (
	indexRules  = 256 // of one index
	indexLeast  = 16  // rules; of less it isn't worth it
	indexFields = 3
)

// row says which rules of an index may be met.
type row [indexRules / 64]uint64

func (r *row) set(i int) { r[i/64] |= 1 << (i % 64) }

// next is the first rule from the i-th on, or indexRules.
func (r *row) next(i int) int {
	for w := i / 64; w < len(r); w++ {
		x := r[w]
		if w == i/64 {
			x &= ^uint64(0) << (i % 64)
		}
		if x != 0 {
			return 64*w + bits.TrailingZeros64(x)
		}
	}
	return indexRules
}

func (r *row) count() (n int) {
	for _, x := range r {
		n += bits.OnesCount64(x)
	}
	return n
}

// index is over rules of a program that follow each other.
type index struct {
	first, n int // rules
	fields   []indexField
}

// indexField is a field that rules ask for.
type indexField struct {
	in     inst // loads it
	bounds []value
	rows   []row // of values from bounds[i] on, up to the next
	none   row   // the packet has none
	others row   // it is of a protocol that has it not in its key
}

// span is what of a field's values a rule wants.
type span struct{ from, to value }

// asked is what a rule asks before it does anything.
type asked struct {
	in   inst // with the field
	span span
}

// place is what of an instruction says which field it reads.
func (in *inst) place() inst {
	return inst{src: in.src, n: in.n, shift: in.shift, aux: in.aux, off: in.off, flag: in.flag}
}

// mayIndex reports whether rules may be found by the field.
func (in *inst) mayIndex() bool {
	switch in.src {
	case srcNetwork, srcTransport, srcLink:
		return in.flag != 0
	case srcMeta:
		return slices.Contains([]metaKey{metaIIF, metaIIFName, metaOIF, metaOIFName, metaL4Proto, metaNFProto}, metaKey(in.aux))
	default:
	}
	return false
}

// asks are the comparisons at the rule's begin that have no effect but to end it.
func (c *code) asks(pc uint32) (all []asked) {
	for ; ; pc++ {
		in := &c.insts[pc]
		switch in.op {
		case opLoad, opLoadBig:
			if in.src == srcNumgen {
				return all
			}
		case opBits:
		case opMatch, opMatchBig:
			if s, ok := c.span(in); ok && in.mayIndex() {
				all = append(all, asked{in: in.place(), span: s})
			}
		default:
			return all
		}
	}
}

// span is which values a comparison is true of; false if they are not in one piece.
func (c *code) span(in *inst) (span, bool) {
	width := 8*int(in.n) - int(in.shift)
	full, mask, imm := ones(width), value{0, in.mask}, value{0, in.imm}
	if in.op == opMatchBig {
		mask, imm = c.consts[in.arg], c.consts[in.arg+1]
	}
	if in.cmp == cmpIn {
		return span{imm, mask}, true
	}
	low := full.xor(mask.and(full)) // bits that don't matter
	whole := low.zero()
	if in.cmp == cmpEq {
		return span{imm, imm.or(low)}, low == ones(bitLen(low)) && imm.and(low).zero()
	}
	if !whole || width > 64 {
		return span{}, false
	}
	switch in.cmp {
	case cmpLt:
		return span{value{}, value{0, imm.lo - 1}}, imm.lo > 0
	case cmpLe:
		return span{value{}, imm}, true
	case cmpGt:
		return span{value{0, imm.lo + 1}, full}, imm.lo < full.lo
	case cmpGe:
		return span{imm, full}, true
	default:
	}
	return span{}, false
}

func bitLen(v value) int {
	if v.hi != 0 {
		return 64 + bits.Len64(v.hi)
	}
	return bits.Len64(v.lo)
}

// guardOf reports whether a packet of which the field is not in the flow's key can't be
// what the comparison wants: it is of another protocol.
func (a *asked) guardOf(field *inst) bool {
	if a.in.src != srcMeta || a.span.from != a.span.to {
		return false
	}
	n := a.span.from.lo
	switch {
	case field.src == srcTransport && metaKey(a.in.aux) == metaL4Proto:
		return field.flag&keyedOf(uint8(n)) != 0
	case field.src == srcNetwork && metaKey(a.in.aux) == metaNFProto && n == uint64(nft.FamilyIP):
		return field.flag&flagKeyed4 != 0
	case field.src == srcNetwork && metaKey(a.in.aux) == metaNFProto && n == uint64(nft.FamilyIP6):
		return field.flag&flagKeyed6 != 0
	}
	return false
}

// keyedOf is the bit that says that the flow's key has a field of a transport header.
func keyedOf(proto uint8) uint8 {
	switch proto {
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return flagKeyedICMP
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		return flagKeyedPorts
	}
	return 0
}

// index makes indexes where they are worth it, and puts an instruction that uses them
// before each rule of theirs.
func (c *code) index() {
	if len(c.rules) < indexLeast {
		return
	}
	all := make([][]asked, len(c.rules))
	for i := range c.rules {
		all[i] = c.asks(c.rules[i].start)
	}
	of := make([]int, len(c.rules)) // the rule's index, from 1
	for first := 0; first < len(all); first += indexRules {
		part := all[first:min(first+indexRules, len(all))]
		if x, ok := newIndex(part); ok {
			x.first = first
			c.indexes = append(c.indexes, x)
			for i := range part {
				of[first+i] = len(c.indexes)
			}
		}
	}
	if len(c.indexes) > 0 {
		c.insert(of)
	}
}

// insert puts an instruction before each rule that is in an index.
func (c *code) insert(of []int) {
	insts := make([]inst, 0, len(c.insts)+len(c.rules))
	for i := range c.rules {
		from, to := c.rules[i].start, uint32(len(c.insts)-1)
		if i+1 < len(c.rules) {
			to = c.rules[i+1].start
		}
		shift := uint32(len(insts)) - from
		c.rules[i].start = uint32(len(insts))
		if of[i] > 0 {
			shift++
			insts = append(insts, inst{op: opIndex, arg: uint32(of[i] - 1), imm: uint64(i - c.indexes[of[i]-1].first)})
		}
		for _, in := range c.insts[from:to] {
			if in.op == opLog { // it says where it is
				in.imm += uint64(shift)
			}
			insts = append(insts, in)
		}
	}
	c.insts = append(insts, c.insts[len(c.insts)-1])
}

// newIndex makes the index of rules by up to three fields: those that leave the least
// of them. false: none leaves only half.
func newIndex(rules [][]asked) (index, bool) {
	if len(rules) < indexLeast {
		return index{}, false
	}
	uses := map[inst]int{}
	for _, asks := range rules {
		for _, a := range asks {
			uses[a.in]++
		}
	}
	type ranked struct {
		field indexField
		left  int // percent of the rules
	}
	var all []ranked
	for in, n := range uses {
		if 4*n >= len(rules) {
			f := newIndexField(in, rules)
			sum := 0
			for i := range f.rows {
				sum += f.rows[i].count()
			}
			all = append(all, ranked{f, 100 * sum / (len(f.rows) * len(rules))})
		}
	}
	slices.SortFunc(all, func(x, y ranked) int { return x.left*1000 + int(x.field.in.off) - y.left*1000 - int(y.field.in.off) })
	x := index{n: len(rules)}
	left := 100
	for _, r := range all {
		if len(x.fields) < indexFields && len(rules)*left*(100-r.left)/10_000 >= indexLeast/2 {
			x.fields = append(x.fields, r.field)
			left = left * r.left / 100
		}
	}
	return x, len(rules)*(100-left) >= 100*indexLeast/2
}

// newIndexField finds out which rules each value of the field leaves.
func newIndexField(in inst, rules [][]asked) indexField {
	f := indexField{in: in, bounds: []value{{}}}
	f.in.op = opLoad
	wants := make([]span, len(rules))
	for i, asks := range rules {
		wants[i] = span{value{}, ones(128)}
		there := false
		for k := range asks {
			if asks[k].in == in && !there {
				there = true
				s := asks[k].span
				wants[i] = s
				f.bounds = append(f.bounds, s.from)
				if s.to != ones(128) {
					f.bounds = append(f.bounds, s.to.next())
				}
			}
		}
		if !there {
			f.none.set(i)
		}
		if !slices.ContainsFunc(asks, func(a asked) bool { return a.guardOf(&in) }) {
			f.others.set(i)
		}
	}
	slices.SortFunc(f.bounds, value.compare)
	f.bounds = slices.Compact(f.bounds)
	f.rows = make([]row, len(f.bounds))
	for i, w := range wants {
		from, _ := slices.BinarySearchFunc(f.bounds, w.from, value.compare)
		for k := from; k < len(f.bounds) && f.bounds[k].compare(w.to) <= 0; k++ {
			f.rows[k].set(i)
		}
	}
	return f
}

// next is the number after it.
func (v value) next() value {
	lo := v.lo + 1
	if lo == 0 {
		return value{v.hi + 1, 0}
	}
	return value{v.hi, lo}
}

// skip is where the next rule is that may be met: this one, or one after it.
func (e *Evaluator) skip(c *code, in *inst) uint32 {
	x := &c.indexes[in.arg]
	if e.indexed != x {
		e.indexed = x
		e.row = row{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		for i := range x.fields {
			r := x.fields[i].row(e, c)
			for k := range e.row {
				e.row[k] &= r[k]
			}
		}
	}
	i := x.first + e.row.next(int(in.imm))
	if i < x.first+x.n {
		return c.rules[i].start + 1
	}
	if i = x.first + x.n; i < len(c.rules) {
		return c.rules[i].start
	}
	return uint32(len(c.insts) - 1)
}

// row is what the packet's value leaves.
func (f *indexField) row(e *Evaluator, c *code) *row {
	if f.in.src <= srcTransport { // the payload's sources come first, after registers
		h := &e.headers[f.in.src-srcLink]
		if int(f.in.off)+int(f.in.n) > len(h.bytes) {
			return &f.none
		}
		if f.in.flag&h.keyed == 0 {
			return &f.others
		}
	}
	v, ok := e.load(c, &f.in)
	if !ok {
		return &f.none
	}
	lo, hi := 0, len(f.bounds)
	for lo+1 < hi {
		if mid := int(uint(lo+hi) >> 1); v.less(f.bounds[mid]) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return &f.rows[lo]
}
