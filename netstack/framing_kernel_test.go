// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/journal"
	kt "sluice/test/kerneltest"
)

// kernelBridge is a bridge of the kernel with two ports, whose far ends are packet
// sockets, and Sluice's in its place:
//
//	x1 ==== p1   br0, nft   p2 ==== x2
type kernelBridge struct {
	ends [3]*kt.End // by port
}

func newKernelBridge(t *testing.T) *kernelBridge {
	t.Helper()
	kt.Enter(t, "nft")
	kt.Sysctl(t, "ipv6/conf/default/disable_ipv6=1")
	kt.IP(t,
		fmt.Sprintf("link add br0 address %v type bridge mcast_snooping 0", gatewayMAC()),
		"link set br0 up arp off",
		"link add p1 type veth peer name x1",
		"link add p2 type veth peer name x2",
		"link set p1 up master br0 arp off",
		"link set p2 up master br0 arp off",
		"link set x1 up arp off",
		"link set x2 up arp off")
	return &kernelBridge{ends: [3]*kt.End{1: kt.Open(t, "x1"), 2: kt.Open(t, "x2")}}
}

// pass sends a frame by a port, and returns what comes out of the other one.
func (k *kernelBridge) pass(b []byte, in int) [][]byte {
	k.ends[in].Send(b)
	return k.ends[3-in].Heard()
}

// framesOf are frames of all kinds that a bridge forwards, from the stations of a port.
func framesOf(r *rand.Rand, n int) (all [][]byte) {
	for range n {
		p := pt.Packet{
			SrcMAC: mac(1), DstMAC: []packet.MAC{mac(2), mac(2), mac(2), packet.Broadcast(), {1, 0, 0x5e, 1, 2, 3}}[r.IntN(5)],
			Src: addr4(1 + r.IntN(3)), Dst: addr4(2 + r.IntN(3)), SrcPort: uint16(1000 + r.IntN(3)), DstPort: uint16(79 + r.IntN(4)),
			TTL: uint8(60 + r.IntN(5)), Payload: pt.Bytes(r.IntN(60)),
		}
		if r.IntN(4) == 0 {
			p.Tags = []pt.VLANTag{{TCI: uint16(r.IntN(3)<<13 | 9 + r.IntN(3))}}
		}
		build := []func(pt.Packet) []byte{pt.UDP4, pt.TCP4, pt.Ping4, pt.ARPRequest}[r.IntN(4)]
		if r.IntN(3) == 0 {
			p.Src, p.Dst, build = addr6(1+r.IntN(3)), addr6(2), []func(pt.Packet) []byte{pt.UDP6, pt.TCP6}[r.IntN(2)]
		}
		all = append(all, build(p))
	}
	return all
}

// frameRules is a random ruleset about them.
func frameRules(r *rand.Rand) string {
	matches := []string{
		fmt.Sprintf("ether saddr %v", mac(1)), fmt.Sprintf("ether daddr %v", mac(2)), "ether type ip", "ether type { arp, ip6 }", "vlan id 10", "vlan pcp > 0",
		"ip saddr 10.44.0.12", "ip daddr { 10.44.0.12, 10.44.0.13 }", "ip6 saddr fd44::b", "udp dport 80", "udp dport 79-80", "tcp dport { 80, 81 }", "tcp sport 1001",
		"icmp type echo-request", "arp operation request", "arp saddr ip 10.44.0.11", "meta protocol ip", "meta l4proto { tcp, udp }", "ip ttl > 62", "meta length > 80",
		"meta pkttype broadcast", "meta pkttype other", "meta pkttype host", "meta mark 1", "meta mark != 0", "ether saddr @known", "ip protocol . th dport { udp . 80, tcp . 81 }",
	}
	ends := []string{"", "", "counter", "counter", "counter meta mark set 1", "counter meta mark set 2", "counter drop", "counter accept", "counter ip ttl set 9", "jump more", "return", "ether daddr set 2:0:0:0:1:3"}
	var s strings.Builder
	chain := func(family, hook, only string) {
		fmt.Fprintf(&s, "table %s t%d {\nset known { type ether_addr; elements = { %v }; }\nchain more { counter; meta mark 2 counter drop; }\nchain c {\ntype filter hook %s priority 0; policy accept;\n%s\n",
			family, s.Len(), mac(1), hook, only)
		for range r.IntN(5) {
			m := matches[r.IntN(len(matches))]
			if r.IntN(3) == 0 {
				if x := matches[r.IntN(len(matches))]; strings.Fields(x)[0] == "meta" {
					m += " " + x
				}
			}
			if family == "netdev" && strings.HasPrefix(hook, "egress") && (strings.Contains(m, "ether") || strings.Contains(m, "vlan")) {
				continue // nft 1.0.6 asks for a device that isn't there
			}
			end := ends[r.IntN(len(ends))]
			if strings.Contains(end, "ether") && (family == "netdev" || strings.Contains(m, "vlan")) || strings.Contains(end, "ttl") && strings.Contains(m, "ip6") {
				end = "counter"
			}
			s.WriteString(m + " " + end + "\n")
		}
		s.WriteString("}\n}\n")
	}
	chain("netdev", `ingress device "p1"`, "")
	chain("bridge", "prerouting", "")
	chain("bridge", "forward", "")
	chain("bridge", "postrouting", `oifname != "p2" accept`)
	chain("netdev", `egress device "p2"`, "")
	return s.String()
}

