// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"net/netip"

	"sluice/packet"
)

// maxProbes bounds the addresses that are asked about.
const maxProbes = 64

// probe is what is known of an address that is to be used: whether somebody has it.
type probe struct {
	asked int64 // 0: not yet
	done  bool
	taken bool
}

// isTaken reports whether somebody has the address; nil knows nothing.
func (p *probe) isTaken() bool { return p != nil && p.taken }

// free reports whether an address was found to be nobody's.
//
// +checklocks:l.mu
func (l *Learner) free(a netip.Addr) bool {
	p := l.probes[a]
	return p != nil && p.done && !p.taken
}

// try begins to ask about an address.
//
// +checklocks:l.mu
func (l *Learner) try(a netip.Addr) {
	if l.probes[a] == nil && len(l.probes) < maxProbes {
		l.probes[a] = &probe{}
	}
}

// probing asks, and takes silence for an answer.
//
// +checklocks:l.mu
func (l *Learner) probing(now int64, emit Emit) {
	wanted := l.wanted()
	for a := range wanted {
		l.try(a)
	}
	for a, p := range l.probes {
		switch {
		case !wanted[a]:
			delete(l.probes, a)
		case p.done:
		case p.asked == 0:
			p.asked = now
			l.ask(a, emit)
		case now > p.asked:
			p.done = true
		}
	}
}

// wanted are the addresses of which something is known.
//
// +checklocks:l.mu
func (l *Learner) wanted() map[netip.Addr]bool {
	out := make(map[netip.Addr]bool)
	if a := l.v4.lease; a != nil {
		out[a.Address.Addr()] = true
	}
	for _, p := range l.hosts.heard.Prefixes {
		if p.Address.IsValid() {
			out[p.Address] = true
		}
	}
	if a := l.v6.lease; a != nil {
		for _, s := range a.Addrs {
			out[s.Addr] = true
		}
	}
	return out
}

// ask sends an ARP probe (RFC 5227 §1.1), or a solicitation without a source (RFC 4862
// §5.4.2).
//
// +checklocks:l.mu
func (l *Learner) ask(a netip.Addr, emit Emit) {
	if a.Is4() {
		emit(packet.AppendSolicitation(nil, packet.Solicitation{MAC: l.link.mac, Source: netip.IPv4Unspecified(), Target: a}))
		return
	}
	t := a.As16()
	e := ends{
		fromMAC: l.link.mac, toMAC: packet.MAC{0x33, 0x33, 0xff, t[13], t[14], t[15]}, from: netip.IPv6Unspecified(),
		to: netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}),
	}
	frame := e.ip6(nil, packet.ProtoICMPv6, hopLimitND)
	frame = append(frame, packet.NDNeighbourSol, 0, 0, 0, 0, 0, 0, 0)
	frame = append(frame, t[:]...)
	finishIP6(frame)
	emit(frame)
}

// contested sees who has an address that is being asked about, or is asking, too.
//
// +checklocks:l.mu
func (l *Learner) contested(f *packet.Frame) {
	if f.SrcMAC() == l.link.mac {
		return
	}
	var a netip.Addr
	if m, ok := f.View.ARP(f.Bytes()); ok {
		a = m.Sender
		if a.IsUnspecified() {
			a = m.Target // somebody probes it as well
		}
	} else if m, ok := f.View.ND(f.Bytes()); ok {
		solicits := m.Type == packet.NDNeighbourSol && f.View.SrcAddr(f.Bytes()).IsUnspecified()
		if m.Type != packet.NDNeighbourAdvert && !solicits || !intact(f) {
			return
		}
		a = m.Target
	}
	if p := l.probes[a]; p != nil && !p.done && p.asked != 0 {
		p.done, p.taken = true, true
	}
}
