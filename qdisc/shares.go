// SPDX-License-Identifier: Apache-2.0

package qdisc

// Shares are what somebody gets of what those above have, in each direction: a class of
// a tree across ports. Nil is none.
type Shares struct {
	Egress  *HTBClass `json:"egress,omitempty"`  // of what leaves towards containers
	Ingress *HTBClass `json:"ingress,omitempty"` // of what containers send
}

// Of is that of a direction.
func (s Shares) Of(ingress bool) *HTBClass {
	if ingress {
		return s.Ingress
	}
	return s.Egress
}

// None reports whether there is nothing.
func (s Shares) None() bool { return s.Egress == nil && s.Ingress == nil }

// Dropped is how many frames the tree's disciplines dropped.
func (t *Tree) Dropped() uint64 {
	if t.root == nil {
		return 0
	}
	return t.root.base().stats.Drops
}
