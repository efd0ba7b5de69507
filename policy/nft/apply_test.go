// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRefusals(t *testing.T) {
	base := "add table ip t; add table inet i; add chain ip t c { type filter hook input priority 0; }; add chain ip t j;" +
		"add chain inet i c { type filter hook input priority 0; }; add chain ip t n { type nat hook prerouting priority 0; };" +
		"add chain ip t post { type filter hook postrouting priority 0; }; add set ip t s { type ipv4_addr; };" +
		"add map ip t v { type ipv4_addr : verdict; }; add rule ip t c jump j; add rule ip t c ip saddr @s; add chain ip t k; add rule ip t k goto k\n"
	for text, want := range map[string]string{
		"add rule ip t c tcp dport 22 udp dport 53":                         "conflicting protocols specified: tcp vs. udp",
		"add rule ip t c ip6 saddr ::1":                                     "conflicting protocols specified: ip vs. ip6",
		"add rule ip t c accept counter":                                    "Statement after terminal statement has no effect",
		"add rule ip t c tcp dport 70000":                                   "Service out of range",
		"add rule ip t c tcp dport 23-22":                                   "Range has zero or negative size",
		"add rule ip t c ip saddr 1.2.3.4/33":                               "Prefix length 33 is invalid",
		"add rule ip t c tcp dport nosuch":                                  "Could not resolve service",
		"add rule ip t c ip saddr @none":                                    "No such file or directory",
		"add rule ip t c tcp dport @s":                                      "datatype mismatch",
		"add rule ip t c jump none":                                         "No such file or directory",
		"add rule ip t c jump c":                                            "Operation not supported",
		"add rule ip t j jump j":                                            "Too many links",
		"add rule ip t post reject":                                         "Operation not supported",
		"add rule ip t c snat to 1.2.3.4":                                   "Operation not supported",
		"add rule ip t n snat to 1.2.3.4":                                   "Operation not supported",
		"add rule ip t n dnat to 1.2.3.4:80":                                "transport protocol mapping is only valid after transport protocol match",
		"add rule ip t c ct original proto-dst 5":                           "Can't parse symbolic invalid expressions",
		"add rule inet i c meta mark set ip dscp":                           "datatype mismatch: expected packet mark",
		"add rule ip t c queue num 1":                                       "queue statements are not supported",
		"add rule ip t c socket transparent 1":                              "socket expressions are not supported",
		"add rule ip t c meta secmark 1":                                    "meta secmark is not supported",
		"add rule ip t c flow add @f":                                       "flow statements are not supported",
		"add rule ip t c ct helper set \"x\"":                               "ct helper set is not supported",
		"add flowtable ip t f { hook ingress priority 0; }":                 "flowtable objects are not supported",
		"add ct helper ip t h { }":                                          "ct objects are not supported",
		"add rule ip t c meta nfproto ipv4":                                 "only useful in the inet family",
		"add rule ip t c frag more-fragments 1":                             "cannot use exthdr with ip",
		"create table ip t":                                                 "File exists",
		"create chain ip t j":                                               "File exists",
		"delete chain ip t j":                                               "Device or resource busy",
		"delete chain ip t k":                                               "Device or resource busy",
		"delete set ip t s":                                                 "Device or resource busy",
		"delete chain ip t none":                                            "No such file or directory",
		"delete element ip t s { 1.2.3.4 }":                                 "No such file or directory",
		"add element ip t s { 1.2.3.0/24 }":                                 "You must add 'flags interval'",
		"add element ip t s { 1.2.3.4 : accept }":                           "a set has no values",
		"add element ip t v { 1.2.3.4 : jump none }":                        "No such file or directory",
		"create element ip t s { 1.2.3.4, 1.2.3.4 }":                        "File exists",
		"add element ip t v { 1.1.1.1 : accept, 1.1.1.1 : drop }":           "File exists",
		"add chain ip t x { type nat hook prerouting priority -200; }":      "Operation not supported",
		"add chain ip t x { type nat hook forward priority 0; }":            "Operation not supported",
		"add chain ip t x { type filter hook ingress priority 0; }":         "does not support this hook",
		"add chain ip t x { type filter hook nohook priority 0; }":          "unknown chain hook",
		"add chain ip t x { type filter hook input priority srcnat; }":      "invalid priority",
		"add set ip t x { type ipv4_addr; elements = { 1.1.1.1-1.1.1.3 } }": "You must add 'flags interval'",
		"add set ip t x { elements = { 1 } }":                               "set definition does not specify key",
		"add map ip t x { type ipv4_addr }":                                 "syntax error, unexpected '}', expecting ':'",
		"add set ip t x { type ipv4_addr; flags interval; elements = { 1.1.1.1-1.1.1.5, 1.1.1.3-1.1.1.9 } }": "conflicting intervals",
		"add rule ip t c index 99 accept":       "No such file or directory",
		"replace rule ip t c handle 99 accept":  "No such file or directory",
		"add rule ip t c":                       "expecting a statement",
		"add rule ip t c tcp dport":             "expecting an expression",
		"add rule ip t c ip nosuch 5":           "unexpected 'nosuch', expecting a field of ip: version, hdrlength",
		"add rule ip t c meta nosuch 5":         "known keys are",
		"add rule ip t c log level loud":        "invalid log level",
		"add rule ip t c counter name \"none\"": "No such file or directory",
		"add rule ip t c ip saddr $net":         "unknown identifier 'net'",
		"add rule ip t c ip saddr \"1.1.1.1":    "the string is not closed",
		"include \"x\"":                         "nothing can be included here",
		"frobnicate table ip t":                 "expecting table, chain",
		"add chain ip t x { type filter hook input priority 0; policy drop; policy drop; }": ":2:68-78: Error: you cannot set chain policy twice",
		"add chain ip t x { type filter hook input priority 0; comment a; comment b; }":     "This statement is duplicated",
		"add set ip t x { type ipv4_addr; comment \"a\"; comment \"b\"; }":                  "This statement is duplicated",
		"add element ip t s { 1.2.3.4 comment \"a\" comment \"b\" }":                        "This statement is duplicated",
		"table ip t { comment \"a\"; comment \"b\"; }":                                      "This statement is duplicated",
		"table ip t { counter x { comment \"a\"; comment \"b\"; }; }":                       "This statement is duplicated",
	} {
		rs := must(t, &Ruleset{}, base)
		before := listing(rs, ListOptions{Handles: true})
		_, err := loadText(rs, "add table ip other\n"+text+"\n")
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		} else if e.Pos.Line != 2 && e.Code != TooManyLinks && e.Code != NotSupported {
			t.Errorf("%s: error is at line %d, want 2", text, e.Pos.Line)
		}
		if after := listing(rs, ListOptions{Handles: true}); after != before {
			t.Errorf("%s: the ruleset changed", text)
		}
	}
}

