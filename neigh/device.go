// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice/packet"
)

// Device is one network of the namespace: a link with ARP and neighbour discovery.
type Device struct {
	Index uint16
	MAC   packet.MAC
	// Addrs are its own addresses with their subnets, that of the link included.
	Addrs []netip.Prefix
}

// device is a compiled Device. It is immutable but for its clock.
type device struct {
	Device
	*clock
}

// speaks6 reports whether IPv6 is on: the device has an address of it. One that
// does not takes no part in neighbour discovery.
func (d *device) speaks6() bool {
	return slices.ContainsFunc(d.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// clock is what a device keeps while it is there: the reachable times of its two
// families, in ticks, which are thrown anew now and then (RFC 4861 §6.3.2). It is
// used under Table.mu.
type clock struct {
	reachable4, reachable6 uint32
	thrown                 Tick
	running                bool
}

// reachable is the reachable time for an entry.
func (c *clock) reachable(e *entry) uint32 {
	if e.key.is4() {
		return c.reachable4
	}
	return c.reachable6
}

// mayHave reports whether an address may be that of a neighbour on the device.
func (d *device) mayHave(a netip.Addr) bool {
	switch {
	case !a.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
		return false
	case a.Is4():
		b := a.As4()
		return b[0] != 0 && b != [4]byte{255, 255, 255, 255} && !d.broadcasts(a)
	}
	return true
}

// broadcasts reports whether an IPv4 address is the broadcast address of one of
// the device's subnets.
func (d *device) broadcasts(a netip.Addr) bool {
	return slices.ContainsFunc(d.Addrs, func(p netip.Prefix) bool {
		if !p.Addr().Is4() || p.Bits() > 30 || !p.Contains(a) {
			return false
		}
		b := a.As4()
		host := uint32(1)<<(32-p.Bits()) - 1
		return binary.BigEndian.Uint32(b[:])&host == host
	})
}

// source is the address from which the device asks for target. That of the packet
// which wants it, if it is the device's own, as ip-sysctl says of arp_announce and
// RFC 4861 §7.2.2; else in IPv6 the link-local one; else the one whose subnet the
// target is in; else any; in IPv4 at last none, which is a question all the same.
func (d *device) source(target, hint netip.Addr) netip.Addr {
	target = target.Unmap()
	none := netip.Addr{}
	if target.Is4() {
		none = netip.IPv4Unspecified()
	}
	best, rank := none, 0
	for _, p := range d.Addrs {
		a := p.Addr().WithZone("")
		if a.Is4() != target.Is4() {
			continue
		}
		if r := preference(p, target, a == hint); r > rank {
			best, rank = a, r
		}
	}
	return best
}

// preference is how much is to be said for the address of p as a source.
func preference(p netip.Prefix, target netip.Addr, hinted bool) int {
	switch {
	case hinted:
		return 4
	case p.Addr().Is6() && p.Addr().IsLinkLocalUnicast():
		return 3
	case p.Contains(target):
		return 2
	}
	return 1
}

// newest is the source address of the packet that was held last.
func (q *queue) newest() netip.Addr {
	if len(q.held) == 0 {
		return netip.Addr{}
	}
	b := q.held[len(q.held)-1].Frame
	var v packet.View
	v.Parse(b)
	return v.SrcAddr(b)
}
