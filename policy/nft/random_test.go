// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// generator writes random rulesets that nft accepts.
type generator struct {
	*rand.Rand
	strings.Builder
	family string
}

func (g *generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g *generator) port() string { return fmt.Sprint(1 + g.IntN(60000)) }

func (g *generator) addr() string {
	if g.family == "ip6" {
		return fmt.Sprintf("2001:db8:%x::%x", g.IntN(9), 1+g.IntN(65000))
	}
	return fmt.Sprintf("10.%d.%d.%d", g.IntN(4), g.IntN(256), g.IntN(256))
}

// interval is an address, a prefix or a range.
func (g *generator) interval() string {
	switch g.IntN(3) {
	case 0:
		if g.family == "ip6" {
			return fmt.Sprintf("2001:db8:%x::/%d", g.IntN(9), 48+g.IntN(60))
		}
		return fmt.Sprintf("10.%d.%d.0/%d", g.IntN(4), g.IntN(256), 10+g.IntN(20))
	case 1:
		if g.family == "ip6" {
			return fmt.Sprintf("2001:db8::%x-2001:db8::%x", 1+g.IntN(100), 200+g.IntN(1000))
		}
		return fmt.Sprintf("10.1.1.%d-10.1.2.%d", g.IntN(256), g.IntN(256))
	}
	return g.addr()
}

func (g *generator) ports() string {
	if g.IntN(2) == 0 {
		return g.port()
	}
	n := 1 + g.IntN(30000)
	return fmt.Sprintf("%d-%d", n, n+1+g.IntN(30000))
}

