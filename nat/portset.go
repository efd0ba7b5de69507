// SPDX-License-Identifier: Apache-2.0

package nat

import "math/bits"

// portSet is the ports of one outside address that are somebody's.
type portSet struct {
	words [1024]uint64
	n     int
}

func (s *portSet) add(p uint16) {
	if !s.has(p) {
		s.words[p/64] |= 1 << (p % 64)
		s.n++
	}
}

func (s *portSet) remove(p uint16) {
	if s.has(p) {
		s.words[p/64] &^= 1 << (p % 64)
		s.n--
	}
}

func (s *portSet) has(p uint16) bool { return s.words[p/64]>>(p%64)&1 != 0 }

// The ports of a word that a search is for.
const (
	anyPort   = ^uint64(0)
	evenPorts = 0x5555_5555_5555_5555
	oddPorts  = evenPorts << 1
)

// next is the first port of the range, from a place in it on and then from its
// beginning, that isn't in the set and is among those of the mask. It looks at
// each word twice at most.
func (s *portSet) next(r PortRange, from uint16, mask uint64) (uint16, bool) {
	if p, ok := s.scan(from, r.Max, mask); ok {
		return p, true
	}
	if from == r.Min {
		return 0, false
	}
	return s.scan(r.Min, from-1, mask)
}

// scan is next for one run of ports.
func (s *portSet) scan(from, to uint16, mask uint64) (uint16, bool) {
	for w := int(from / 64); w <= int(to/64); w++ {
		free := ^s.words[w] & mask
		if w == int(from/64) {
			free &= anyPort << (from % 64)
		}
		if w == int(to/64) {
			free &= anyPort >> (63 - to%64)
		}
		if free != 0 {
			return uint16(w*64 + bits.TrailingZeros64(free)), true
		}
	}
	return 0, false
}
