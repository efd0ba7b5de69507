// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"slices"

	"sluice/packet"
	"sluice/trace"
)

// Ports of DHCPv6, RFC 8415 §7.2.
const (
	dhcp6Server = 547
	dhcp6Client = 546
)

// Types of ICMPv6 messages about groups.
const (
	mldQuery   = 130 // RFC 2710 §3.1
	mldReport  = 131
	mldDone    = 132
	mldReport2 = 143 // RFC 3810 §5.2
	mrdAdvert6 = 151 // RFC 4286 §3.2
)

func (p *Profile) ipv6(b []byte, v *packet.View) trace.Reason {
	switch {
	case p.refuses(IP, p.has6(b[v.L3+8:]) || addressless6(b, v)):
		return trace.GuardIP
	case p.refuses(DHCP6, !serves(v, dhcp6Server, dhcp6Client)):
		return trace.GuardDHCP6
	case p.refuses(RA, icmp6(v) != packet.NDRouterAdvert):
		return trace.GuardRA
	case p.refuses(ND, !v.IsND() || p.honest(b, v)):
		return trace.GuardND
	case p.refuses(Query, v.Proto != protoPIM && icmp6(v) != mldQuery && icmp6(v) != mrdAdvert6):
		return trace.GuardQuery
	}
	return trace.None
}

// icmp6 is the type of an ICMPv6 message; 0, which is reserved, if it is none or
// a later fragment.
func icmp6(v *packet.View) uint8 {
	if v.Proto != packet.ProtoICMPv6 || !v.Is(packet.ViewHasL4) {
		return 0
	}
	return uint8(v.SrcPort >> 8)
}

// addressless6 reports whether the packet is one that a host may send from the
// unspecified address while it has no other: duplicate address detection,
// router solicitation (RFC 4861 §4.1, §4.3), and what joins the groups of these
// addresses (RFC 3590).
func addressless6(b []byte, v *packet.View) bool {
	if !isZero(b[v.L3+8 : v.L3+24]) {
		return false
	}
	switch icmp6(v) {
	case packet.NDRouterSolicit, packet.NDNeighbourSol, mldReport, mldDone, mldReport2:
		return true
	}
	return false
}

// honest reports whether a neighbour discovery message speaks of nobody but the
// container. Its target is checked where the message claims it: an
// advertisement, and a solicitation of duplicate address detection, which makes
// another one that is about to take the address give it up (RFC 4862 §5.4.3).
func (p *Profile) honest(b []byte, v *packet.View) bool {
	m, ok := v.ND(b)
	if !ok || v.Is(packet.ViewFrag) || m.Type == packet.NDRedirect {
		return false
	}
	if m.HasLink && !slices.Contains(p.macs, m.Link) {
		return false
	}
	src := b[v.L3+8 : v.L3+24]
	detects := isZero(src) && (m.Type == packet.NDNeighbourSol || m.Type == packet.NDRouterSolicit)
	if !detects && !p.has6(src) {
		return false
	}
	if m.Type == packet.NDNeighbourAdvert || detects && m.Type == packet.NDNeighbourSol {
		return p.has6(b[v.L4+8:])
	}
	return true
}
