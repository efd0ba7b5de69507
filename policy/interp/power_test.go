// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/policy/interp"
	"sluice/policy/nft"
)

// TestMutantsAreCaught measures how much the comparison sees: one side gets a ruleset
// in which something small is wrong. Many such mutants mean the same as the original,
// so that not all can be told.
func TestMutantsAreCaught(t *testing.T) {
	n := many(t, 60, 60)
	caught, made := 0, 0
	for i := range n {
		r := rand.New(rand.NewPCG(uint64(i), 21))
		g := &gen{r: r, family: []string{"ip", "ip6", "inet"}[r.IntN(3)]}
		text := g.ruleset()
		mutant, ok := mutate(r, text)
		if !ok {
			continue
		}
		made++
		if told(t, text, mutant, newConversations(r, g.family, 20000)) {
			caught++
		}
	}
	share := 100 * caught / max(made, 1)
	t.Logf("%d of %d mutants were caught: %d %%", caught, made, share)
	if share < 20 {
		t.Errorf("only %d %% of the mutants were caught", share)
	}
}

// mutate changes one thing in one rule.
func mutate(r *rand.Rand, text string) (string, bool) {
	lines := strings.Split(text, "\n")
	changes := []func(string) string{
		func(l string) string { return strings.Replace(l, "accept", "drop", 1) },
		func(l string) string { return strings.Replace(l, "!= ", "", 1) },
		func(l string) string { return strings.Replace(l, " saddr", " daddr", 1) },
		func(l string) string { return strings.Replace(l, "jump", "goto", 1) },
		func(l string) string { return strings.Replace(l, "dport", "sport", 1) },
		func(l string) string { return regexp.MustCompile(`\b80\b`).ReplaceAllString(l, "81") },
		func(l string) string { return strings.Replace(l, "quota over", "quota", 1) },
		func(string) string { return "counter" },
	}
	for range 50 {
		i := r.IntN(len(lines))
		l := lines[i]
		if strings.HasPrefix(l, "set ") || strings.HasPrefix(l, "map ") || strings.HasPrefix(l, "chain ") || strings.HasPrefix(l, "type ") ||
			strings.HasPrefix(l, "table ") || strings.HasPrefix(l, "counter n") || strings.HasPrefix(l, "quota q") || l == "}" || l == "" {
			continue
		}
		if m := changes[r.IntN(len(changes))](l); m != l {
			lines[i] = m
			return strings.Join(lines, "\n"), true
		}
	}
	return "", false
}

// told reports whether outcomes differ between the engine with one ruleset and the
// interpreter with another.
func told(t *testing.T, text, mutant string, c *conversations) bool {
	t.Helper()
	b := newBoth(t, load(t, text))
	mutated := load(t, mutant)
	other := interp.New(mutated)
	plain := newRouter(t, other.Hook)
	for range 200 {
		frame, in := c.next()
		b.ev.Pin()
		b.ev.Begin(nil)
		got := b.ours.pass(frame, in)
		b.ev.Unpin()
		if want := plain.pass(frame, in); !got.same(want) {
			return true
		}
	}
	states := b.engine.States(b.ours.now)
	mine := counts(b.rs, func(c *nft.Counter) uint64 { n, _ := states.Counter(c); return n })
	his := counts(mutated, func(c *nft.Counter) uint64 { n, _ := other.State(c); return n })
	for i := range mine {
		if len(mine[i]) == len(his[i]) && !slices.Equal(mine[i], his[i]) {
			return true
		}
	}
	return false
}

// counts are the counters of each rule.
func counts(rs *nft.Ruleset, of func(*nft.Counter) uint64) (all [][]uint64) {
	for _, c := range rs.Tables[0].Chains {
		for _, r := range c.Rules {
			var n []uint64
			for _, s := range r.Stmts {
				if c, ok := s.(*nft.Counter); ok {
					n = append(n, of(c))
				}
			}
			all = append(all, n)
		}
	}
	return all
}
