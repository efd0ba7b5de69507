// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/policy/interp"
	"sluice/policy/nft"
	"sluice/policy/policytest"
)

// TestMutantsAreCaught measures how much the comparison sees: one side gets a ruleset
// in which something small is wrong, and the packets that are aimed at the right one
// have to tell. What is compared is what can be compared with the kernel, too: what
// became of a packet, its bytes, what was counted, and what is in sets; not which
// rule decided.
//
// Mutants that mean the same as the original can't be told; those that are proven to,
// see same, are not counted.
func TestMutantsAreCaught(t *testing.T) {
	n := many(t, 60, 100)
	caught, made := map[string]int{}, map[string]int{}
	equal := map[string]int{}
	for i := range n {
		r := rand.New(rand.NewPCG(uint64(i), 21))
		g := &policytest.Gen{R: r, Family: []string{"ip", "ip6", "inet"}[r.IntN(3)], Counts: true}
		text := g.Ruleset()
		mutant, kind, line := mutate(r, text)
		if kind == "" {
			continue
		}
		rs := load(t, text)
		other := load(t, mutant)
		seen := slices.ContainsFunc(aimed(newAimer(r, rs), 4, 150), func(shots []shot) bool { return told(t, rs, other, shots) })
		if !seen {
			if why := same(r, rs, other, line); why != "" {
				equal[why]++
				continue
			}
			if testing.Verbose() {
				t.Logf("ruleset %d, met up to %s, %s, line %d: %q became %q", i, metTo(t, rs, line, slices.Concat(aimed(newAimer(r, rs), 4, 150)...)), kind, line, strings.Split(text, "\n")[line-1], strings.Split(mutant, "\n")[line-1])
			}
		}
		made[kind]++
		made["all"]++
		if seen {
			caught[kind]++
			caught["all"]++
		}
	}
	for kind, n := range made {
		t.Logf("%-20s %3d of %3d caught", kind, caught[kind], n)
	}
	share := 100 * caught["all"] / max(made["all"], 1)
	t.Logf("%d %% of the mutants were caught; not counted, since they are the same: %v", share, equal)
	if share < 80 {
		t.Errorf("only %d %% of the mutants were caught", share)
	}
}

// noMark is a mark that no packet has.
const noMark = "4242"

// mutation is a way to get a line wrong.
type mutation struct {
	name string
	do   func(r *rand.Rand, line string) string
}

func mutations() []mutation {
	swap := func(from, to string) func(*rand.Rand, string) string {
		return func(_ *rand.Rand, l string) string { return strings.Replace(l, from, to, 1) }
	}
	number := regexp.MustCompile(`(dport|sport)( !=| <| >| <=| >=)? (\d+-)?(\d+)`)
	element := regexp.MustCompile(`\{ [^,{}]+, `)
	return []mutation{
		{"accept is drop", swap(" accept", " drop")},
		{"drop is accept", swap(" drop", " accept")},
		{"not is left out", swap("!= ", "")},
		{"source is destination", swap(" saddr", " daddr")},
		{"source at first", swap("saddr", "daddr")},
		{"jump is goto", swap("jump", "goto")},
		{"ports are exchanged", swap("dport", "sport")},
		{"tcp is udp", swap("tcp ", "udp ")},
		{"80 is 81", func(_ *rand.Rand, l string) string { return regexp.MustCompile(`\b80\b`).ReplaceAllString(l, "81") }},
		{"a range ends later", func(_ *rand.Rand, l string) string {
			return number.ReplaceAllStringFunc(l, func(s string) string {
				at := strings.LastIndexAny(s, " -") + 1
				n, _ := strconv.Atoi(s[at:])
				return s[:at] + strconv.Itoa(n+1)
			})
		}},
		{"one element less", func(_ *rand.Rand, l string) string { return element.ReplaceAllString(l, "{ ") }},
		{"less is less or equal", swap(" < ", " <= ")},
		{"a quota is over", swap("quota over", "quota")},
		{"return is continue", swap(" return", " continue")},
		{"established is new", swap("established", "new")},
		{"an interface", swap(`"m0"`, `"m1"`)},
		{"a mark", func(_ *rand.Rand, l string) string {
			return regexp.MustCompile(`mark set \d`).ReplaceAllString(l, "mark set 9")
		}},
		{"never met", func(_ *rand.Rand, l string) string { return "meta mark " + noMark + " " + l }},
	}
}

