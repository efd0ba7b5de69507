// SPDX-License-Identifier: Apache-2.0

package nft

import "errors"

// HandleList are all numbers that a ruleset has given, in the order of its listing:
// with them, and with the listing, it is made again as it was.
func (r *Ruleset) HandleList() []uint64 {
	var all []uint64
	r.numbers(func(n *uint64) { all = append(all, *n) })
	return all
}

// Renumber gives a ruleset that Apply has made of the listing of another one, from
// nothing, the numbers of that. Preconditions: nobody else has seen it.
func (r *Ruleset) Renumber(all []uint64) error {
	n := 0
	r.numbers(func(*uint64) { n++ })
	if n != len(all) {
		return errors.New("the handles are those of another ruleset")
	}
	r.numbers(func(n *uint64) {
		*n, all = all[0], all[1:]
	})
	return nil
}

// numbers goes through the numbers. Anonymous chains are made where their rule is
// read, which in a listing is another place; nobody sees their numbers.
func (r *Ruleset) numbers(yield func(*uint64)) {
	yield(&r.Handles)
	yield(&r.Registrations)
	for _, t := range r.Tables {
		yield(&t.Handle)
		yield(&t.Handles)
		for _, o := range t.Objects {
			yield(&o.Handle)
		}
		for _, s := range t.Sets {
			yield(&s.Handle)
		}
		for _, c := range t.Chains {
			if c.Anonymous {
				continue
			}
			yield(&c.Handle)
			yield(&c.Registered)
			for _, rule := range c.Rules {
				yield(&rule.Handle)
			}
		}
	}
}