// TestTheLastLineCounts: what may be said twice is what was said last, as nft has it.
func TestTheLastLineCounts(t *testing.T) {
	const text = `table ip t {
	set s { type ipv4_addr; flags interval; flags dynamic; size 5; size 6; timeout 5s; timeout 6s; policy memory; policy performance; }
	set d { typeof ip saddr; type inet_service; }
	chain c { type filter hook input priority filter + 5; type filter hook output priority 1; }
}
`
	const want = `table ip t {
	set s {
		type ipv4_addr
		size 6
		flags dynamic,timeout
		timeout 6s
	}

	set d {
		type inet_service
	}

	chain c {
		type filter hook output priority filter + 1; policy accept;
	}
}
`
	if got := listing(must(t, &Ruleset{}, text), ListOptions{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if testing.Short() {
		return
	}
	needKernel(t)
	if got, ok := kernelNFT(t, "nft -f r.nft && nft list ruleset", map[string]string{"r.nft": text}); !ok || got != want {
		t.Errorf("nft has\n%s\nwant\n%s", got, want)
	}
}

func TestAnErrorPointsAtItsPlace(t *testing.T) {
	_, err := loadText(&Ruleset{}, "table ip t {\n\tchain c {\n\t\ttcp dport 22 udp dport 53\n\t}\n}\n")
	want := "test.nft:3:16-24: Error: conflicting protocols specified: tcp vs. udp\n\t\ttcp dport 22 udp dport 53\n\t\t             ^^^^^^^^^"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestElementsAgainstAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	model := map[string]*Elem{}
	var e, old Elems
	for i := range 20000 {
		key := fmt.Sprintf("%03d", r.IntN(500))
		if r.IntN(3) > 0 {
			x := &Elem{Key: key, End: key}
			e, model[key] = e.With(x), x
		} else {
			e = e.Without(key)
			delete(model, key)
		}
		if e.Len() != len(model) || e.Find(key) != model[key] {
			t.Fatalf("step %d: %d elements, want %d", i, e.Len(), len(model))
		}
		if i == 10000 {
			old = e
		}
	}
	var keys []string
	for x := range e.All() {
		keys = append(keys, x.Key)
	}
	if !slices.IsSorted(keys) || len(keys) != len(model) {
		t.Error("the elements are not in order")
	}
	for was, is := range Changed(old, e) {
		switch {
		case was == nil && is == nil, was != nil && is != nil && was.Key != is.Key:
			t.Fatalf("change %v to %v", was, is)
		case was == nil:
			old = old.With(is)
		case is == nil:
			old = old.Without(was.Key)
		default:
			old = old.With(is)
		}
	}
	if !slices.Equal(slices.Collect(old.All()), slices.Collect(e.All())) {
		t.Error("the changes don't lead from one to the other")
	}
}

// TestAnElementMoreCostsLittle: a change of a set of 100,000 elements shares
// nearly all of it.
func TestAnElementMoreCostsLittle(t *testing.T) {
	var b strings.Builder
	b.WriteString("add table t; add set t s { type ipv4_addr; }\nadd element t s { ")
	for i := range 100000 {
		fmt.Fprintf(&b, "10.%d.%d.%d, ", i>>16, i>>8&255, i&255)
	}
	b.WriteString("}\n")
	rs := must(t, &Ruleset{}, b.String())
	cmds, err := Parse("", "add element t s { 192.0.2.1 }\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := rs.Apply(cmds, nil); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 150 {
		t.Errorf("%v allocations for one element more", allocs)
	}
	res, err := rs.Apply(cmds, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for range Changed(rs.Tables[0].Sets[0].Elems, res.Ruleset.Tables[0].Sets[0].Elems) {
		changed++
	}
	if changed != 1 {
		t.Errorf("%d changes, want 1", changed)
	}
	if got, want := Diff(rs, res.Ruleset, nil), "+ element ip t s { 192.0.2.1 }\n"; got != want {
		t.Errorf("diff: %q, want %q", got, want)
	}
}

func TestDiff(t *testing.T) {
	a := must(t, &Ruleset{}, "table t { set s { type mark; elements = { 1, 2 }; }\n chain c { counter; drop; }\n chain gone { return; }\n }\n")
	b := must(t, a, "add rule t c accept; delete rule t c handle 5; delete element t s { 1 }; add element t s { 3 }; delete chain t gone;"+
		"add chain t base { type filter hook input priority 0; policy drop; }; add table ip6 x; add counter t n\n")
	want := strings.Join([]string{
		"+ counter ip t n",
		"- element ip t s { 0x00000001 }",
		"+ element ip t s { 0x00000003 }",
		"- chain ip t gone",
		"- rule ip t gone return # handle 6",
		"- rule ip t c drop # handle 5",
		"+ rule ip t c accept # handle 7",
		"+ chain ip t base { type filter hook input priority filter; policy drop; }",
		"+ table ip6 x", "",
	}, "\n")
	got := Diff(a, b, nil)
	sortLines := func(s string) []string {
		l := strings.Split(s, "\n")
		slices.Sort(l)
		return l
	}
	if d := cmp.Diff(sortLines(want), sortLines(got)); d != "" {
		t.Errorf("(-want +got):\n%s\n%s", d, got)
	}
	if got := Diff(b, b, nil); got != "" {
		t.Errorf("a ruleset differs from itself: %s", got)
	}
}

func TestChangesAsText(t *testing.T) {
	cmds, err := Parse("", "add table t; add chain t c; add set t s { type mark; flags interval; }; add element t s { 5, 6-7 }; add rule t c meta mark @s drop comment \"x\"; rename chain t c d; flush set t s\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&Ruleset{}).Apply(cmds, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range res.Changes {
		b.WriteString(c.Text(nil))
	}
	want := "add table ip t\nadd chain ip t d\nadd set ip t s { type mark; flags interval; }\nadd element ip t s { 0x00000005, 0x00000006-0x00000007 }\n" +
		"add rule ip t d meta mark @s drop comment \"x\" # handle 3\nrename chain ip t d\nflush set ip t s\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
