// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/config"
)

// withUplinks is a file of two namespaces, one of them not declared, and uplinks.
func withUplinks(lines ...string) string {
	return `namespaces: [{name: shop, vrfs: [{name: red, table: 10, devices: [lab]}]}]
networks:
  - {name: web, namespace: shop, subnets: [10.50.0.0/24, "fd50::/64"]}
  - {name: lab, namespace: shop, subnets: [10.52.0.0/24]}
  - {name: alone, subnets: [10.60.0.0/24]}
uplinks:
  - ` + strings.Join(lines, "\n  - ") + "\n"
}

func TestUplinkFaults(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"no namespace":       {withUplinks("{name: out}"), "line 7: uplinks[0].namespace: missing; there is not just one"},
		"unknown namespace":  {withUplinks("{name: out, namespace: x}"), `line 7: uplinks[0].namespace: no namespace "x"`},
		"no name":            {withUplinks("{namespace: shop}"), "line 7: uplinks[0].name: missing"},
		"a network's name":   {withUplinks("{name: alone, namespace: shop}"), `line 7: uplinks[0].name: "alone" is already the name of networks[2]`},
		"a VRF's name":       {withUplinks("{name: red, namespace: shop}"), `line 7: uplinks[0].name: "red" is already the name of a device of the namespace, see namespaces[0].vrfs[0].name`},
		"twice":              {withUplinks("{name: out, namespace: shop}", "{name: out, namespace: alone}"), `line 8: uplinks[1].name: "out" is already the name of uplinks[0]`},
		"another type":       {withUplinks("{name: out, namespace: shop, type: tunnel}"), `line 7: uplinks[0].type: "tunnel" is not supported; expected host, nic or socket`},
		"long name":          {withUplinks("{name: onlyeight, namespace: shop}"), `line 7: uplinks[0].ifname: "sluice-onlyeight": longer than 15 characters; give a shorter one`},
		"odd interface":      {withUplinks("{name: out, namespace: shop, ifname: 'a b'}"), `line 7: uplinks[0].ifname: "a b": not a name of an interface`},
		"same interface":     {withUplinks("{name: a, namespace: shop, ifname: x}", "{name: b, namespace: alone, ifname: x}"), `line 8: uplinks[1].ifname: "x" is that of uplinks[0]`},
		"no address":         {withUplinks("{name: out, namespace: shop, addresses: [ten]}"), `line 7: uplinks[0].addresses[0]: "ten" is not an address with a length, as 10.255.0.0/31`},
		"link-local":         {withUplinks("{name: out, namespace: shop, addresses: [169.254.1.0/31]}"), "line 7: uplinks[0].addresses[0]: 169.254.1.0/31 is link-local: no router forwards to it or from it (RFC 3927 §2.7), so containers and host would not meet"},
		"loopback":           {withUplinks("{name: out, namespace: shop, addresses: [127.0.0.1/31]}"), "line 7: uplinks[0].addresses[0]: 127.0.0.1/31 overlaps 127.0.0.0/8 (loopback), which no uplink may have"},
		"too much room":      {withUplinks("{name: out, namespace: shop, addresses: [10.1.0.1/24]}"), "line 7: uplinks[0].addresses[0]: 10.1.0.1/24: expected a prefix for two, /31 or /30 of IPv4, /127 or /126 of IPv6"},
		"broadcast":          {withUplinks("{name: out, namespace: shop, addresses: [10.1.0.3/30]}"), "line 7: uplinks[0].addresses[0]: 10.1.0.3: expected 10.1.0.1 or 10.1.0.2"},
		"two of a family":    {withUplinks("{name: out, namespace: shop, addresses: [10.1.0.0/31, 10.2.0.0/31]}"), "line 7: uplinks[0].addresses[1]: 10.2.0.0/31: a second IPv4 address; one of each family at most"},
		"another peer":       {withUplinks("{name: out, namespace: shop, addresses: [10.1.0.1/30], peers: [10.1.0.3]}"), "line 7: uplinks[0].peers[0]: 10.1.0.3: expected 10.1.0.2, which is the other address of 10.1.0.0/30"},
		"peer without end":   {withUplinks("{name: out, namespace: shop, peers: [10.1.0.3]}"), "line 7: uplinks[0].peers: 1 for 0 addresses; expected one for each, or none at all"},
		"MTU":                {withUplinks("{name: out, namespace: shop, mtu: 1200}"), "line 7: uplinks[0].mtu: 1200 is out of range; expected 1280 to 65535"},
		"no way back":        {withUplinks("{name: out, namespace: shop, hostRoutes: false, masquerade: true}"), "line 7: uplinks[0].masquerade: needs hostRoutes: the host has no way back without them"},
		"no VRF":             {withUplinks("{name: out, namespace: shop, vrf: blue}"), `line 7: uplinks[0].vrf: no VRF "blue" in the namespace`},
		"two default routes": {withUplinks("{name: a, namespace: shop}", "{name: b, namespace: shop, hostRoutes: false}"), "line 8: uplinks[1].defaultRoute: the default route of namespace shop is by uplink a; give defaultRoute: false to one of them"},
		"two ways back":      {withUplinks("{name: a, namespace: shop}", "{name: b, namespace: shop, defaultRoute: false}"), "line 8: uplinks[1].hostRoutes: the host has its routes to namespace shop by uplink a; give hostRoutes: false to one of them"},
		"same addresses":     {withUplinks("{name: a, namespace: shop, addresses: [10.1.0.0/31]}", "{name: b, namespace: alone, addresses: [10.1.0.1/30]}"), "line 8: uplinks[1].addresses: 10.1.0.0/30 overlaps 10.1.0.0/31, addresses of uplink a"},
		"over a link's": {
			"namespaces:\n  - {name: s, links: [{name: l, peer: {namespace: t, link: m}, addresses: [10.1.0.0/31]}]}\n" +
				"  - {name: t, links: [{name: m, peer: {namespace: s, link: l}}]}\nnetworks: []\nuplinks:\n  - {name: out, namespace: s, addresses: [10.1.0.1/30]}\n",
			"line 6: uplinks[0].addresses: 10.1.0.0/30 overlaps 10.1.0.0/31, addresses of link l",
		},
		"in a network":         {withUplinks("{name: a, namespace: shop, addresses: [10.50.0.2/31]}"), "line 7: uplinks[0].addresses: 10.50.0.2/31 overlaps 10.50.0.0/24, network web"},
		"in another's network": {withUplinks("{name: a, namespace: alone}", "{name: b, namespace: shop, addresses: [10.60.0.2/31]}"), "line 8: uplinks[1].addresses: 10.60.0.2/31 overlaps 10.60.0.0/24, a network behind uplink a"},
		"same subnets": {
			strings.Replace(withUplinks("{name: a, namespace: shop}", "{name: b, namespace: alone}"), "10.60", "10.50", 1),
			"line 8: uplinks[1].hostRoutes: 10.50.0.0/24 overlaps 10.50.0.0/24, a network behind uplink a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse([]byte(tt.text))
			if diff := cmp.Diff(tt.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("text:\n%s\nerror (-want +got):\n%s", tt.text, diff)
			}
		})
	}
	_, err := config.Parse([]byte("networks: [{name: web, subnets: [10.0.0.0/24]}]\nuplinks:\n" + strings.Repeat("  - {name: a}\n", config.MaxUplinks+1)))
	if want := "line 3: uplinks: 65 uplinks; at most 64 are supported"; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestUplinks(t *testing.T) {
	c, err := config.Parse([]byte(withUplinks(
		"{name: out, namespace: shop, addresses: [10.1.0.1/31, 'fd01::1/126'], masquerade: true, forward: true}",
		"{name: vrf, namespace: shop, vrf: red, ifname: x, mtu: 9000, clampMSS: pmtu}",
		"{name: a, namespace: alone, defaultRoute: false, hostRoutes: false}",
	)))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Namespaces) != 2 || c.Namespaces[1].Name != "alone" {
		t.Errorf("namespaces are %+v", c.Namespaces)
	}
	out, vrf, a := c.Uplinks[0], c.Uplinks[1], c.Uplinks[2]
	switch {
	case out.Peers[0] != netip.MustParseAddr("10.1.0.0") || out.Peers[1] != netip.MustParseAddr("fd01::2"):
		t.Errorf("peers are %v", out.Peers)
	case out.IfName != "sluice-out" || out.MTU != config.DefaultMTU || !out.DefaultRoute || !out.HostRoutes || !out.Masquerade || !out.Forward:
		t.Errorf("out is %+v", out)
	case vrf.VRF != "red" || vrf.IfName != "x" || vrf.MTU != 9000 || vrf.Device["clamp_mss"] != "pmtu" || vrf.Masquerade || vrf.Forward:
		t.Errorf("vrf is %+v", vrf)
	case a.Namespace != "alone" || a.DefaultRoute || a.HostRoutes:
		t.Errorf("a is %+v", a)
	}
	for i, want := range []string{"[10.50.0.0/24 fd50::/64]", "[10.52.0.0/24]", "[]"} {
		if got := fmt.Sprint(c.Behind(&c.Uplinks[i])); got != want {
			t.Errorf("behind %s are %s, want %s", c.Uplinks[i].Name, got, want)
		}
	}
	one, err := config.Parse([]byte("networks: [{name: web, subnets: [10.0.0.0/24]}]\nuplinks: [{name: out}]\n"))
	if err != nil || one.Uplinks[0].Namespace != "web" || len(one.Namespaces) != 1 {
		t.Errorf("the only namespace: %+v, %v", one, err)
	}
}