// mutate changes one thing in one rule, and says what, and in which line.
func mutate(r *rand.Rand, text string) (mutant, kind string, line int) {
	lines := strings.Split(text, "\n")
	all := mutations()
	for range 200 {
		i := r.IntN(len(lines))
		l := lines[i]
		if regexp.MustCompile(`^(set |map |chain |type |table |counter n|quota q|\}|$)`).MatchString(l) {
			continue
		}
		how := all[r.IntN(len(all))]
		m := how.do(r, l)
		if m == l {
			continue
		}
		lines[i] = m
		mutant = strings.Join(lines, "\n")
		if _, err := nft.Parse("mutant", mutant, nil); err == nil && loads(mutant) {
			return mutant, how.name, i + 1
		}
		lines[i] = l
	}
	return "", "", 0
}

func loads(text string) bool {
	cmds, err := nft.Parse("mutant", text, nil)
	if err != nil {
		return false
	}
	_, err = new(nft.Ruleset).Apply(cmds, nil)
	return err == nil
}

// told reports whether something differs between the engine with one ruleset and the
// interpreter with another that the kernel would have shown, too.
func told(t testing.TB, rs, mutated *nft.Ruleset, shots []shot) bool {
	t.Helper()
	b := newBoth(t, rs)
	other := interp.New(mutated)
	plain := newRouter(t, other.Hook)
	for _, s := range shots {
		b.ev.Pin()
		b.ev.Begin(nil)
		got := b.ours.pass(s.frame, s.in)
		b.ev.Unpin()
		want := plain.pass(s.frame, s.in)
		if x, y := canonical(got, s.frame), canonical(want, s.frame); !x.same(y) {
			return true
		}
	}
	states := b.engine.States(b.ours.now)
	mine := counts(rs, func(s nft.Stmt) [2]uint64 { v, _ := states.Of(s); return [2]uint64{v.Packets, v.Bytes} })
	his := counts(mutated, func(s nft.Stmt) [2]uint64 { n, m := other.State(s); return [2]uint64{n, m} })
	for i := range mine {
		if len(mine[i]) == len(his[i]) && !slices.Equal(mine[i], his[i]) {
			return true
		}
	}
	for i, s := range rs.Tables[0].Sets {
		theirs := other.Elements(mutated.Tables[0].Sets[i], b.ours.now)
		n := 0
		for e := range b.engine.Elements(rs.Tables[0].Handle, s.Name, b.ours.now) {
			if n++; len(e.States) > 0 && theirs[e.Key] != [2]uint64{e.States[0].Packets, e.States[0].Bytes} {
				return true
			}
		}
		if n != len(theirs) {
			return true
		}
	}
	return marks(b.ours) != marks(plain)
}

// counts are the counters and quotas of each rule, and those with names.
func counts(rs *nft.Ruleset, of func(nft.Stmt) [2]uint64) (all [][][2]uint64) {
	for _, c := range rs.Tables[0].Chains {
		for _, r := range c.Rules {
			var n [][2]uint64
			for _, s := range r.Stmts {
				switch q := s.(type) {
				case *nft.Counter:
					n = append(n, of(s))
				case *nft.Quota:
					n = append(n, [2]uint64{0, min(q.Bytes, of(s)[1])})
				}
			}
			all = append(all, n)
		}
	}
	for _, o := range rs.Tables[0].Objects {
		n := of(o.Stmt)
		if q, ok := o.Stmt.(*nft.Quota); ok {
			n[1] = min(n[1], q.Bytes)
		}
		all = append(all, [][2]uint64{n})
	}
	return all
}

// same says why a mutant is the same as the original, if it is one of these:
//
//   - the line is in a chain that no base chain leads to;
//   - before it, in its chain, there is a rule without a condition that ends the way;
//   - a jump became a goto in the last rule of its chain, so that both come back to
//     the same place;
//   - no packet tells: on all ways to the line, all values that differ for any rule are
//     tried of all fields that the way and both lines are about, and what is done for
//     each packet that the rules before it in its chain don't end is the same.
func same(r *rand.Rand, rs, mutated *nft.Ruleset, line int) string {
	chain, i := lineOf(rs, line)
	if chain == nil {
		return ""
	}
	other, k := lineOf(mutated, line)
	switch {
	case !led(rs.Tables[0], chain, map[string]bool{}):
		return "its chain is not reached"
	case slices.ContainsFunc(chain.Rules[:i], always):
		return "its rule is not reached"
	case i == len(chain.Rules)-1 && jumps(chain.Rules[i], nft.Jump) && jumps(other.Rules[k], nft.Goto):
		return "jump and goto end the chain"
	case agree(r, rs, chain, i, other.Rules[k]):
		return "no packet tells"
	}
	return ""
}

