// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"

	"sluice/policy/nft"
)

// match compiles a comparison.
func (c *compiler) match(m *nft.Match) error {
	switch right := m.Right.(type) {
	case *nft.SetRef:
		return c.matchSet(m, right)
	case *nft.Concat:
		return c.matchConcat(m, right)
	}
	k, err := constantOf(m)
	if err != nil {
		return err
	}
	return c.matchField(m.Left, k)
}

// comparand is the constant side of a comparison.
type comparand struct {
	cmp      comparison
	bits     int
	mask     value // of all but ranges
	from, to value // to of a range
}

// ones is a number of that many bits, all set.
func ones(bits int) value {
	if bits >= 128 {
		return value{^uint64(0), ^uint64(0)}
	}
	if bits > 64 {
		return value{1<<(bits-64) - 1, ^uint64(0)}
	}
	if bits == 64 {
		return value{0, ^uint64(0)}
	}
	return value{0, 1<<bits - 1}
}

// prefixMask is a number of that many bits, of which the first n are set.
func prefixMask(bits, n int) value { return ones(bits).xor(ones(bits - n)) }

// constantOf is the constant side of the comparison.
func constantOf(m *nft.Match) (comparand, error) {
	switch r := m.Right.(type) {
	case *nft.Value:
		k := comparand{cmp: comparison(m.Op), bits: 8 * r.Bytes(), from: number([]byte(r.Data))}
		k.mask = ones(k.bits)
		if r.Wildcard {
			k.mask = prefixMask(k.bits, 8*len(strings.TrimRight(r.Data, "\x00")))
		}
		return k, nil
	case *nft.Range:
		k := comparand{cmp: cmpIn, bits: 8 * r.From.Bytes(), from: number([]byte(r.From.Data)), to: number([]byte(r.To.Data))}
		if m.Op == nft.Ne {
			k.cmp = cmpOut
		}
		return k, nil
	case *nft.Prefix:
		bits := int(r.Addr.Bits)
		k := comparand{cmp: comparison(m.Op), bits: 8 * r.Addr.Bytes(), from: number([]byte(r.Addr.Data))}
		k.mask = prefixMask(bits, r.Len)
		return k, nil
	}
	return comparand{}, fmt.Errorf("can't compare with %T", m.Right)
}

// matchField compares one field with a constant.
func (c *compiler) matchField(left nft.Expr, k comparand) error {
	in, bits, ok := c.source(left)
	if !ok {
		if b, isBinary := left.(*nft.Binary); isBinary && k.cmp < cmpIn {
			if in, bits, ok = c.masked(b, &k); ok {
				return c.compare(in, bits, k)
			}
		}
		return c.matchComputed(left, k)
	}
	if words(bits) == 2 && in.src >= srcFIB { // inst.arg says already what to ask
		return c.matchComputed(left, k)
	}
	if in.partial(bits) {
		if k.cmp >= cmpIn { // the instruction has no room for a mask
			return c.matchComputed(left, k)
		}
		k.mask = k.mask.and(ones(bits))
	}
	in.mask = 0
	return c.compare(in, bits, k)
}

// masked is a field under a constant mask.
func (c *compiler) masked(b *nft.Binary, k *comparand) (in inst, bits int, ok bool) {
	mask, constant := b.Right.(*nft.Value)
	if b.Op != nft.BinAnd || !constant {
		return inst{}, 0, false
	}
	if in, bits, ok = c.source(b.Left); !ok {
		return inst{}, 0, false
	}
	k.mask = k.mask.and(number([]byte(mask.Data))).and(ones(bits))
	in.mask = 0
	return in, bits, true
}

// matchComputed compares what had to be computed into a register.
func (c *compiler) matchComputed(left nft.Expr, k comparand) error {
	s, err := exprSpec(left)
	if err != nil {
		return err
	}
	n := words(int(s.Bits))
	r, err := c.take(n)
	if err != nil {
		return err
	}
	if err := c.value(left, r, n); err != nil {
		return err
	}
	return c.compare(inst{src: srcReg, aux: r, n: uint8(n)}, int(s.Bits), k)
}

// compare emits the comparison.
func (c *compiler) compare(in inst, bits int, k comparand) error {
	in.cmp = k.cmp
	if words(bits) == 1 {
		in.op, in.imm, in.mask = opMatch, k.from.lo, k.mask.lo
		if k.cmp >= cmpIn {
			in.mask = k.to.lo
		}
		c.emit(in)
		return nil
	}
	if in.src >= srcFIB {
		return errors.New("a value as wide as that can't be compared")
	}
	second := k.mask
	if k.cmp >= cmpIn {
		second = k.to
	}
	in.op, in.arg = opMatchBig, uint32(len(c.code.consts))
	c.code.consts = append(c.code.consts, second, k.from)
	c.emit(in)
	return nil
}

func (c *compiler) matchSet(m *nft.Match, ref *nft.SetRef) error {
	s, err := c.set(ref)
	if err != nil {
		return err
	}
	r, err := c.key(m.Left, s)
	if err != nil {
		return err
	}
	in := inst{op: opLookup, dst: r, arg: c.setIndex(s)}
	if m.Op == nft.Ne {
		in.flag = flagInvert
	}
	c.emit(in)
	return nil
}

// matchConcat compares fields side by side: equal are they one by one, and what
// they are not is what a set of one element has not.
func (c *compiler) matchConcat(m *nft.Match, right *nft.Concat) error {
	left, ok := m.Left.(*nft.Concat)
	if !ok || len(left.Parts) != len(right.Parts) {
		return errors.New("sides of a comparison have different parts")
	}
	if m.Op == nft.Eq {
		for i := range left.Parts {
			if err := c.match(&nft.Match{Op: nft.Eq, Left: left.Parts[i], Right: right.Parts[i]}); err != nil {
				return err
			}
		}
		return nil
	}
	s, err := c.single(left, right)
	if err != nil {
		return err
	}
	r, err := c.key(left, s)
	if err != nil {
		return err
	}
	c.emit(inst{op: opLookup, dst: r, arg: c.setIndex(s), flag: flagInvert})
	return nil
}

// single is a set with the one element that a concatenation is compared with.
func (c *compiler) single(left, right *nft.Concat) (*set, error) {
	tree := &nft.Set{Interval: true}
	var e nft.Elem
	for i, p := range right.Parts {
		spec, err := exprSpec(left.Parts[i])
		if err != nil {
			return nil, err
		}
		tree.Key = append(tree.Key, spec)
		from, to, err := bounds(p)
		if err != nil {
			return nil, err
		}
		e.Key, e.End = e.Key+from, e.End+to
	}
	tree.Elems = tree.Elems.With(&e)
	s := newSet(tree, c.stage.seed, c.stage.grace)
	return s, s.fill(c.table, tree, c.stage)
}

// bounds are the first and the last of what an expression stands for.
func bounds(x nft.Expr) (from, to string, err error) {
	switch x := x.(type) {
	case *nft.Value:
		return x.Data, x.Data, nil
	case *nft.Range:
		return x.From.Data, x.To.Data, nil
	case *nft.Prefix:
		last := make([]byte, x.Addr.Bytes())
		bits := int(x.Addr.Bits)
		number([]byte(x.Addr.Data)).or(ones(bits - x.Len)).put(last)
		return x.Addr.Data, string(last), nil
	}
	return "", "", fmt.Errorf("%T is no constant", x)
}
