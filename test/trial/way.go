// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice/api"
	"sluice/test/lab"
)

// Kind is one kind of uplink, and how a namespace is translated that leaves by it.
type Kind struct {
	Name   string
	Uplink string // a line of the file's list
	NAT    string // statements of the namespace
	Routed bool   // the host forwards
	Ends   bool   // connections end in it, and packets don't pass as they are
}

// Kinds are those that there are.
func Kinds() []Kind {
	return []Kind{
		{Name: "host", Uplink: "{name: out, hostRoutes: false, forward: true}", NAT: "postrouting oifname out masquerade", Routed: true},
		{Name: "nic", Uplink: `{name: out, type: nic, ifname: wan, masquerade: true, addresses: [192.0.2.1/24, "2001:db8::1/64"], gateways: [192.0.2.2, "2001:db8::2"]}`},
		{Name: "socket", Uplink: "{name: out, type: socket}", Ends: true},
	}
}

// Way is containers, a daemon and the world behind it. The world knows the uplink's
// addresses, and not those of the containers.
//
//	containers ---- web -- shop (masquerade) ==== out ==== host ---- world
type Way struct {
	*lab.Lab
	Kind        Kind
	Daemon      *lab.Daemon
	Host, World *lab.NS
}

// NewWay makes one by a kind of uplink; flags are those of sluiced, quota is for each
// container, 0: none.
func NewWay(t lab.T, k Kind, quota int, flags ...string) *Way {
	t.Helper()
	track := ""
	if quota > 0 {
		track = fmt.Sprintf("conntrack: {quotaPerPort: %d}, ", quota)
	}
	return newWay(t, k, track, "", flags...)
}

// sixOnly is the network of containers without IPv4, of a way that has one.
const sixOnly = "six"

// newWay64 makes one whose namespace translates between the families, too.
func newWay64(t lab.T, k Kind) *Way {
	t.Helper()
	return newWay(t, k, "nat64: {masquerade: out}, ", `, {name: `+sixOnly+`, namespace: shop, subnets: ["fd46::/64"]}`)
}

// newWay makes one; shop are words of the namespace, networks what is beside the first.
func newWay(t lab.T, k Kind, shop, networks string, flags ...string) *Way {
	t.Helper()
	l := lab.New(t)
	w := &Way{Lab: l, Kind: k, Host: l.NS("host"), World: l.NS("world")}
	l.Cable(w.Host, w.World, "wan", 1500, "192.0.2.0/24", "2001:db8::/64")
	w.Host.Ping(w.World.IP(lab.V4))
	if !k.Routed && !k.Ends { // its addresses are to be Sluice's
		w.Host.Run("ip", "addr", "flush", "dev", "wan")
	}
	w.Daemon = l.DaemonIn(w.Host, fmt.Sprintf(`namespaces: [{name: shop, %snat: [%s]}]
networks: [{name: web, namespace: shop, subnets: [10.44.0.0/22, "fd44::/64"]}%s]
uplinks: [%s]
`, shop, k.NAT, networks, k.Uplink), flags...)
	if !k.Routed {
		return w
	}
	var up []api.Uplink
	w.Daemon.CLI("-s", "uplink", "-o", "json").JSON(&up)
	for _, u := range up {
		for _, p := range u.Addresses {
			w.World.Run("ip", "route", "add", p.Addr().String(), "via", wan(p.Addr()))
		}
	}
	return w
}

// wan is the host's address to the world, or Sluice's in its place.
func wan(a netip.Addr) string {
	if a.Is4() {
		return wan4().String()
	}
	return "2001:db8::1"
}

func wan4() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 1}) }

// Container attaches one.
func (w *Way) Container(name string) *lab.NS {
	return w.NS(name).Attach("--network", "web", "--name", name)
}

// nowhere is an address that the world drops what is sent to, without a word.
const nowhere = "198.51.100.1"

// blackhole makes it.
func (w *Way) blackhole() {
	w.World.Run("ip", "route", "add", "blackhole", nowhere+"/32")
	if !w.Kind.Routed {
		return
	}
	w.Host.Run("ip", "route", "add", nowhere+"/32", "via", w.World.IP(lab.V4).String())
}

// gateway is the MAC of the containers' gateway.
func (w *Way) gateway(n *lab.NS) string { return macOf(n, w.Daemon.Gateway(lab.V4)) }

// macOf is the MAC of a neighbour.
func macOf(n *lab.NS, addr netip.Addr) string {
	n.Ping(addr)
	for line := range strings.Lines(n.Run("ip", "neigh", "show", addr.String())) {
		f := strings.Fields(line)
		for i := range f {
			if f[i] == "lladdr" && i+1 < len(f) {
				return f[i+1]
			}
		}
	}
	return ""
}
