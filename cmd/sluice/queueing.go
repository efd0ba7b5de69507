// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
)

const qdiscUsage = `Usage: sluice qdisc { add | change | replace | del } dev NAME [ from ]
              { root | ingress | parent CLASS } [ handle HANDLE ] KIND [ OPTION... ]
       sluice qdisc [ show ] [ dev NAME [ from ] ]
KIND := { pfifo | bfifo | pfifo_fast | prio | tbf | htb | drr | codel | fq_codel | fq | sfq | netem }
`

const classUsage = `Usage: sluice class { add | change | replace | del } dev NAME [ from ] parent CLASS classid CLASS
              { htb | drr } [ OPTION... ]
       sluice class [ show ] [ dev NAME [ from ] ]
`

const filterUsage = `Usage: sluice filter { add | change | replace | del } dev NAME [ from ] [ parent QDISC | ingress ]
              [ protocol PROTO ] [ pref PREF ] [ handle HANDLE ] { u32 | flower | fw | matchall } [ OPTION... ]
       sluice filter [ show ] [ dev NAME [ from ] ]
`

func qdiscNoun() noun { return queueNoun("qdisc", qdiscUsage, "queueing disciplines of ports") }

func classNoun() noun { return queueNoun("class", classUsage, "classes of queueing disciplines") }

func filterNoun() noun {
	return queueNoun("filter", filterUsage, "filters, which choose classes, and policers")
}

// queueNoun is one of tc's three objects.
func queueNoun(name, usage, what string) noun {
	return noun{
		name: name, short: "show and change " + what + ", as tc(8)", usage: usage,
		example: "  sluice qdisc add dev web root tbf rate 100mbit burst 64kb latency 25ms\n  sluice -s qdisc show dev web",
		verbs:   inOrder(changes("add", "change", "replace", "del"), one(showVerb()), one(helpVerb())),
		show: func(c *cli, ctx context.Context, words []string) error {
			return c.showQueues(ctx, name, words)
		},
	}
}

// showQueues prints what the daemon put in the words of tc.
func (c *cli) showQueues(ctx context.Context, object string, words []string) error {
	var flags []string
	for _, f := range []struct {
		set  bool
		word string
	}{{c.stats, "-s"}, {c.details, "-d"}, {c.format == "json", "-j"}, {c.pretty, "-p"}} {
		if f.set {
			flags = append(flags, f.word)
		}
	}
	out, err := c.client().Queueing(ctx, c.query(append(append(flags, object, "show"), words...)))
	if err != nil {
		return err
	}
	fmt.Fprint(c.out, out.Text)
	return nil
}
