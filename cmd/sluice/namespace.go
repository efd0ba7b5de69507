// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"sluice/api"
)

func (c *cli) showNamespaces(ctx context.Context, words []string) error {
	f, err := readFilter(words, "dev")
	if err != nil {
		return err
	}
	namespaces, err := c.client().Namespaces(ctx)
	if err != nil {
		return err
	}
	name := cmp.Or(f.value["dev"], c.namespace)
	namespaces = slices.DeleteFunc(namespaces, func(n api.Namespace) bool { return name != "" && name != n.Name })
	if name != "" && len(namespaces) == 0 {
		return fmt.Errorf("namespace %q does not exist", name)
	}
	return c.print(orEmpty(namespaces), func(w io.Writer) {
		for i := range namespaces {
			c.printBlock(w, func(w io.Writer) { printNamespace(w, &namespaces[i]) })
		}
	})
}

func printNamespace(w io.Writer, n *api.Namespace) {
	fmt.Fprintf(w, "%s: networks %d uplinks %d links %d vrfs %d routes %d rules %d\n",
		n.Name, len(n.Networks), len(n.Uplinks), len(n.Links), len(n.VRFs), n.Routes, n.Rules)
	printNames(w, "networks", n.Networks)
	printNames(w, "uplinks", n.Uplinks)
	printNames(w, "links", n.Links)
	printNames(w, "vrfs", n.VRFs)
	byNumber := func(a, b string) int {
		return cmp.Or(cmp.Compare(n.Tables[a], n.Tables[b]), cmp.Compare(a, b))
	}
	for _, name := range slices.SortedFunc(maps.Keys(n.Tables), byNumber) {
		fmt.Fprintf(w, "    table %d %s\n", n.Tables[name], name)
	}
}

func printNames(w io.Writer, word string, names []string) {
	if len(names) > 0 {
		fmt.Fprintf(w, "    %s %s\n", word, strings.Join(names, " "))
	}
}
