// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// program is a table: sets, maps and chains as they are, and as they were when the
// commands that lead here were last asked for.
type program struct {
	sets   map[string]*set
	chains map[string]*chain
	// changed are what the next commands are about.
	changedSets   map[string]bool
	changedChains map[string]bool
}

// set is a set, or a map to chains.
type set struct {
	decl  string // what stands in the braces
	elems map[string]element
	was   map[string]string // of those that changed: what they were mapped to, if they were there
	fresh map[string]bool   // of those that changed: they weren't there
	known bool              // it has been declared
	users int
}

// element is a member of a set: how many put it there, and the chain that a map
// leads to.
type element struct {
	chain string
	users int
}

type chain struct {
	rules []string
	said  []string // the rules as the last commands made them
	known bool
	users int
}

func newProgram() *program {
	return &program{
		sets: map[string]*set{}, chains: map[string]*chain{},
		changedSets: map[string]bool{}, changedChains: map[string]bool{},
	}
}

// set returns a set, which is made if there is none.
func (p *program) set(name, decl string) *set {
	s := p.sets[name]
	if s == nil {
		s = &set{decl: decl, elems: map[string]element{}, was: map[string]string{}, fresh: map[string]bool{}}
		p.sets[name] = s
		p.changedSets[name] = true
	}
	return s
}

// remember keeps what an element was before its first change.
func (p *program) remember(name, key string) *set {
	s := p.sets[name]
	_, told := s.was[key]
	if told || s.fresh[key] {
		return s
	}
	if e, ok := s.elems[key]; ok {
		s.was[key] = e.chain
	} else {
		s.fresh[key] = true
	}
	p.changedSets[name] = true
	return s
}

// add puts an element into a set, once more if it is there.
func (p *program) add(name, key string) {
	s := p.remember(name, key)
	e := s.elems[key]
	e.users++
	s.elems[key] = e
}

// remove takes back what add did.
func (p *program) remove(name, key string) {
	s := p.remember(name, key)
	e := s.elems[key]
	e.users--
	s.elems[key] = e
	if e.users <= 0 {
		delete(s.elems, key)
	}
}

// lead maps a key to a chain; "" to none.
func (p *program) lead(name, key, to string) {
	s := p.remember(name, key)
	if to == "" {
		delete(s.elems, key)
	} else {
		s.elems[key] = element{chain: to, users: 1}
	}
}

// chain returns a chain, which is made if there is none.
func (p *program) chain(name string) *chain {
	c := p.chains[name]
	if c == nil {
		c = &chain{}
		p.chains[name] = c
		p.changedChains[name] = true
	}
	return c
}

// put gives a chain its rules.
func (p *program) put(name string, rules []string) {
	c := p.chain(name)
	if !slices.Equal(c.rules, rules) {
		c.rules = rules
		p.changedChains[name] = true
	}
}

// commands returns what has to be done since the last time, in one transaction.
func (p *program) commands() []string {
	var fresh, fill, rules, dead []string
	for _, name := range slices.Sorted(maps.Keys(p.changedSets)) {
		s := p.sets[name]
		switch {
		case s.users == 0:
			if s.known {
				dead = append(dead, "delete set "+table+" "+name)
			}
			delete(p.sets, name)
			continue
		case !s.known:
			fresh = append(fresh, fmt.Sprintf("add set %s %s { %s }", table, name, s.decl))
		}
		fill = append(fill, s.fill(name)...)
	}
	for _, name := range slices.Sorted(maps.Keys(p.changedChains)) {
		c := p.chains[name]
		if c.users == 0 {
			if c.known {
				rules = append(rules, "flush chain "+table+" "+name)
				dead = append(dead, "delete chain "+table+" "+name)
			}
			delete(p.chains, name)
			continue
		}
		switch {
		case !c.known:
			fresh = append(fresh, "add chain "+table+" "+name)
		case slices.Equal(c.rules, c.said):
			continue
		default:
			rules = append(rules, "flush chain "+table+" "+name)
		}
		for _, r := range c.rules {
			rules = append(rules, "add rule "+table+" "+name+" "+r)
		}
		c.known, c.said = true, c.rules
	}
	clear(p.changedSets)
	clear(p.changedChains)
	return slices.Concat(fresh, fill, rules, dead)
}

// fill returns the commands for a set's elements, one for what goes and one for
// what comes.
func (s *set) fill(name string) []string {
	var gone, come []string
	for key, to := range s.was {
		if e, ok := s.elems[key]; !ok || e.chain != to {
			gone = append(gone, key)
		}
	}
	for _, key := range slices.Concat(slices.Collect(maps.Keys(s.was)), slices.Collect(maps.Keys(s.fresh))) {
		e, ok := s.elems[key]
		if to, was := s.was[key]; !ok || was && e.chain == to {
			continue
		}
		if e.chain != "" {
			key += " : jump " + e.chain
		}
		come = append(come, key)
	}
	s.known = true
	clear(s.was)
	clear(s.fresh)
	var out []string
	if len(gone) > 0 {
		slices.Sort(gone)
		out = append(out, fmt.Sprintf("delete element %s %s { %s }", table, name, strings.Join(gone, ", ")))
	}
	if len(come) > 0 {
		slices.Sort(come)
		out = append(out, fmt.Sprintf("add element %s %s { %s }", table, name, strings.Join(come, ", ")))
	}
	return out
}
