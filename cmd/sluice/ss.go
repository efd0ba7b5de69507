// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"sluice/api"
)

// list is a word that shows a list of the daemon's and has nothing to decide.
type list[T any] struct {
	use     string
	aliases []string
	short   string
	// ask fetches the list; network is empty or a name.
	ask func(c *api.Client, ctx context.Context, network string) ([]T, error)
	// text writes it for people.
	text func(w io.Writer, items []T)
}

// command makes the command that shows the list.
func (l list[T]) command(c *cli) *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:     l.use + " [show]",
		Aliases: l.aliases,
		Short:   l.short,
		Args:    onlyShow,
		RunE: action(func(ctx context.Context, _ []string) error {
			items, err := l.ask(c.client(), ctx, network)
			if err != nil {
				return err
			}
			return c.print(orEmpty(items), func(w io.Writer) { l.text(w, items) })
		}),
	}
	cmd.Flags().StringVar(&network, "network", "", "only this network")
	return cmd
}

// noArgs accepts nothing.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown word %q after %q", args[0], cmd.Name())
	}
	return nil
}

// onlyShow accepts what ip(8) accepts: nothing, or show, or a beginning of it.
func onlyShow(cmd *cobra.Command, args []string) error {
	if v := showVerb(); len(args) > 0 && !v.spelt(args[0]) {
		return fmt.Errorf("unknown word %q after %q", args[0], cmd.Name())
	}
	if len(args) > 1 {
		return fmt.Errorf("unknown word %q after %q", args[1], cmd.Name()+" "+args[0])
	}
	return nil
}

// inet returns ip(8)'s word for the family of an address.
func inet(addr netip.Addr) string {
	if addr.Is6() {
		return "inet6"
	}
	return "inet"
}

func (c *cli) ssCommand() *cobra.Command {
	return list[api.Socket]{
		use:   "ss",
		short: "show the sockets of the gateways' stacks, as ss(8)",
		ask:   (*api.Client).Sockets,
		text:  printSockets,
	}.command(c)
}

func printSockets(w io.Writer, sockets []api.Socket) {
	rows := [][]string{{"Netid", "State", "Local Address:Port", "Peer Address:Port", "Network"}}
	for _, s := range sockets {
		rows = append(rows, []string{s.Proto, strings.ToUpper(s.State), s.Local.String(), peer(s), s.Network})
	}
	table(w, rows)
}

// peer returns the remote end, or ss(8)'s star when there is none yet.
func peer(s api.Socket) string {
	switch {
	case s.Remote.IsValid() && s.Remote.Port() != 0:
		return s.Remote.String()
	case s.Local.Addr().Is6():
		return "[::]:*"
	}
	return "0.0.0.0:*"
}
