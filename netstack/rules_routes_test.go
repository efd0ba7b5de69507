// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
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

// TestRulesRouteMTU: `rt mtu` is the largest segment that fits both ways, `rt nexthop` who
// gets the packet.
func TestRulesRouteMTU(t *testing.T) {
	s := ruledSites(`table inet t {
	chain pre { type filter hook prerouting priority 0; }
	chain f {
		type filter hook forward priority 0
		tcp flags syn tcp option maxseg size set rt mtu
		ip daddr 10.44.0.0/16 rt mtu 1360 counter
		rt mtu 960 counter
		rt ipsec missing counter comment "plain"
		rt ip nexthop 10.44.2.11 counter
		rt ip6 nexthop fd44:2::b counter comment "six"
	}
}
`)
	s.Networks[1].Bridge.MTU = 1400
	far := via("198.51.100.0/24", "site2", bob.addr4())
	far.MTU = 1000
	s.Routing.Routes = []routing.Route{far}
	l := stillSites(t, s)
	l.send(alice.port(), pt.TCP4(alice.to(bob)))
	l.send(bob.port(), pt.TCP4(bob.to(alice)))
	p := alice.to(bob)
	p.Dst = netip.MustParseAddr("198.51.100.1")
	l.send(alice.port(), pt.TCP4(p))
	p.Src, p.Dst = alice.addr6(), bob.addr6()
	l.send(alice.port(), pt.TCP6(p))
	l.wantListed("\t\tip daddr 10.44.0.0/16 rt mtu 1360 counter packets 2 bytes 120", "\t\trt mtu 960 counter packets 1 bytes 60",
		"\t\trt ipsec missing counter packets 4 bytes 260 comment \"plain\"",
		"\t\trt ip nexthop "+bob.addr4().String()+" counter packets 2 bytes 120", "\t\trt ip6 nexthop "+bob.addr6().String()+" counter packets 1 bytes 80 comment \"six\"")
	for l.got(bob.port()) != nil {
	}
	syn := pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}, pt.IPv4Hdr{Src: alice.addr4(), Dst: bob.addr4()},
		pt.TCPHdr{SrcPort: 9, DstPort: 9, Flags: pt.SYN, Options: []byte{2, 4, 0x05, 0xb4}})
	l.send(alice.port(), syn)
	f := l.got(bob.port())
	if pt.Check(t, f, pt.TCP(pt.TCPFlags(pt.SYN))); f != nil && !bytes.Contains(f.Bytes(), []byte{2, 4, 1360 >> 8, 1360 & 0xff}) {
		t.Errorf("no MSS of 1360 in %x", f.Bytes())
	}
}
