// SPDX-License-Identifier: Apache-2.0

package policytest

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Gen writes random rulesets in nft(8)'s language, about the few addresses and ports
// that packets of the tests have: so that most rules are met. Its devices are m0, with
// 10.0.0.0/24 and fd00::/64, and m1, with 10.0.1.0/24 and fd00:1::/64.
type Gen struct {
	R      *rand.Rand
	Family string // ip, ip6, inet
	Kernel bool   // it is for the kernel, too
	Calm   bool   // what becomes of a packet is what became of the one before of its flow
	Long   bool   // chains have many rules
	Counts bool   // each rule counts what it decides about
	// Whole: it is for the whole way of packets: there are chains at input and output,
	// and those that translate. Ports from 1024 on are all the same to rules then, since
	// they may have been chosen freely.
	Whole bool

	b       strings.Builder
	hook    string // of the base chain that is written
	chains  int    // c0 to c(chains-1), of which one may jump to a later one
	me      int    // the chain that is written; -1: a base chain
	six     bool   // the rule that is written speaks of IPv6
	rejects bool   // rules may refuse packets
	nat     bool   // the ruleset translates
	pool    bool   // to addresses that are chosen freely, too
	soft    bool   // the chain lets all packets through
}

func (g *Gen) pick(of ...string) string { return of[g.R.IntN(len(of))] }

func (g *Gen) chance(percent int) bool { return g.R.IntN(100) < percent }

func (g *Gen) line(format string, args ...any) { fmt.Fprintf(&g.b, format+"\n", args...) }

// v6 is of what family the addresses of a rule are.
func (g *Gen) v6() bool { return g.six }

// sets reports whether the rule's addresses are those of the named sets.
func (g *Gen) sets() bool { return g.six == (g.Family == "ip6") }

// Addr is the address of some host.
func (g *Gen) Addr(v6 bool) string {
	if v6 {
		return fmt.Sprintf("fd00:%d::%d", g.R.IntN(2), 2+g.R.IntN(3))
	}
	return fmt.Sprintf("10.0.%d.%d", g.R.IntN(2), 2+g.R.IntN(3))
}

func (g *Gen) addrs(v6 bool) string {
	switch g.R.IntN(3) {
	case 0:
		return g.Addr(v6)
	case 1:
		if v6 {
			return fmt.Sprintf("fd00:%d::/%d", g.R.IntN(2), 64-g.R.IntN(2)*32)
		}
		return fmt.Sprintf("10.0.%d.%d/%d", g.R.IntN(2), 4*g.R.IntN(2), 30)
	}
	a := 2 + g.R.IntN(3)
	if v6 {
		n := g.R.IntN(2)
		return fmt.Sprintf("fd00:%d::%d-fd00:%d::%d", n, a, n, a+g.R.IntN(4)+1)
	}
	n := g.R.IntN(2)
	return fmt.Sprintf("10.0.%d.%d-10.0.%d.%d", n, a, n, a+g.R.IntN(4)+1)
}

// Ports are those that rules are about.
func Ports() []string { return []string{"22", "53", "80", "1000"} }

func (g *Gen) port() string { return g.pick(Ports()...) }

func (g *Gen) ports() string {
	if g.chance(50) {
		return g.port()
	}
	if g.Whole {
		return g.pick("1-60", "50-500", "1000-1001", "80-1023")
	}
	return g.pick("1-60", "50-500", "1000-1001", "80-5000")
}

