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

// showArgs accepts what ip(8) accepts: nothing, or show with at most one name.
func showArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && args[0] != "show" && args[0] != "list" {
		return fmt.Errorf("unknown word %q after %q", args[0], cmd.Name())
	}
	return cobra.MaximumNArgs(2)(cmd, args)
}

// onlyShow accepts nothing, or show.
func onlyShow(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("unknown word %q after %q", args[1], cmd.Name()+" "+args[0])
	}
	return showArgs(cmd, args)
}

// shown returns the name after show, or nothing.
func shown(args []string) string {
	if len(args) < 2 {
		return ""
	}
	return args[1]
}

func (c *cli) neighCommand() *cobra.Command {
	return list[api.Neighbour]{
		use: "neigh", aliases: []string{"neighbour", "neighbor", "n"},
		short: "show the gateways' ARP and ND tables, as ip-neighbour(8)",
		ask:   (*api.Client).Neighbours,
		text:  printNeighbours,
	}.command(c)
}

func printNeighbours(w io.Writer, neighbours []api.Neighbour) {
	for _, n := range neighbours {
		fmt.Fprintf(w, "%s dev %s", n.Addr, n.Network)
		if n.MAC != "" {
			fmt.Fprintf(w, " lladdr %s", n.MAC)
		}
		fmt.Fprintf(w, " %s\n", strings.ToUpper(n.State))
	}
}

func (c *cli) fdbCommand() *cobra.Command {
	return list[api.FDBEntry]{
		use:   "fdb",
		short: "show the bridges' forwarding tables, as bridge(8) fdb",
		ask:   (*api.Client).FDB,
		text:  printFDB,
	}.command(c)
}

func printFDB(w io.Writer, entries []api.FDBEntry) {
	for _, e := range entries {
		fmt.Fprintf(w, "%s dev %s", e.MAC, e.Link)
		if e.VLAN != 0 {
			fmt.Fprintf(w, " vlan %d", e.VLAN)
		}
		fmt.Fprintf(w, " master %s %s\n", e.Network, fdbKind(e))
	}
}

// fdbKind returns bridge(8)'s words for the kind of an entry.
func fdbKind(e api.FDBEntry) string {
	switch e.Kind {
	case "own":
		return "self permanent"
	case "dynamic":
		return fmt.Sprintf("dynamic used %d", e.AgeSeconds)
	}
	return e.Kind
}

func (c *cli) addrCommand() *cobra.Command {
	return list[api.Address]{
		use: "addr", aliases: []string{"address", "a"},
		short: "show the addresses of gateways and attachments, as ip-address(8)",
		ask:   (*api.Client).Addresses,
		text:  printAddresses,
	}.command(c)
}

// printAddresses groups the addresses by who holds them; the daemon lists them
// in that order.
func printAddresses(w io.Writer, addresses []api.Address) {
	var last api.Address
	for i, a := range addresses {
		if i == 0 || a.Link != last.Link || a.Network != last.Network || a.Kind != last.Kind {
			fmt.Fprintf(w, "%s: master %s %s\n    link/ether %s brd ff:ff:ff:ff:ff:ff\n", a.Link, a.Network, a.Kind, a.MAC)
		}
		fmt.Fprintf(w, "    %s %s\n", inet(a.Prefix.Addr()), a.Prefix)
		last = a
	}
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
