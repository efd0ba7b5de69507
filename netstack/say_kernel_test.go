// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/conntrack"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
	"sluice/policy/policytest"
	"sluice/router"
	"sluice/routing"
	kt "sluice/test/kerneltest"
)

// What a router says because of a packet (ICMP errors, redirects, resets) is seen by the
// same rules as in the kernel: the same packets go through the kernel's router and
// Sluice's, with one ruleset, and what comes out and what was counted is compared.

// each counts what passes one hook, by protocol, state, direction, status and mark.
const each = `meta l4proto 253 accept
		icmp type { time-exceeded, destination-unreachable, redirect } counter
		icmpv6 type { time-exceeded, destination-unreachable, packet-too-big } counter
		tcp flags & rst == rst counter
		ct state related counter
		ct state invalid counter
		ct state new counter
		ct state established counter
		ct state untracked counter
		ct direction reply counter
		ct direction original counter
		ct mark 5 counter
		ct status snat counter
		ct status dnat counter
		ct original ip saddr 10.71.1.2 counter
		meta mark 0 counter
		meta mark 7 counter
		ip saddr 10.71.1.1 counter
		ip saddr 10.71.2.2 counter
		ip daddr 10.71.1.2 counter
		oifname "r1" counter
		oifname "r2" counter
		icmp type redirect counter`

// counting counts at each hook.
const counting = `table inet t {
	chain a { type filter hook prerouting priority raw; meta l4proto 253 notrack; udp dport 700 notrack; }
	chain b { type filter hook prerouting priority mangle; udp dport 701 ct mark set 5; udp dport 702 meta mark set 7; udp dport 703 reject; tcp dport 703 reject with tcp reset; }
	chain c { type filter hook prerouting priority 0; udp dport 704 reject; tcp dport 704 reject with tcp reset; }
	chain d { type filter hook forward priority 0; EACH; udp dport 705 reject with icmpx admin-prohibited; tcp dport 705 reject with tcp reset; tcp dport 706 reject; }
	chain e { type filter hook input priority 0; EACH; udp dport 707 reject; tcp dport 707 reject with tcp reset; }
	chain o0 { type filter hook output priority raw; counter; %s }
	chain o1 { type filter hook output priority 0; EACH; %s }
	chain p0 { type filter hook postrouting priority mangle; EACH; %s }
	chain p1 { type filter hook postrouting priority 200; EACH; }
	%s
}
`

// sayings are the rulesets, each more than counting.
var sayings = []struct{ name, out0, out1, post, more string }{
	{name: "counted"},
	{name: "dropped at output", out1: "icmp type time-exceeded counter drop; icmpv6 type time-exceeded counter drop; udp dport 1 drop;"},
	{name: "dropped at postrouting", post: "ct state related counter drop;"},
	{name: "resets dropped", out1: "tcp flags & rst == rst counter drop;"},
	{name: "untracked", out0: "meta l4proto { icmp, ipv6-icmp } notrack;"},
	{name: "marked", out1: "meta mark set 7;"},
	{name: "routed by a mark", more: `
	chain r { type route hook output priority mangle; icmp type time-exceeded meta mark set 7; tcp sport 705 meta mark set 7; icmpv6 type packet-too-big meta mark set 7; }`},
	{name: "masqueraded, routed by a mark", out1: "meta mark set 7;", more: `
	chain r { type route hook output priority 10; icmp type time-exceeded meta mark set 8; }
	chain s { type route hook output priority 20; icmp type time-exceeded meta mark set 7; }
	chain n2 { type nat hook postrouting priority srcnat; oifname "r2" masquerade; meta l4proto { tcp, udp, icmp } snat ip to 10.71.1.99; meta l4proto { tcp, udp, ipv6-icmp } snat ip6 to fd71:1::99; }`},
	{name: "masqueraded", more: `
	chain n1 { type nat hook prerouting priority dstnat; udp dport 720 dnat ip to 10.71.2.3:21; tcp dport 720 dnat ip to 10.71.2.3:705; tcp dport 721 dnat ip6 to [fd71:2::3]:705; udp dport 721 dnat ip6 to [fd71:2::3]:21; counter; }
	chain n2 { type nat hook postrouting priority srcnat; counter; oifname "r1" counter; oifname "r2" meta l4proto { tcp, udp, icmp, ipv6-icmp } counter masquerade; oifname "r1" meta l4proto { tcp, udp, icmp, ipv6-icmp } counter snat ip to 10.71.1.99; oifname "r1" meta l4proto { tcp, udp, icmp, ipv6-icmp } counter snat ip6 to fd71:1::99; }
	chain n3 { type nat hook output priority -100; counter; }
	chain n4 { type nat hook input priority 100; counter; }`},
	{name: "masqueraded, dropped by a chain of type nat", more: `
	chain n2 { type nat hook postrouting priority srcnat; oifname "r1" counter drop; oifname "r2" masquerade; }`},
}

// saying is a packet because of which a router says something.
type saying struct {
	name string
	from int
	b    []byte
}

