// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"fmt"
	"testing"

	"sluice/policy/journal"
	"sluice/policy/nft"
)

// load does transactions one after another.
func load(t *testing.T, texts ...string) *nft.Ruleset {
	t.Helper()
	r := &nft.Ruleset{}
	for _, text := range texts {
		s := journal.Step{Text: text}
		res, err := s.Apply(r)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		r = res.Ruleset
	}
	return r
}

// order are the base chains of one hook, as they run at equal priority.
func order(r *nft.Ruleset) (out []string) {
	at := map[uint64]string{}
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			at[c.Registered] = t.Name + " " + c.Name
		}
	}
	for n := r.Registrations; n > 0; n-- {
		if at[n] != "" {
			out = append(out, at[n])
		}
	}
	return out
}

const hooked = "{ type filter hook forward priority 0; }"

// TestRevert: what comes of it is as it was, also which of two chains of one priority
// comes first; what has not changed is left alone.
func TestRevert(t *testing.T) {
	first := []string{
		"add table ip a { flags dormant; }; add table ip b; add chain ip b x " + hooked, "add chain ip a x " + hooked,
		"add chain ip b y " + hooked + "; add set ip b s { type ipv4_addr; timeout 1h; elements = { 10.0.0.1 timeout 5m comment \"c\", 10.0.0.2 }; }; add rule ip b y ip saddr @s iif 7 counter packets 5 bytes 6 jump { accept; }",
	}
	was := load(t, first...)
	for _, since := range []string{
		"flush ruleset", "delete table ip a", "add rule ip b y drop", "delete chain ip b x; delete table ip a; add table ip a; add chain ip a x " + hooked + "; add chain ip b x " + hooked,
		"add table inet later", "delete element ip b s { 10.0.0.2 }", "add chain ip b y { policy drop; }", "",
	} {
		is := load(t, append(first, since)...)
		step, err := journal.Revert(is, was)
		if err != nil {
			t.Errorf("%s: %v", since, err)
			continue
		}
		res, err := step.Apply(is)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range was.Tables {
			now := res.Ruleset.Table(table.Family, table.Name)
			if now == nil || now.ListTable(nil) != table.ListTable(nil) {
				t.Errorf("%s: table %s is\n%v", since, table.Name, now)
			}
		}
		if got, want := fmt.Sprint(order(res.Ruleset)), fmt.Sprint(order(was)); got != want || len(res.Ruleset.Tables) != len(was.Tables) {
			t.Errorf("%s: chains %s, want %s", since, got, want)
		}
		if since == "add table inet later" && res.Ruleset.Table(nft.FamilyIP, "a") != is.Table(nft.FamilyIP, "a") {
			t.Error("a table that has not changed is another one")
		}
	}
}
