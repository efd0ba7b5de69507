// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"sluice/api"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/policy/nft"
)

// TestRing: who asks from a number on gets what came since, and hears of what is lost.
func TestRing(t *testing.T) {
	var r ring[int]
	if all, lost, next := r.since(0); all != nil || lost != 0 || next != 1 {
		t.Errorf("empty: %v %d %d", all, lost, next)
	}
	r.add(3, 1, 2)
	for after, want := range map[uint64]string{0: "[] 0 3", 1: "[1 2] 0 3", 2: "[2] 0 3", 3: "[] 0 3", 9: "[] 0 3"} {
		all, lost, next := r.since(after)
		if got := fmt.Sprint(all, lost, next); got != want {
			t.Errorf("after %d: %s, want %s", after, got, want)
		}
	}
	r.add(3, 3, 4, 5)
	if all, lost, next := r.since(2); !slices.Equal(all, []int{3, 4, 5}) || lost != 1 || next != 6 {
		t.Errorf("%v %d %d", all, lost, next)
	}
	r.skip(10)
	if all, lost, next := r.since(6); len(all) > 0 || lost != 10 || next != 16 {
		t.Errorf("%v %d %d", all, lost, next)
	}
}

// TestLogsOfRules: lines go to the log by their level, and to who listens; those of a
// group to who listens only; nothing of the sandbox goes to a terminal as it is.
func TestLogsOfRules(t *testing.T) {
	var log strings.Builder
	a := &Agent{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	group := 3
	a.heardLogs(context.Background(), &dataplane.RuleLogs{Suppressed: 7, Lines: []netstack.RuleLog{
		{Namespace: "shop", Level: "err", Text: "bad \x1b[31m IN=web", Table: "ip t", Chain: "f", Handle: 4},
		{Namespace: "other", Level: "debug", Text: "theirs"},
		{Namespace: "shop", Level: "warn", Group: &group, Text: "grouped"},
		{Namespace: "shop", Level: "frob", Text: "odd"},
	}})
	for _, want := range []string{"suppressed=7", "level=ERROR msg=\"a rule logs\" namespace=shop text=\"bad \uFFFD[31m IN=web\" chain=\"ip t f\" handle=4", "level=DEBUG", "level=WARN"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "grouped") {
		t.Errorf("what has a group is logged:\n%s", log.String())
	}
	out := &api.NFTEvents{Next: 1}
	a.ruleWatch.logged((&namespaceRecord{Name: "shop"}).ruled(), out)
	if len(out.Lines) != 3 || out.Lost != 7 || out.Next != 12 || !strings.HasSuffix(out.Lines[0], " err: bad \uFFFD[31m IN=web") ||
		!strings.HasSuffix(out.Lines[1], " group 3: grouped") || !strings.HasSuffix(out.Lines[2], " unknown: odd") {
		t.Errorf("%+v", out)
	}
}

// TestMonitorWords: options, and what is shown of whose transactions.
func TestMonitorWords(t *testing.T) {
	a := &Agent{}
	parsed, err := nft.Parse("", "add table ip t; add chain ip t c; add rule ip t c accept", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := new(nft.Ruleset).Apply(parsed, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := &edit{Result: res, space: "shop", ruleset: "shop", number: 5}
	a.committed(done) // nobody listens
	out := &api.NFTEvents{}
	a.ruleWatch.monitored([]string{"shop"}, nil, nil, false, out)
	a.committed(done)
	for words, want := range map[string]string{
		"":               "add table ip t|add chain ip t c|add rule ip t c accept|# new generation 5",
		"-a new rules":   "add rule ip t c accept # handle 2",
		"destroy":        "",
		"-j tables":      `{"add": {"table": {"family": "ip", "name": "t", "handle": 1}}}`,
		"-n ruleset -S ": "add table ip t|add chain ip t c|add rule ip t c accept",
	} {
		o, rest, asJSON := monitorWords(strings.Fields(words))
		got := &api.NFTEvents{Next: out.Next}
		a.ruleWatch.monitored([]string{"shop"}, rest, o, asJSON, got)
		if lines := strings.Join(got.Lines, "|"); lines != want {
			t.Errorf("%q: %s, want %s", words, lines, want)
		}
		other := &api.NFTEvents{Next: out.Next}
		if a.ruleWatch.monitored([]string{"other", "port 7"}, rest, o, asJSON, other); len(other.Lines) != 0 || other.Next != got.Next {
			t.Errorf("%q: another namespace shows %+v", words, other)
		}
	}
}
