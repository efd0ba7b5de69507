// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/conntrack"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/nft"
)

// frameRules are rules for tables that see frames of all kinds.
func frameRules(family string) []string {
	all := []string{
		"@nh,0,4 4 counter", "@nh,72,8 6 counter", "@th,0,16 1-30000 counter", "@ll,0,48 > 0 counter", "@nh,3,77 0-99999999999 counter",
		"meta length > 100 counter", "meta protocol ip counter", "meta protocol { ip6, arp } counter", "@nh,8,8 set 7", "@th,8,8 set 9 counter",
		`iifname "m0" counter`, "meta mark set meta length meta mark < 70 counter", "meta pkttype 0 counter", "@ll,96,16 0x8100 counter",
	}
	if family == "arp" {
		return append(all, "arp operation request counter", "arp saddr ip 10.44.0.10 counter", "arp daddr ether != 2:0:0:0:0:1 counter", "arp htype 1 counter")
	}
	return append(all,
		"ether saddr 2:0:0:0:0:0-2:ff:ff:ff:ff:ff counter", "ether daddr & 1:0:0:0:0:0 != 0 counter", "ether type ip counter", "ether type { ip6, arp } counter",
		"vlan id 1-100 counter", "vlan pcp > 3 counter", "ip saddr 10.0.0.0/8 counter", "ip6 daddr fd00::/8 counter", "ip ttl < 64 counter",
		"tcp dport 1-1024 counter", "udp sport != 53 counter", "icmp type echo-request counter", "icmpv6 type nd-neighbor-solicit counter",
		"meta l4proto { tcp, udp, sctp } counter", "th dport 80-50000 counter", "ip dscp set ef counter", "tcp dport set 99", "ip saddr set 10.9.9.9",
		"ip6 daddr set fd00::9 counter", "udp dport set 53", "ip protocol tcp tcp flags syn counter", "ip6 hoplimit set 1", "sctp dport 1-9999 counter",
		"ether saddr . ether type { 2:0:0:0:0:1 . ip, 2:0:0:0:0:2 . ip6 } counter", "ip frag-off & 0x1fff != 0 counter", "tcp option maxseg size set 500 counter",
		"reject", "arp operation request counter", "ct state invalid counter")
}

// TestAnyFrame shows frames that nobody would send to rulesets about all kinds of
// headers, in all families.
func TestAnyFrame(t *testing.T) {
	n := many(t, 50, 100)
	for i := range n {
		anyFrames(t, uint64(i))
	}
}

func anyFrames(t testing.TB, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 8))
	kind := frameKind(r)
	text := frameRuleset(r, kind.family, kind.hook)
	rs := load(t, text)
	b := newBoth(t, rs)
	hook := rs.Tables[0].Chains[0].Hook
	for range 40 {
		frame := pt.Random(r)
		if r.IntN(3) == 0 {
			frame = pt.Mutate(r, frame)
		}
		showBoth(t, b, kind.family, hook, frame, text)
	}
	b.compareStates(t, text)
}

// frameKind is where a ruleset sees frames.
func frameKind(r *rand.Rand) struct{ family, hook string } {
	return []struct{ family, hook string }{
		{"netdev", "ingress device m0"}, {"bridge", "prerouting"}, {"bridge", "forward"}, {"arp", "input"}, {"inet", "prerouting"}, {"ip", "forward"}, {"ip6", "forward"},
	}[r.IntN(7)]
}

func frameRuleset(r *rand.Rand, family, hook string) string {
	all := frameRules(family)
	var s strings.Builder
	fmt.Fprintf(&s, "table %s t {\nchain c {\ntype filter hook %s priority 0; policy accept;\n", family, hook)
	n := 1 + r.IntN(8)
	if r.IntN(4) == 0 { // enough for an index
		n = 20 + r.IntN(60)
	}
	for range n {
		rule := all[r.IntN(len(all))]
		line := "table " + family + " t { chain c {\ntype filter hook " + hook + " priority 0\n" + rule + "\n}\n}\n"
		if cmds, err := nft.Parse("x", line, nil); err == nil {
			if _, err = new(nft.Ruleset).Apply(cmds, nil); err == nil { // what isn't of this family is left out
				s.WriteString(rule + "\n")
			}
		}
	}
	s.WriteString("}\n}\n")
	return s.String()
}

