// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"strings"
	"testing"
)

// bigRuleset has n chains that a map leads to, and a set of n elements.
func bigRuleset(n int) string {
	var b strings.Builder
	b.WriteString("table ip t {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { ")
	for i := range n {
		fmt.Fprintf(&b, "10.%d.%d.%d, ", i>>16, i>>8&255, i&255)
	}
	b.WriteString(" }\n\t}\n\tmap m {\n\t\ttype inet_service : verdict\n\t\telements = { ")
	for i := range min(n, 60000) {
		fmt.Fprintf(&b, "%d : jump c%d, ", i, i)
	}
	b.WriteString(" }\n\t}\n")
	for i := range n {
		fmt.Fprintf(&b, "\tchain c%d {\n\t\tip saddr 10.0.0.1 tcp dport 80 counter accept\n\t}\n", i)
	}
	b.WriteString("\tchain base {\n\t\ttype filter hook input priority 0\n\t\ttcp dport vmap @m\n\t}\n}\n")
	return b.String()
}

func BenchmarkLoad10000(b *testing.B) {
	text := bigRuleset(10000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := loadText(&Ruleset{}, text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList10000(b *testing.B) {
	rs, err := loadText(&Ruleset{}, bigRuleset(10000))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		listing(rs, ListOptions{})
	}
}

// BenchmarkOneElement adds an element to a set of 10,000, in a table of 10,000
// chains.
func BenchmarkOneElement(b *testing.B) {
	rs, err := loadText(&Ruleset{}, bigRuleset(10000))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := loadText(rs, "add element t s { 192.0.2.1 }\n"); err != nil {
			b.Fatal(err)
		}
	}
}