// TestFrameRulesAreTheKernel: a bridge with random rulesets forwards random frames as the
// kernel's does, and counts the same. Frames come more than once, so that most of them
// are of known flows here.
func TestFrameRulesAreTheKernel(t *testing.T) {
	k := newKernelBridge(t)
	rulesets := 12
	if n, err := strconv.Atoi(os.Getenv("NFT_RULESETS")); err == nil {
		rulesets = n
	}
	hits, sent := uint64(0), 0
	for seed := range rulesets {
		r := rand.New(rand.NewPCG(uint64(seed), 21))
		text := frameRules(r)
		if !loads(text) {
			continue // a pair of matches that contradict each other
		}
		kt.Feed(t, text, "nft", "-f", "-")
		s := blue(2)
		s.Name = "br0"
		s.Ports[0].Device, s.Ports[1].Device = "p1", "p2"
		ns := alone(s)
		ns.Connections = ConnectionsSpec{Track: true, Zone: 7}
		ns.Rules = &journal.Journal{Steps: []journal.Step{{Text: text}}}
		l := stillSites(t, ns)
		frames := framesOf(r, 12)
		for range 60 {
			b := frames[r.IntN(len(frames))]
			want := k.pass(b, 1)
			l.send(1, b)
			sent++
			var got [][]byte
			for f := l.got(2); f != nil; f = l.got(2) {
				if len(want) > 0 && len(want[0]) == f.Len()-packet.VLANLen && f.View.Tags == 1 {
					f.PopVLAN() // the kernel tells the tag apart
				}
				got = append(got, bytes.Clone(f.Bytes()))
			}
			if len(got) != len(want) || len(got) == 1 && !bytes.Equal(got[0], want[0]) {
				t.Fatalf("%s:\ngot  %x\nwant %x\n%s", pt.Describe(b), got, want, kt.Run(t, "nft", "list", "ruleset"))
			}
		}
		ours, err := l.n.Namespace("br0").RuleList(&RuleQuery{Text: "list ruleset"})
		if theirs := kt.Run(t, "nft", "list", "ruleset"); err != nil || ours != theirs {
			t.Fatalf("%v: ours:\n%s\nthe kernel's:\n%s", err, ours, theirs)
		}
		hits += l.stats(1).FlowHits
		kt.Run(t, "nft", "flush", "ruleset")
		l.n.Close()
	}
	t.Logf("%d frames, %d of known flows: no difference", sent, hits)
	if hits*10 < uint64(sent) {
		t.Errorf("%d frames, but only %d hits", sent, hits)
	}
}

// loads reports whether a text is a ruleset.
func loads(text string) bool {
	_, _, err := (&journal.Journal{Steps: []journal.Step{{Text: text}}}).Follow(nil)
	return err == nil
}
