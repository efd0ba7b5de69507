// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// rulePriority is that of the rules of PairConfig.Table: before the main table's.
const rulePriority = 32000

// addRules makes the rules that lead to the interface's table.
func (c *PairConfig) addRules(h *netlink.Handle) error {
	if c.Table == 0 {
		return nil
	}
	for _, a := range c.Addresses {
		// One that an interface before this one left is as good.
		if err := h.RuleAdd(tableRule(a.Addr(), c.Table)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("rule from %s: %w", a.Addr(), err)
		}
	}
	return nil
}

func tableRule(a netip.Addr, table uint32) *netlink.Rule {
	r := netlink.NewRule()
	r.Family = netlink.FAMILY_V4
	if a.Is6() {
		r.Family = netlink.FAMILY_V6
	}
	r.Src = &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
	r.Table, r.Priority = int(table), rulePriority
	return r
}

// DeleteRules removes the rules that PairConfig.Table made for an interface. Unlike
// its routes they don't go with it. Those that are not there are no error.
func DeleteRules(ns netns.NsHandle, table uint32, addrs []netip.Addr) error {
	h, err := netlinkAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, a := range addrs {
		if err := h.RuleDel(tableRule(a, table)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("rule from %s: %w", a, err)
		}
	}
	return nil
}
