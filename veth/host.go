// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
)

// hostOffloads lets the kernel merge what a container without segmentation
// offload sends: MTU-size segments of one flow arrive as one large frame, which
// is worth a factor of five in throughput.
func hostOffloads() []feature {
	return []feature{{"rx-gro", true}, {"rx-udp-gro-forwarding", true}}
}

// configureHost makes the host end mute (no ARP, no IPv6, no address) and sets it
// up. What keeps the kernel from answering comes before the interface is up.
func (c *PairConfig) configureHost(h *netlink.Handle, link netlink.Link) error {
	if err := h.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("switch ARP off: %w", err)
	}
	if c.Alias != "" {
		if err := h.LinkSetAlias(link, c.Alias); err != nil {
			return fmt.Errorf("set alias: %w", err)
		}
	}
	if err := Do(c.HostNS, func() error { return muteHost(c.HostName) }); err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// muteHost runs in the host end's namespace. Where /proc/sys can't be written,
// IPv6 is off already if the namespace was made by CreateNetNS.
func muteHost(ifname string) error {
	err := writeSysctl("ipv6/conf/"+ifname+"/disable_ipv6", "1")
	if err != nil && !sysctlRefused(err) {
		return err
	}
	// Best effort: it is about speed, and older kernels lack some.
	_ = setFeatures(ifname, hostOffloads())
	return nil
}

// HostEnd is one host end as the kernel knows it.
type HostEnd struct {
	Name      string
	Index     int
	PeerIndex int    // index of the container end, in the container's namespace
	Alias     string // what PairConfig.Alias was; "" if CreatePair did not get that far
	MTU       int
	MAC       packet.MAC
	Up        bool // set up by us
	PeerUp    bool // the container's end is up too, so there is a carrier
}

// dumpTries bounds how often a listing that was disturbed is repeated.
const dumpTries = 8

// HostEnds lists the host ends in a namespace, in the order of their index. It is
// what a restarted daemon compares its state with.
func HostEnds(ns netns.NsHandle) ([]HostEnd, error) {
	h, err := netlinkAt(ns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var links []netlink.Link
	for range dumpTries {
		links, err = h.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var ends []HostEnd
	for _, l := range links {
		if l.Type() == "veth" {
			ends = append(ends, hostEnd(l.Attrs()))
		}
	}
	return ends, nil
}

func hostEnd(a *netlink.LinkAttrs) HostEnd {
	e := HostEnd{
		Name: a.Name, Index: a.Index, PeerIndex: a.ParentIndex, Alias: a.Alias, MTU: a.MTU,
		Up:     a.RawFlags&unix.IFF_UP != 0,
		PeerUp: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
	copy(e.MAC[:], a.HardwareAddr)
	return e
}
