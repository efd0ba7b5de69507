// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// commands writes random transactions on few names, so that most of them meet
// what is there.
type commands struct{ *rand.Rand }

func (g *commands) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g *commands) chain() string { return g.pick("a", "b", "c", "base") }
func (g *commands) set() string   { return g.pick("s", "i", "v") }
func (g *commands) table() string { return g.pick("t", "t", "t", "u") }

// elem is an element that fits the set of that name.
func (g *commands) elem(set string) string {
	n := g.IntN(12)
	switch set {
	case "i":
		return g.pick(fmt.Sprint(n), fmt.Sprintf("%d-%d", n, n+g.IntN(4)))
	case "v":
		return fmt.Sprintf("%d : %s", n, g.pick("accept", "drop", "jump a", "jump b", "goto c"))
	default:
		return fmt.Sprint(n)
	}
}

func (g *commands) rule() string {
	return g.pick("counter", "accept", "drop", "tcp dport @s", "tcp dport @i drop", "tcp dport vmap @v", "tcp dport { 1, 2 } jump a", "jump b", "goto c",
		"tcp dport vmap { 1 : jump a, 2 : accept }", "counter name \"n\"", "meta mark set 5 comment \"x\"", "add @s { tcp dport }", "tcp dport 5 jump { accept; }")
}

// place says where a rule goes.
func (g *commands) place() string {
	return g.pick("", "", "", fmt.Sprintf("index %d", g.IntN(3)), fmt.Sprintf("handle %d", g.IntN(30)), fmt.Sprintf("position %d", g.IntN(30)))
}

func (g *commands) command() string {
	t, c, s := g.table(), g.chain(), g.set()
	switch g.IntN(22) {
	case 0:
		return g.pick("add", "add", "create") + " table " + t
	case 1, 2:
		if c == "base" {
			return fmt.Sprintf("add chain %s base { type filter hook input priority 0; policy %s; }", t, g.pick("accept", "drop"))
		}
		return g.pick("add", "add", "create") + fmt.Sprintf(" chain %s %s", t, c)
	case 3, 4:
		return g.pick("add", "create") + fmt.Sprintf(" set %s s { type inet_service; }", t)
	case 5:
		return fmt.Sprintf("add set %s i { type inet_service; flags interval; %s }", t, g.pick("", "auto-merge;"))
	case 6:
		return fmt.Sprintf("add map %s v { type inet_service : verdict; }", t)
	case 7, 8:
		return g.pick("add", "add", "create") + fmt.Sprintf(" element %s %s { %s }", t, s, g.elem(s))
	case 9:
		e, _, _ := strings.Cut(g.elem(s), " :")
		return fmt.Sprintf("delete element %s %s { %s }", t, s, e)
	case 10, 11, 12, 13:
		return g.pick("add", "add", "insert") + fmt.Sprintf(" rule %s %s %s %s", t, c, g.place(), g.rule())
	case 14:
		return fmt.Sprintf("replace rule %s %s handle %d %s", t, c, g.IntN(30), g.rule())
	case 15:
		return fmt.Sprintf("delete rule %s %s handle %d", t, c, g.IntN(30))
	case 16:
		return fmt.Sprintf("delete chain %s %s", t, c)
	case 17:
		return fmt.Sprintf("delete %s %s %s", map[string]string{"s": "set", "i": "set", "v": "map"}[s], t, s)
	case 18:
		return g.pick("flush chain "+t+" "+c, "flush chain "+t+" "+c, "flush table "+t, "flush set "+t+" s", "delete table u")
	case 19:
		return fmt.Sprintf("rename chain %s %s %s", t, c, g.pick("a", "b", "c", "d"))
	case 20:
		return g.pick("add", "create", "delete") + fmt.Sprintf(" counter %s n", t)
	default:
		return fmt.Sprintf("add chain %s %s", t, c)
	}
}

// transaction is one file.
func (g *commands) transaction() string {
	var lines []string
	for range 1 + g.IntN(4) {
		lines = append(lines, g.command())
	}
	return strings.Join(lines, "\n") + "\n"
}

// steps is a sequence of transactions; the first makes what others need.
func steps(seed uint64, n int) []string {
	g := &commands{rand.New(rand.NewPCG(seed, 2))}
	list := []string{"add table t\nadd chain t a\nadd chain t b\nadd chain t c\nadd chain t base { type filter hook input priority 0; policy accept; }\n" +
		"add set t s { type inet_service; }\nadd set t i { type inet_service; flags interval; }\nadd map t v { type inet_service : verdict; }\nadd counter t n\n"}
	for range n {
		list = append(list, g.transaction())
	}
	return list
}

// step is a transaction and what became of it here.
type step struct {
	text    string
	done    bool
	err     error
	listing string
}

// play applies transactions, one after the other.
func play(list []string) []step {
	rs := &Ruleset{}
	var out []step
	for _, text := range list {
		next, err := loadText(rs, text)
		if err == nil {
			rs = next
		}
		out = append(out, step{text, err == nil, err, listing(rs, ListOptions{Handles: true})})
	}
	return out
}

// TestTransactionsEndAsByNFT compares after each transaction what is there then,
// with handles; and that what is refused here is refused there. The kernel does
// not give back the handles of a transaction that it refused, so one of those
// is always the last of a sequence.
func TestTransactionsEndAsByNFT(t *testing.T) {
	needKernel(t)
	sequences := 5
	if s := os.Getenv("NFT_SEQUENCES"); s != "" {
		sequences, _ = strconv.Atoi(s)
	}
	refused := 0
	for seed := range sequences {
		steps := play(steps(uint64(seed), 40))
		var done []step
		for i, s := range steps {
			if s.done {
				done = append(done, s)
				continue
			}
			if i%4 == 0 {
				refused++
				compareSteps(t, seed, append(slices.Clip(done), s))
			}
		}
		compareSteps(t, seed, done)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d sequences of 40 transactions, %d refused by both", sequences, refused)
}

func compareSteps(t *testing.T, seed int, list []step) {
	t.Helper()
	files := map[string]string{}
	for i, s := range list {
		files[fmt.Sprintf("%03d.nft", i)] = s.text
	}
	out, ok := kernelNFT(t, `for f in *.nft; do echo "=#= $f"; if nft -f $f 2>$f.err; then echo done; else echo refused; fi; nft -a list ruleset; done`, files)
	if !ok {
		t.Fatal(out)
	}
	for i, part := range strings.Split(out, "=#= ")[1:] {
		_, want, _ := strings.Cut(part, "\n")
		s := list[i]
		got := map[bool]string{true: "done\n", false: "refused\n"}[s.done] + s.listing
		if d := cmp.Diff(withoutTableHandles(want), withoutTableHandles(got)); d != "" {
			t.Errorf("sequence %d, transaction %d: ours says %v (-nft +ours):\n%s\n%s", seed, i, s.err, d, s.text)
			return
		}
	}
}
