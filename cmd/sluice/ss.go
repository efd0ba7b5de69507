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
	var only ssFilter
	cmd := &cobra.Command{
		Use:   "ss [show]",
		Short: "show the sockets of the namespaces' stacks, as ss(8)",
		Args:  onlyShow,
		RunE: action(func(ctx context.Context, _ []string) error {
			sockets, err := c.sockets(ctx, network)
			if err != nil {
				return err
			}
			sockets = slices.DeleteFunc(sockets, only.drops)
			return c.print(orEmpty(sockets), func(w io.Writer) { printSockets(w, sockets) })
		}),
	}
	cmd.Flags().StringVar(&network, "network", "", "only this network")
	cmd.Flags().BoolVarP(&only.tcp, "tcp", "t", false, "only TCP, or with -u both")
	cmd.Flags().BoolVarP(&only.udp, "udp", "u", false, "only UDP, or with -t both")
	cmd.Flags().BoolVarP(&only.listening, "listening", "l", false, "only those that wait for a peer")
	return cmd
}

// ssFilter chooses sockets, as options of ss(8) do. Numbers are numbers anyhow.
type ssFilter struct{ tcp, udp, listening bool }

func (f *ssFilter) drops(s api.Socket) bool {
	wanted := f.tcp && s.Proto == "tcp" || f.udp && s.Proto == "udp"
	if (f.tcp || f.udp) && !wanted {
		return true
	}
	return f.listening && !strings.EqualFold(s.State, "listen") && !strings.EqualFold(s.State, "unconn")
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
		return !within[s.Network] && (s.Process == "" || c.namespace != "" && s.Namespace != c.namespace) || c.family != "" && c.family != inet(s.Local.Addr())
	}), nil
}

// printSockets shows whose connection a socket is, if there is one of a container's.
func printSockets(w io.Writer, sockets []api.Socket) {
	processes := slices.ContainsFunc(sockets, func(s api.Socket) bool { return s.Process != "" })
	rows := [][]string{{"Netid", "State", "Local Address:Port", "Peer Address:Port", "Network"}}
	if processes {
		rows[0] = append(rows[0], "Process")
	}
	for _, s := range sockets {
		row := []string{s.Proto, strings.ToUpper(s.State), s.Local.String(), peer(s), s.Network}
		if processes {
			row = append(row, s.Process)
		}
		rows = append(rows, row)
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
