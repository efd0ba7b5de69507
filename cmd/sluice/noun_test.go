// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// ipName is how ip(8) or bridge(8) is called to speak of a noun.
func ipName(n *noun) (program, object string) {
	switch n.name {
	case "fdb", "mdb", "vlan":
		return "bridge", n.name
	case "network", "namespace", "nat", "publish", "service", "uplink", "dns", "qdisc", "class", "filter", "tree": // ours, and tc's
		return "", ""
	}
	return "ip", n.name
}

// beginnings are all beginnings of the words, and words that are none.
func beginnings(words ...string) []string {
	out := []string{"x", "zz", "adds", "Add", "shows", "delet", "deleted", "lst", "ls", "li", "list", "chg", "ch", "delete"}
	for _, w := range words {
		for end := 1; end <= len(w); end++ {
			out = append(out, w[:end])
		}
	}
	return out
}

// ours are verbs that ip(8) doesn't have for a noun, or has since a later version.
func ours(noun, verb string) bool {
	switch noun + " " + verb {
	case "vrf add", "vrf del", "vlan flush", "mdb replace",
		"fdb flush", "vlan global": // these may not be abbreviated there
		return true
	}
	return false
}

// TestVerbsLikeIP gives every beginning of every verb to ip(8) or bridge(8), in a
// namespace of its own, and wants the same words to be understood, as the same.
func TestVerbsLikeIP(t *testing.T) {
	for _, n := range nouns() {
		program, object := ipName(&n)
		if program == "" {
			continue
		}
		var names []string
		for _, v := range n.verbs {
			names = append(append(names, v.name), v.also...)
		}
		for _, word := range beginnings(names...) {
			likeIP(t, &n, program, object, word)
		}
	}
}

func likeIP(t *testing.T, n *noun, program, object, word string) {
	t.Helper()
	theirs, accepted := iproute(t, "", program, object, word)
	s, err := n.step([]string{word})
	known := err == nil || strings.Contains(err.Error(), "not supported")
	for _, v := range n.verbs {
		if !accepted && v.spelt(word) && ours(n.name, v.name) {
			return
		}
	}
	if known != accepted {
		t.Errorf("%s %s: we know it: %v (%v), %s: %v\n%s", object, word, known, err, program, accepted, theirs)
		return
	}
	if err != nil {
		return
	}
	// Several verbs say the same without an argument; those that don't are told apart.
	if same, _ := iproute(t, "", program, object, s.verb.name); same != theirs {
		t.Errorf("%s %s is %s to us, but %s says\n%sand not\n%s", object, word, s.verb.name, program, theirs, same)
	}
}

func TestEveryNounIsComplete(t *testing.T) {
	for _, n := range nouns() {
		if !strings.HasPrefix(n.usage, "Usage: sluice "+n.name) && n.name != "addr" {
			t.Errorf("%s: usage begins with %.30q", n.name, n.usage)
		}
		for _, v := range n.verbs {
			if v.does == show && n.show == nil || v.does == get && n.get == nil {
				t.Errorf("%s %s does nothing", n.name, v.name)
			}
		}
		if _, ok := findNoun(n.name); !ok {
			t.Errorf("%s is not found", n.name)
		}
	}
	if _, err := new(noun).step([]string{""}); err == nil {
		t.Error("the empty word is a verb")
	}
}
