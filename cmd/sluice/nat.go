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

const serviceUsage = `Usage: sluice service [ show | list ]
       sluice service add NAME [ PLACE... ] [ persistent SECONDS ] [ BACKEND... ]
       sluice service set NAME [ PLACE... ] [ persistent { SECONDS | off } ] [ BACKEND... ]
       sluice service del NAME [ BACKEND... ]
PLACE := { tcp | udp | sctp } { ADDRESS | [ADDRESS] }:PORT
BACKEND := real { ADDRESS | [ADDRESS] }[:PORT] [ weight WEIGHT ] [ state STATE ]
STATE := { ready | draining | gone }
`

func serviceNoun() noun {
	return noun{
		name: "service", short: "show, add, change and remove services, whose connections go to backends", usage: serviceUsage,
		example: "  sluice service add web tcp 10.96.0.10:80 real 10.50.0.2:8080 real 10.50.0.3:8080",
		verbs:   inOrder(changes("add", "set", "del"), one(showVerb()), one(helpVerb())),
		show:    (*cli).showServices,
	}
}

func (c *cli) showServices(ctx context.Context, words []string) error {
	if err := noWords("service", words); err != nil {
		return err
	}
	services, err := c.client().Services(ctx, c.query(nil))
	if err != nil {
		return err
	}
	return showLines(c, services, func(s *api.Service) entry { return entry{s.Namespace, s.Line} })
}

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
