// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sluice/api"
)

// toldError is an error that was told already.
type toldError struct{ err error }

func (e *toldError) Error() string { return e.err.Error() }
func (e *toldError) Unwrap() error { return e.err }

// nounCommand makes the command of an object of ip(8). Its words are ip's, so that
// cobra has nothing to parse in them; prepare took the options.
func (c *cli) nounCommand(n noun) *cobra.Command {
	cmd := &cobra.Command{
		Use: n.name, Aliases: n.aliases, Short: n.short, Example: n.example,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, words []string) error {
			s, err := n.step(words)
			if err != nil {
				return err
			}
			s.family = c.family
			return action(func(ctx context.Context, _ []string) error { return c.do(ctx, &s) })(cmd, nil)
		},
	}
	cmd.SetHelpFunc(func(*cobra.Command, []string) {
		fmt.Fprintf(c.out, "%s\n\n%s", n.short, n.usage)
		if n.example != "" {
			fmt.Fprintf(c.out, "\nExamples:\n%s\n", n.example)
		}
	})
	if n.network {
		cmd.Flags().StringVar(&c.network, "network", "", "only this network")
	}
	return cmd
}

// do does one step by itself.
func (c *cli) do(ctx context.Context, s *step) error {
	switch s.verb.does {
	case show:
		return s.noun.show(c, ctx, s.withFamily(s.words))
	case get:
		return s.noun.get(c, ctx, s.withFamily(s.words))
	case change:
		return c.change(ctx, s)
	case usage, refuse: // step has refused the latter
	}
	fmt.Fprint(c.err, s.noun.usage)
	return &toldError{usagef("%s: usage", s.noun.name)}
}

// change has the daemon carry out one command.
func (c *cli) change(ctx context.Context, s *step) error {
	_, err := c.client().Command(ctx, &api.CommandRequest{
		Namespace: c.namespace, Commands: []api.Command{s.command()},
	})
	return err
}

// command is the step in the daemon's words.
func (s *step) command() api.Command {
	words := append([]string{s.verb.name}, s.words...)
	return api.Command{Object: s.noun.name, Words: s.withFamily(words)}
}
