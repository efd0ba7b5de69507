// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sluice/policy/nft"
)

// Revert is the transaction that makes a ruleset what another one was. Tables that are
// as they were then are left alone, with all that was counted in them; others begin
// anew. The order of base chains of equal priority is that of then.
func Revert(is, was *nft.Ruleset) (*Step, error) {
	step := &Step{Text: changedTables(is, was)}
	if same, err := step.comesTo(is, was); err != nil || same {
		return step, err
	}
	step = &Step{Anew: true, Text: chainsInOrder(was) + listing(was)}
	same, err := step.comesTo(is, was)
	if err == nil && !same {
		err = fmt.Errorf("the ruleset can't be made again from its listing")
	}
	return step, err
}

// changedTables takes away the tables that are others now, and makes those of then.
func changedTables(is, was *nft.Ruleset) string {
	var gone, made strings.Builder
	for _, t := range is.Tables {
		if then := was.Table(t.Family, t.Name); then == nil || tableListing(then) != tableListing(t) {
			fmt.Fprintf(&gone, "delete table %v %s\n", t.Family, t.Name)
		}
	}
	for _, t := range was.Tables {
		if now := is.Table(t.Family, t.Name); now == nil || tableListing(now) != tableListing(t) {
			made.WriteString(tableListing(t))
		}
	}
	return gone.String() + made.String()
}

// chainsInOrder registers base chains in the order in which they once were.
func chainsInOrder(r *nft.Ruleset) string {
	type placed struct {
		at   uint64
		text string
	}
	var all []placed
	var b strings.Builder
	for _, t := range r.Tables {
		alone := &nft.Table{Family: t.Family, Name: t.Name, Dormant: t.Dormant, Comment: t.Comment}
		b.WriteString(tableListing(alone))
		for _, c := range t.Chains {
			if c.Base {
				change := nft.Change{Table: t, Chain: c}
				all = append(all, placed{c.Registered, change.Text(nil)})
			}
		}
	}
	slices.SortFunc(all, func(x, y placed) int { return cmp.Compare(x.at, y.at) })
	for i := range all {
		b.WriteString(all[i].text)
	}
	return b.String()
}

// comesTo reports whether the transaction makes of one ruleset the other.
func (s *Step) comesTo(is, was *nft.Ruleset) (bool, error) {
	res, err := s.Apply(is)
	if err != nil {
		return false, err
	}
	if len(res.Ruleset.Tables) != len(was.Tables) || !slices.Equal(baseChains(res.Ruleset), baseChains(was)) {
		return false, nil
	}
	for _, t := range was.Tables {
		if now := res.Ruleset.Table(t.Family, t.Name); now == nil || tableListing(now) != tableListing(t) {
			return false, nil
		}
	}
	return true, nil
}

// baseChains are the names of base chains in the order of their registration.
func baseChains(r *nft.Ruleset) []string {
	names, at := []string(nil), map[string]uint64{}
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			if c.Base {
				name := fmt.Sprint(t.Family, t.Name, c.Name)
				names, at[name] = append(names, name), c.Registered
			}
		}
	}
	slices.SortFunc(names, func(x, y string) int { return cmp.Compare(at[x], at[y]) })
	return names
}

func tableListing(t *nft.Table) string { return t.ListTable(nil) }

func listing(r *nft.Ruleset) string {
	var b strings.Builder
	_ = r.List(&b, nil) // a Builder takes everything
	return b.String()
}
