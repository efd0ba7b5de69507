// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"sync/atomic"

	"sluice/policy/nft"
)

// source describes where the value of an expression comes from, if one instruction
// can say, and how many bits it has. They are the lowest of what is loaded, under
// in.mask, see partial.
func (c *compiler) source(x nft.Expr) (in inst, bits int, ok bool) {
	switch x := x.(type) {
	case *nft.Payload:
		in = place(x.Offset, int(x.Bits))
		in.src = srcLink + source(x.Base)
		return in, int(x.Bits), true
	case *nft.Meta:
		key, known := c.stage.metas[x.Key]
		return inst{src: srcMeta, aux: uint8(key), n: uint8(x.Bytes())}, int(x.Bits), known
	case *nft.CT:
		key, known := c.stage.cts[x.Key]
		return inst{src: srcCT, aux: uint8(key), n: uint8(x.Bytes()), flag: uint8(x.Dir)}, int(x.Bits), known
	case *nft.ExtHdr:
		in = place(x.Offset, int(x.Bits))
		in.src, in.aux, in.flag = srcExtHdr, x.Number, only(x.Field)
		return in, int(x.Bits), true
	case *nft.TCPOption:
		in = place(x.Offset, int(x.Bits))
		in.src, in.aux, in.flag = srcTCPOption, x.Kind, only(x.Field)
		return in, int(x.Bits), true
	case *nft.IPOption:
		in = place(x.Offset, int(x.Bits))
		in.src, in.aux, in.flag = srcIPOption, x.Kind, only(x.Field)
		return in, int(x.Bits), true
	}
	return c.rareSource(x)
}

func (c *compiler) rareSource(x nft.Expr) (in inst, bits int, ok bool) {
	k := c.code
	switch x := x.(type) {
	case *nft.FIB:
		k.fibs = append(k.fibs, x)
		return inst{src: srcFIB, arg: uint32(len(k.fibs) - 1), n: uint8(x.Bytes())}, int(x.Bits), true
	case *nft.RT:
		k.rts = append(k.rts, x)
		return inst{src: srcRT, arg: uint32(len(k.rts) - 1), n: uint8(x.Bytes())}, int(x.Bits), true
	}
	return inst{}, 0, false
}

// place is the place of a field: whole bytes, of which the last bits are shifted
// out, and the first masked.
func place(offset, bits int) inst {
	from, to := offset/8, (offset+bits+7)/8
	in := inst{off: uint16(from), n: uint8(to - from), shift: uint8(8*to - offset - bits)}
	if bits < 8*(to-from)-int(in.shift) && bits < 64 {
		in.mask = 1<<bits - 1
	}
	return in
}

func only(field string) uint8 {
	if field == "" {
		return flagOnly
	}
	return 0
}

// value computes an expression into n registers from to on.
func (c *compiler) value(x nft.Expr, to uint8, n int) error {
	if in, bits, ok := c.source(x); ok {
		if words(bits) > n {
			return fmt.Errorf("a value of %d bits is too wide for where it goes", bits)
		}
		to = c.pad(to, n, words(bits))
		if in.op, in.dst = opLoad, to; words(bits) == 2 {
			in.op = opLoadBig
		}
		c.emit(in)
		if in.partial(bits) && bits > 64 {
			return c.and(to, ones(bits))
		}
		return nil
	}
	switch x := x.(type) {
	case *nft.Value:
		c.constant(number([]byte(x.Data)), to, n)
	case *nft.Binary:
		return c.binary(x, to, n)
	case *nft.Map:
		return c.mapInto(x, to, n)
	case *nft.Numgen:
		to = c.pad(to, n, 1)
		c.numgen(x, to)
	case *nft.Hash:
		to = c.pad(to, n, 1)
		return c.hash(x, to)
	default:
		return unsupported(x)
	}
	return nil
}

// unsupported names what can't be computed.
func unsupported(x nft.Expr) error {
	switch x := x.(type) {
	case *nft.Meta:
		return fmt.Errorf("meta %s is not supported", x.Key)
	case *nft.CT:
		return fmt.Errorf("ct %s is not supported", x.Key)
	}
	return fmt.Errorf("expression %T is not supported here", x)
}

// partial reports whether what the instruction loads has more bits than those.
func (in *inst) partial(bits int) bool {
	return in.src != srcReg && bits < 8*int(in.n)-int(in.shift)
}

// and masks two registers with a constant.
func (c *compiler) and(to uint8, mask value) error {
	r, err := c.take(2)
	if err != nil {
		return err
	}
	c.constant(mask, r, 2)
	c.emit(inst{op: opBits, dst: to, aux: r, n: 2, flag: uint8(nft.BinAnd)})
	return nil
}

