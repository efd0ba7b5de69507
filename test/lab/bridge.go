// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Fabric is what containers are connected by: Sluice, or the kernel's bridge
// for comparison.
type Fabric interface {
	// Name is how tables call it.
	Name() string
	// Connect gives a namespace an interface, eth0, with addresses of both
	// families and the fabric's MTU.
	Connect(n *NS)
}

// Bridge is a Linux bridge in a namespace of its own, ip-link(8).
type Bridge struct {
	ns    *NS
	mtu   int
	hosts int
}

// Bridge makes a kernel bridge. Zero mtu is 1500.
func (l *Lab) Bridge(mtu int) *Bridge {
	l.t.Helper()
	if mtu == 0 {
		mtu = 1500
	}
	b := &Bridge{ns: l.NS("bridge"), mtu: mtu}
	b.ns.Run("ip", "link", "add", "br0", "mtu", strconv.Itoa(mtu), "type", "bridge")
	b.ns.Run("ip", "link", "set", "br0", "up")
	return b
}

// Name is "kernel bridge".
func (b *Bridge) Name() string { return "kernel bridge" }

// Connect adds a veth pair between the bridge and the namespace.
func (b *Bridge) Connect(n *NS) {
	b.ns.lab.t.Helper()
	b.hosts++
	port := fmt.Sprintf("p%d", b.hosts)
	mac := fmt.Sprintf("02:00:00:00:00:%02x", b.hosts+1)
	b.ns.Run("ip", "link", "add", port, "mtu", strconv.Itoa(b.mtu), "type", "veth",
		"peer", "name", n.ifname, "mtu", strconv.Itoa(b.mtu), "address", mac, "netns", n.full)
	b.ns.Run("ip", "link", "set", port, "master", "br0", "up")
	a4, a6 := fmt.Sprintf("10.55.0.%d", b.hosts+1), fmt.Sprintf("fd55::%x", b.hosts+1)
	n.Run("ip", "link", "set", n.ifname, "up")
	n.Run("ip", "addr", "add", a4+"/24", "dev", n.ifname)
	n.Run("ip", "-6", "addr", "add", a6+"/64", "dev", n.ifname, "nodad")
	n.mac, n.addrs = mac, []netip.Addr{netip.MustParseAddr(a4), netip.MustParseAddr(a6)}
}
