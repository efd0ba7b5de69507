// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// table writes rows in columns as wide as their widest cell, two blanks apart.
// The last column isn't padded, so that no line ends in blanks.
func table(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range rows {
		last := len(row) - 1
		for i, cell := range row[:last] {
			fmt.Fprintf(w, "%-*s  ", widths[i], cell)
		}
		fmt.Fprintln(w, row[last])
	}
}

// columns writes a line of titles and a line of numbers below them, right
// aligned, as `ip -s` does.
func columns(w io.Writer, indent string, titles []string, values []uint64) {
	var head, line strings.Builder
	for i, title := range titles {
		text := strconv.FormatUint(values[i], 10)
		width := max(len(title), len(text))
		fmt.Fprintf(&head, " %*s", width, title)
		fmt.Fprintf(&line, " %*s", width, text)
	}
	// Each cell brings a blank, of which the first is part of the indent.
	fmt.Fprintf(w, "%[1]s%[2]s\n%[1]s%[3]s\n", indent[1:], head.String(), line.String())
}

// spaced joins values, each with a blank before it.
func spaced[T fmt.Stringer](values []T) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(" " + v.String())
	}
	return b.String()
}

// orDash stands in for a text that is empty.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// orEmpty makes an empty list of a nil one, so that JSON shows [] and not null.
func orEmpty[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// sortedKeys returns the keys of a map of counters in order.
func sortedKeys(m map[string]uint64) []string { return slices.Sorted(maps.Keys(m)) }
