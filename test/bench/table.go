// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// table is the Markdown table of all figures: the median of each fabric, its
// range over the rounds, and Sluice's median over the kernel's.
func table(results []result, setups []*setup) string {
	var b strings.Builder
	b.WriteString("| what |")
	for _, s := range setups {
		fmt.Fprintf(&b, " %s |", s.fabric.Name())
	}
	if len(setups) > 1 {
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

func columns(setups []*setup) int {
	if len(setups) > 1 {
		return len(setups) + 1
	}
	return 1
}

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
	if setups > 1 && medians[1] > 0 {
		fmt.Fprintf(b, " **%.2f** |", medians[0]/medians[1])
	}
	b.WriteString("\n")
}
