// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"sluice/api"
)

func (c *cli) showNetworks(ctx context.Context, words []string) error {
	f, err := readFilter(words, "dev")
	if err != nil {
		return err
	}
	networks, err := c.client().Networks(ctx, c.stats)
	if err != nil {
		return err
	}
	networks = slices.DeleteFunc(networks, func(n api.Network) bool {
		return !f.wants("dev", n.Name) || c.namespace != "" && c.namespace != n.Namespace
	})
	if name := f.value["dev"]; name != "" && len(networks) == 0 {
		return fmt.Errorf("network %q does not exist", name)
	}
	return c.print(orEmpty(networks), func(w io.Writer) {
		for i := range networks {
			c.printBlock(w, func(w io.Writer) { printNetwork(w, &networks[i]) })
		}
	})
}

// deleteNetwork removes a network that a CNI configuration declared.
func (c *cli) deleteNetwork(ctx context.Context, words []string) error {
	if len(words) != 1 {
		return usagef("network del: want one NAME")
	}
	changes, err := c.client().DeleteNetwork(ctx, &api.DeleteNetworkRequest{Name: words[0]})
	if err != nil {
		return err
	}
	return c.print(orEmpty(changes), func(w io.Writer) { printChanges(w, changes, false) })
}

func printNetwork(w io.Writer, n *api.Network) {
	fmt.Fprintf(w, "%d: %s:%s mtu %d attachments %d\n", n.Port, n.Name, spaced(n.Subnets), n.MTU, n.Attachments)
	fmt.Fprintf(w, "    gateway%s lladdr %s echo %s\n", spaced(n.Gateways), n.MAC, onOff(n.Echo))
	fmt.Fprintf(w, "    ageing %ds fdb max %d max-per-port %d\n", n.AgeingSeconds, n.FDBMax, n.FDBMaxPerPort)
	if n.Config != "" {
		fmt.Fprintf(w, "    declared by the network configuration %s\n", n.Config)
	}
	if n.Stats != nil {
		printStats(w, n.Stats)
	}
}
