// SPDX-License-Identifier: Apache-2.0

package policytest

import (
	"fmt"
	"strings"
)

// Chains of type nat. What they choose from is a range that rules see as one: the ports
// from 5000 to 5063, and of each network the addresses 20 and 21, which no rule is about.

// translations are chains of type nat.
func (g *Gen) translations() {
	hooks := []string{"prerouting", "prerouting", "input", "output", "postrouting"}
	for i := range 1 + g.R.IntN(3) {
		g.hook = hooks[g.R.IntN(len(hooks))]
		prio := map[string]int{"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}[g.hook] + 5*g.R.IntN(2)
		g.line("chain n%d {", i)
		g.line("type nat hook %s priority %d; policy accept;", g.hook, prio)
		for range 1 + g.R.IntN(5) {
			g.translation()
		}
		g.line("}")
	}
}

// translation is a rule of such a chain.
func (g *Gen) translation() {
	g.six = g.Family == "ip6" || g.Family == "inet" && g.chance(40)
	l4 := g.pick("tcp", "udp", "")
	var words []string
	if g.chance(30) {
		words = append(words, "counter")
	}
	for range []int{0, 1, 1, 2}[g.R.IntN(4)] {
		words = append(words, g.match(l4))
	}
	if l4 != "" && !strings.Contains(strings.Join(words, " "), l4+" ") {
		words = append(words, "meta l4proto "+l4)
	}
	if g.chance(20) {
		words = append(words, g.pick("meta mark set 1", "ct mark set 2", "ct mark set meta mark"))
	}
	words = append(words, "counter")
	if do := g.translate(l4); do != "" {
		words = append(words, do)
	}
	g.line("%s", g.known(strings.Join(words, " ")))
}

// translate says what an address, and a port of a protocol that has some, becomes.
func (g *Gen) translate(l4 string) string {
	if g.chance(15) {
		return g.pick("accept", "return", "continue", "drop", "")
	}
	of := ""
	if g.Family == "inet" {
		of = " " + g.ip(g.six)
	}
	flags := g.pick("", "", "", " persistent", " random", " fully-random")
	few := ""
	if l4 != "" {
		few = g.pick("", "", ":5000-5063")
	}
	if g.hook == "prerouting" || g.hook == "output" {
		return g.destination(of, l4)
	}
	if g.hook == "postrouting" && g.chance(40) {
		if few != "" {
			few = " to " + few
		}
		return "masquerade" + few + flags
	}
	to := g.Addr(g.six)
	if g.pool && g.chance(50) {
		net := g.R.IntN(2)
		return "snat" + of + " to " + g.host(net, 20) + "-" + g.host(net, 21) + " persistent"
	}
	if few != "" && g.six {
		to = "[" + to + "]"
	}
	return "snat" + of + " to " + to + few + flags
}

// destination is dnat or redirect.
func (g *Gen) destination(of, l4 string) string {
	if g.chance(25) {
		if l4 != "" {
			return "redirect" + g.pick("", " to :"+g.port())
		}
		return "redirect"
	}
	to := g.Addr(g.six)
	if g.chance(20) {
		to = g.host(g.R.IntN(2), 1) // the router
	}
	if l4 == "" {
		return "dnat" + of + " to " + to
	}
	if g.chance(30) {
		seen := map[string]bool{}
		var all []string
		for range 3 {
			if p := g.port(); !seen[p] {
				seen[p] = true
				all = append(all, p+" : "+g.Addr(g.six))
			}
		}
		return "dnat" + of + " to " + l4 + " dport map { " + strings.Join(all, ", ") + " }"
	}
	if port := g.pick("", ":"+g.port(), ":5000-5003"); port != "" {
		if g.six {
			to = "[" + to + "]"
		}
		to += port
	}
	return "dnat" + of + " to " + to
}

// host is a host of one of the networks.
func (g *Gen) host(net, n int) string {
	if g.six {
		return fmt.Sprintf("fd00:%d::%d", net, n)
	}
	return fmt.Sprintf("10.0.%d.%d", net, n)
}
