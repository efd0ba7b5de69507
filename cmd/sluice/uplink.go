// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"sluice/api"
)

func (c *cli) showUplinks(ctx context.Context, words []string) error {
	uplinks, err := c.client().Uplinks(ctx, c.query(words), c.stats)
	if err != nil {
		return err
	}
	return c.print(orEmpty(uplinks), func(w io.Writer) {
		for i := range uplinks {
			c.printBlock(w, func(w io.Writer) { printUplink(w, &uplinks[i]) })
		}
	})
}

// printUplink writes what the daemon put in words, and the counters.
func printUplink(w io.Writer, u *api.Uplink) {
	fmt.Fprintln(w, u.Line)
	if u.Stats != nil {
		printStats(w, u.Stats)
	}
}
