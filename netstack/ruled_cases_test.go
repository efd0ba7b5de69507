// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/conntrack"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
)

// What random rulesets have found, as few packets: both routers get the same, and have to
// send the same, count the same and know the same connections.

// ruledPlay is a ruleset and what is sent through it.
type ruledPlay struct {
	name, text string
	sent       []saying
}

// tcpSaying is one of TCP between two ends of the form "10.71.1.2:80".
func tcpSaying(name string, from int, src, dst string, flags uint8, seq, ack uint32) saying {
	a, b := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	var ip pt.Layer = pt.IPv4Hdr{Src: a.Addr(), Dst: b.Addr(), TTL: 64, DF: true}
	if a.Addr().Is6() {
		ip = pt.IPv6Hdr{Src: a.Addr(), Dst: b.Addr(), HopLimit: 64}
	}
	h := pt.TCPHdr{SrcPort: a.Port(), DstPort: b.Port(), Flags: flags, Seq: seq, Ack: ack, Window: 65535}
	return saying{name, from, pt.Build(pt.EtherHdr{}, ip, h)}
}

// closedPlay: a port of a range that a closed connection has is taken by the next one only if
// the source of the closed one was translated, and the next begins behind it.
func closedPlay() ruledPlay {
	const server, asked, next = "10.71.1.2:5000", "10.71.1.5:22", "10.71.1.4:80"
	const client, pooled, also, beyond = "10.71.2.3:2003", "10.71.1.6:2000", "10.71.1.7:2000", "10.71.2.2:80"
	return ruledPlay{name: "closed connections", text: `table inet t {
	chain n1 { type nat hook prerouting priority -95; iifname "r2" meta l4proto tcp counter dnat ip to 10.71.1.2:5000-5003; }
	chain n2 { type nat hook postrouting priority 100; oifname "r2" meta l4proto tcp counter snat ip to 10.71.2.30:5000; }
	chain c { type filter hook postrouting priority 200; tcp dport 5000 counter; tcp dport 5001 counter; }
}`, sent: []saying{
		tcpSaying("syn to a range", far, client, asked, pt.SYN, 1000, 0),
		tcpSaying("its answer", near, server, client, pt.SYN|pt.ACK, 70, 1001),
		tcpSaying("its end", far, client, asked, pt.RST, 1001, 0),
		tcpSaying("syn to the same range", far, client, next, pt.SYN, 50000, 0),
		tcpSaying("syn from a range", near, pooled, beyond, pt.SYN, 1000, 0),
		tcpSaying("its answer", far, beyond, "10.71.2.30:5000", pt.SYN|pt.ACK, 70, 1001),
		tcpSaying("syn while the port is taken", near, also, beyond, pt.SYN, 50000, 0),
		tcpSaying("the end of the first", near, pooled, beyond, pt.RST, 1001, 0),
		tcpSaying("syn from behind", near, also, beyond, pt.SYN, 900, 0),
		tcpSaying("syn that displaces it", near, also, beyond, pt.SYN, 50000, 0),
	}}
}

// looksFirst: nft compares fields that lie side by side at once, raw ones too, where the
// first of the header stands: what stands before that is asked earlier, and counts.
func looksFirst() ruledPlay {
	const server, client = "[fd71:2::3]:80", "[fd71:1::4]:2003"
	return ruledPlay{name: "raw fields beside others", text: `table inet t {
	set dyn { type ipv6_addr; size 5; flags dynamic; }
	chain c { type filter hook forward priority 0; update @dyn { ip6 saddr counter }; @nh,64,8 63 ip6 daddr @dyn ip6 hoplimit 63 counter; }
}`, sent: []saying{
		tcpSaying("one", far, server, client, pt.ACK, 1, 1),
		tcpSaying("another", near, client, server, pt.ACK, 1, 1),
	}}
}

// countLo counts at each hook, apart what passes lo.
const countLo = `table inet t {
	chain a { type filter hook prerouting priority raw; iifname "lo" counter; counter; }
	chain n { type nat hook prerouting priority dstnat; iifname "r2" counter redirect; }
	chain r { type filter hook prerouting priority 10; iifname "lo" ct state related ct status dnat counter; ct state invalid counter reject; }
	chain i { type filter hook input priority 0; iifname "lo" counter; oifname "lo" counter; counter; }
	chain o { type filter hook output priority 0; oifname "lo" counter; counter; }
	chain p { type filter hook postrouting priority 0; oifname "lo" ct state related counter; counter; %s }
	chain q { type filter hook postrouting priority 300; ip saddr 10.71.1.1 counter; ip6 saddr fd71:1::1 counter; ip daddr 10.71.2.1 counter; ip6 daddr fd71:2::1 counter; }
	chain s { type filter hook input priority 300; %s counter; }
}`

