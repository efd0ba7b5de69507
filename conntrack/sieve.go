// SPDX-License-Identifier: Apache-2.0

package conntrack

import "net/netip"

// sieve is what of a filter can be asked of a record as it is, without its lock: most
// records of a large table fall through it. What is left is described, and then the
// filter decides.
type sieve struct {
	bits, want [2]key // of the keys, those that count and what they are
	addrs      bool   // some of the addresses' do
	aux        uint64
	mark       uint32
	markMask   uint32
	with       Status
	without    Status
}

// sieve makes one. That of nil lets everything pass.
func (f *Filter) sieve() (s sieve) {
	if f == nil {
		return s
	}
	s = sieve{aux: f.Aux, mark: f.Mark & f.MarkMask, markMask: f.MarkMask, with: f.With, without: f.Without}
	for d, t := range [2]*TupleFilter{&f.Original, &f.Reply} {
		src, dst := t.portBits()
		s.bits[d][4] = rest(src, dst, 0, 0, 0)
		s.want[d][4] = rest(t.SrcPort&src, t.DstPort&dst, 0, 0, 0)
		s.within(d, 0, t.Src)
		s.within(d, 2, t.Dst)
	}
	if f.HasZone {
		s.place(rest(0, 0, 1<<16-1, 0, 0), rest(0, 0, f.Zone, 0, 0))
	}
	if f.Proto != 0 {
		s.place(rest(0, 0, 0, 1<<8-1, 0), rest(0, 0, 0, f.Proto, 0))
	}
	if f.Family != 0 {
		s.place(rest(0, 0, 0, 0, 1<<8-1), rest(0, 0, 0, 0, f.Family))
	}
	return s
}

// place adds to what the last word of the original key is to be.
func (s *sieve) place(bits, want uint64) {
	s.bits[Original][4] |= bits
	s.want[Original][4] |= want
}

// within adds a prefix, of the address that is in two words of a key.
func (s *sieve) within(d, word int, p netip.Prefix) {
	if !p.IsValid() || p.Addr().Is4In6() {
		return
	}
	s.addrs = true
	k, _ := keyOf(0, &Tuple{Src: p.Masked().Addr(), Dst: p.Masked().Addr()})
	bits := p.Bits()
	s.bits[d][word], s.bits[d][word+1] = upper(bits), upper(bits-64)
	s.want[d][word], s.want[d][word+1] = k[0], k[1]
}

// upper is a word whose upper bits are set, so many as are asked for and there are.
func upper(bits int) uint64 {
	if bits <= 0 {
		return 0
	}
	return ^uint64(0) << (64 - min(bits, 64))
}

// passes reports whether the filter may choose a record. One that changes meanwhile may
// be taken for what it was.
func (s *sieve) passes(r *record) bool {
	for d := range s.bits {
		if r.keys[d][4].Load()&s.bits[d][4] != s.want[d][4] {
			return false
		}
	}
	status := Status(r.status.Load())
	if status&s.with != s.with || status&s.without != 0 || r.mark.Load()&s.markMask != s.mark || r.aux.Load()&s.aux != s.aux {
		return false
	}
	return !s.addrs || s.passesAddrs(r)
}

func (s *sieve) passesAddrs(r *record) bool {
	for d := range s.bits {
		for word := range 4 {
			if r.keys[d][word].Load()&s.bits[d][word] != s.want[d][word] {
				return false
			}
		}
	}
	return true
}
