// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"slices"
)

// MaglevSizes are the sizes that a service's table may have, all primes. A table
// spreads well over a hundredth as many backends.
func MaglevSizes() []int { return []int{251, 1021, 4093, 16381, 65521} }

// maglevSize is the size asked for, or the one that the number of backends wants.
// Two services with another size spread their flows otherwise, so that a service
// that grows over a border moves its flows once.
func maglevSize(size, backends int) (int, error) {
	sizes := MaglevSizes()
	if size == 0 {
		for _, size = range sizes[2:] {
			if size >= 100*backends {
				break
			}
		}
	}
	if !slices.Contains(sizes, size) || backends > size {
		return 0, errors.New("no size of a table, or too small for so many backends")
	}
	return size, nil
}

// maglev says which backend has a hash: Eisenbud et al., "Maglev: A Fast and
// Reliable Software Network Load Balancer", NSDI 2016, §3.4. Nil has none.
type maglev []uint16

// newMaglev spreads a table over the backends in a state: each has a permutation
// of the table's places, by its address and port alone, and takes turns, as many
// as its weight is of the largest.
func newMaglev(backends []Backend, state BackendState, size int) maglev {
	var in []preference
	most := 0
	for i := range backends {
		if b := &backends[i]; b.State == state {
			in = append(in, newPreference(b, i, size))
			most = max(most, weight(b))
		}
	}
	if len(in) == 0 {
		return nil
	}
	const none = 0xffff
	table := slices.Repeat(maglev{none}, size)
	for filled := 0; filled < size; {
		for i := range in {
			p := &in[i]
			if p.credit += p.weight; p.credit < most {
				continue
			}
			p.credit -= most
			for table[p.at] != none {
				p.step(size)
			}
			table[p.at] = uint16(p.backend)
			if filled++; filled == size {
				break
			}
		}
	}
	return table
}

func (m maglev) lookup(h uint64) int { return int(m[h%uint64(len(m))]) }

// preference is the order in which a backend wants the places of the table.
type preference struct {
	backend  int
	at, skip int
	weight   int
	credit   int
}

func newPreference(b *Backend, i, size int) preference {
	h := mix(hash(0, b.Addr) ^ uint64(b.Port))
	return preference{
		backend: i, weight: weight(b),
		at: int(h % uint64(size)), skip: int(mix(h)%uint64(size-1)) + 1,
	}
}

func (p *preference) step(size int) {
	if p.at += p.skip; p.at >= size {
		p.at -= size
	}
}

func weight(b *Backend) int { return max(1, int(b.Weight)) }
