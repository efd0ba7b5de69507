// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/api"
)

func (c *cli) linkCommand() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:     "link [show [NAME]]",
		Aliases: []string{"l"},
		Short:   "show attachments and their counters, as ip-link(8)",
		Example: "  sluice -s link show red",
		Args:    showArgs,
		RunE: action(func(ctx context.Context, args []string) error {
			links, err := c.client().Links(ctx, network, c.stats)
			if err != nil {
				return err
			}
			name := shown(args)
			links = slices.DeleteFunc(links, func(l api.Link) bool { return name != "" && name != l.Name })
			if name != "" && len(links) == 0 {
				return fmt.Errorf("link %q does not exist", name)
			}
			return c.print(orEmpty(links), func(w io.Writer) {
				for i := range links {
					printLink(w, &links[i])
				}
			})
		}),
	}
	cmd.Flags().StringVar(&network, "network", "", "only this network")
	return cmd
}

// printLink writes one attachment in the manner of `ip link`.
func printLink(w io.Writer, l *api.Link) {
	offload := "off"
	if l.Offload {
		offload = "on"
	}
	fmt.Fprintf(w, "%d: %s: mtu %d master %s state %s offload %s\n",
		l.Port, l.Name, l.MTU, l.Network, strings.ToUpper(string(l.State)), offload)
	fmt.Fprintf(w, "    link/ether %s brd ff:ff:ff:ff:ff:ff link-netns %s dev %s peer %s\n",
		l.MAC, netnsName(l.Netns), l.IfName, l.HostIfName)
	if l.Fault != "" {
		fmt.Fprintf(w, "    fault %q\n", l.Fault)
	}
	if l.Stats != nil {
		printStats(w, l.Stats)
	}
}

// netnsName shortens a path to the name by which ip-netns(8) knows it.
func netnsName(path string) string {
	dir, name := filepath.Split(path)
	if dir == "/run/netns/" || dir == "/var/run/netns/" {
		return name
	}
	return path
}

// printStats writes counters in the manner of `ip -s link`. RX is what the
// container sent, as it is for any bridge port.
func printStats(w io.Writer, s *api.Stats) {
	columns(w, "    ", []string{"RX:  bytes", "packets", "batches", "gso"},
		[]uint64{s.RX.Bytes, s.RX.Packets, s.RX.Batches, s.RX.GSO})
	columns(w, "    ", []string{"TX:  bytes", "packets", "batches", "gso"},
		[]uint64{s.TX.Bytes, s.TX.Packets, s.TX.Batches, s.TX.GSO})
	columns(w, "    ", []string{"flow: hits", "misses", "flooded", "learned"},
		[]uint64{s.FlowHits, s.FlowMisses, s.Flooded, s.Learned})
	fmt.Fprintf(w, "    dropped: %d\n", s.Dropped())
	for _, reason := range sortedKeys(s.Drops) {
		fmt.Fprintf(w, "        %s %d\n", reason, s.Drops[reason])
	}
}
