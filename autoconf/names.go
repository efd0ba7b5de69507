// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"fmt"
	"strings"
)

const (
	maxName  = 253 // of a domain name in text, RFC 1035 §2.3.4 and its root
	maxLabel = 63  // RFC 1035 §2.3.4
	maxNames = 256 // bytes of an encoded search list
)

// appendName appends a domain name as a sequence of labels, RFC 1035 §3.1,
// without compression. Preconditions: validName(name).
func appendName(dst []byte, name string) []byte {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		dst = append(dst, byte(len(label)))
		dst = append(dst, label...)
	}
	return append(dst, 0)
}

// search encodes a search list.
func search(names []string) ([]byte, error) {
	var b []byte
	for _, name := range names {
		if !validName(name) {
			return nil, fmt.Errorf("search: %q is no domain name", name)
		}
		b = appendName(b, name)
	}
	if len(b) > maxNames {
		return nil, fmt.Errorf("search: more than %d bytes of names", maxNames)
	}
	return b, nil
}

// validName reports whether a name has labels of letters, digits, hyphens and
// underscores.
func validName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

func validLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i] | 0x20; (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return true
}
