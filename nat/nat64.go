// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/trace"
)

// validPrefix64 reports whether IPv4 addresses can be embedded: RFC 6052 §2.2.
func validPrefix64(p netip.Prefix) bool {
	switch p.Bits() {
	case 32, 40, 48, 56, 64, 96:
		a := p.Addr().As16()
		return p.Addr().Is6() && p == p.Masked() && a[8] == 0
	}
	return false
}

// Embed is the IPv6 address in a NAT64 prefix that stands for an IPv4 address,
// RFC 6052 §2.2. Preconditions: the prefix is valid there, a is IPv4.
func Embed(p netip.Prefix, a netip.Addr) netip.Addr {
	b, v4 := p.Addr().As16(), a.As4()
	at := p.Bits() / 8
	for _, x := range v4 {
		if at == 8 {
			at++ // bits 64 to 71 are zero
		}
		b[at] = x
		at++
	}
	return netip.AddrFrom16(b)
}

// Extract is the inverse of Embed. Preconditions: p.Contains(a).
func Extract(p netip.Prefix, a netip.Addr) netip.Addr {
	b := a.As16()
	var v4 [4]byte
	at := p.Bits() / 8
	for i := range v4 {
		if at == 8 {
			at++
		}
		v4[i] = b[at]
		at++
	}
	return netip.AddrFrom4(v4)
}

// nat64 makes an IPv6 connection one of IPv4, whatever the zone's profile by RFC
// 6146's mappings: endpoint-independent, and nobody else's.
func (c *choice) nat64(r *Rule) Verdict {
	t := c.cur
	t.Dst = Extract(r.Prefix, c.cur.Dst)
	if t.Proto == packet.ProtoICMPv6 {
		if t.DstPort>>8 != 128 {
			return Verdict{Reason: trace.NATUntranslatable}
		}
		t.Proto, t.DstPort = packet.ProtoICMP, 8<<8
	}
	if !hasPort(t.Proto) || !mayTranslateTo(t.Dst) {
		return Verdict{Reason: trace.NATUntranslatable}
	}
	if r.Device != 0 {
		if c.f.Devices == nil {
			return Verdict{Reason: trace.NATAddress}
		}
		from := c.f.Devices.Address(r.Device, t.Dst, t.Dst)
		if !from.Is4() {
			return Verdict{Reason: trace.NATAddress, Reject: Prohibited}
		}
		c.to.Addrs, c.f.Pending.OutDevice = One(from), r.Device
	}
	c.cur, c.source, c.pool, c.random, c.persistent = t, true, true, r.Random, true
	v := c.mapped()
	c.f.Pending.Status |= conntrack.SrcNAT | conntrack.DstNAT | conntrack.SrcNATDone
	return v
}

// mayTranslateTo reports whether an address is one that a packet out of the prefix
// may go to: RFC 6052 §3.1 leaves out what isn't global in its well-known prefix;
// here only what no packet may go to is.
func mayTranslateTo(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