// TestManyAlike is TestAnyFrame with rules enough, and alike enough, for indexes: of
// fields that some frames don't have.
func TestManyAlike(t *testing.T) {
	for i := range many(t, 60, 120) {
		r := rand.New(rand.NewPCG(uint64(i), 14))
		family := []string{"netdev", "bridge", "inet", "ip", "ip6"}[r.IntN(5)]
		hook := map[string]string{"netdev": "ingress device m0", "bridge": "forward"}[family]
		if hook == "" {
			hook = "prerouting"
		}
		of := []string{"th dport", "@th,0,16", "@nh,96,32", "@nh,48,16", "udp dport", "tcp sport", "@ll,48,32", "icmp type", "ip daddr", "ip6 saddr", "@nh,64,64", "meta l4proto"}
		alike := of[r.IntN(len(of))]
		bits := map[string]int{"@nh,96,32": 32, "@ll,48,32": 32, "ip daddr": 32, "@nh,64,64": 64, "icmp type": 8, "meta l4proto": 8}[alike]
		var s strings.Builder
		fmt.Fprintf(&s, "table %s t {\nchain c {\ntype filter hook %s priority 0; policy accept;\n", family, hook)
		for range 16 + r.IntN(40) + r.IntN(2)*r.IntN(500) {
			rule := alikeRule(r, alike, bits)
			if loads(fmt.Sprintf("table %s t {\nchain c {\ntype filter hook %s priority 0\n%s\n}\n}\n", family, hook, rule)) {
				s.WriteString(rule + "\n")
			}
		}
		s.WriteString("}\n}\n")
		rs := load(t, s.String())
		b := newBoth(t, rs)
		for range 40 {
			frame := pt.Random(r)
			if r.IntN(3) == 0 {
				frame = pt.Mutate(r, frame)
			}
			showBoth(t, b, family, rs.Tables[0].Chains[0].Hook, frame, s.String())
		}
		b.compareStates(t, s.String())
	}
}

// alikeRule is a rule about one field, or now and then about something else.
func alikeRule(r *rand.Rand, field string, bits int) string {
	do := []string{"counter", "counter", "counter meta mark set 3", "counter @th,8,8 set 9", `log prefix "x"`, "counter @nh,8,8 set 7"}[r.IntN(6)]
	switch {
	case r.IntN(12) == 0:
		return do
	case r.IntN(12) == 0:
		return "meta l4proto udp " + do
	case strings.HasPrefix(field, "ip6"):
		return fmt.Sprintf("%s %x::/%d %s", field, r.IntN(65536), 1+r.IntN(12), do)
	}
	n := uint64(1)<<max(bits, 16) - 1
	if bits == 8 {
		n = 255
	}
	from := r.Uint64N(n)
	to := from + r.Uint64N(n-from) + 1
	text := fmt.Sprintf("%d-%d", from, to)
	switch r.IntN(4) {
	case 0:
		text = fmt.Sprint(r.Uint64N(n))
	case 1:
		text = fmt.Sprintf("%s %d", []string{"<", ">", "<=", ">=", "!="}[r.IntN(5)], from)
	}
	if r.IntN(5) == 0 {
		text = fmt.Sprintf("0-%d", r.IntN(5))
	}
	if field == "ip daddr" {
		return fmt.Sprintf("ip daddr %d.%d.0.0/%d %s", r.IntN(256), r.IntN(2)*r.IntN(256), 1+r.IntN(16), do)
	}
	return field + " " + text + " " + do
}

