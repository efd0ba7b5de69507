// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/binary"
	"math/bits"
)

// value is what a register holds: a number of up to 128 bits. Addresses, names of
// devices (filled up with zeros behind) and labels are numbers whose first byte
// is the highest, so that ranges and prefixes of all of them are ranges of numbers.
type value struct{ hi, lo uint64 }

func (v value) less(w value) bool { return v.hi < w.hi || v.hi == w.hi && v.lo < w.lo }

func (v value) compare(w value) int {
	return cmp.Or(cmp.Compare(v.hi, w.hi), cmp.Compare(v.lo, w.lo))
}

func (v value) and(w value) value { return value{v.hi & w.hi, v.lo & w.lo} }
func (v value) or(w value) value  { return value{v.hi | w.hi, v.lo | w.lo} }
func (v value) xor(w value) value { return value{v.hi ^ w.hi, v.lo ^ w.lo} }
func (v value) zero() bool        { return v.hi|v.lo == 0 }

func (v value) shl(n uint) value {
	if n >= 64 {
		return value{v.lo << (n - 64), 0}
	}
	return value{v.hi<<n | v.lo>>(64-n), v.lo << n}
}

func (v value) shr(n uint) value {
	if n >= 64 {
		return value{0, v.hi >> (n - 64)}
	}
	return value{v.hi >> n, v.lo>>n | v.hi<<(64-n)}
}

// number reads up to sixteen bytes.
func number(b []byte) (v value) {
	switch len(b) {
	case 1:
		v.lo = uint64(b[0])
	case 2:
		v.lo = uint64(binary.BigEndian.Uint16(b))
	case 4:
		v.lo = uint64(binary.BigEndian.Uint32(b))
	case 8:
		v.lo = binary.BigEndian.Uint64(b)
	case 16:
		v.hi, v.lo = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	default:
		for _, x := range b {
			v.hi, v.lo = v.hi<<8|v.lo>>56, v.lo<<8|uint64(x)
		}
	}
	return v
}

// put writes the number into all of b.
func (v value) put(b []byte) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte(v.lo)
		v = v.shr(8)
	}
}

// words is how many registers a field of that many bits takes.
func words(bits int) int {
	if bits > 64 {
		return 2
	}
	return 1
}

// wide is how a field lies in registers: one, or two of which the first is the
// higher.
func (v value) wide(n int, to []uint64) {
	if n == 1 {
		to[0] = v.lo
		return
	}
	to[0], to[1] = v.hi, v.lo
}

func valueOf(from []uint64, n int) value {
	if n == 1 {
		return value{0, from[0]}
	}
	return value{from[0], from[1]}
}

// mulDiv is a*b/c in 128 bits; the highest number if it has more than 64.
func mulDiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return 1<<63 - 1
	}
	q, _ := bits.Div64(hi, lo, c)
	return min(q, 1<<63-1)
}
