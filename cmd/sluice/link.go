// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"sluice/api"
)

// showLinks shows attachments with what only they have; for all else, and for a
// name that no attachment has, the devices of routing.
func (c *cli) showLinks(ctx context.Context, words []string) error {
	f, err := readFilter(words, "dev", "type", "master", "vrf")
	if err != nil {
		return err
	}
	if f.value["type"] != "" || f.value["vrf"] != "" {
		return c.showDevices(ctx, words)
	}
	links, err := c.client().Links(ctx, c.network, c.stats)
	if err != nil {
		return err
	}
	links = slices.DeleteFunc(links, func(l api.Link) bool {
		return !f.wants("dev", l.Name) || !f.wants("master", l.Network) || c.namespace != "" && c.namespace != l.Namespace
	})
	if len(links) == 0 && len(f.value) > 0 && c.network == "" {
		return c.showDevices(ctx, words)
	}
	if name := f.value["dev"]; name != "" && len(links) == 0 {
		return noLink(name)
	}
	return c.print(orEmpty(links), func(w io.Writer) { c.printLinks(w, links) })
}

// ourType is the kind of device that a type of ip(8)'s is with us.
func ourType(word string) string {
	switch word {
	case "bridge":
		return "network"
	case "bridge_slave":
		return "port"
	case "veth":
		return "link"
	}
	return word
}

func noLink(name string) error { return fmt.Errorf("link %q does not exist", name) }

// showDevices shows networks, links, VRFs and ports alike.
func (c *cli) showDevices(ctx context.Context, words []string) error {
	f, err := readFilter(words, "dev", "type", "master", "vrf")
	if err != nil {
		return err
	}
	if vrf := f.value["vrf"]; vrf != "" {
		f.value["master"] = vrf // ip(8) asks the kernel for the same
	}
	f.value["type"] = ourType(f.value["type"])
	devices, err := c.client().Devices(ctx, c.query(f.words("dev", "type", "master")))
	if err != nil {
		return err
	}
	if name := f.value["dev"]; name != "" && len(devices) == 0 {
		return noLink(name)
	}
	return showLines(c, devices, func(d *api.Device) entry { return entry{d.Namespace, d.Line} })
}

func (c *cli) printLinks(w io.Writer, links []api.Link) {
	var rows [][]string
	for i := range links {
		l := &links[i]
		if c.brief {
			rows = append(rows, []string{l.Name, strings.ToUpper(string(l.State)), l.MAC, l.Network})
			continue
		}
		c.printBlock(w, func(w io.Writer) {
			printLink(w, l)
			if c.details && l.Settings != nil {
				printSettings(w, l.Settings)
			}
		})
	}
	table(w, rows)
}

// printLink writes one attachment in the manner of `ip link`.
func printLink(w io.Writer, l *api.Link) {
	fmt.Fprintf(w, "%d: %s: mtu %d master %s state %s offload %s\n",
		l.Port, l.Name, l.MTU, l.Network, strings.ToUpper(string(l.State)), onOff(l.Offload))
	fmt.Fprintf(w, "    link/ether %s brd ff:ff:ff:ff:ff:ff%s\n", l.MAC, whereText(&l.Attachment))
	if l.Fault != "" {
		fmt.Fprintf(w, "    fault %q\n", l.Fault)
	}
	if l.Stats != nil {
		printStats(w, l.Stats)
	}
}

// whereText is where an attachment's interface is.
func whereText(a *api.Attachment) string {
	switch {
	case a.Tap && a.Netns == "":
		return " tap " + a.IfName
	case a.Tap:
		return " link-netns " + netnsName(a.Netns) + " tap " + a.IfName
	}
	return " link-netns " + netnsName(a.Netns) + " dev " + a.IfName + " peer " + a.HostIfName
}

// printSettings writes the settings of a port in the manner of `bridge -d link`.
func printSettings(w io.Writer, p *api.PortSettings) {
	fmt.Fprintf(w, "    hairpin %s fastleave %s learning %s flood %s mcast_flood %s bcast_flood %s mcast_router %d neigh_suppress %s isolated %s locked %s bpdu_filter %s\n",
		onOff(p.Hairpin), onOff(p.FastLeave), onOff(p.Learning), onOff(p.Flood), onOff(p.McastFlood), onOff(p.BcastFlood),
		p.McastRouter, onOff(p.Suppress), onOff(p.Isolated), onOff(p.Locked), onOff(p.BPDUFilter))
	fmt.Fprintf(w, "    guard %s", cmp.Or(strings.Join(p.Guard, ","), "off"))
	if len(p.GuardAllow) > 0 {
		fmt.Fprintf(w, " guard_allow%s", spaced(p.GuardAllow))
	}
	for _, s := range [][2]string{
		{"storm_broadcast", p.Storm.Broadcast},
		{"storm_multicast", p.Storm.Multicast},
		{"storm_unknown", p.Storm.Unknown},
		{"mirror_in", p.MirrorIn},
		{"mirror_out", p.MirrorOut},
		{"clamp_mss", p.ClampMSS},
		{"table", p.Table},
	} {
		if s[1] != "" {
			fmt.Fprintf(w, " %s %s", s[0], s[1])
		}
	}
	fmt.Fprintln(w)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
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
		if d, known := s.DroppedBy[reason]; known {
			fmt.Fprintf(w, "            last by %s\n", culprit(&d))
		}
	}
}

// culprit says which rule has dropped a frame, as explain does.
func culprit(d *api.RuleDrop) string {
	var b strings.Builder
	if d.Namespace != "" {
		b.WriteString("namespace " + d.Namespace + "'s ")
	}
	if d.Port {
		b.WriteString("the port's ")
	}
	b.WriteString(d.Table)
	if d.Chain != "" {
		b.WriteString(" " + d.Chain)
	}
	switch {
	case d.Handle == 0:
		b.WriteString(": policy")
	case d.Chain == "":
		fmt.Fprintf(&b, ": a rule that is gone (handle %d)", d.Handle)
	case d.Pos == "":
		fmt.Fprintf(&b, ": %s (handle %d)", d.Rule, d.Handle)
	default:
		fmt.Fprintf(&b, ": %s (%s, handle %d)", d.Rule, d.Pos, d.Handle)
	}
	return b.String()
}
