// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"sluice/api"
)

const natUsage = `Usage: sluice nat [ show ]
       sluice nat bindings
`

const publishUsage = `Usage: sluice publish [ show ]
       sluice publish add PROTO OUTSIDE to ATTACHMENT[:PORTS]
       sluice publish del PROTO OUTSIDE [ to ATTACHMENT[:PORTS] ]
PROTO := { tcp | udp | sctp }
OUTSIDE := [ ADDRESS: | [ADDRESS]: ]PORTS
PORTS := PORT[-PORT]
`

func natNoun() noun {
	return noun{
		name: "nat", short: "show the rules of address translation, and the mappings of the profile rfc", usage: natUsage,
		example: "  sluice -n shop nat",
		verbs:   []verb{showVerb(), {name: "bindings", does: get}, helpVerb()},
		show:    (*cli).showNAT, get: (*cli).showBindings,
	}
}

func publishNoun() noun {
	return noun{
		name: "publish", short: "show, add and remove published ports of containers", usage: publishUsage,
		example: "  sluice publish add tcp 8080 to web:80",
		verbs:   inOrder(changes("add", "del"), one(showVerb()), one(helpVerb())),
		show:    (*cli).showPublished,
	}
}

// noWords refuses what nothing is known of.
func noWords(noun string, words []string) error {
	if len(words) > 0 && words[0] != "-4" && words[0] != "-6" {
		return usagef("unknown word %q after %q", words[0], noun)
	}
	return nil
}

func (c *cli) showNAT(ctx context.Context, words []string) error {
	if err := noWords("nat", words); err != nil {
		return err
	}
	rules, err := c.client().NAT(ctx, c.query(nil))
	if err != nil {
		return err
	}
	return showLines(c, rules, func(r *api.NATRule) entry { return entry{r.Namespace, r.Line} })
}

func (c *cli) showBindings(ctx context.Context, words []string) error {
	if err := noWords("nat bindings", words); err != nil {
		return err
	}
	bindings, err := c.client().Bindings(ctx, c.query(nil))
	if err != nil {
		return err
	}
	return showLines(c, bindings, func(b *api.Binding) entry { return entry{b.Namespace, b.Line} })
}

func (c *cli) showPublished(ctx context.Context, words []string) error {
	if err := noWords("publish", words); err != nil {
		return err
	}
	published, err := c.client().Published(ctx, c.query(nil))
	if err != nil {
		return err
	}
	return showLines(c, published, func(p *api.Published) entry { return entry{p.Namespace, p.Line} })
}
