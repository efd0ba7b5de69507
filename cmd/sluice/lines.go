// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"sluice/api"
)

// entry is what the text of a list needs to know of its entries: which routing
// domain they are of, and how ip(8) or bridge(8) would print them.
type entry struct{ namespace, line string }

// showLines shows a list whose entries the daemon has put in words.
func showLines[T any](c *cli, items []T, of func(*T) entry) error {
	return c.print(orEmpty(items), func(w io.Writer) {
		entries := make([]entry, len(items))
		for i := range items {
			entries[i] = of(&items[i])
		}
		c.printEntries(w, entries)
	})
}

// printEntries writes entries, and where each namespace begins, as
// `ip -all netns exec` does, if they are of several.
func (c *cli) printEntries(w io.Writer, entries []entry) {
	several := false
	for _, e := range entries {
		several = several || e.namespace != entries[0].namespace
	}
	for i, e := range entries {
		if several && (i == 0 || e.namespace != entries[i-1].namespace) {
			fmt.Fprintf(w, "\nnetns: %s\n", e.namespace)
		}
		c.printLine(w, e.line)
	}
}

// printLine writes what the daemon put in words; with -oneline on one line, as
// ip(8) does.
func (c *cli) printLine(w io.Writer, line string) {
	if c.oneline {
		line = strings.ReplaceAll(line, "\n", `\`)
	}
	fmt.Fprintln(w, line)
}

// printBlock writes what f writes, an entry of several lines.
func (c *cli) printBlock(w io.Writer, f func(w io.Writer)) {
	var text strings.Builder
	f(&text)
	c.printLine(w, strings.TrimSuffix(text.String(), "\n"))
}

func (c *cli) query(words []string) api.ShowQuery {
	return api.ShowQuery{Namespace: c.namespace, Words: words}
}

func (c *cli) showRoutes(ctx context.Context, words []string) error {
	routes, err := c.client().Routes(ctx, c.query(words))
	if err != nil {
		return err
	}
	return showLines(c, routes, func(r *api.Route) entry { return entry{r.Namespace, r.Line} })
}

func (c *cli) getRoute(ctx context.Context, words []string) error {
	r, err := c.client().RouteGet(ctx, c.query(words))
	if err != nil {
		return err
	}
	if err := c.print(r, func(w io.Writer) { c.printLine(w, r.Line) }); err != nil {
		return err
	}
	if text := noWay(r); text != "" {
		return c.refuse("RTNETLINK answers: " + text)
	}
	return nil
}

// noWay is what the kernel says to a question for a route that leads nowhere: the
// errno of fib_props[] and of its IPv6 twin. Scripts decide on the exit code.
func noWay(r *api.RouteGet) string {
	switch {
	case r.Route == nil && r.Type == "unreachable":
		return "Network is unreachable"
	case r.Type == "unreachable":
		return "No route to host"
	case r.Type == "prohibit":
		return "Permission denied"
	case r.Type == "blackhole":
		return "Invalid argument"
	}
	return ""
}

func (c *cli) showRules(ctx context.Context, words []string) error {
	rules, err := c.client().Rules(ctx, c.query(words))
	if err != nil {
		return err
	}
	return showLines(c, rules, func(r *api.Rule) entry { return entry{r.Namespace, r.Line} })
}

func (c *cli) showVRFs(ctx context.Context, words []string) error {
	vrfs, err := c.client().VRFs(ctx, c.query(words))
	if err != nil {
		return err
	}
	return showLines(c, vrfs, func(v *api.VRF) entry { return entry{v.Namespace, v.Line} })
}

func (c *cli) showVLANs(ctx context.Context, words []string) error {
	ports, err := c.client().VLANs(ctx, c.query(words))
	if err != nil {
		return err
	}
	if c.format == "text" && len(ports) > 0 {
		fmt.Fprintln(c.out, "port              vlan-id")
	}
	return showLines(c, ports, func(p *api.VLANPort) entry { return entry{p.Namespace, p.Line} })
}

func (c *cli) showMDB(ctx context.Context, words []string) error {
	entries, err := c.client().MDB(ctx, c.query(words))
	if err != nil {
		return err
	}
	return showLines(c, entries, func(e *api.MDBEntry) entry { return entry{e.Namespace, e.Line} })
}

func (c *cli) showNeighbours(ctx context.Context, words []string) error {
	neighbours, err := c.client().Neigh(ctx, c.query(c.ofNetwork(words, "dev")))
	if err != nil {
		return err
	}
	return showLines(c, neighbours, neighbourEntry)
}

func neighbourEntry(n *api.Neighbour) entry { return entry{n.Namespace, n.Line} }

// getNeighbour shows one neighbour, as `ip neigh get ADDR dev DEV`.
func (c *cli) getNeighbour(ctx context.Context, words []string) error {
	f, err := readFilter(words, "to", "dev")
	switch {
	case err != nil:
		return err
	case f.value["to"] == "" || f.value["dev"] == "":
		return usagef("neigh get: give the address and the device: ADDR dev DEV")
	}
	neighbours, err := c.client().Neigh(ctx, c.query([]string{"to", f.value["to"], "dev", f.value["dev"]}))
	switch {
	case err != nil:
		return err
	case len(neighbours) == 0:
		return c.refuse("Error: Neighbour entry not found.")
	}
	return showLines(c, neighbours[:1], neighbourEntry)
}

func (c *cli) showFDB(ctx context.Context, words []string) error {
	stations, err := c.client().Stations(ctx, c.query(c.ofNetwork(words, "br")))
	if err != nil {
		return err
	}
	return showLines(c, stations, stationEntry)
}

func stationEntry(e *api.FDBEntry) entry { return entry{e.Namespace, e.Line} }

// getFDB shows the entries of one address, as `bridge fdb get`.
func (c *cli) getFDB(ctx context.Context, words []string) error {
	f, err := readFilter(words, "to", "br", "dev", "brport", "vlan")
	switch {
	case err != nil:
		return err
	case f.value["to"] == "":
		return usagef("fdb get: give the address")
	}
	stations, err := c.client().Stations(ctx, c.query(f.words("br", "dev", "brport", "vlan")))
	if err != nil {
		return err
	}
	var found []api.FDBEntry
	for _, s := range stations {
		if strings.EqualFold(s.MAC, f.value["to"]) {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return c.refuse("Error: Fdb entry not found.")
	}
	return showLines(c, found, stationEntry)
}

// refuse tells, in the kernel's words, what is not there.
func (c *cli) refuse(text string) error {
	fmt.Fprintln(c.err, text)
	return &toldError{errors.New(text)}
}

// ofNetwork adds what --network says as a word of ip's or bridge's.
func (c *cli) ofNetwork(words []string, word string) []string {
	if c.network == "" {
		return words
	}
	return append(words, word, c.network)
}
