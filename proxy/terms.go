// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// terms are what the IP header of a datagram says of its way, for its socket to say the
// same.
type terms struct {
	hops  uint8 // TTL or hop limit, as the router has left it
	class uint8 // TOS or traffic class
	whole bool  // it is not to be fragmented
}

// opening are the terms of a new socket, see dial.Policy.Open; its hop limit is the host's
// default, which nobody knows here.
func opening() terms { return terms{whole: true} }

// termsOf reads a packet of the stack's. Of one that came in fragments it is the first
// one's header, and it may be fragmented again.
func termsOf(pkt *stack.PacketBuffer) terms {
	b := pkt.NetworkHeader().Slice()
	if pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber {
		h := header.IPv6(b)
		class, _ := h.TOS()
		return terms{hops: h.HopLimit(), class: class, whole: !fragmented(h)}
	}
	h := header.IPv4(b)
	class, _ := h.TOS()
	return terms{hops: h.TTL(), class: class, whole: h.Flags()&header.IPv4FlagDontFragment != 0}
}

// fragmented reports whether a header of IPv6 has a fragment header behind it. In IPv6
// nobody on the way may fragment, so what came without one goes without one.
func fragmented(h header.IPv6) bool {
	next, rest := h.NextHeader(), h[header.IPv6MinimumSize:]
	for len(rest) >= 8 {
		if next == uint8(header.IPv6FragmentExtHdrIdentifier) {
			return true
		}
		n := 8 + int(rest[1])*8 // RFC 8200 §4.3
		next, rest = rest[0], rest[min(n, len(rest)):]
	}
	return false
}

// agree makes the socket send on those terms. What it does not take stays as it was.
//
// +checklocks:f.mu
func (f *flow) agree(t terms) {
	if t == f.terms || f.relayed {
		return
	}
	level, hops, class, discover := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS, unix.IP_MTU_DISCOVER
	if f.ipv6() {
		level, hops, class, discover = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS, unix.IPV6_MTU_DISCOVER
	}
	if t.hops != f.terms.hops {
		_ = unix.SetsockoptInt(f.fd, level, hops, int(t.hops))
	}
	if t.class != f.terms.class {
		_ = unix.SetsockoptInt(f.fd, level, class, int(t.class))
	}
	if t.whole != f.terms.whole {
		how := unix.IP_PMTUDISC_DONT // as IPV6_PMTUDISC_DONT
		if t.whole {
			how = unix.IP_PMTUDISC_PROBE
		}
		_ = unix.SetsockoptInt(f.fd, level, discover, how)
	}
	f.terms = t
}
