// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/nft"
	"sluice/policy/policytest"
)

// differ plays a ruleset on both, and reports the first difference. With cache, what
// the engine recorded of a packet stands for the evaluation of the flow's next ones.
func differ(t testing.TB, text string, c *conversations, n int, cache bool) (hits int) {
	t.Helper()
	b := newBoth(t, load(t, text))
	if cache {
		b.remember()
	}
	for i := range n {
		frame, in := c.next()
		b.ev.Pin()
		b.ev.Begin(&b.record)
		got := b.ours.pass(frame, in)
		b.ev.Unpin()
		want := b.plain.pass(frame, in)
		if !got.same(want) {
			t.Fatalf("packet %d, %s by m%d:\nengine:      %v\ninterpreter: %v\n%s", i, pt.Describe(frame), in, got, want, text)
		}
	}
	b.compareStates(t, text)
	return b.ours.hits
}

// compareStates compares what both have counted.
func (b *both) compareStates(t testing.TB, text string) {
	t.Helper()
	states := b.engine.States(b.ours.now)
	check := func(what string, s nft.Stmt) {
		v, _ := states.Of(s)
		packets, bytes := b.world.State(s)
		if q, ok := s.(*nft.Quota); ok {
			bytes = min(bytes, q.Bytes)
		}
		if v.Packets != packets || v.Bytes != bytes {
			t.Errorf("%s: engine has %d packets, %d bytes; interpreter %d, %d\n%s", what, v.Packets, v.Bytes, packets, bytes, text)
		}
	}
	for _, table := range b.rs.Tables {
		for _, c := range table.Chains {
			for _, r := range c.Rules {
				for _, s := range r.Stmts {
					switch s.(type) {
					case *nft.Counter, *nft.Quota:
						check(fmt.Sprintf("%s rule %d", c.Name, r.Handle), s)
					}
				}
			}
		}
		for _, o := range table.Objects {
			check(o.Name, o.Stmt)
		}
		for _, s := range table.Sets {
			b.compareSet(t, table, s, text)
		}
	}
}

func (b *both) compareSet(t testing.TB, table *nft.Table, s *nft.Set, text string) {
	t.Helper()
	want := b.world.Elements(s, b.ours.now)
	n := 0
	for e := range b.engine.Elements(table.Handle, s.Name, b.ours.now) {
		if e.Default {
			continue
		}
		n++
		w, there := want[e.Key]
		if !there {
			t.Errorf("set %s has %x, which the interpreter's has not\n%s", s.Name, e.Key, text)
			continue
		}
		if len(e.States) > 0 && e.States[0].Kind == policy.CounterState && (e.States[0].Packets != w[0] || e.States[0].Bytes != w[1]) {
			t.Errorf("set %s, element %x: engine %v, interpreter %v\n%s", s.Name, e.Key, e.States[0], w, text)
		}
	}
	if n != len(want) {
		t.Errorf("set %s has %d elements, the interpreter's %d\n%s", s.Name, n, len(want), text)
	}
}

// many is how many rulesets a test plays: few in a short run, as many as the
// environment says in a long one.
func many(t *testing.T, short, usual int) int {
	t.Helper()
	if s := os.Getenv("NFT_RULESETS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return short
	}
	return usual
}

func TestEngineIsTheInterpreter(t *testing.T) {
	for i := range many(t, 20, 60) {
		one(t, uint64(i), 60, false)
	}
}

// TestReplayIsEvaluation: whoever remembers decisions about flows has the same
// outcomes, and counts the same.
func TestReplayIsEvaluation(t *testing.T) {
	hits, n := 0, many(t, 20, 60)
	for i := range n {
		hits += one(t, uint64(i), 100, true)
	}
	if share := 100 * hits / (100 * n); share < 10 {
		t.Errorf("only %d %% of the packets were hits", share)
	} else {
		t.Logf("%d %% of the packets were hits", share)
	}
}

// one is one random ruleset with packets.
func one(t testing.TB, seed uint64, n int, cache bool) (hits int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	return chosen(t, r, r, seed%4 == 3, n, cache)
}

// chosen is a ruleset that one chooses, and packets of another's choice.
func chosen(t testing.TB, rules, packets *rand.Rand, long bool, n int, cache bool) (hits int) {
	t.Helper()
	r := rules
	g := &policytest.Gen{R: r, Family: []string{"ip", "ip6", "inet"}[r.IntN(3)], Calm: cache && r.IntN(4) != 0}
	g.Long = long
	text := g.Ruleset()
	return differ(t, text, newConversations(packets, g.Family, 20000), n, cache)
}