// several is a set of values that one makes.
func (g *generator) several(one func() string) string {
	var list []string
	for range 2 + g.IntN(4) {
		list = append(list, one())
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

// match is a comparison.
func (g *generator) match() string {
	l3 := g.family
	if l3 != "ip6" {
		l3 = "ip"
	}
	op := g.pick("", "", "!= ")
	switch g.IntN(14) {
	case 0:
		return l3 + " saddr " + op + g.interval()
	case 1:
		return l3 + " daddr " + op + g.several(g.interval)
	case 2:
		return "tcp dport " + op + g.ports()
	case 3:
		return "tcp sport " + op + g.several(g.ports)
	case 4:
		return "meta mark " + op + fmt.Sprintf("0x%x", g.Uint32())
	case 5:
		return "ct state " + g.pick("new", "established,related", "invalid", "new,untracked")
	case 6:
		return "iifname " + op + g.pick("\"eth0\"", "\"eth*\"", "{ \"lo\", \"eth1\" }")
	case 7:
		return "tcp flags " + g.pick("syn", "syn / syn,ack", "== syn", "& (fin | syn) == syn", "! rst", "!= ack")
	case 8:
		return "meta mark & " + fmt.Sprintf("0x%x == 0x%x", 0xff<<g.IntN(20), g.IntN(256)<<8)
	case 9:
		return l3 + " dscp " + op + g.pick("cs1", "ef", "0x3f", "{ cs1, cs2, 0x01 }")
	case 10:
		return "meta length " + g.pick("> ", ">= ") + g.port()
	case 11:
		return "ct mark " + g.pick("5", "1-10", "{ 1, 5, 7-9 }")
	case 12:
		return l3 + " saddr . tcp dport " + op + g.several(func() string { return g.interval() + " . " + g.ports() })
	default:
		return "meta l4proto " + op + g.pick("tcp", "tcp", "tcp", "6")
	}
}

// statement is one that does not end the rule.
func (g *generator) statement() string {
	return g.pick(
		"counter", "counter packets 5 bytes 500", "log prefix \"x \" level info", "limit rate 10/second", "limit rate over 3/minute burst 7 packets",
		"limit rate 100 kbytes/second", "quota 10 mbytes", "meta mark set 0x10", "ct mark set meta mark", "meta mark set meta mark & 0xff | 0x100",
		"meta mark set numgen inc mod 4 offset 1", "ct count over 5", "add @seen { "+g.saddr()+" }", "meta mark set "+g.saddr()+" map @marks",
		"meta mark set jhash "+g.saddr()+" mod 8 seed 0x5", "tcp dport set 80")
}

func (g *generator) saddr() string {
	if g.family == "ip6" {
		return "ip6 saddr"
	}
	return "ip saddr"
}

// verdict ends a rule.
func (g *generator) verdict() string {
	return g.pick("accept", "drop", "jump sub", "goto sub", "return", "continue", "reject", "reject with tcp reset",
		"tcp dport vmap { 22 : accept, 80-90 : jump sub }", g.saddr()+" vmap @verdicts", "")
}

func (g *generator) rule() string {
	var parts []string
	for range g.IntN(4) {
		parts = append(parts, g.match())
	}
	for range g.IntN(3) {
		parts = append(parts, g.statement())
	}
	parts = append(parts, g.verdict())
	if s := strings.TrimSpace(strings.Join(parts, " ")); s != "" {
		return s
	}
	return "counter"
}

// ruleset writes a whole one.
func (g *generator) ruleset() string {
	g.family = g.pick("ip", "ip6", "inet")
	typ := map[string]string{"ip": "ipv4_addr", "ip6": "ipv6_addr", "inet": "ipv4_addr"}[g.family]
	fmt.Fprintf(g, "table %s t {\n", g.family)
	fmt.Fprintf(g, "\tset seen {\n\t\ttype %s\n\t\tflags dynamic,timeout\n\t\ttimeout 1h\n\t}\n", typ)
	fmt.Fprintf(g, "\tset nets {\n\t\ttype %s\n\t\tflags interval\n\t\tauto-merge\n\t\telements = %s\n\t}\n", typ, g.several(g.interval))
	fmt.Fprintf(g, "\tset pairs {\n\t\ttype %s . inet_service\n\t\telements = %s\n\t}\n", typ,
		g.several(func() string { return g.addr() + " . " + g.port() }))
	fmt.Fprintf(g, "\tmap marks {\n\t\ttype %s : mark\n\t\telements = %s\n\t}\n", typ,
		g.several(func() string { return g.addr() + " : " + g.port() }))
	fmt.Fprintf(g, "\tmap verdicts {\n\t\ttype %s : verdict\n\t\telements = %s\n\t}\n", typ,
		g.several(func() string { return g.addr() + " : " + g.pick("accept", "drop", "jump sub") }))
	fmt.Fprintf(g, "\tchain sub {\n\t\t%s\n\t}\n", "counter return")
	hook := g.pick("input", "forward", "output", "prerouting")
	fmt.Fprintf(g, "\tchain c {\n\t\ttype filter hook %s priority %s; policy %s;\n", hook, g.pick("filter", "mangle", "5", "raw - 3", "security + 1"), g.pick("accept", "drop"))
	for range 1 + g.IntN(8) {
		fmt.Fprintf(g, "\t\t%s\n", g.rule())
	}
	g.WriteString("\t}\n}\n")
	return g.String()
}

func randomRuleset(seed uint64) string {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	return g.ruleset()
}

func TestRandomRulesetsAreReadAsTheyAreListed(t *testing.T) {
	loaded := 0
	for seed := range uint64(500) {
		text := randomRuleset(seed)
		rs, err := loadText(&Ruleset{}, text)
		if err != nil {
			continue // what was drawn does not go together
		}
		loaded++
		first := listing(rs, ListOptions{Handles: true})
		// A set of ranges that became one range is listed as a set, and read as
		// the range: nft's listing is its own fixed point only then.
		rs, err = loadText(&Ruleset{}, listing(rs, ListOptions{}))
		if err != nil {
			t.Fatalf("seed %d: the listing is refused: %v\n%s", seed, err, first)
		}
		again, err := loadText(&Ruleset{}, listing(rs, ListOptions{}))
		if err != nil {
			t.Fatalf("seed %d: the listing is refused: %v\n%s", seed, err, first)
		}
		if d := cmp.Diff(listing(rs, ListOptions{}), listing(again, ListOptions{})); d != "" {
			t.Fatalf("seed %d (-first +second):\n%s", seed, d)
		}
		cmds, err := ParseJSON(rs.ListJSON(nil))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		res, err := (&Ruleset{}).Apply(cmds, nil)
		if err != nil {
			t.Fatalf("seed %d: the JSON is refused: %v\n%s", seed, err, rs.ListJSON(nil))
		}
		if d := cmp.Diff(listing(rs, ListOptions{}), listing(res.Ruleset, ListOptions{})); d != "" {
			t.Fatalf("seed %d (-text +json):\n%s", seed, d)
		}
	}
	if loaded < 150 {
		t.Errorf("only %d of 500 could be loaded", loaded)
	}
	t.Logf("%d of 500 rulesets", loaded)
}
