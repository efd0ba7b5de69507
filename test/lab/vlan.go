// SPDX-License-Identifier: Apache-2.0

package lab

import "net/netip"

// VLAN is a sub-interface of a container, with tags.
type VLAN struct {
	proc *Proc
	addr netip.Addr
}

// VLAN makes a sub-interface, vlan0, with an address; tags are flags of `traffic
// vlan`. It is one in user space, so that the test needs no kernel with 8021q,
// and has the MAC address of its parent, as the kernel's have.
func (n *NS) VLAN(prefix string, tags ...string) *VLAN {
	n.lab.t.Helper()
	args := append([]string{"vlan", "-parent", n.ifname, "-name", "vlan0"}, tags...)
	v := &VLAN{proc: n.Traffic(args...).Ready(), addr: netip.MustParsePrefix(prefix).Addr()}
	n.Run("ip", "link", "set", "vlan0", "address", n.mac, "mtu", "1400", "up")
	n.Run("ip", "addr", "add", prefix, "dev", "vlan0")
	return v
}

// Addr is the address of the sub-interface.
func (v *VLAN) Addr() netip.Addr { return v.addr }

// Stop removes the sub-interface.
func (v *VLAN) Stop() { v.proc.Stop().Expect(0) }
