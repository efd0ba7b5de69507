// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Why an address can't be had. Every error of a Pool wraps one of these.
var (
	ErrOutside   = errors.New("outside the subnet")
	ErrReserved  = errors.New("reserved address")
	ErrGateway   = errors.New("gateway address")
	ErrInUse     = errors.New("address in use")
	ErrExhausted = errors.New("no free address")
)

// Error is a refusal in one sentence. It unwraps to its kind.
type Error struct {
	// Kind is one of the sentinels of this package.
	Kind error
	// Message is for people: lower case, no full stop.
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Used returns who holds an address, empty for nobody. It must answer the same
// during one call of a Pool.
type Used func(netip.Addr) (holder string)

// Pool is the addresses of one subnet. The zero value has none.
//
// Preconditions: Subnet has its host bits zero and Gateway is inside it or
// invalid (no gateway). Package config makes such values.
type Pool struct {
	Subnet  netip.Prefix
	Gateway netip.Addr
	// Ranges are the parts of the subnet that are given out, in any order; none: all of
	// it. Exclude are parts of them that are not.
	Ranges, Exclude []Range
}

// Range is the addresses from First to Last, both included and of one family.
type Range struct{ First, Last netip.Addr }

// Contains says whether an address is in the range.
func (r Range) Contains(a netip.Addr) bool { return !a.Less(r.First) && !r.Last.Less(a) }

// String is the range as ParseRange reads it.
func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }

// ParseRange reads "10.0.0.5", "10.0.0.0/28" or "10.0.0.5-10.0.0.9".
func ParseRange(text string) (Range, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return Range{p.Masked().Addr(), lastOf(p)}, true
	}
	first, last, two := strings.Cut(text, "-")
	a, err := netip.ParseAddr(first)
	if err != nil || a.Zone() != "" {
		return Range{}, false
	}
	if !two {
		return Range{a, a}, true
	}
	b, err := netip.ParseAddr(last)
	return Range{a, b}, err == nil && a.BitLen() == b.BitLen() && !b.Less(a) && b.Zone() == ""
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Next returns the lowest free address above last, or, past the end of the
// subnet, the lowest of all. An invalid last, or one outside the subnet, starts
// at the beginning. Its error is ErrExhausted.
func (p Pool) Next(last netip.Addr, used Used) (netip.Addr, error) {
	start := p.Subnet.Addr()
	if p.Subnet.Contains(last) {
		start = last
	}
	// Each step passes an address in use or a reserved one, or a whole range, so this
	// ends after as many steps as there are leases, or once round a small subnet.
	a, there := p.given(start.Next())
	for around := false; ; a, there = p.given(a.Next()) {
		if !there {
			if around {
				break
			}
			around = true
			if a, there = p.given(p.Subnet.Addr()); !there {
				break
			}
		}
		if around && start.Less(a) {
			break
		}
		if p.reserved(a) == nil && used(a) == "" {
			return a, nil
		}
	}
	return netip.Addr{}, refuse(ErrExhausted, "no address is free in %s", p.Subnet)
}

// given returns the first address from a on that is in a range and not excluded; false
// if there is none in the subnet.
func (p Pool) given(a netip.Addr) (netip.Addr, bool) {
	for p.Subnet.Contains(a) {
		next := p.inRange(a)
		for _, x := range p.Exclude {
			if next.IsValid() && x.Contains(next) {
				next = x.Last.Next()
			}
		}
		if next == a {
			return a, true
		}
		a = next
	}
	return netip.Addr{}, false
}

// inRange returns the first address from a on that is in a range, an invalid one if
// there is none.
func (p Pool) inRange(a netip.Addr) netip.Addr {
	if len(p.Ranges) == 0 {
		return a
	}
	var best netip.Addr
	for _, r := range p.Ranges {
		switch {
		case r.Contains(a):
			return a
		case a.Less(r.First) && (!best.IsValid() || r.First.Less(best)):
			best = r.First
		}
	}
	return best
}

// Check says whether a certain address may be given out: nil, or ErrOutside,
// ErrReserved, ErrGateway, ErrInUse.
func (p Pool) Check(a netip.Addr, used Used) error {
	if !p.Subnet.Contains(a) {
		return refuse(ErrOutside, "%s is outside the subnet %s", a, p.Subnet)
	}
	if err := p.reserved(a); err != nil {
		return err
	}
	if b, there := p.given(a); !there || a != b {
		return refuse(ErrOutside, "%s is not among the addresses of %s that are given out", a, p.Subnet)
	}
	if holder := used(a); holder != "" {
		return refuse(ErrInUse, "%s is in use by %s", a, holder)
	}
	return nil
}

// reserved says why an address inside the subnet is never given out.
func (p Pool) reserved(a netip.Addr) error {
	switch {
	case a == p.Gateway:
		return refuse(ErrGateway, "%s is the gateway of %s", a, p.Subnet)
	case a == p.Subnet.Addr() && a.Is4():
		return refuse(ErrReserved, "%s is the network address of %s", a, p.Subnet)
	case a == p.Subnet.Addr():
		return refuse(ErrReserved, "%s is the subnet-router anycast address of %s", a, p.Subnet)
	case a.Is4() && !p.Subnet.Contains(a.Next()):
		return refuse(ErrReserved, "%s is the broadcast address of %s", a, p.Subnet)
	}
	return nil
}

func refuse(kind error, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}