// ownPlay: what was sent to a host is redirected to the router, and the host answers all
// the same, which is of no connection: that is refused, and as it is about the connection
// that was redirected, the router hears of it itself, by lo.
func ownPlay(name, leaving, coming string) ruledPlay {
	c := ruledPlay{name: name, text: fmt.Sprintf(countLo, leaving, coming)}
	for _, v6 := range []bool{false, true} {
		client, host := at(v6, far, 3), at(v6, near, 3)
		request, reply := uint8(8), uint8(0)
		if v6 {
			request, reply = 128, 129
		}
		ping := func(name string, from int, kind uint8, src, dst netip.Addr) saying {
			var ip pt.Layer = pt.IPv4Hdr{Src: src, Dst: dst, TTL: 64}
			if v6 {
				ip = pt.IPv6Hdr{Src: src, Dst: dst, HopLimit: 64}
			}
			return saying{name, from, pt.Build(pt.EtherHdr{}, ip, pt.ICMPHdr{V6: v6, Type: kind, ID: 9, Seq: 1}, pt.Bytes(20))}
		}
		from, to := netip.AddrPortFrom(client, 2000).String(), netip.AddrPortFrom(host, 80).String()
		c.sent = append(c.sent,
			ping("ping", far, request, client, host),
			ping("the host's answer", near, reply, host, client),
			tcpSaying("syn", far, from, to, pt.SYN, 1000, 0),
			tcpSaying("the host's answer", near, to, from, pt.SYN|pt.ACK, 70, 1001),
		)
	}
	return c
}

// identifiedPlay: of queries only the identifier is translated, and who tells of an error
// is named after the connection's end all the same, whoever it was.
func identifiedPlay() ruledPlay {
	c := ruledPlay{name: "identifiers and who says so", text: `table inet t {
	chain d { type nat hook prerouting priority dstnat; iifname "r2" ip protocol icmp counter dnat ip to 10.71.1.3:77; iifname "r2" ip6 nexthdr icmpv6 counter dnat ip6 to [fd71:1::3]:77; }
	chain s { type nat hook postrouting priority srcnat; oifname "r2" ip protocol icmp counter snat ip to 10.71.1.3:77; oifname "r2" ip6 nexthdr icmpv6 counter snat ip6 to [fd71:1::3]:77; }
	chain f { type filter hook forward priority 0; icmp type echo-request icmp id 77 counter; icmp id 77 counter; icmpv6 type echo-request icmpv6 id 77 counter; icmpv6 id 77 counter; icmp sequence 2 counter reject; icmpv6 sequence 2 counter reject; }
	chain p { type filter hook postrouting priority 300; icmp id 9 counter; icmp id 77 counter; icmpv6 id 9 counter; icmpv6 id 77 counter; ct status snat counter; ct status dnat counter; }
}`}
	for _, v6 := range []bool{false, true} {
		for _, from := range []int{near, far} {
			asks, answers := at(v6, from, 3), at(v6, 1-from, 3)
			packet := func(src, dst netip.Addr, h pt.ICMPHdr, data pt.Layer) []byte {
				var ip pt.Layer = pt.IPv4Hdr{Src: src, Dst: dst, TTL: 64}
				if h.V6 = v6; v6 {
					ip = pt.IPv6Hdr{Src: src, Dst: dst, HopLimit: 64}
				}
				return pt.Build(pt.EtherHdr{}, ip, h, data)
			}
			request, reply, unreachable := uint8(8), uint8(0), uint8(3)
			if v6 {
				request, reply, unreachable = 128, 129, 1
			}
			sent := packet(asks, answers, pt.ICMPHdr{Type: request, ID: 9, Seq: 1}, pt.Bytes(20))
			arrived := packet(asks, answers, pt.ICMPHdr{Type: request, ID: 77, Seq: 1}, pt.Bytes(20))
			answer := packet(answers, asks, pt.ICMPHdr{Type: reply, ID: 77, Seq: 1}, pt.Bytes(20))
			answered := packet(answers, asks, pt.ICMPHdr{Type: reply, ID: 9, Seq: 1}, pt.Bytes(20))
			tell := func(src, dst netip.Addr, about []byte) []byte {
				v := viewed(about).View
				return packet(src, dst, pt.ICMPHdr{Type: unreachable}, pt.Payload(about[v.L3:v.End]))
			}
			c.sent = append(c.sent,
				saying{"query", from, sent},
				saying{"error of another about it", 1 - from, tell(at(v6, 1-from, 8), asks, arrived)},
				saying{"answer", 1 - from, answer},
				saying{"error of another about that", from, tell(at(v6, from, 8), answers, answered)},
				saying{"query that is refused", from, packet(asks, answers, pt.ICMPHdr{Type: request, ID: 9, Seq: 2}, pt.Bytes(20))},
				saying{"answer that is refused", 1 - from, packet(answers, asks, pt.ICMPHdr{Type: reply, ID: 77, Seq: 2}, pt.Bytes(20))},
			)
		}
	}
	return c
}