func lineOf(rs *nft.Ruleset, line int) (*nft.Chain, int) {
	for _, c := range rs.Tables[0].Chains {
		for i, r := range c.Rules {
			if r.Pos.Line == line {
				return c, i
			}
		}
	}
	return nil, 0
}

// led reports whether a base chain leads to the chain.
func led(t *nft.Table, c *nft.Chain, seen map[string]bool) bool {
	if c.Base {
		return true
	}
	seen[c.Name] = true
	for _, from := range t.Chains {
		for i, r := range from.Rules {
			leads, _ := leadsTo(r, c.Name)
			if leads && !seen[from.Name] && !slices.ContainsFunc(from.Rules[:i], always) && led(t, from, seen) {
				return true
			}
		}
	}
	return false
}

// always reports whether no packet gets by a rule.
func always(r *nft.Rule) bool {
	for _, s := range r.Stmts {
		switch s := s.(type) {
		case *nft.Counter, *nft.Notrack:
		case *nft.Reject:
			return true
		case *nft.Verdict:
			return s.Kind != nft.Continue && s.Kind != nft.Jump
		default:
			return false
		}
	}
	return false
}

func jumps(r *nft.Rule, kind nft.VerdictKind) bool {
	v, ok := r.Stmts[len(r.Stmts)-1].(*nft.Verdict)
	return ok && v.Kind == kind
}

// agree reports whether the i-th rule of a chain and another one in its place do the
// same for all packets that come to them.
func agree(r *rand.Rand, rs *nft.Ruleset, c *nft.Chain, i int, other *nft.Rule) bool {
	a := newAimer(r, rs)
	for _, s := range other.Stmts { // what it is about is tried, too
		if m, ok := s.(*nft.Match); ok {
			a.about(m.Left, m.Right)
		}
	}
	texts := map[nft.Stmt]string{}
	for _, w := range a.ways(c, 0) {
		asks := slices.DeleteFunc(slices.Concat(w.asks, a.past(w.base, c, i)), func(l literal) bool { return l.may })
		about := []field{fFamily}
		for _, rule := range []*nft.Rule{c.Rules[i], other} {
			for _, s := range rule.Stmts {
				if m, ok := s.(*nft.Match); ok {
					about = append(about, fieldsOf(m.Left)...)
				}
				about = append(about, keyed(s)...)
				texts[s] = nft.RuleText(rs.Tables[0].Family, &nft.Rule{Stmts: []nft.Stmt{s}}, nil)
			}
		}
		tells := literal{want: true, about: about, test: func(x *choice) bool {
			return a.does(x, w.base, c.Rules[i], texts) != a.does(x, w.base, other, texts)
		}}
		a.nodes = 60_000
		x := a.random()
		if a.search(&x, append([]literal{tells}, asks...)) || a.nodes <= 0 {
			return false
		}
	}
	return true
}

// does is what a rule does for a packet: the statements that it comes to, what depends
// on more than the packet taken for true.
func (a *aimer) does(x *choice, base *nft.Chain, rule *nft.Rule, texts map[nft.Stmt]string) string {
	did, guards := "", "" // nobody sees a comparison that nothing comes after
	for _, s := range rule.Stmts {
		switch s := s.(type) {
		case *nft.Match:
			if !a.known(s, base) {
				guards += texts[s]
			} else if !a.holds(x, &literal{all: []*nft.Match{s}, want: true, hook: base.Hook}) {
				return did
			}
		case *nft.VMap:
			if v := a.says(x, &literal{vmap: s, hook: base.Hook}); v != nil {
				did += guards + fmt.Sprint(v.Kind, v.Chain)
			}
		default:
			did += guards + texts[s]
		}
	}
	return did
}

// metTo says how far packets came in a rule.
func metTo(t testing.TB, rs *nft.Ruleset, line int, shots []shot) string {
	t.Helper()
	c, i := lineOf(rs, line)
	w := interp.New(rs)
	met := map[nft.Stmt]int{}
	w.Watch(func(r *nft.Rule, s nft.Stmt) {
		if r == c.Rules[i] {
			met[s]++
		}
	})
	r := newRouter(t, w.Hook)
	for _, s := range shots {
		r.pass(s.frame, s.in)
	}
	var n []int
	for _, s := range c.Rules[i].Stmts {
		n = append(n, met[s])
	}
	return fmt.Sprint(len(shots), n)
}
