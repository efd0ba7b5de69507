// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// step is a packet between host numbers of the two networks, and what becomes of it.
type step struct {
	in       int // the network that it comes from
	src, dst byte
	proto    uint8
	sport    uint16
	dport    uint16
	flags    uint8
	want     string
}

// realRuleset has the shape of what a program writes, and how it has to behave.
type realRuleset struct {
	text  string
	steps []step
}

func realRulesets() map[string]realRuleset {
	const tcp, udp, icmp = packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP
	return map[string]realRuleset{
		"a router that lets nobody in": {`table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname "m0" counter accept
		iifname "m1" tcp dport { 22, 443 } ct state new counter accept
	}
}
`, []step{
			{1, 4, 3, tcp, 5000, 80, pt.SYN, "drop"},
			{0, 3, 4, tcp, 80, 5000, pt.SYN | pt.ACK, "drop"},
			{0, 3, 4, tcp, 6000, 80, pt.SYN, "forward"},
			{1, 4, 3, tcp, 80, 6000, pt.SYN | pt.ACK, "forward"},
			{1, 4, 3, tcp, 5001, 22, pt.SYN, "forward"},
			{1, 4, 3, udp, 53, 6001, 0, "drop"},
			{0, 3, 4, udp, 6001, 53, 0, "forward"},
			{1, 4, 3, udp, 53, 6001, 0, "forward"},
		}},
		"firewalld: zones": {`table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state { invalid } drop
		jump filter_FORWARD_POLICIES
		reject with icmpx type admin-prohibited
	}
	chain filter_FORWARD_POLICIES {
		iifname "m0" oifname "m1" jump filter_FWD_trusted
		iifname "m1" jump filter_FWD_public
	}
	chain filter_FWD_trusted { accept; }
	chain filter_FWD_public {
		tcp dport 22 ct state { new, untracked } accept
		meta l4proto { icmp, ipv6-icmp } accept
	}
}
`, []step{
			{1, 4, 3, tcp, 5000, 22, pt.SYN, "forward"},
			{0, 3, 4, tcp, 22, 5000, pt.SYN | pt.ACK, "forward"},
			{1, 4, 3, tcp, 5000, 80, pt.SYN, "reject 1 3/13"},
			{1, 4, 3, udp, 5000, 22, 0, "reject 1 3/13"},
			{1, 4, 3, icmp, 9, 0, 0, "forward"},
			{0, 3, 4, udp, 6000, 53, 0, "forward"},
			{0, 3, 4, tcp, 6000, 1, pt.RST, "drop"},
		}},
		"kube-proxy: services without endpoints": {`table ip kube-proxy {
	set cluster-ips { type ipv4_addr; elements = { 10.0.1.9, 10.0.1.10 }; }
	map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.0.1.9 . tcp . 80 : goto reject-chain, 10.0.1.8 . udp . 53 : drop }; }
	chain reject-chain { reject; }
	chain cluster-ips-check { ip daddr @cluster-ips reject comment "no such port"; }
	chain filter-forward {
		type filter hook forward priority filter - 110; policy accept;
		ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}
	chain nat-like {
		type filter hook forward priority filter - 100; policy accept;
		ct state new jump cluster-ips-check
	}
}
`, []step{
			{0, 3, 9, tcp, 5000, 80, pt.SYN, "reject 1 3/3"},
			{0, 3, 9, tcp, 5000, 81, pt.SYN, "reject 1 3/3"},
			{0, 3, 10, udp, 5000, 80, 0, "reject 1 3/3"},
			{0, 3, 8, udp, 5000, 53, 0, "drop"},
			{0, 3, 8, tcp, 5000, 53, pt.SYN, "forward"},
			{0, 3, 4, tcp, 5001, 80, pt.SYN, "forward"},
		}},
		"Docker: published ports and isolation": {`table ip filter {
	chain DOCKER-USER { return; }
	chain DOCKER-ISOLATION-STAGE-1 {
		iifname "m0" oifname != "m0" jump DOCKER-ISOLATION-STAGE-2
		return
	}
	chain DOCKER-ISOLATION-STAGE-2 {
		oifname "m2" drop
		return
	}
	chain DOCKER {
		ip daddr 10.0.0.3 iifname != "m0" oifname "m0" tcp dport 80 counter accept
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
		counter jump DOCKER-ISOLATION-STAGE-1
		oifname "m0" ct state related,established counter accept
		oifname "m0" counter jump DOCKER
		iifname "m0" oifname != "m0" counter accept
		iifname "m0" oifname "m0" counter accept
	}
}
`, []step{
			{1, 4, 3, tcp, 5000, 80, pt.SYN, "forward"},
			{0, 3, 4, tcp, 80, 5000, pt.SYN | pt.ACK, "forward"},
			{1, 4, 3, tcp, 5000, 80, pt.ACK, "forward"},
			{1, 4, 3, tcp, 5000, 81, pt.SYN, "drop"},
			{1, 4, 5, tcp, 5000, 80, pt.SYN, "drop"},
			{1, 4, 3, udp, 53, 6000, 0, "drop"},
			{0, 3, 4, udp, 6000, 53, 0, "forward"},
			{1, 4, 3, udp, 53, 6000, 0, "forward"},
		}},
	}
}

// shot is the packet of a step.
func (s *step) shot() shot {
	c := choice{in: s.in, src: [2]byte{byte(s.in), s.src}, dst: [2]byte{byte(1 - s.in), s.dst}, proto: s.proto, sport: s.sport, dport: s.dport, flags: s.flags, ttl: 64}
	return shot{c.frame(false), s.in}
}

// TestRealRulesets: what programs write does here what they mean by it.
func TestRealRulesets(t *testing.T) {
	for name, r := range realRulesets() {
		b := newBoth(t, load(t, r.text))
		for i, s := range r.steps {
			x := s.shot()
			b.ev.Pin()
			b.ev.Begin(nil)
			got := b.ours.pass(x.frame, x.in)
			b.ev.Unpin()
			if got.what != s.want {
				t.Errorf("%s, packet %d, %s: %s by %q, want %s", name, i, pt.Describe(x.frame), got.what, got.rule, s.want)
			}
		}
	}
}
