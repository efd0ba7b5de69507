// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"strings"
	"testing"
)

// accepted are the errors that hostile text may lead to.
func expectError(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Msg == "" {
		t.Fatalf("an error without a place: %#v", err)
	}
}

// applied checks what a list of commands leads to: a listing that can be read.
func applied(t *testing.T, cmds []*Command) {
	t.Helper()
	res, err := (&Ruleset{}).Apply(cmds, testEnv())
	if err != nil {
		expectError(t, err)
		return
	}
	text := listing(res.Ruleset, ListOptions{})
	again, err := loadText(&Ruleset{}, text)
	if err != nil {
		t.Fatalf("the listing is refused: %v\n%s", err, text)
	}
	// The second listing may differ from the first (a set of one element is read
	// as the element); the third must not differ from the second.
	second := listing(again, ListOptions{})
	third, err := loadText(&Ruleset{}, second)
	if err != nil {
		t.Fatalf("the second listing is refused: %v\n%s", err, second)
	}
	if got := listing(third, ListOptions{}); got != second {
		t.Fatalf("second:\n%s\nthird:\n%s", second, got)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range corpus(f) {
		f.Add(text)
		for part := range strings.SplitSeq(text, "\n") {
			f.Add("add table t; add chain t c { type filter hook input priority 0; }; add rule t c " + strings.TrimSpace(part))
		}
	}
	for seed := range uint64(20) {
		f.Add(randomRuleset(seed))
		f.Add(strings.Join(steps(seed, 5), "\n"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		cmds, err := Parse("fuzz", text, nil)
		if err != nil {
			expectError(t, err)
			return
		}
		applied(t, cmds)
	})
}

func FuzzParseJSON(f *testing.F) {
	for _, text := range corpus(f) {
		rs, err := loadText(&Ruleset{}, text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(rs.ListJSON(nil))
	}
	f.Add([]byte(`{"nftables": [{"add": {"table": {"family": "ip", "name": "t"}}}, {"flush": {"ruleset": null}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		cmds, err := ParseJSON(data)
		if err != nil {
			expectError(t, err)
			return
		}
		applied(t, cmds)
	})
}

// FuzzTransactions applies two texts one after the other: what the second does
// must not reach into the ruleset of the first.
func FuzzTransactions(f *testing.F) {
	for seed := range uint64(20) {
		list := steps(seed, 8)
		f.Add(list[0], strings.Join(list[1:], "\n"))
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		if len(first)+len(second) > 1<<16 {
			return
		}
		rs, err := loadText(&Ruleset{}, first)
		if err != nil {
			return
		}
		before := listing(rs, ListOptions{Handles: true})
		if _, err := loadText(rs, second); err != nil {
			expectError(t, err)
		}
		if after := listing(rs, ListOptions{Handles: true}); after != before {
			t.Fatalf("the first ruleset changed:\n%s\n%s", before, after)
		}
	})
}