// resetPlay: a segment is refused before its connection has a source: chains of type nat
// are asked about the reset, and what rules behind them see is what would have become of
// the connection, if anything.
func resetPlay(name, chains string) ruledPlay {
	c := ruledPlay{name: name, text: `table inet t {
	` + chains + `
	chain p { type filter hook postrouting priority 300; ct status snat counter; ct status ! snat counter; ct status dnat counter; ct status ! dnat counter; ct reply ip daddr 10.71.2.3 counter; ct reply ip6 daddr fd71:2::3 counter; }
}`}
	for _, ends := range [][2]string{{"10.71.2.3:2003", "10.71.2.1:22"}, {"[fd71:2::3]:2003", "[fd71:2::1]:22"}, {"10.71.2.4:2003", "10.71.1.3:22"}, {"[fd71:2::4]:2003", "[fd71:1::3]:22"}} {
		c.sent = append(c.sent, tcpSaying("syn to "+ends[1], far, ends[0], ends[1], pt.SYN, 1000, 0))
	}
	return c
}

// selfPlay: who speaks with itself by way of the router has a connection of which both
// directions look the same; what comes next is an answer.
func selfPlay() ruledPlay {
	c := ruledPlay{name: "who speaks with itself", text: `table inet t {
	chain f { type filter hook forward priority 0; ct state new counter; ct direction original counter; ct state established ct direction reply counter; ct status assured counter; }
}`}
	for _, v6 := range []bool{false, true} {
		a := at(v6, far, 2)
		var ip pt.Layer = pt.IPv4Hdr{Src: a, Dst: a, TTL: 64}
		if v6 {
			ip = pt.IPv6Hdr{Src: a, Dst: a, HopLimit: 64}
		}
		datagram := pt.Build(pt.EtherHdr{}, ip, pt.UDPHdr{SrcPort: 80, DstPort: 80}, pt.Bytes(20))
		end := netip.AddrPortFrom(a, 80).String()
		c.sent = append(c.sent,
			saying{"a datagram", far, datagram}, saying{"another", far, datagram}, saying{"a third", far, datagram},
			tcpSaying("syn", far, end, end, pt.SYN, 1000, 0),
			tcpSaying("its answer", far, end, end, pt.SYN|pt.ACK, 1000, 1001),
			tcpSaying("ack", far, end, end, pt.ACK, 1001, 1001),
		)
	}
	return c
}

// TestFoundCasesAreTheKernels plays them.
func TestFoundCasesAreTheKernels(t *testing.T) {
	o := newRuledOracle(t)
	for _, c := range []ruledPlay{
		closedPlay(), looksFirst(),
		identifiedPlay(), selfPlay(),
		resetPlay("a reset whose connection would be as it is", `chain i { type filter hook input priority 10; reject with tcp reset; }
	chain f { type filter hook forward priority 0; reject with tcp reset; }
	chain n { type nat hook postrouting priority 100; meta nfproto ipv4 counter snat ip to 10.71.2.3 persistent; counter snat ip6 to fd71:2::3; }`),
		resetPlay("masquerade", `chain i { type filter hook input priority 10; reject with tcp reset; }
	chain f { type filter hook forward priority 0; reject with tcp reset; }
	chain n { type nat hook postrouting priority 100; counter masquerade; }`),
		resetPlay("before its destination is known", `chain i { type filter hook prerouting priority -150; reject with tcp reset; }
	chain o { type nat hook output priority -100; meta nfproto ipv4 counter dnat ip to 10.71.1.3; counter redirect; }
	chain n { type nat hook postrouting priority 100; oifname "r2" meta l4proto tcp counter snat ip to 10.71.2.3:2003; }`),
		ownPlay("errors to the router itself", "", ""),
		ownPlay("dropped before they leave", `oifname "lo" counter drop;`, ""),
		ownPlay("dropped when they have come", "", `iifname "lo" counter drop;`),
	} {
		t.Run(c.name, func(t *testing.T) { o.playFound(t, &c) })
	}
}

func (o *ruledOracle) playFound(t *testing.T, c *ruledPlay) {
	t.Helper()
	if out := o.nft.Try(c.text); strings.Contains(out, "Error: ") {
		t.Fatalf("%s\n%s", out, c.text)
	}
	defer o.nft.Do("delete table inet t")
	o.load(&journal.Journal{Steps: []journal.Step{{Text: c.text}}})
	defer o.load(nil)
	x := &trial{o: o.oracle, ruled: true, entered: map[conntrack.Tuple]bool{}, name: t.Name()}
	defer x.clean()
	for _, p := range c.sent {
		x.entered[tupleOf(viewed(p.b))] = true
		kernel, own := o.pass(p.from, p.b, p.b)
		for n := range kernel {
			if plainly(kernel[n]) != plainly(own[n]) {
				t.Errorf("%s: to side %d\n kernel sends%s\n we send%s", p.name, n, words(kernel[n]), words(own[n]))
			}
		}
	}
	if !x.sameState() {
		t.Error(x.failed)
	}
	ours, err := o.lab.n.Namespace("same").RuleList(&RuleQuery{Text: "list table inet t"})
	demand(t, "list", err)
	if what := differentCounts(t, ours, o.nft.Do("list table inet t")); what != "" {
		t.Errorf("%s", what)
	}
}
