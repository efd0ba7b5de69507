// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/policy/journal"
	"sluice/policy/nft"
)

// listing is a ruleset with its handles.
func listing(t *testing.T, r *nft.Ruleset) string {
	t.Helper()
	var b strings.Builder
	if err := r.List(&b, &nft.ListOptions{Handles: true}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// world knows one device, and says that packets have added everything.
func world() journal.World {
	return journal.World{
		Device: func(name string) (uint32, bool) { return 7, name == "web" },
		Live:   func(*nft.Table, *nft.Set, string) bool { return true },
	}
}

// steps are transactions with all that they may depend on.
func steps() (all []journal.Step) {
	all = []journal.Step{
		{File: "a.nft", Text: `table inet t {
	set s { type ipv4_addr; flags dynamic; size 10; }
	set r { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 1-9, 11.1.0.0/16 . 5 }; }
	chain f { type filter hook forward priority 0; iif "web" tcp dport { 80, 443 } counter packets 3 bytes 4 accept; }
}
include "./more/*.nft"`, Included: map[string]string{"more/b.nft": "add table ip later", "more/a.nft": "add chain inet t g\nadd rule inet t g jump { accept; }"}},
		{Text: "delete element inet t s { 10.0.0.1 }"},
		{Text: "insert rule inet t f ct state established accept"},
		{Text: `{"nftables": [{"add": {"table": {"family": "ip6", "name": "js"}}}]}`, JSON: true},
		{Text: "flush chain inet t f; add chain inet t h { type filter hook input priority 0; }"},
	}
	for i := range 200 {
		all = append(all, journal.Step{Text: fmt.Sprintf("add rule inet t f tcp dport %d counter", i)})
	}
	return append(all, journal.Step{Text: "flush chain inet t f; delete table ip later"})
}

// TestFollow: who follows each transaction, who begins at some of them, and who begins
// anew at the end, have the same ruleset with the same handles.
func TestFollow(t *testing.T) {
	j, at := new(journal.Journal), journal.Empty()
	var reader *journal.State
	for i, s := range steps() {
		res, err := s.Try(at.Ruleset, world())
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		var next *journal.State
		j, next = j.With(at, s, res.Ruleset)
		at = next
		if serial, sum := j.Last(); serial != at.Serial || sum != at.Sum {
			t.Fatalf("step %d: last is %d %s, want %d %s", i, serial, sum, at.Serial, at.Sum)
		}
		travelled := new(journal.Journal)
		text, err := json.Marshal(j)
		if err == nil {
			err = json.Unmarshal(text, travelled)
		}
		if err != nil {
			t.Fatal(err)
		}
		followed, changes, err := travelled.Follow(reader)
		if err != nil || i > 0 && changes == nil {
			t.Fatalf("step %d: %v, %d changes", i, err, len(changes))
		}
		reader = followed
		if got, want := listing(t, reader.Ruleset), listing(t, at.Ruleset); got != want {
			t.Fatalf("step %d:\n%s\nwant\n%s", i, got, want)
		}
		if i%10 != 0 && i > 6 {
			continue
		}
		again, _, err := travelled.Follow(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := listing(t, again.Ruleset), listing(t, at.Ruleset); got != want || again.Sum != at.Sum {
			t.Fatalf("step %d, anew:\n%s\nwant\n%s", i, got, want)
		}
		if again.Ruleset.Registrations != at.Ruleset.Registrations || again.Ruleset.Handles != at.Ruleset.Handles {
			t.Errorf("step %d: %d registrations and %d handles, want %d and %d", i,
				again.Ruleset.Registrations, again.Ruleset.Handles, at.Ruleset.Registrations, at.Ruleset.Handles)
		}
	}
	if len(j.Steps) > 64 || j.Base == "" {
		t.Errorf("%d steps are kept, and a listing of %d bytes", len(j.Steps), len(j.Base))
	}
	// Of another journal, nothing is gone on with.
	other, changes, err := j.Follow(&journal.State{Ruleset: &nft.Ruleset{}, Serial: at.Serial, Sum: "other"})
	if err != nil || changes != nil || listing(t, other.Ruleset) != listing(t, at.Ruleset) {
		t.Errorf("%v, %v", err, changes)
	}
}

func TestWhatIsWrong(t *testing.T) {
	for name, j := range map[string]*journal.Journal{
		"text":    {Steps: []journal.Step{{Text: "add tabel ip t"}}},
		"listing": {Base: "table ip t {", Handles: []uint64{1}},
		"handles": {Base: "table ip t {\n}\n", Handles: []uint64{1, 2}},
		"device":  {Steps: []journal.Step{{Text: "table ip t { chain c { iif web accept; }; }"}}},
	} {
		if _, _, err := j.Follow(nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
