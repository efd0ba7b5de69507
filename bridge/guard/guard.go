// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice/packet"
	"sluice/trace"
)

// Checks is a set of guards. Zero is none.
type Checks uint8

// The guards, each with the drop reason of the same name.
const (
	MAC   Checks = 1 << iota // Ethernet source is one of Config.MACs
	IP                       // IP source is one of Config.Addrs
	ARP                      // sender's MAC and address are the container's; so is what it probes for
	ND                       // the same for neighbour discovery; no redirects, no fragments
	RA                       // no router advertisements
	DHCP                     // no messages of a DHCP server
	DHCP6                    // no messages of a DHCPv6 server
	Query                    // no IGMP and MLD queries, no PIM, no multicast router advertisements

	All = MAC | IP | ARP | ND | RA | DHCP | DHCP6 | Query
)

// Config says who is behind a port, and what of it is checked.
type Config struct {
	Checks Checks

	// MACs are the addresses that it may send from.
	MACs []packet.MAC

	// Addrs are the IPv4 and IPv6 addresses that it may send from; a prefix
	// stands for all in it. The link-local IPv6 address that the kernel makes of
	// each of the MACs (RFC 4291 appendix A) is always among them.
	Addrs []netip.Prefix
}

// Profile is a compiled Config. It is immutable. Nil checks nothing.
type Profile struct {
	checks Checks
	macs   []packet.MAC
	v4     []range4
	v6     []range6
}

// range4 and range6 are prefixes as a number and a mask.
type (
	range4 struct{ addr, mask uint32 }
	range6 struct{ hi, lo, maskHi, maskLo uint64 }
)

// New compiles a Config; nil if it has no checks. It keeps nothing of c.
func New(c Config) *Profile {
	if c.Checks == 0 {
		return nil
	}
	p := &Profile{checks: c.Checks, macs: slices.Clone(c.MACs)}
	for _, a := range c.Addrs {
		p.allow(a)
	}
	for _, m := range c.MACs {
		p.allow(netip.PrefixFrom(linkLocal(m), 128))
	}
	return p
}

// allow adds a prefix; one that is not valid adds nothing.
func (p *Profile) allow(a netip.Prefix) {
	a = a.Masked()
	switch {
	case !a.IsValid():
	case a.Addr().Is4():
		b := a.Addr().As4()
		p.v4 = append(p.v4, range4{binary.BigEndian.Uint32(b[:]), ^uint32(0) << (32 - a.Bits())})
	default:
		b, hi, lo := a.Addr().As16(), min(a.Bits(), 64), max(a.Bits()-64, 0)
		p.v6 = append(p.v6, range6{
			binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]),
			^uint64(0) << (64 - hi), ^uint64(0) << (64 - lo),
		})
	}
}

// linkLocal is the address fe80::/64 with the modified EUI-64 of m.
func linkLocal(m packet.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	})
}

// has4 reports whether the IPv4 address in the first four bytes of b is the
// container's.
func (p *Profile) has4(b []byte) bool {
	a := binary.BigEndian.Uint32(b)
	for _, r := range p.v4 {
		if a&r.mask == r.addr {
			return true
		}
	}
	return false
}

// has6 reports whether the IPv6 address in the first 16 bytes of b is the
// container's.
func (p *Profile) has6(b []byte) bool {
	hi, lo := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	for _, r := range p.v6 {
		if hi&r.maskHi == r.hi && lo&r.maskLo == r.lo {
			return true
		}
	}
	return false
}

// refuses reports whether a check is on and its condition is not met.
func (p *Profile) refuses(c Checks, ok bool) bool { return p.checks&c != 0 && !ok }

// Check says why the frame must not pass; None if it may. It allocates nothing
// and does not change f.
//
// Preconditions: f.View was parsed without fault.
func (p *Profile) Check(f *packet.Frame) trace.Reason {
	if p == nil {
		return trace.None
	}
	v, b := &f.View, f.Bytes()
	switch {
	case p.refuses(MAC, slices.Contains(p.macs, f.SrcMAC())):
		return trace.GuardMAC
	case v.Is(packet.ViewARP):
		return p.arp(b, v)
	case v.Is(packet.ViewIPv4):
		return p.ipv4(b, v)
	case v.Is(packet.ViewIPv6):
		return p.ipv6(b, v)
	}
	return trace.None
}
