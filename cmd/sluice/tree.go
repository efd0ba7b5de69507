// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"sluice/api"
)

const treeUsage = `Usage: sluice tree [ show ]
       sluice tree set [ node | dev NAME ] [ from ] rate RATE [ ceil RATE ] [ burst BYTES ] [ cburst BYTES ]
              [ prio N ] [ quantum BYTES ] [ overhead BYTES ] [ mpu BYTES ] [ linklayer TYPE ]
       sluice tree del [ node | dev NAME ] [ from ]
Without node and dev it is the namespace's part.
`

func treeNoun() noun {
	return noun{
		name: "tree", short: "show and change what namespaces and containers get of the node, as classes of htb", usage: treeUsage,
		example: "  sluice tree set node rate 10gbit\n  sluice -n shop tree set rate 3gbit ceil 10gbit\n  sluice -s tree",
		verbs:   inOrder(one(verb{name: "set", does: change, also: []string{"change"}}), one(showVerb()), changes("del"), one(helpVerb())),
		show:    (*cli).showTrees,
	}
}

// showTrees prints the trees across ports, whoever is below somebody behind that one.
func (c *cli) showTrees(ctx context.Context, words []string) error {
	if err := noWords("tree", words); err != nil {
		return err
	}
	all, err := c.client().Trees(ctx, c.query(nil))
	if err != nil {
		return err
	}
	return c.print(orEmpty(all), func(w io.Writer) {
		for i := range all {
			if s := &all[i]; s.Depth == 0 {
				fmt.Fprintln(w, direction(s.From))
			}
			c.printShare(w, &all[i])
		}
	})
}

func direction(from bool) string {
	if from {
		return "from containers:"
	}
	return "to containers:"
}

func (c *cli) printShare(w io.Writer, s *api.Share) {
	margin := strings.Repeat("  ", s.Depth+1)
	what := s.Of + " " + s.Name
	if s.Of == s.Name { // the node
		what = s.Of
	}
	fmt.Fprintf(w, "%s%s %s\n", margin, what, s.Line)
	if !c.stats {
		return
	}
	fmt.Fprintf(w, "%s Sent %d bytes %d pkt (dropped %d, overlimits %d requeues 0)\n", margin, s.Bytes, s.Packets, s.Drops, s.Overlimits)
	fmt.Fprintf(w, "%s backlog %db %dp lended: %d borrowed: %d\n", margin, s.Backlog, s.Qlen, s.Lent, s.Borrowed)
}