// some are n different ones, for a set.
func (g *Gen) some(n int, one func() string) string {
	seen := map[string]bool{}
	var all []string
	for range n {
		if s := one(); !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return strings.Join(all, ", ")
}

// Ruleset is a table of the family.
func (g *Gen) Ruleset() string {
	g.b.Reset()
	g.chains, g.rejects = g.R.IntN(4), g.chance(40)
	if g.Whole {
		g.nat, g.pool = g.chance(75), g.chance(25)
	}
	g.line("table %s t {", g.Family)
	g.declarations()
	for g.me = g.chains - 1; g.me >= 0; g.me-- {
		g.hook = ""
		g.line("chain c%d {", g.me)
		g.rules(g.length(4))
		g.line("}")
	}
	g.me = -1
	for i := range 1 + g.R.IntN(4) {
		g.base(i)
	}
	if g.nat {
		g.translations()
	}
	g.line("}")
	return g.b.String()
}

// declarations are the sets, maps and objects.
func (g *Gen) declarations() {
	v := "ipv4_addr"
	six := g.Family == "ip6"
	if six {
		v = "ipv6_addr"
	}
	addr := func() string { return g.Addr(six) }
	g.line("set addrs { type %s; elements = { %s } }", v, g.some(4, addr))
	g.line("set nets { type %s; flags interval; auto-merge; elements = { %s } }", v, g.some(4, func() string { return g.addrs(six) }))
	g.line("set counted { type %s; counter; elements = { %s } }", v, g.some(4, addr))
	g.line("set ports { type inet_service; flags interval; auto-merge; elements = { %s } }", g.some(3, g.ports))
	g.line("set pairs { type %s . inet_service; elements = { %s } }", v,
		g.some(6, func() string { return addr() + " . " + g.port() }))
	g.line("set boxes { type %s . inet_service; flags interval; elements = { %s . 1-100, %s . 443, %s . %s } }", v, "NET0", "NET0", "NET1", g.thousands())
	g.line("set dyn { type %s; size %d; flags dynamic; }", v, 2+g.R.IntN(5))
	g.line("set dynt { type %s . inet_service; size 10000; flags dynamic,timeout; timeout 1h; }", v)
	g.line("map marks { type %s : mark; elements = { %s } }", v, strings.ReplaceAll(g.some(4, addr)+",", ",", fmt.Sprintf(" : %d,", g.R.IntN(4))))
	g.line("map verdicts { type inet_service : verdict; elements = { %s } }", g.verdictMap())
	g.line("counter n1 { packets 0 bytes 0 }")
	g.line("counter n2 { packets 0 bytes 0 }")
	g.line("quota q1 { %d bytes }", 100+g.R.IntN(2000))
	s := g.b.String()
	net0, net1 := "10.0.0.0/24", "10.0.1.0-10.0.1.255"
	if six {
		net0, net1 = "fd00::/64", "fd00:1::-fd00:1::ffff"
	}
	g.b.Reset()
	g.b.WriteString(strings.NewReplacer("NET0", net0, "NET1", net1).Replace(s))
}

func (g *Gen) verdictMap() string {
	seen := map[string]bool{}
	var all []string
	for range 1 + g.R.IntN(5) {
		p := g.port()
		if seen[p] {
			continue
		}
		seen[p] = true
		all = append(all, p+" : "+g.pick("accept", "drop", "continue", "return"))
	}
	return strings.Join(all, ", ")
}

// base is a base chain.
func (g *Gen) base(i int) {
	g.hook = g.pick("prerouting", "forward", "forward", "postrouting")
	if g.Whole {
		g.hook = g.pick("prerouting", "prerouting", "input", "input", "forward", "forward", "output", "postrouting")
	}
	if g.Kernel && !g.Whole && g.rejects && (g.hook == "postrouting" || g.hook == "output") {
		g.hook = "forward" // which sees nothing of what the kernel says
	}
	prio := g.pick(map[string][]string{
		"prerouting": {"-300", "-150", "0"}, "forward": {"0", "10", "0"}, "postrouting": {"0", "300"},
		"input": {"0", "10", "200"}, "output": {"-300", "-150", "0"},
	}[g.hook]...)
	g.soft = g.Whole && (prio == "200" || prio == "300") // what is dropped there has its connection all the same
	defer func() { g.soft = false }()
	policy := "accept"
	if g.chance(15) && !g.soft {
		policy = "drop"
	}
	g.line("chain b%d {", i)
	g.line("type filter hook %s priority %s; policy %s;", g.hook, prio, policy)
	g.rules(g.length(6))
	if g.Counts && policy == "drop" { // so that what comes after it is met
		g.line("ct state established,related counter accept")
		g.line("meta l4proto %s counter accept", g.pick("tcp", "udp", "{ tcp, icmp, ipv6-icmp }"))
	}
	g.line("}")
}

// length is how many rules a chain has.
func (g *Gen) length(most int) int {
	if g.Long && g.R.IntN(2) == 0 {
		return 10 + g.R.IntN(60) + g.R.IntN(2)*g.R.IntN(250)
	}
	return 1 + g.R.IntN(most)
}

// theme is what most rules of a long chain begin with.
func (g *Gen) theme(l4 string, kind int) string {
	side := g.ip(g.six) + " " + []string{"saddr", "daddr"}[kind%2]
	switch {
	case kind < 2:
		return side + " " + g.addrs(g.six)
	case kind < 4 && l4 != "":
		return l4 + " " + []string{"sport", "dport"}[kind%2] + " " + g.pick(g.ports(), fmt.Sprint(1+g.R.IntN(100)), "> "+g.port(), "< "+g.port(), "!= "+g.port())
	case kind == 4:
		return g.pick("iifname", "oifname") + " " + g.pick(`"m0"`, `"m1"`, `"m*"`, `"m2"`)
	}
	return side + " " + g.Addr(g.six)
}

func (g *Gen) rules(n int) {
	kind := g.R.IntN(6)
	for i := range n {
		g.six = g.Family == "ip6" || g.Family == "inet" && g.chance(40)
		var words []string
		if g.chance(40) {
			words = append(words, "counter")
		}
		l4 := g.pick("tcp", "udp", "") // one rule speaks of one protocol
		if n > 8 && g.chance(80) {
			words = append(words, g.theme(l4, kind))
		}
		matches := []int{0, 1, 1, 1, 2, 2, 3}[g.R.IntN(7)]
		for range matches {
			words = append(words, g.match(l4))
		}
		for range g.R.IntN(3) {
			words = append(words, g.statement(l4))
		}
		decides := 60
		if matches == 0 { // what comes after is to be met, too
			decides = 8
		}
		if n > 8 {
			decides /= 6
		}
		if g.Counts {
			words = append(words, "counter")
			if matches == 0 && i < n-1 {
				decides = 0
			}
		}
		if g.chance(decides) || len(words) == 0 {
			words = append(words, g.verdict(l4))
		}
		g.line("%s", g.known(strings.Join(words, " ")))
	}
}

// known is a rule, without what nft 1.0.6 makes another one of.
func (g *Gen) known(rule string) string {
	if !g.Kernel {
		return rule
	}
	// It lists "dport < 443 dport > 53" as a range from 443 to 53.
	rule = strings.NewReplacer(" > ", " < ", " >= ", " < ", " <= ", " < ").Replace(rule)
	// It makes one comparison of "sport != 1 dport != 2", which then holds if either does.
	if head, tail, found := strings.Cut(rule, "!= "); found {
		rule = head + "!= " + strings.ReplaceAll(tail, "!= ", "")
	}
	return rule
}

func (g *Gen) ip(v6 bool) string {
	if v6 {
		return "ip6"
	}
	return "ip"
}

// match is one condition.
func (g *Gen) match(l4 string) string {
	if l4 != "" && g.chance(50) {
		return g.transport(l4)
	}
	v6 := g.v6()
	side := g.ip(v6) + " " + g.pick("saddr", "daddr")
	not := g.pick("", "", "!= ")
	n := g.R.IntN(16)
	if g.Calm && (n >= 7 && n <= 9 || n == 15) {
		n = 3
	}
	switch n {
	case 0, 1:
		return side + " " + not + g.addrs(v6)
	case 2:
		return side + " " + not + "{ " + g.some(3, func() string { return g.Addr(v6) }) + " }"
	case 3:
		if g.sets() {
			return side + " " + not + "@" + g.pick("addrs", "nets", "counted", "dyn")
		}
	case 4:
		return g.pick("iifname", "oifname") + " " + not + g.pick(`"m0"`, `"m1"`, `"m*"`, `"x*"`)
	case 5:
		return "meta mark " + g.pick("0", "1", "!= 0", "and 0x1 == 0x1", "< 2", "1-3")
	case 6:
		if l4 != "" {
			return g.ctMatch()
		}
		return "meta l4proto != " + g.pick("tcp", "udp", "{ tcp, udp }", "{ icmp, ipv6-icmp }")
	case 7:
		if v6 {
			return "ip6 hoplimit " + g.pick("64", "63", "< 64", "> 63")
		}
		return "ip ttl " + g.pick("64", "63", "< 64", "> 63")
	case 8:
		if g.Whole { // what stacks say themselves differs in it
			break
		}
		if v6 {
			return "ip6 dscp " + g.pick("cs0", "ef", "!= cs0")
		}
		return "ip dscp " + g.pick("cs0", "ef", "!= cs0", "{ cs0, ef }")
	case 9:
		return "meta length " + g.pick("> 60", "< 60", "40-100")
	case 10, 11, 12:
		return g.ctMatch()
	case 13:
		return g.ip(v6) + " saddr . " + g.ip(v6) + " daddr " + not + "{ " + g.some(4, func() string { return g.Addr(v6) + " . " + g.Addr(v6) }) + " }"
	case 14:
		if g.Family == "inet" {
			return "meta nfproto ipv" + map[bool]string{false: "4", true: "6"}[g.six]
		}
	}
	if g.Whole {
		return "@nh," + g.pick("0,4 4", "0,4 6", "64,8 64", "64,8 63")
	}
	return "@nh," + g.pick("0,4 4", "0,4 6", "8,8 0", "64,8 64", "64,8 63")
}

func (g *Gen) ctMatch() string {
	if g.nat && g.chance(20) {
		return "ct status " + g.pick("dnat", "snat", "! dnat", "! snat", "dnat,snat")
	}
	switch g.R.IntN(5) {
	case 0:
		return "ct mark " + g.pick("0", "1", "!= 0")
	case 1:
		return "ct direction " + g.pick("original", "reply")
	case 2:
		return "ct status " + g.pick("assured", "seen-reply", "! seen-reply")
	}
	return "ct state " + g.pick("new", "established", "invalid", "established,related", "new,untracked", "!= new", "{ new, established }", "untracked")
}

// transport is a condition on a transport header.
func (g *Gen) transport(l4 string) string {
	side := g.pick("dport", "dport", "sport")
	not := g.pick("", "", "!= ")
	a := g.ip(g.six) + " " + g.pick("saddr", "daddr")
	switch g.R.IntN(7) {
	case 0:
		return l4 + " " + side + " " + not + g.ports()
	case 1:
		return l4 + " " + side + " " + not + "{ " + g.some(3, g.port) + " }"
	case 2:
		return l4 + " " + side + " " + not + "@ports"
	case 3:
		if !g.sets() {
			return l4 + " " + side + " " + g.port()
		}
		return a + " . " + l4 + " " + side + " " + not + "@" + g.pick("pairs", "boxes", "dynt")
	case 4:
		return l4 + " " + side + " " + g.pick("<", ">", ">=", "<=") + " " + g.port()
	case 5:
		if l4 == "tcp" && !g.Calm {
			return "tcp flags " + g.pick("syn", "syn,ack", "{ syn, ack }", "!= syn", "& (syn | ack) == syn", "! syn", "== ack")
		}
	}
	return l4 + " " + side + " " + g.port()
}

// statement is something that is done.
func (g *Gen) statement(l4 string) string {
	key := g.ip(g.six) + " " + g.pick("saddr", "daddr")
	n := g.R.IntN(12)
	if g.Counts && g.hook == "prerouting" && g.chance(10) {
		return "notrack"
	}
	if n >= 8 && n <= 10 && (!g.sets() || g.pool && n < 10) || g.Calm && (n >= 4 && n <= 6 || n == 11) {
		n = 0
	}
	switch n {
	case 0, 1:
		return "counter"
	case 2:
		return "meta mark set " + g.pick("1", "2", "meta mark or 0x4", "meta mark and 0x1", "ct mark", "meta mark xor 0x3")
	case 3:
		return "ct mark set " + g.pick("1", "meta mark", "ct mark or 0x2")
	case 4:
		return g.mangle(l4)
	case 5:
		return fmt.Sprintf("quota %s%d bytes", g.pick("", "over "), 100+g.R.IntN(1500))
	case 6:
		return fmt.Sprintf("limit rate %s%d/day burst %d packets", g.pick("", "over "), 1+g.R.IntN(3), 1+g.R.IntN(6))
	case 7:
		return "counter name " + g.pick(`"n1"`, `"n2"`)
	case 8:
		return g.pick("add", "update") + " @dyn { " + key + g.pick("", " counter", fmt.Sprintf(" limit rate 1/day burst %d packets", 1+g.R.IntN(4))) + " }"
	case 9:
		if l4 != "" {
			return g.pick("add", "update", "delete") + " @dynt { " + key + " . " + l4 + " dport }"
		}
	case 10:
		return "meta mark set " + key + " map @marks"
	case 11:
		return `quota name "q1"`
	}
	return "counter"
}

// mangle rewrites the packet, if that changes nothing of its way.
func (g *Gen) mangle(l4 string) string {
	v6 := g.v6()
	if g.Whole && v6 && (g.hook == "" || g.hook == "prerouting" || g.hook == "input") {
		// The kernel's conntrack has summed the packet up from its IPv6 header on, and its own
		// stack throws away what is longer than 76 bytes and has another header since then.
		return "counter"
	}
	all := []string{g.ip(v6) + " dscp set " + g.pick("ef", "cs1", "cs0")}
	if v6 {
		all = append(all, "ip6 hoplimit set "+g.pick("33", "200"))
	} else {
		all = append(all, "ip ttl set "+g.pick("33", "200"))
	}
	if l4 != "" && g.hook != "" && g.hook != "prerouting" && !g.nat {
		all = append(all, l4+" dport set "+g.port(), l4+" sport set "+g.port())
	}
	if g.hook == "postrouting" && !g.nat {
		all = append(all, g.ip(v6)+" saddr set "+g.Addr(v6))
		if !g.Kernel { // which then looks for the neighbour with that address
			all = append(all, g.ip(v6)+" daddr set "+g.Addr(v6))
		}
	}
	return g.pick(all...)
}

// verdict ends a rule.
func (g *Gen) verdict(l4 string) string {
	if g.soft {
		return g.pick("accept", "return", "continue")
	}
	if n := g.chains - g.me - 1; n > 0 && g.chance(40) {
		return g.pick("jump", "goto") + fmt.Sprintf(" c%d", g.me+1+g.R.IntN(n))
	}
	if l4 != "" && g.chance(20) {
		return l4 + " dport vmap " + g.pick("@verdicts", "{ 22 : accept, 80 : drop, 443 : continue, "+g.thousands()+" : accept }")
	}
	said := g.Whole && g.hook == "output" // what a namespace tells itself passes no hooks
	if g.rejects && g.chance(20) && g.hook != "postrouting" && g.hook != "" && !said {
		return g.reject(l4)
	}
	return g.pick("accept", "accept", "drop", "return", "continue")
}

// thousands is a range that begins with 1000.
func (g *Gen) thousands() string {
	if g.Whole {
		return "1000-1023"
	}
	return "1000-2000"
}

func (g *Gen) reject(l4 string) string {
	all := []string{"reject"}
	switch g.Family {
	case "ip":
		all = append(all, "reject with icmp admin-prohibited")
	case "ip6":
		all = append(all, "reject with icmpv6 admin-prohibited")
	default:
		all = append(all, "reject with icmpx host-unreachable")
	}
	if l4 == "tcp" {
		all = append(all, "meta l4proto tcp reject with tcp reset")
	}
	return g.pick(all...)
}
