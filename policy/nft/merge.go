// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"slices"
)

// mergeLoads puts comparisons of fields that lie side by side into the order of
// the header: the kernel gets them as one load, so that is how nft lists them.
// Only other comparisons may stand between them.
func mergeLoads(in []Stmt) []Stmt {
	var out []Stmt
	for i := 0; i < len(in); {
		n := i
		for n < len(in) {
			if _, ok := in[n].(*Match); !ok {
				break
			}
			n++
		}
		if n == i {
			out = append(out, in[i])
			i++
			continue
		}
		out = append(out, mergeRun(in[i:n])...)
		i = n
	}
	return out
}

// load is a comparison of a field with one value, and its place in the run.
type load struct {
	at      int
	payload *Payload
	match   *Match
}

// mergeRun merges within a run of comparisons.
func mergeRun(run []Stmt) []Stmt {
	groups := loadGroups(run)
	if len(groups) == 0 {
		return run
	}
	moved := map[int][]Stmt{} // what stands in a place instead
	for _, g := range groups {
		anchor := g[0].at
		var list []Stmt
		for _, l := range g {
			list = append(list, l.match)
			moved[l.at] = nil
			if l.match.Implied {
				anchor = slices.MinFunc(g, func(a, b load) int { return cmp.Compare(a.at, b.at) }).at
			}
		}
		moved[anchor] = list
	}
	var out []Stmt
	for i, s := range run {
		if list, ok := moved[i]; ok {
			out = append(out, list...)
			continue
		}
		out = append(out, s)
	}
	return out
}

// loadGroups are the loads that become one, each from its lowest field on.
func loadGroups(run []Stmt) [][]load {
	var loads []load
	for i, s := range run {
		if p := loadOf(s); p != nil {
			m, _ := s.(*Match)
			loads = append(loads, load{i, p, m})
		}
	}
	slices.SortStableFunc(loads, func(a, b load) int {
		return cmp.Or(cmp.Compare(a.payload.Base, b.payload.Base), cmp.Compare(a.payload.Offset, b.payload.Offset))
	})
	var groups [][]load
	for i := 0; i < len(loads); {
		n := i + 1
		for n < len(loads) && joins(loads[i], loads[n-1], loads[n]) {
			n++
		}
		if n > i+1 {
			groups = append(groups, loads[i:n])
		}
		i = n
	}
	return groups
}

// joins says whether a load goes on where the one before ends, and what they
// make with the first is not too big. Of which header a raw one is, is not asked.
func joins(first, before, l load) bool {
	limit := 32
	if l.payload.Base == BaseLink {
		limit = 128
	}
	end := before.payload.Offset + int(before.payload.Bits)
	raw := before.payload.Proto == "" || l.payload.Proto == ""
	return (raw || before.payload.Proto == l.payload.Proto) && end == l.payload.Offset && l.payload.Base == first.payload.Base &&
		l.payload.Offset+int(l.payload.Bits)-first.payload.Offset <= limit
}

// loadOf is the field that a statement compares with one value, nil if it does not.
func loadOf(s Stmt) *Payload {
	m, ok := s.(*Match)
	if !ok || m.Op != Eq {
		return nil
	}
	p, ok := m.Left.(*Payload)
	if _, isValue := m.Right.(*Value); !ok || !isValue || p.Offset%8 != 0 || p.Bits%8 != 0 {
		return nil
	}
	return p
}
