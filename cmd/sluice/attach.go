// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/api"
)

// attachFlags are the flags of attach, as typed.
type attachFlags struct {
	network, name, ifname string
	ip, ip6, mac          string
	offload               string
	mtu                   int
	set, vlan, fdb, mdb   []string
	qdisc, shares         []string
	table, configure      string
	routeTable            uint32
	aliases               []string
	tap, owner, group     string
}

func (c *cli) attachCommand() *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use:   "attach NETNS | attach --tap NAME [NETNS]",
		Short: "give a network namespace an interface, an address and routes",
		Long: "NETNS is a name of ip-netns(8), a path, or pid:N.\n" +
			"What no flag says the daemon decides; it prints what it decided.\n" +
			"With --tap it is a tap device for a virtual machine, in NETNS or where the daemon runs.",
		Example: "  ip netns add red\n  sluice attach red --network blue --ip 10.44.0.7\n  sluice attach --tap vm1 --owner 1000",
		Args:    func(_ *cobra.Command, args []string) error { return f.netns(args) },
		RunE: action(func(ctx context.Context, args []string) error {
			r, err := f.request(strings.Join(args, ""))
			if err != nil {
				return err
			}
			reply, err := c.client().Attach(ctx, r)
			if err != nil {
				return err
			}
			return c.print(reply, func(w io.Writer) { printAttached(w, reply) })
		}),
	}
	f.add(cmd)
	return cmd
}

// add declares the flags.
func (f *attachFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.network, "network", "", "network to attach to (default: the only one)")
	flags.StringVar(&f.ip, "ip", "", "IPv4 address (default: the lowest free one)")
	flags.StringVar(&f.ip6, "ip6", "", "IPv6 address (default: the lowest free one)")
	flags.StringVar(&f.mac, "mac", "", "MAC address (default: derived from network and name)")
	flags.IntVar(&f.mtu, "mtu", 0, "MTU of the interface (default: the network's)")
	flags.StringVar(&f.ifname, "ifname", "", "name of the interface in the namespace (default: eth0)")
	flags.StringVar(&f.name, "name", "", "name of the attachment (default: the last part of NETNS)")
	flags.StringArrayVar(&f.aliases, "alias", nil, "another name of the container in DNS; may be repeated")
	flags.StringVar(&f.offload, "offload", "on", "pass segmentation-offload frames to the container: on or off")
	flags.StringArrayVar(&f.set, "set", nil, "settings of the port, in the words of link set; may be repeated")
	flags.StringArrayVar(&f.vlan, "vlan", nil, "a VLAN of the port, in the words of vlan add; may be repeated")
	flags.StringArrayVar(&f.fdb, "fdb", nil, "a station behind the port, in the words of fdb add; may be repeated")
	flags.StringArrayVar(&f.mdb, "mdb", nil, "a multicast group of the port, in the words of mdb add; may be repeated")
	flags.StringArrayVar(&f.qdisc, "qdisc", nil, "a queueing discipline of the port, in the words of qdisc add; may be repeated")
	flags.StringArrayVar(&f.shares, "tree", nil, "what the container gets of what its namespace has, in the words of tree set; may be repeated")
	flags.StringVar(&f.table, "table", "", "routing table for what the container sends (default: by the rules)")
	flags.Uint32Var(&f.routeTable, "route-table", 0, "table in the container for the interface's routes (default: main)")
	flags.StringVar(&f.tap, "tap", "", "make a persistent tap device of this name, for a virtual machine")
	flags.StringVar(&f.owner, "owner", "", "number of the user that may open the tap device (default: root only)")
	flags.StringVar(&f.group, "group", "", "number of the group that may open the tap device")
	flags.StringVar(&f.configure, "configure", "static", "static, or none if the container asks by DHCP or SLAAC")
}

// netns wants the one argument that attach can't do without, but for a tap device.
func (f *attachFlags) netns(args []string) error {
	if len(args) != 1 && (f.tap == "" || len(args) > 1) {
		return fmt.Errorf("attach: give one NETNS, not %d", len(args))
	}
	return nil
}

