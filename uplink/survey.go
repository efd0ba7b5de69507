// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/knftables"
)

// ErrConflict is wrapped by what Conflict returns.
var ErrConflict = errors.New("in the way on the host")

// Survey is what a host has that an uplink could collide with.
type Survey struct {
	Links  []string // by name
	Addrs  []Held
	Routes []Held // of the table main, without default routes
	// Listens is the interface that forwarding of IPv6, which is off, would make forget
	// its default route. Empty: none.
	Listens string
}

// Held is an address or a route, and which interface has it.
type Held struct {
	Prefix netip.Prefix
	IfName string
}

// Survey looks at the host.
func (h *Host) Survey() (*Survey, error) {
	s := new(Survey)
	err := h.within(func(nl *netlink.Handle) error {
		links, err := nl.LinkList()
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		names := make(map[int]string)
		for _, l := range links {
			names[l.Attrs().Index] = l.Attrs().Name
			s.Links = append(s.Links, l.Attrs().Name)
		}
		if !isOn(forward6) {
			s.Listens = listens(nl)
		}
		return s.read(nl, names)
	})
	return s, err
}

func (s *Survey) read(nl *netlink.Handle, names map[int]string) error {
	addrs, err := nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, Held{prefixOf(a.IPNet), names[a.LinkIndex]})
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := nl.RouteList(nil, family)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if p := prefixOf(r.Dst); p.IsValid() && p.Bits() > 0 && !p.Addr().IsMulticast() {
				s.Routes = append(s.Routes, Held{p, names[r.LinkIndex]})
			}
		}
	}
	return nil
}

// Without forgets what is on some interfaces: those that are ours.
func (s *Survey) Without(ifnames []string) *Survey {
	ourOwn := func(h Held) bool { return slices.Contains(ifnames, h.IfName) }
	return &Survey{
		Links:   slices.DeleteFunc(slices.Clone(s.Links), func(l string) bool { return slices.Contains(ifnames, l) }),
		Addrs:   slices.DeleteFunc(slices.Clone(s.Addrs), ourOwn),
		Routes:  slices.DeleteFunc(slices.Clone(s.Routes), ourOwn),
		Listens: s.Listens,
	}
}

// Free reports whether the host has nothing to do with a prefix.
func (s *Survey) Free(p netip.Prefix) bool {
	meets := func(h Held) bool { return h.Prefix.Overlaps(p) }
	return !slices.ContainsFunc(s.Addrs, meets) && !slices.ContainsFunc(s.Routes, meets)
}

// Conflict says what of the host an uplink would collide with. A subnet of it may be a
// part of what the host routes elsewhere, but not the other way about: the host would
// lose what it reaches now.
func (s *Survey) Conflict(c *Config) error {
	if slices.Contains(s.Links, c.IfName) {
		return fmt.Errorf("%w: it has an interface %s", ErrConflict, c.IfName)
	}
	if c.Forward && c.end(true).IsValid() && s.Listens != "" {
		return wouldForget(s.Listens)
	}
	for _, p := range c.Addresses {
		if !s.Free(p.Masked()) {
			return fmt.Errorf("%w: %s overlaps %s", ErrConflict, p.Masked(), s.what(p.Masked()))
		}
	}
	if !c.Routes {
		return nil
	}
	for _, n := range c.routed() {
		for _, a := range s.Addrs {
			if n.Contains(a.Prefix.Addr()) {
				return fmt.Errorf("%w: its address %s on %s is in %s", ErrConflict, a.Prefix.Addr(), a.IfName, n)
			}
		}
		for _, r := range s.Routes {
			if covers(n, r.Prefix) {
				return fmt.Errorf("%w: its route to %s by %s is in %s", ErrConflict, r.Prefix, r.IfName, n)
			}
		}
	}
	return nil
}

// what names the first thing of the host that a prefix overlaps.
func (s *Survey) what(p netip.Prefix) string {
	for _, a := range s.Addrs {
		if a.Prefix.Overlaps(p) {
			return fmt.Sprintf("its address %s on %s", a.Prefix, a.IfName)
		}
	}
	for _, r := range s.Routes {
		if r.Prefix.Overlaps(p) {
			return fmt.Sprintf("its route to %s by %s", r.Prefix, r.IfName)
		}
	}
	return "nothing"
}

// TableConflict says that the table of an uplink could not be made, or is another's.
func (h *Host) TableConflict(ctx context.Context, ifname string) error {
	return h.nft(ifname, func(nft knftables.Interface) error {
		_, err := ours(ctx, nft, ifname)
		return err
	})
}
