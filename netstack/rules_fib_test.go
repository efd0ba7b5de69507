// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"testing"

	pt "sluice/packet/packettest"
	"sluice/routing"
)

// TestRulesReversePath: a default route by the device that a packet came by is no way
// back if there is a better one elsewhere; types of addresses are the namespace's, or a
// device's.
func TestRulesReversePath(t *testing.T) {
	s := ruledSites(`table ip t {
	chain pre {
		type filter hook prerouting priority raw
		fib saddr . iif oif missing counter drop
		fib saddr . iif oif exists counter
		fib daddr type local counter
		fib daddr . iif type local counter
		fib daddr type unicast counter
		ip daddr 192.0.2.9 fib daddr type unicast counter comment "nowhere"
	}
}
`)
	s.Routing.Routes = []routing.Route{via("0.0.0.0/0", "site2", bob.addr4()), {Prefix: netip.MustParsePrefix("192.0.2.9/32"), Type: routing.Blackhole}}
	s.Networks[1].Device.ReversePath = routing.ReverseOff
	l := stillSites(t, s)
	stranger := bob.to(alice)
	stranger.Src = netip.MustParseAddr("198.51.100.1")
	l.send(bob.port(), pt.UDP4(stranger))
	l.arrived(alice, pt.IPv4(pt.Src(stranger.Src)))
	l.wantListed("\t\tfib saddr . iif oif exists counter packets 1 bytes 48")
	stranger.Src = netip.MustParseAddr("10.44.1.77") // which is alice's network
	l.send(bob.port(), pt.UDP4(stranger))
	l.silent(alice.port())
	l.wantListed("\t\tfib saddr . iif oif missing counter packets 1 bytes 48 drop", "\t\tfib daddr type unicast counter packets 1 bytes 48")
	far := bob.to(alice)
	far.Dst = gate(1).addr4()
	l.send(bob.port(), pt.Ping4(far))
	far.Dst = netip.MustParseAddr("192.0.2.9")
	l.send(bob.port(), pt.UDP4(far))
	far.Dst = gate(2).addr4()
	l.send(bob.port(), pt.Ping4(far))
	l.wantListed("\t\tfib daddr type local counter packets 2 bytes 96", "\t\tfib daddr . iif type local counter packets 1 bytes 48",
		"\t\tip daddr 192.0.2.9 fib daddr type unicast counter packets 1 bytes 48 comment \"nowhere\"")
}

// TestRulesRejectOwn: who asks an own address is refused by it, whichever network it is of.
func TestRulesRejectOwn(t *testing.T) {
	l := stillSites(t, ruledSites("table inet t { chain i { type filter hook input priority 0; meta l4proto udp reject with icmpx admin-prohibited; }; }"))
	p := bob.to(alice)
	p.Dst = gate(1).addr4()
	l.send(bob.port(), pt.UDP4(p))
	l.round()
	pt.Check(t, l.got(bob.port()), pt.IPv4(pt.Src(gate(1).addr4()), pt.Dst(bob.addr4())), pt.ICMP(pt.ICMPType(3, 13)))
	p.Src, p.Dst = bob.addr6(), gate(1).addr6()
	l.send(bob.port(), pt.UDP6(p))
	l.round()
	pt.Check(t, l.got(bob.port()), pt.IPv6(pt.Src(gate(1).addr6()), pt.Dst(bob.addr6())), pt.ICMPv6(pt.ICMPType(1, 1)))
}
