// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"fmt"
	"net/netip"
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
}

// Next returns the lowest free address above last, or, past the end of the
// subnet, the lowest of all. An invalid last, or one outside the subnet, starts
// at the beginning. Its error is ErrExhausted.
func (p Pool) Next(last netip.Addr, used Used) (netip.Addr, error) {
	start := p.Subnet.Addr()
	if p.Subnet.Contains(last) {
		start = last
	}
	// Each step but the reserved ones passes an address in use, so this ends
	// after as many steps as there are leases, or once round a small subnet.
	for a := p.after(start); ; a = p.after(a) {
		if p.reserved(a) == nil && used(a) == "" {
			return a, nil
		}
		if a == start {
			return netip.Addr{}, refuse(ErrExhausted, "no address is free in %s", p.Subnet)
		}
	}
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
	if holder := used(a); holder != "" {
		return refuse(ErrInUse, "%s is in use by %s", a, holder)
	}
	return nil
}

// after returns the next address of the subnet, cyclically.
func (p Pool) after(a netip.Addr) netip.Addr {
	if next := a.Next(); p.Subnet.Contains(next) {
		return next
	}
	return p.Subnet.Addr()
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
