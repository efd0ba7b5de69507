// SPDX-License-Identifier: Apache-2.0

package router

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// source6 is the source address of what is sent to dst by a device: RFC 6724 §5,
// in the order of ipv6_dev_get_saddr, as far as its rules can tell addresses that
// are neither temporary nor deprecated. Not valid if there is none.
func (st *state) source6(out *device, dst netip.Addr) netip.Addr {
	var best candidate
	consider := func(d *device) {
		// Linux keeps the newest address in front, and link-local ones behind.
		for _, p := range slices.Backward(d.Addrs) {
			if p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() {
				best = best.or(newCandidate(p, dst, d == out))
			}
		}
		if d.link.IsValid() {
			best = best.or(newCandidate(netip.PrefixFrom(d.link, 64), dst, d == out))
		}
	}
	if scope6(dst) <= scopeLink { // only who is on the link can be meant
		consider(out)
		return best.addr
	}
	if out.VRF != 0 { // its own addresses go before those of others in the VRF
		if consider(out); best.addr.IsValid() && scope6(best.addr) > scopeLink {
			return best.addr
		}
	}
	for _, d := range st.ordered {
		if d.VRF == out.VRF {
			consider(d)
		}
	}
	return best.addr
}

// candidate is an address with what the rules compare, more important first. More
// is better.
type candidate struct {
	addr  netip.Addr
	score [5]int
}

func newCandidate(p netip.Prefix, dst netip.Addr, onOut bool) candidate {
	a := p.Addr()
	return candidate{a, [5]int{
		b2i(a == dst),                       // rule 1
		scopeScore(scope6(a), scope6(dst)),  // rule 2
		b2i(onOut),                          // rule 5
		b2i(label6(a) == label6(dst)),       // rule 6
		min(commonPrefix(a, dst), p.Bits()), // rule 8
	}}
}

// or is the better of two, the former if they are equal.
func (c candidate) or(o candidate) candidate {
	if !c.addr.IsValid() || slices.Compare(o.score[:], c.score[:]) > 0 {
		return o
	}
	return c
}

// scopeScore prefers the smallest scope that is large enough.
func scopeScore(src, dst int) int {
	if src >= dst {
		return -src
	}
	return src - 128
}

// Scopes of RFC 4291 §2.7.
const (
	scopeLink   = 2
	scopeSite   = 5
	scopeGlobal = 14
)

func scope6(a netip.Addr) int {
	switch b := a.As16(); {
	case a.IsMulticast():
		return int(b[1] & 0xf)
	case a.IsLoopback(), a.IsLinkLocalUnicast():
		return scopeLink
	case b[0] == 0xfe && b[1]&0xc0 == 0xc0:
		return scopeSite
	}
	return scopeGlobal
}

// label6 is the label of RFC 6724 §2.1, as the kernel's ip6addrlbl_init_table.
func label6(a netip.Addr) int {
	b := a.As16()
	switch word := binary.BigEndian.Uint32(b[:]); {
	case a.IsLoopback():
		return 0
	case b[0]&0xfe == 0xfc:
		return 5
	case b[0] == 0xfe && b[1]&0xc0 == 0xc0:
		return 11
	case word>>16 == 0x2002:
		return 2
	case word>>16 == 0x3ffe:
		return 12
	case word == 0x20010000:
		return 6
	case word&^0xf == 0x20010010:
		return 7
	case a.Is4In6():
		return 4
	case word == 0 && binary.BigEndian.Uint64(b[4:]) == 0:
		return 3
	}
	return 1
}

// commonPrefix is the number of leading bits that two addresses share.
func commonPrefix(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	for i := 0; i < len(x); i += 8 {
		if d := binary.BigEndian.Uint64(x[i:]) ^ binary.BigEndian.Uint64(y[i:]); d != 0 {
			return 8*i + bits.LeadingZeros64(d)
		}
	}
	return 128
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
