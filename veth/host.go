// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
	if err := Do(c.HostNS, func() error { return muteIPv6(c.HostName, link.Attrs().Index) }); err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// muteIPv6 runs in the host end's namespace. It takes the interface out of IPv6;
// where /proc/sys can't be written, it is at least without an address, and with
// that without an answer.
func muteIPv6(ifname string, index int) error {
	if err := noLinkLocal(index); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("set addrgenmode: %w", err)
	}
	err := writeSysctl("ipv6/conf/"+ifname+"/disable_ipv6", "1")
	if err != nil && !sysctlRefused(err) {
		return err
	}
	// Best effort: it is about speed, and older kernels lack some.
	_ = setFeatures(ifname, hostOffloads())
	return nil
}

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenModeNone = 1

// noLinkLocal is "ip link set dev NAME addrgenmode none" (ip-link(8)), which the
// netlink library has no word for, in the thread's namespace.
func noLinkLocal(index int) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenModeNone})
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.AddData(msg)
	req.AddData(spec)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// HostEnd is one host end as the kernel knows it.
type HostEnd struct {
	Name      string
	Index     int
	PeerIndex int    // index of the container end, in the container's namespace
	Alias     string // what PairConfig.Alias was; "" if CreatePair did not get to its end
	MTU       int
	MAC       packet.MAC
	// NIC is what an interface was called on the host that it was moved from (NIC.Take);
	// its Alias is the identifier. Empty: it is a pair's end, or a macvlan.
	NIC    string
	Up     bool // set up by us
	PeerUp bool // the container's end is up too, so there is a carrier
}

// dumpTries bounds how often a listing that was disturbed is repeated.
const dumpTries = 8

// HostEnds lists the host ends in a namespace, in the order of their index: those of
// pairs, macvlans, and interfaces that were moved there. It is
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
		if e := hostEnd(l.Attrs()); l.Type() == "veth" || l.Type() == "macvlan" || e.NIC != "" {
			ends = append(ends, e)
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
	if m, ok := readMemo(a.Alias); ok {
		e.NIC, e.Alias = m.name, m.id
	}
	return e
}
