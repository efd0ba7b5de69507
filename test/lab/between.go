// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
)

// Routed is two networks of one namespace, in the words of the networks file.
const Routed = `  - {name: left, namespace: core, subnets: [10.45.1.0/24, "fd45:1::/64"]}
  - {name: right, namespace: core, subnets: [10.45.2.0/24, "fd45:2::/64"]}
namespaces:
  - name: core
`

// between is a fabric that connects each namespace to another network, so that
// one has to be routed to the next.
type between struct {
	daemon   *Daemon
	networks []string
	n        int
}

// Between is the daemon as a router between networks, which take turns.
func (d *Daemon) Between(networks ...string) Fabric { return &between{daemon: d, networks: networks} }

// Name is "Sluice".
func (b *between) Name() string { return "Sluice" }

// Connect attaches a namespace to the next network.
func (b *between) Connect(n *NS) {
	n.lab.t.Helper()
	n.Attach("--network", b.networks[b.n%len(b.networks)])
	b.n++
}

// Router is the kernel as a router, in a namespace of its own: a veth pair, and a
// subnet, for each host.
type Router struct {
	ns    *NS
	hosts int
}

// Router makes a namespace that forwards (ip_forward).
func (l *Lab) Router() *Router {
	l.t.Helper()
	r := &Router{ns: l.NS("router")}
	r.ns.Run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0")
	return r
}

// NS is where it forwards.
func (r *Router) NS() *NS { return r.ns }

// Gateway is its address of IPv4 to a host that it connects.
func (*Router) Gateway(n *NS) netip.Addr { return n.IP(V4).Prev() }

// Name is "Linux router".
func (r *Router) Name() string { return "Linux router" }

// Connect gives a namespace an interface to the router, and a default route by it.
func (r *Router) Connect(n *NS) {
	n.lab.t.Helper()
	r.hosts++
	port, net4, net6 := fmt.Sprintf("p%d", r.hosts), fmt.Sprintf("10.56.%d.", r.hosts), fmt.Sprintf("fd56:%d::", r.hosts)
	r.ns.Run("ip", "link", "add", port, "type", "veth", "peer", "name", n.ifname, "netns", n.full)
	r.ns.Run("ip", "addr", "add", net4+"1/24", "dev", port)
	r.ns.Run("ip", "addr", "add", net6+"1/64", "dev", port)
	r.ns.Run("ip", "link", "set", port, "up")
	n.Run("ip", "addr", "add", net4+"2/24", "dev", n.ifname)
	n.Run("ip", "addr", "add", net6+"2/64", "dev", n.ifname, "nodad")
	n.Run("ip", "link", "set", n.ifname, "up")
	n.Run("ip", "route", "add", "default", "via", net4+"1")
	n.Run("ip", "-6", "route", "add", "default", "via", net6+"1")
	n.addrs = []netip.Addr{netip.MustParseAddr(net4 + "2"), netip.MustParseAddr(net6 + "2")}
}
