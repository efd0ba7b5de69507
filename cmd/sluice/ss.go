// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/api"
)

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

func (c *cli) ssCommand() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:   "ss [show]",
		Short: "show the sockets of the gateways' stacks, as ss(8)",
		Args:  onlyShow,
		RunE: action(func(ctx context.Context, _ []string) error {
			sockets, err := c.sockets(ctx, network)
			if err != nil {
				return err
			}
			return c.print(orEmpty(sockets), func(w io.Writer) { printSockets(w, sockets) })
		}),
	}
	cmd.Flags().StringVar(&network, "network", "", "only this network")
	return cmd
}

// sockets are those of the family and the namespace that are meant.
func (c *cli) sockets(ctx context.Context, network string) ([]api.Socket, error) {
	sockets, err := c.client().Sockets(ctx, network)
	if err != nil || c.namespace == "" && c.family == "" {
		return sockets, err
	}
	networks, err := c.client().Networks(ctx, false)
	if err != nil {
		return nil, err
	}
	within := map[string]bool{}
	for _, n := range networks {
		within[n.Name] = c.namespace == "" || c.namespace == n.Namespace
	}
	return slices.DeleteFunc(sockets, func(s api.Socket) bool {
		return !within[s.Network] || c.family != "" && c.family != inet(s.Local.Addr())
	}), nil
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