// pad makes the first register zero if the value takes but the second.
func (c *compiler) pad(to uint8, n, need int) uint8 {
	if n == 2 && need == 1 {
		c.constant(value{}, to, 1)
		return to + 1
	}
	return to
}

func (c *compiler) constant(v value, to uint8, n int) {
	c.code.consts = append(c.code.consts, v)
	in := inst{op: opLoad, src: srcImm, dst: to, n: uint8(8 * n), arg: uint32(len(c.code.consts) - 1)}
	if n == 2 {
		in.op = opLoadBig
	}
	c.emit(in)
}

// binary is an operation on bits.
func (c *compiler) binary(x *nft.Binary, to uint8, n int) error {
	if err := c.value(x.Left, to, n); err != nil {
		return err
	}
	r, err := c.take(n)
	if err != nil {
		return err
	}
	if err := c.value(x.Right, r, n); err != nil {
		return err
	}
	in := inst{op: opBits, dst: to, aux: r, n: uint8(n), flag: uint8(x.Op)}
	if x.Bits < 64 {
		in.mask = 1<<x.Bits - 1 // what is shifted out of the field is gone
	}
	c.emit(in)
	return nil
}

// mapInto computes what a map has.
func (c *compiler) mapInto(x *nft.Map, to uint8, n int) error {
	s, err := c.set(x.Of)
	if err != nil {
		return err
	}
	if s.dwidth > n {
		return errors.New("the map's values are too wide for where they go")
	}
	to = c.pad(to, n, s.dwidth)
	return c.lookup(opMap, x.Key, x.Of, to)
}

func (c *compiler) numgen(x *nft.Numgen, to uint8) {
	in := inst{op: opLoad, src: srcNumgen, dst: to, n: 4, imm: uint64(max(x.Mod, 1)) | uint64(x.Offset)<<32}
	if x.Random {
		in.flag = flagInvert
	} else {
		n := c.run.counts[x]
		if n == nil {
			n = new(atomic.Uint32)
			if c.run.counts == nil {
				c.run.counts = map[*nft.Numgen]*atomic.Uint32{}
			}
			c.run.counts[x] = n
		}
		in.arg = uint32(len(c.code.counts))
		c.code.counts = append(c.code.counts, n)
	}
	c.emit(in)
}

// hash is jhash, and symhash.
func (c *compiler) hash(x *nft.Hash, to uint8) error {
	in := inst{op: opLoad, src: srcSymhash, dst: to, n: 4, imm: uint64(max(x.Mod, 1)) | uint64(x.Offset)<<32}
	if x.Of == nil {
		c.emit(in)
		return nil
	}
	h := hashCode{seed: x.Seed}
	if !x.Seeded {
		h.seed = uint32(c.stage.seed[0])
	}
	parts := []nft.Expr{x.Of}
	if k, ok := x.Of.(*nft.Concat); ok {
		parts = k.Parts
	}
	width := 0
	for _, p := range parts {
		s, err := exprSpec(p)
		if err != nil {
			return err
		}
		h.fields = append(h.fields, field{at: width, words: words(int(s.Bits)), bytes: s.Bytes()})
		width += words(int(s.Bits))
	}
	r, err := c.take(width)
	if err != nil {
		return err
	}
	for i, p := range parts {
		if err := c.value(p, r+uint8(h.fields[i].at), h.fields[i].words); err != nil {
			return err
		}
	}
	h.from = r
	in.src, in.arg = srcHash, uint32(len(c.code.hashes))
	c.code.hashes = append(c.code.hashes, h)
	c.emit(in)
	return nil
}

// exprSpec is the type of an expression.
func exprSpec(x nft.Expr) (nft.Spec, error) {
	switch x := x.(type) {
	case *nft.Payload:
		return x.Spec, nil
	case *nft.Meta:
		return x.Spec, nil
	case *nft.CT:
		return x.Spec, nil
	case *nft.ExtHdr:
		return x.Spec, nil
	case *nft.TCPOption:
		return x.Spec, nil
	case *nft.IPOption:
		return x.Spec, nil
	case *nft.FIB:
		return x.Spec, nil
	case *nft.RT:
		return x.Spec, nil
	}
	return computedSpec(x)
}

// computedSpec is that of one that doesn't come from the packet.
func computedSpec(x nft.Expr) (nft.Spec, error) {
	switch x := x.(type) {
	case *nft.Value:
		return x.Spec, nil
	case *nft.Numgen:
		return x.Spec, nil
	case *nft.Hash:
		return x.Spec, nil
	case *nft.Binary:
		return x.Spec, nil
	case *nft.Map:
		return x.Spec, nil
	case *nft.Range:
		return x.From.Spec, nil
	case *nft.Prefix:
		return x.Addr.Spec, nil
	}
	return nft.Spec{}, fmt.Errorf("expression %T has no type", x)
}
