// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"
)

// deed is what a verb asks for.
type deed uint8

// The deeds.
const (
	change deed = iota // sent to the daemon as it is, see api.Command
	show
	get
	usage
	refuse // ip(8) has the verb, and we don't
)

// verb is a COMMAND of ip(8)'s. Any beginning of it will do that no verb before
// it in the list has.
type verb struct {
	name string
	does deed
	// also are other spellings that may be abbreviated, short one that may not.
	also  []string
	short string
}

// spelt reports whether a word is the verb, or a beginning of it.
func (v *verb) spelt(word string) bool {
	if word == "" {
		return false
	}
	return word == v.short || strings.HasPrefix(v.name, word) ||
		slices.ContainsFunc(v.also, func(s string) bool { return strings.HasPrefix(s, word) })
}

// noun is an OBJECT of ip(8)'s or bridge(8)'s.
type noun struct {
	name string // as api.Command has it, and cobra
	// aliases are other names of it, for cobra's help.
	aliases []string
	short   string
	usage   string // as `ip OBJECT help` prints it
	example string
	verbs   []verb
	// network says that --network NAME is understood, as it was before the words
	// of ip(8) were.
	network bool
	show    shower
	get     shower
}

// shower shows what the words behind show, or get, ask for.
type shower func(c *cli, ctx context.Context, words []string) error

// object is a spelling of a noun. As in ip(8), any beginning of it will do that no
// object before it has.
type object struct {
	spelling string
	noun     func() noun
}

// objects are in the order of ip(8) and then bridge(8), so that abbreviations
// mean what they mean there. Ours come last.
func objects() []object {
	return []object{
		{"address", addrNoun},
		{"route", routeNoun},
		{"rule", ruleNoun},
		{"neighbor", neighNoun},
		{"neighbour", neighNoun},
		{"link", linkNoun},
		{"vrf", vrfNoun},
		{"fdb", fdbNoun},
		{"mdb", mdbNoun},
		{"vlan", vlanNoun},
		{"network", networkNoun},
		{"netns", namespaceNoun},
		{"namespace", namespaceNoun},
		{"nat", natNoun},
		{"publish", publishNoun},
		{"service", serviceNoun},
		{"uplink", uplinkNoun},
		{"dns", dnsNoun},
		{"qdisc", qdiscNoun},
		{"class", classNoun},
		{"filter", filterNoun},
		{"tree", treeNoun},
	}
}

// findNoun returns the noun that a word names or abbreviates.
func findNoun(word string) (noun, bool) {
	for _, o := range objects() {
		if word != "" && strings.HasPrefix(o.spelling, word) {
			return o.noun(), true
		}
	}
	return noun{}, false
}

// step is one command of ip(8)'s, understood as far as this program has to.
type step struct {
	noun   *noun
	verb   verb
	words  []string // behind the verb
	family string   // "", "inet" or "inet6", as -4 and -6 say
	line   int      // in a batch, from 1
}

// step reads what follows the noun. No word at all shows everything, as in ip(8).
func (n *noun) step(words []string) (step, error) {
	if len(words) == 0 {
		return step{noun: n, verb: verb{name: "show", does: show}}, nil
	}
	for _, v := range n.verbs {
		if !v.spelt(words[0]) {
			continue
		}
		if v.does == refuse {
			return step{}, usagef("%s %s is not supported", n.name, v.name)
		}
		return step{noun: n, verb: v, words: words[1:]}, nil
	}
	return step{}, usagef(`command %q is unknown, try "sluice %s help"`, words[0], n.name)
}

// withFamily leads words with the family, if one was said.
func (s *step) withFamily(words []string) []string {
	switch s.family {
	case "inet":
		return append([]string{"-4"}, words...)
	case "inet6":
		return append([]string{"-6"}, words...)
	}
	return words
}
