// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
)

// filter is what the words behind show say, where this program and not the daemon
// has to choose.
type filter struct {
	family string // "", "inet" or "inet6"
	value  map[string]string
}

// readFilter reads pairs of a word and its value. A value by itself is that of the
// first word, as dev may be left out in ip(8).
func readFilter(words []string, known ...string) (*filter, error) {
	f := &filter{value: map[string]string{}}
	if len(words) > 0 {
		if family, ok := familyOf(words[0]); ok {
			f.family, words = family, words[1:]
		}
	}
	for len(words) > 0 {
		word, value := known[0], words[0]
		words = words[1:]
		if slices.Contains(known, value) {
			if len(words) == 0 {
				return nil, usagef("%s needs an argument", value)
			}
			word, value, words = value, words[0], words[1:]
		}
		if f.value[word] != "" {
			return nil, usagef("%q is a second %s, or garbage", value, word)
		}
		f.value[word] = value
	}
	return f, nil
}

// words are what was said of some of the words.
func (f *filter) words(of ...string) []string {
	var out []string
	for _, word := range of {
		if f.value[word] != "" {
			out = append(out, word, f.value[word])
		}
	}
	return out
}

// wants reports whether what is called so was asked for.
func (f *filter) wants(word, name string) bool { return f.value[word] == "" || f.value[word] == name }
