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

func printNetwork(w io.Writer, n *api.Network) {
	fmt.Fprintf(w, "%d: %s:%s mtu %d attachments %d\n", n.Port, n.Name, spaced(n.Subnets), n.MTU, n.Attachments)
	fmt.Fprintf(w, "    gateway%s lladdr %s echo %s\n", spaced(n.Gateways), n.MAC, onOff(n.Echo))
	fmt.Fprintf(w, "    ageing %ds fdb max %d max-per-port %d\n", n.AgeingSeconds, n.FDBMax, n.FDBMaxPerPort)
	if n.Stats != nil {
		printStats(w, n.Stats)
	}
}