// saidAbout are the packets of one family. Of IPv4, the kernel tells a host that there is no
// route only if it has not been told anything for a while: so that is a stranger's.
func saidAbout(v6 bool, stranger int) (all []saying) {
	ip := func(from, host, to, other int, ttl uint8, df bool) pt.Layer {
		if v6 {
			return pt.IPv6Hdr{Src: at(true, from, host), Dst: at(true, to, other), HopLimit: ttl}
		}
		return pt.IPv4Hdr{Src: at(false, from, host), Dst: at(false, to, other), TTL: ttl, DF: df}
	}
	add := func(name string, from int, layers ...pt.Layer) {
		all = append(all, saying{name, from, pt.Build(append([]pt.Layer{pt.EtherHdr{}}, layers...)...)})
	}
	udp := func(name string, from, host, other int, ttl uint8, sport, dport uint16, n int) {
		add(fmt.Sprintf("%s udp %d", name, dport), from, ip(from, host, 1-from, other, ttl, true), pt.UDPHdr{SrcPort: sport, DstPort: dport}, pt.Bytes(n))
	}
	for round := range 2 {
		name := fmt.Sprintf("%d, v6 %v:", round, v6)
		for _, dport := range []uint16{700, 701, 702, 720, 721, 9} {
			udp(name+" ttl", near, 2, 2, 1, 4000, dport, 20)
		}
		for _, dport := range []uint16{703, 704, 705} {
			udp(name, near, 2, 2, 64, 4001, dport, 20)
			add(fmt.Sprintf("%s tcp %d", name, dport), near, ip(near, 2, far, 2, 64, true), pt.TCPHdr{SrcPort: 4001, DstPort: dport, Flags: pt.SYN, Window: 1000})
		}
		for _, dport := range []uint16{706, 720, 721} {
			add(fmt.Sprintf("%s tcp %d", name, dport), near, ip(near, 2, far, 2, 64, true), pt.TCPHdr{SrcPort: 4002, DstPort: dport, Flags: pt.SYN, Window: 1000})
		}
		add(name+" tcp to the router", near, ip(near, 2, near, 1, 64, true), pt.TCPHdr{SrcPort: 4003, DstPort: 707, Flags: pt.SYN, Window: 1000})
		add(name+" udp to the router", near, ip(near, 2, near, 1, 64, true), pt.UDPHdr{SrcPort: 4003, DstPort: 707}, pt.Bytes(20))
		// A flow that is established, and then: too large, out of hops, both ways.
		udp(name+" begins", near, 3, 3, 64, 4004, 22, 20)
		udp(name+" too large", near, 3, 3, 64, 4004, 22, 1400)
		udp(name+" ttl", near, 3, 3, 1, 4004, 22, 20)
		udp(name+" answers", far, 3, 3, 64, 22, 4004, 20)
		udp(name+" answer ttl", far, 3, 3, 1, 22, 4004, 20)
		udp(name+" answers from elsewhere", far, 3, 6, 1, 22, 4004, 20)
		// Nobody's: no route, and an ACK of nothing.
		if v6 {
			add(name+" no route", near, pt.IPv6Hdr{Src: at(true, near, 2), Dst: pt.IP("fd99::1"), HopLimit: 64}, pt.UDPHdr{SrcPort: 4005, DstPort: 22}, pt.Bytes(20))
		} else if round == 0 {
			add(name+" no route", near, pt.IPv4Hdr{Src: at(false, near, stranger), Dst: pt.IP("10.99.0.1"), TTL: 64}, pt.UDPHdr{SrcPort: 4005, DstPort: 22}, pt.Bytes(20))
		}
		if !v6 && round == 0 { // of IPv6 the kernel's redirects can't be switched off, and are left out
			add(name+" redirect", near, ip(near, stranger, near, 9, 64, true), pt.UDPHdr{SrcPort: 4008, DstPort: 22}, pt.Bytes(20))
		}
		add(name+" ack", near, ip(near, 2, far, 2, 64, true), pt.TCPHdr{SrcPort: 4006, DstPort: 705, Flags: pt.RST, Seq: 1, Window: 1000})
		add(name+" ping ttl", near, ip(near, 2, far, 2, 1, true), pt.ICMPHdr{V6: v6, Type: map[bool]uint8{false: 8, true: 128}[v6], ID: 9, Seq: uint16(round)}, pt.Bytes(20))
		add(name+" ping too large", near, ip(near, 2, far, 2, 64, true), pt.ICMPHdr{V6: v6, Type: map[bool]uint8{false: 8, true: 128}[v6], ID: 10, Seq: uint16(round)}, pt.Bytes(1400))
	}
	return all
}

