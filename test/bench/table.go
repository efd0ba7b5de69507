// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// table is the Markdown table of all figures: the median of each fabric, its
// range over the rounds, and Sluice's median over that of each other.
func table(results []result, setups []*setup) string {
	var b strings.Builder
	b.WriteString("| what |")
	for _, s := range setups {
		fmt.Fprintf(&b, " %s |", s.fabric.Name())
	}
	for range setups[1:] {
		b.WriteString(" ratio |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", columns(setups)) + "\n")
	for i := range results {
		for f := range results[i].figures {
			row(&b, &results[i], f, len(setups))
		}
	}
	return b.String()
}

func columns(setups []*setup) int { return 2*len(setups) - 1 }

// row writes one figure. "(lower is better)" stands with it where it is so,
// since a ratio below one is then what one wants.
func row(b *strings.Builder, r *result, fig, setups int) {
	f := r.figures[fig]
	fmt.Fprintf(b, "| %s, %s", f.name, f.unit)
	if f.less {
		b.WriteString(" (lower is better)")
	}
	b.WriteString(" |")
	medians := make([]float64, setups)
	for s := range setups {
		v := r.column(s, fig)
		slices.Sort(v)
		medians[s] = v[len(v)/2]
		fmt.Fprintf(b, " %.*f (%.*f–%.*f) |", f.digits, medians[s], f.digits, v[0], f.digits, v[len(v)-1])
	}
	for _, other := range medians[1:] {
		if other == 0 {
			b.WriteString(" – |")
			continue
		}
		fmt.Fprintf(b, " **%.2f** |", medians[0]/other)
	}
	b.WriteString("\n")
}