// request checks what can be checked without the daemon.
func (f *attachFlags) request(netns string) (*api.AttachRequest, error) {
	r := &api.AttachRequest{
		Netns: absolute(netns), Network: f.network, Name: f.name, Aliases: f.aliases,
		IfName: f.ifname, MAC: f.mac, MTU: f.mtu,
		VLAN: f.vlan, FDB: f.fdb, MDB: f.mdb, Qdisc: f.qdisc, Shares: f.shares, Table: f.table, RouteTable: f.routeTable,
	}
	for _, words := range f.set {
		r.Set = append(r.Set, strings.Fields(words)...)
	}
	var err error
	if r.IP, err = parseAddr("--ip", f.ip, netip.Addr.Is4); err != nil {
		return nil, err
	}
	if r.IP6, err = parseAddr("--ip6", f.ip6, netip.Addr.Is6); err != nil {
		return nil, err
	}
	if f.offload != "on" && f.offload != "off" {
		return nil, usagef("--offload %q: must be on or off", f.offload)
	}
	if f.mtu < 0 {
		return nil, usagef("--mtu %d: must not be negative", f.mtu)
	}
	if f.configure != "static" && f.configure != "none" {
		return nil, usagef("--configure %q: must be static or none", f.configure)
	}
	if f.configure == "none" {
		r.Configure = f.configure
	}
	if err := f.device(r); err != nil {
		return nil, err
	}
	on := f.offload == "on"
	r.Offload = &on
	return r, nil
}

// device says which kind of interface it is.
func (f *attachFlags) device(r *api.AttachRequest) error {
	if f.tap == "" {
		if f.owner != "" || f.group != "" {
			return usagef("--owner and --group are for --tap")
		}
		return nil
	}
	if f.ifname != "" {
		return usagef("--ifname is the name that --tap has given")
	}
	r.IfName, r.Tap = f.tap, new(api.Tap)
	var err error
	if r.Tap.Owner, err = parseID("--owner", f.owner); err == nil {
		r.Tap.Group, err = parseID("--group", f.group)
	}
	return err
}

// parseID reads the number of a user or group; empty is none.
func parseID(flag, text string) (*uint32, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // none was said
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return nil, usagef("%s %q: must be a number", flag, text)
	}
	id := uint32(n)
	return &id, nil
}

// parseAddr reads an address of one family; empty is the zero address.
func parseAddr(flag, text string, family func(netip.Addr) bool) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil && strings.Contains(text, "/"):
		return netip.Addr{}, usagef("%s %q: give the address without a prefix length, the network has it", flag, text)
	case err != nil:
		return netip.Addr{}, usagef("%s %q: not an address", flag, text)
	case !family(addr):
		return netip.Addr{}, usagef("%s %q: wrong address family", flag, text)
	}
	return addr, nil
}

// absolute makes a relative path absolute, since the daemon's working directory
// is not the caller's. Names and pid:N stay as they are.
func absolute(netns string) string {
	if !strings.Contains(netns, "/") {
		return netns
	}
	if path, err := filepath.Abs(netns); err == nil {
		return path
	}
	return netns
}

func printAttached(w io.Writer, r *api.AttachReply) {
	printLink(w, &api.Link{Attachment: r.Attachment})
	for _, p := range r.Addresses {
		fmt.Fprintf(w, "    %s %s\n", inet(p.Addr()), p)
	}
	for _, g := range r.Gateways {
		fmt.Fprintf(w, "    default via %s lladdr %s\n", g, r.GatewayMAC)
	}
	for _, a := range r.DNS {
		fmt.Fprintf(w, "    nameserver %s search %s\n", a, strings.Join(r.Search, " "))
	}
}

func (c *cli) detachCommand() *cobra.Command {
	var r api.DetachRequest
	cmd := &cobra.Command{
		Use:   "detach NETNS",
		Short: "take an interface away and release its addresses",
		Long: "NETNS is what attach was given; the namespace need not exist any more.\n" +
			"With --name the attachment is found by its name or ID instead.",
		Example: "  sluice detach red\n  sluice detach --name red-eth1",
		Args:    cobra.MaximumNArgs(1),
		RunE: action(func(ctx context.Context, args []string) error {
			if len(args) == 1 == (r.Name != "") {
				return usagef("detach: give either NETNS or --name")
			}
			if len(args) == 1 {
				r.Netns = absolute(args[0])
			}
			a, err := c.client().Detach(ctx, &r)
			if err != nil {
				return err
			}
			return c.print(a, func(w io.Writer) {
				fmt.Fprintf(w, "%s: detached from %s, released%s\n", a.Name, a.Network, spaced(a.Addresses))
			})
		}),
	}
	cmd.Flags().StringVar(&r.IfName, "ifname", "", "interface in the namespace (default: the only one)")
	cmd.Flags().StringVar(&r.Name, "name", "", "name or ID of the attachment, instead of NETNS")
	return cmd
}
