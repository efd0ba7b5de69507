// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"sluice/api"
)

func (c *cli) showAddresses(ctx context.Context, words []string) error {
	f, err := readFilter(words, "dev", "to", "master")
	if err != nil {
		return err
	}
	within, err := readPrefix(f.value["to"])
	if err != nil {
		return err
	}
	addresses, err := c.addresses(ctx)
	if err != nil {
		return err
	}
	addresses = slices.DeleteFunc(addresses, func(a api.Address) bool {
		return !f.wants("dev", a.Link) || !f.wants("master", a.Network) ||
			f.family != "" && f.family != inet(a.Prefix.Addr()) ||
			within.IsValid() && !within.Contains(a.Prefix.Addr())
	})
	if name := f.value["dev"]; name != "" && len(addresses) == 0 && f.family == "" && !within.IsValid() {
		return noLink(name)
	}
	return c.print(orEmpty(addresses), func(w io.Writer) { c.printAddresses(w, addresses) })
}

// addresses are those of gateways and attachments, and those of links, of the
// namespace that is meant.
func (c *cli) addresses(ctx context.Context) ([]api.Address, error) {
	addresses, err := c.client().Addresses(ctx, c.network)
	if err != nil || c.network != "" {
		return addresses, err
	}
	devices, err := c.client().Devices(ctx, c.query(nil))
	if err != nil {
		return nil, err
	}
	networks := map[string]bool{}
	var ofLinks []api.Address
	for _, d := range devices {
		networks[d.IfName] = networks[d.IfName] || d.Kind == "network"
		for _, p := range d.Addresses {
			if d.Kind == "link" {
				ofLinks = append(ofLinks, api.Address{Prefix: p, Kind: d.Kind, Link: d.IfName, MAC: d.MAC})
			}
		}
	}
	addresses = slices.DeleteFunc(addresses, func(a api.Address) bool { return c.namespace != "" && !networks[a.Network] })
	return append(addresses, ofLinks...), nil
}

// readPrefix reads a prefix or an address; "" is the zero prefix.
func readPrefix(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, usagef("any valid prefix is expected rather than %q", text)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// printAddresses groups the addresses by who holds them; the daemon lists them
// in that order.
func (c *cli) printAddresses(w io.Writer, addresses []api.Address) {
	var rows [][]string
	for len(addresses) > 0 {
		a := addresses[0]
		n := slices.IndexFunc(addresses, func(b api.Address) bool {
			return a.Link != b.Link || a.Network != b.Network || a.Kind != b.Kind
		})
		if n < 0 {
			n = len(addresses)
		}
		held := addresses[:n]
		addresses = addresses[n:]
		if c.brief {
			rows = append(rows, briefAddresses(held))
			continue
		}
		c.printBlock(w, func(w io.Writer) { printHeld(w, held) })
	}
	table(w, rows)
}

// printHeld writes the addresses of one holder.
func printHeld(w io.Writer, held []api.Address) {
	a := held[0]
	fmt.Fprintf(w, "%s:", a.Link)
	if a.Network != "" {
		fmt.Fprintf(w, " master %s", a.Network)
	}
	fmt.Fprintf(w, " %s\n", a.Kind)
	if a.MAC != "" {
		fmt.Fprintf(w, "    link/ether %s brd ff:ff:ff:ff:ff:ff\n", a.MAC)
	}
	for _, a := range held {
		fmt.Fprintf(w, "    %s %s\n", inet(a.Prefix.Addr()), a.Prefix)
	}
}

// briefAddresses is the row of one holder.
func briefAddresses(held []api.Address) []string {
	var prefixes []netip.Prefix
	for _, a := range held {
		prefixes = append(prefixes, a.Prefix)
	}
	return []string{held[0].Link, held[0].Kind, spaced(prefixes)[1:]}
}

// inet returns ip(8)'s word for the family of an address.
func inet(addr netip.Addr) string {
	if addr.Is6() {
		return "inet6"
	}
	return "inet"
}