// showBoth shows a frame to the engine and the interpreter.
func showBoth(t testing.TB, b *both, family string, hook nft.Hook, frame []byte, text string) {
	t.Helper()
	f, g := pt.Frame(frame), pt.Frame(frame)
	if f.View.Parse(f.Bytes()) != 0 {
		return
	}
	of := map[string]nft.Family{
		"netdev": nft.FamilyNetdev, "bridge": nft.FamilyBridge, "arp": nft.FamilyARP, "ip": nft.FamilyIP, "ip6": nft.FamilyIP6, "inet": nft.FamilyIP,
	}[family]
	if family == "inet" && f.View.EtherType == 0x86dd {
		of = nft.FamilyIP6
	}
	ip := of == nft.FamilyIP || of == nft.FamilyIP6
	if ip && (f.View.EtherType == 0x86dd) != (of == nft.FamilyIP6) || ip && f.View.EtherType != 0x800 && f.View.EtherType != 0x86dd || family == "arp" && f.View.EtherType != 0x806 {
		return
	}
	p := policy.Packet{Frame: f, In: b.ours.devs[0], Now: 1, Pending: &conntrack.Pending{}}
	q := p
	q.Frame, q.Pending = g, &conntrack.Pending{}
	b.ev.Pin()
	b.ev.Begin(&b.record)
	got := *b.ev.Hook(&p, of, hook, math.MinInt32, math.MaxInt32)
	b.ev.Unpin()
	want := b.world.Hook(&q, of, hook, math.MinInt32, math.MaxInt32)
	if got != want || p.Mark != q.Mark || !bytes.Equal(f.Bytes(), g.Bytes()) || f.View != g.View || p.Fault != q.Fault {
		t.Fatalf("%s:\nengine:      %+v mark %d fault %d %x\ninterpreter: %+v mark %d fault %d %x\n%s", pt.Describe(frame),
			got, p.Mark, p.Fault, f.Bytes()[:min(200, f.Len())], want, q.Mark, q.Fault, g.Bytes()[:min(200, g.Len())], text)
	}
}

// natStatements are NAT in all its forms, each with the family of its table.
func natStatements() map[string]string {
	return map[string]string{
		"snat to 192.0.2.1": "ip", "snat to 192.0.2.1-192.0.2.9": "ip", "ip protocol udp snat to 192.0.2.1:1000-2000 random,persistent": "ip",
		"ip protocol tcp snat to 192.0.2.1-192.0.2.3:1000-2000 fully-random": "ip", "snat ip to 192.0.2.1": "inet", "snat ip6 to 2001:db8::1-2001:db8::9": "inet",
		"masquerade": "ip", "meta l4proto tcp masquerade to :1024-2000 random": "ip", "snat to ip saddr map { 10.44.0.10 : 192.0.2.7, 10.44.0.64/26 : 192.0.2.8 }": "ip",
		"snat ip prefix to ip saddr map { 10.44.0.0/24 : 192.0.2.0/24 }": "ip", "snat ip6 to ip6 saddr map { fd44::a : 2001:db8::5 }": "ip6",
		"ip protocol tcp snat ip to ip saddr . tcp dport map { 10.44.0.10 . 80 : 192.0.2.3 . 99 }": "ip",
	}
}

func TestNATRequests(t *testing.T) {
	for stmt, family := range natStatements() {
		text := "table " + family + " t {\nchain c {\ntype nat hook postrouting priority 100\n" + stmt + "\n}\n}\n"
		b := newBoth(t, load(t, text))
		for _, frame := range [][]byte{pt.TCP4(pt.Packet{}), pt.UDP4(pt.Packet{Src: pt.IP("10.44.0.99")}), pt.TCP6(pt.Packet{}), pt.Ping4(pt.Packet{})} {
			f := pt.Frame(frame)
			of := nft.FamilyIP
			if f.View.EtherType == 0x86dd {
				of = nft.FamilyIP6
			}
			p := policy.Packet{Frame: f, Out: b.ours.devs[1], Now: 1}
			b.ev.Pin()
			b.ev.Begin(nil)
			got := *b.ev.NAT(&p, of, nft.HookPostrouting)
			b.ev.Unpin()
			if want := b.world.NAT(&p, of, nft.HookPostrouting); got != want {
				t.Errorf("%s, %s:\nengine:      %+v\ninterpreter: %+v", stmt, pt.Describe(frame), got, want)
			}
		}
	}
}
