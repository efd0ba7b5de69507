// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// Set is the routing of one namespace in one version: devices, tables and rules.
// It is immutable and safe for any number of readers; Apply makes another.
type Set struct {
	limits  Limits
	devices devices
	tables  map[TableID]*table
	rules   [2][]*Rule // by Family, sorted by priority
	dead    map[hopID]bool
	routes  int // in all tables
	needs   [2]needs

	// What the data path reads, made from the above (compile).
	steps [2][]step
	vrfs  map[uint16]*table // by index of a VRF's device
}

// Limits bounds what a Set holds. Zero is the default of each.
type Limits struct {
	Routes  int // 1,048,576, of all tables and both families
	Tables  int // 65,536
	Rules   int // 65,536 of each family; a look-up tries them one after the other
	Devices int // 65,535, all that have an index
}

// New makes a Set with the rules of a new network namespace and nothing else.
func New(l Limits) *Set {
	s := &Set{
		limits: Limits{
			Routes:  orElse(l.Routes, 1<<20),
			Tables:  orElse(l.Tables, 1<<16),
			Rules:   orElse(l.Rules, 1<<16),
			Devices: orElse(l.Devices, 1<<16-1),
		},
		devices: devices{byName: map[string]Device{}, byIndex: map[uint16]string{}},
		tables:  map[TableID]*table{},
		rules:   [2][]*Rule{defaultRules(IPv4), defaultRules(IPv6)},
		dead:    map[hopID]bool{},
	}
	s.compile()
	return s
}

// Len is the number of routes in all tables.
func (s *Set) Len() int { return s.routes }

// Tables returns the numbers of the tables that have routes, sorted.
func (s *Set) Tables() []TableID { return slices.Sorted(maps.Keys(s.tables)) }

// Routes yields the routes of one table, or of all for 0: tables by number, IPv4
// first, prefixes sorted, best metric first. What it yields must not be changed.
func (s *Set) Routes(id TableID) iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		for _, id := range s.some(id) {
			if !s.tables[id].each(yield) {
				return
			}
		}
	}
}

// At returns the routes of one prefix in one table, best metric first. They must
// not be changed.
func (s *Set) At(id TableID, p netip.Prefix) []*Route { return s.tables[id].leaf(p).routes }

// some are the tables that 0 or a number stands for.
func (s *Set) some(id TableID) []TableID {
	if id == 0 {
		return s.Tables()
	}
	if _, ok := s.tables[id]; !ok {
		return nil
	}
	return []TableID{id}
}

// each calls yield for all routes of the table until it says false.
func (t *table) each(yield func(*Route) bool) bool {
	for _, l := range t.trie.AllSorted() {
		for _, r := range l.routes {
			if !yield(r) {
				return false
			}
		}
	}
	return true
}

// Rules returns the rules of a family in the order in which they are tried. They
// must not be changed.
func (s *Set) Rules(f Family) []*Rule { return slices.Clone(s.rules[f]) }

// Devices returns the devices, sorted by name.
func (s *Set) Devices() []Device {
	return slices.SortedFunc(maps.Values(s.devices.byName), func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
}

// compile makes what the data path reads.
func (s *Set) compile() {
	s.vrfs = map[uint16]*table{}
	for _, d := range s.devices.byName {
		if d.Table != 0 {
			s.vrfs[d.Index] = s.tables[d.Table]
		}
	}
	for f := range s.rules {
		s.steps[f] = s.compileRules(s.rules[f])
		s.ruleNeeds(Family(f))
	}
}