// TestSayingsAreTheKernels: each packet's answer, and in the end all counters, are those
// of the kernel.
func TestSayingsAreTheKernels(t *testing.T) {
	k := bareKernelRouter(t)
	for n := 1; n <= 2; n++ { // nor do the stations say anything of themselves
		kt.Sysctl(t, fmt.Sprintf("ipv6/conf/p%d/disable_ipv6=1", n))
	}
	kt.Feed(t, "link set r2 mtu 1300\nrule add fwmark 7 lookup 100 pref 100\nroute add 10.71.1.2/32 via 10.71.2.2 table 100\n", "ip", "-batch", "-")
	kt.Feed(t, "rule add fwmark 7 lookup 100 pref 100\nroute add fd71:1::2/128 via fd71:2::2 table 100\n", "ip", "-6", "-batch", "-")
	s := k.between()
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			s.Networks[i].Ports[j].Tenure = 1
		}
	}
	s.Networks[1].Bridge.MTU, s.Networks[1].Ports[0].MTU = 1300, 1300
	kt.Sysctl(t, "ipv4/conf/all/send_redirects=1", "ipv4/conf/r1/send_redirects=1")
	s.Networks[0].Device.NoRedirects = false
	s.Routing = byMark()
	k.open(s)
	o := &ruledOracle{oracle: &oracle{kernelRouter: k, allowed: map[string]int{}}, nft: policytest.NewSession(t)}
	o.settle()
	o.nft.Do("table inet tracks { chain c { type filter hook prerouting priority -400; ct state new; }; }")
	said := 0
	for i := range sayings {
		c := &sayings[i]
		t.Run(c.name, func(t *testing.T) {
			said += o.say(t, fmt.Sprintf(strings.ReplaceAll(counting, "EACH", each), c.out0, c.out1, c.post, c.more), hosts()[2+i])
		})
	}
	if said < 200 {
		t.Errorf("%d packets were said", said)
	}
	t.Logf("%d packets were said", said)
}

// byMark leads what has the mark 7, and is for a host of the near side, to the far one.
func byMark() (s RoutingSpec) {
	for _, family := range []routing.Family{routing.IPv4, routing.IPv6} {
		v6 := family == routing.IPv6
		s.Rules = append(s.Rules, routing.Rule{Family: family, PrioritySet: true, Table: routing.TableLocal},
			routing.Rule{Family: family, PrioritySet: true, Priority: 100, Mark: 7, Mask: 0xffffffff, Table: 100},
			routing.Rule{Family: family, PrioritySet: true, Priority: 32766, Table: routing.TableMain})
		to := at(v6, near, 2)
		s.Routes = append(s.Routes, routing.Route{
			Prefix: netip.PrefixFrom(to, to.BitLen()), Table: 100, NextHops: []routing.NextHop{{Dev: "r2", Via: at(v6, far, 2)}},
		})
	}
	return s
}

// say plays all packets with one ruleset, and returns how many came back.
func (o *ruledOracle) say(t *testing.T, text string, stranger int) (said int) {
	t.Helper()
	if out := o.nft.Try(text); strings.Contains(out, "Error: ") {
		t.Fatalf("%s\n%s", out, text)
	}
	defer o.nft.Do("delete table inet t")
	o.load(&journal.Journal{Steps: []journal.Step{{Text: text}}})
	defer o.load(nil)
	x := &trial{o: o.oracle, ruled: true, entered: map[conntrack.Tuple]bool{}, name: t.Name()}
	defer x.clean()
	for _, p := range append(saidAbout(false, stranger), saidAbout(true, stranger)...) {
		x.entered[tupleOf(viewed(p.b))] = true
		kernel, own := o.pass(p.from, p.b, p.b)
		for n := range kernel {
			a, b := plainly(kernel[n]), plainly(own[n])
			if a != b {
				t.Errorf("%s: to side %d\n kernel sends%s\n we send%s\n%s\n%s", p.name, n, words(kernel[n]), words(own[n]), a, b)
			}
		}
		said += len(kernel[p.from])
	}
	ours, err := o.lab.n.Namespace("same").RuleList(&RuleQuery{Text: "list table inet t"})
	demand(t, "list", err)
	if what := differentCounts(t, ours, o.nft.Do("list table inet t")); what != "" {
		t.Errorf("%s", what)
	}
	return said
}

// unlimited makes the limits of Sluice's errors those that the kernel has here: none.
func (o *ruledOracle) unlimited() {
	s := o.lab.n.Namespace("same").space()
	c, err := s.routerConfig()
	demand(o.t, "configuration", err)
	c.ICMP = router.ICMPLimits{Off: true}
	s.router.Prepare(c).Commit()
}

// plainly are frames without what no standard fixes: identifications, and whether a
// redirect comes before the packet that it is about.
func plainly(frames [][]byte) string {
	var all []string
	for _, b := range frames {
		f := viewed(b)
		if v := &f.View; v.Is(packet.ViewIPv4) {
			clear(f.Bytes()[v.L3+4 : v.L3+8])
			clear(f.Bytes()[v.L3+10 : v.L3+12])
			if v.Proto == packet.ProtoTCP {
				f.Bytes()[v.L3+1] = 0
			}
		}
		all = append(all, fmt.Sprintf("\n%x", f.Bytes()))
	}
	slices.Sort(all)
	return strings.Join(all, "")
}
