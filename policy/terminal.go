// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"

	"sluice/packet"
	"sluice/policy/nft"
)

// terminal is reject and NAT, which end a rule as accept and drop do.
func (e *Evaluator) terminal(c *code, pc uint32, in *inst) {
	e.verd.Why = Evidence{c.table, c.chain, c.ruleAt(pc)}
	if in.op == opNAT {
		e.translate(&c.nats[in.arg])
		if e.p.Trace {
			e.traceRule(c, pc, verdict{kind: nft.Accept})
		}
		return
	}
	e.refuse(nft.RejectKind(in.aux), in.flag)
	if e.p.Trace {
		e.traceRule(c, pc, verdict{kind: nft.Drop})
	}
}

// notFor reports whether packets of a family pass the statement by.
func (n *natCode) notFor(f nft.Family) bool { return n.only != nft.FamilyNone && n.only != f }

// refuse drops, and says what the sender is told.
func (e *Evaluator) refuse(kind nft.RejectKind, code uint8) {
	e.rec.Volatile |= ByReject
	e.verd.Code = Reject
	v := &e.p.Frame.View
	v6 := v.Is(packet.ViewIPv6)
	switch {
	case kind == nft.RejectTCP:
		e.verd.Reject = RejectTCP
		return
	case kind == nft.RejectICMPX && v6:
		code = icmpx6(code)
	case kind == nft.RejectICMPX:
		code = icmpx4(code)
	}
	e.verd.Reject = RejectICMP
	if e.verd.Type, e.verd.ICMP = packet.ICMPUnreach, code; v6 {
		e.verd.Type = packet.ICMP6Unreach
	}
}

// The abstract codes of icmpx (NFT_REJECT_ICMPX_*).
const (
	icmpxNoRoute = iota
	icmpxPort
	icmpxHost
	icmpxProhibited
)

// icmpx4 is nft_reject_icmp_code.
func icmpx4(code uint8) uint8 {
	switch code {
	case icmpxNoRoute:
		return packet.ICMPNetUnreach
	case icmpxHost:
		return packet.ICMPHostUnreach
	case icmpxProhibited:
		return packet.ICMPAdminProhib
	}
	return packet.ICMPPortUnreach
}

// icmpx6 is nft_reject_icmpv6_code.
func icmpx6(code uint8) uint8 {
	switch code {
	case icmpxNoRoute:
		return packet.ICMP6NoRoute
	case icmpxHost:
		return packet.ICMP6AddrUnreach
	case icmpxProhibited:
		return packet.ICMP6Prohibited
	}
	return packet.ICMP6PortUnreach
}

// translate fills in what a connection is to be translated to.
func (e *Evaluator) translate(n *natCode) {
	e.verd.Code = Translate
	r := n.fixed
	if n.addr != 0 {
		r.MinAddr = e.addrIn(n.addr, n.v6)
		r.MaxAddr = r.MinAddr
		if n.last != 0 {
			r.MaxAddr = e.addrIn(n.last, n.v6)
		}
	}
	if n.port != 0 {
		r.MinPort = uint16(e.reg[n.port])
		r.MaxPort = r.MinPort
		if n.lastPort != 0 {
			r.MaxPort = uint16(e.reg[n.lastPort])
		}
	}
	e.verd.NAT = r
}

func (e *Evaluator) addrIn(r uint8, v6 bool) netip.Addr {
	n := 1
	if v6 {
		n = 2
	}
	return addrOf(valueOf(e.reg[r:], n), v6)
}
