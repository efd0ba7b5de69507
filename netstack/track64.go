// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/nat"
	"sluice/packet"
	"sluice/router"
	"sluice/trace"
)

// Theory of operation.
//
// A packet of NAT64 stays what it is until its router has decided: what the router
// tells its sender is of the sender's family, and quotes what was sent. The decision
// is about what it will be (router.As). The last hook turns it into that, addresses
// and ports at once; before that nothing is rewritten.

// as is what a packet leaves as, zero if it stays in its family.
func (p *passing) as(f *packet.Frame) router.As {
	if !p.to.way.Translates() {
		return router.As{}
	}
	n := f.L3Len() + nat.Growth(f)
	if p.isError { // which is cut off
		n = min(n+maxQuoteGrowth, minMTU6)
	}
	return router.As{Src: p.out.Src, Dst: p.out.Dst, Len: n}
}

// maxQuoteGrowth is by how much a quoted packet becomes longer at most.
const maxQuoteGrowth = packet.IPv6Len - packet.IPv4MinLen + 8

// translate makes of the packet one of the other family.
func (p *passing) translate(f *packet.Frame) bool {
	id := p.conns.nat.ID()
	if !p.isError {
		return p.to.way.Translate(f, id)
	}
	border := nat.Border{Prefix: p.prefix, MTU4: p.outMTU, MTU6: p.inMTU}
	if f.View.Is(packet.ViewIPv4) {
		border.MTU4, border.MTU6 = p.inMTU, p.outMTU
	}
	return p.to.way.TranslateError(f, border, id)
}

// to64 reports whether a packet is for a prefix of NAT64, so that it must not go on
// as it is.
func (p *passing) to64(f *packet.Frame) bool {
	return f.View.Is(packet.ViewIPv6) && p.conns.nat.Prefix64(p.look.Zone, f.View.DstAddr(f.Bytes())).IsValid()
}

// hairpin refuses a new connection that would come back to where its source's others
// leave: who asks for one of the namespace's addresses, as one of them.
func (p *passing) hairpin(at *port) nat.Verdict {
	r := p.space.router
	if r.Own(p.out.Dst, at.index) && (p.out.Src == p.out.Dst || r.Own(p.out.Src, at.index)) {
		return nat.Verdict{Reason: trace.NATUntranslatable, Reject: nat.Prohibited}
	}
	return nat.Verdict{}
}
