// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"sluice/api"
)

const dnsUsage = `Usage: sluice dns [ show ]
       sluice dns stats
       sluice dns flush [ NAME ]
`

func dnsNoun() noun {
	return noun{
		name: "dns", short: "show the names of containers and what their DNS did, and forget cached answers", usage: dnsUsage,
		example: "  sluice -n shop dns\n  sluice dns flush www.example.com",
		verbs:   inOrder(one(showVerb()), one(verb{name: "stats", does: get}), changes("flush"), one(helpVerb())),
		show:    (*cli).showDNSNames, get: (*cli).showDNSStats,
	}
}

func (c *cli) showDNSNames(ctx context.Context, words []string) error {
	if err := noWords("dns", words); err != nil {
		return err
	}
	names, err := c.client().DNSNames(ctx, c.query(nil))
	if err != nil {
		return err
	}
	return showLines(c, names, func(n *api.DNSName) entry { return entry{n.Namespace, n.Line} })
}

func (c *cli) showDNSStats(ctx context.Context, words []string) error {
	if err := noWords("dns stats", words); err != nil {
		return err
	}
	stats, err := c.client().DNSStats(ctx, c.query(nil))
	if err != nil {
		return err
	}
	return c.print(orEmpty(stats), func(w io.Writer) {
		for i := range stats {
			printDNS(w, &stats[i])
		}
	})
}

func printDNS(w io.Writer, s *api.DNSStats) {
	fmt.Fprintf(w, "%s: domain %s", s.Namespace, s.Domain)
	if s.DNS64 != "" {
		fmt.Fprintf(w, " dns64 %s", s.DNS64)
	}
	fmt.Fprintf(w, "\n    queries %d local %d hits %d forwarded %d failed %d\n", s.Queries, s.Local, s.Hits, s.Forwarded, s.Failed)
	fmt.Fprintf(w, "    limited %d refused %d malformed %d truncated %d waiting %d\n", s.Limited, s.Refused, s.Malformed, s.Truncated, s.Waiting)
	fmt.Fprintf(w, "    cache %d of %d entries, %d of %d bytes, evicted %d\n", s.CacheEntries, s.CacheMaxEntries, s.CacheBytes, s.CacheMaxBytes, s.CacheEvicted)
	fmt.Fprintf(w, "    sent %d over_tcp %d mismatched %d\n", s.Sent, s.OverTCP, s.Mismatched)
	for _, u := range s.Upstreams {
		state := "up"
		if u.Down {
			state = "down"
		}
		fmt.Fprintf(w, "    upstream %s via %s state %s\n", u.Address, u.Via, state)
	}
}
