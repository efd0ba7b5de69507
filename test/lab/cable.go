// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
	"strconv"
)

// Use makes addresses those by which the lab calls a namespace, before those that it has.
func (n *NS) Use(addrs ...netip.Addr) { n.addrs = append(slices.Clone(addrs), n.addrs...) }

// Cable connects two namespaces by a veth pair, whose ends have the first address
// of each prefix and the next one. Both ends are called as ifname says.
func (l *Lab) Cable(a, b *NS, ifname string, mtu int, prefixes ...string) {
	l.t.Helper()
	size := strconv.Itoa(mtu)
	a.Run("ip", "link", "add", ifname, "mtu", size, "type", "veth", "peer", "name", ifname, "mtu", size, "netns", b.full)
	for i, n := range []*NS{a, b} {
		for _, text := range prefixes {
			p := netip.MustParsePrefix(text)
			addr := plus(p.Addr(), i+1)
			args := []string{"ip", "addr", "add", netip.PrefixFrom(addr, p.Bits()).String(), "dev", ifname}
			if addr.Is6() {
				args = append(args, "nodad")
			}
			n.Run(args...)
			n.addrs = append(n.addrs, addr)
		}
		n.Run("ip", "link", "set", ifname, "up")
	}
}
