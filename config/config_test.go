// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/config"
	"sluice/iproute"
)

func TestReferenceFile(t *testing.T) {
	got, err := config.Load(filepath.Join("testdata", "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Network{
		{
			Name: "blue", Namespace: "blue", Device: iproute.Settings{},
			Subnets:  []netip.Prefix{netip.MustParsePrefix("10.44.0.0/24"), netip.MustParsePrefix("fd44::/64")},
			Gateways: []netip.Addr{netip.MustParseAddr("10.44.0.1"), netip.MustParseAddr("fd44::1")},
			MTU:      1500, Ageing: 300 * time.Second, FDBMax: 4096, FDBMaxPerPort: 1024,
			DNS:    new(true),
			Leases: config.Leases{Ranges: []string{"10.44.0.10-10.44.0.99"}, Exclude: []string{"10.44.0.64/28"}},
		},
		{
			Name: "red", Namespace: "red", Device: iproute.Settings{},
			Subnets:  []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")},
			Gateways: []netip.Addr{netip.MustParseAddr("192.168.7.1")},
			MTU:      1500, Ageing: 300 * time.Second, FDBMax: 4096, FDBMaxPerPort: 1024,
		},
	}
	if diff := cmp.Diff(want, got.Networks[:2], cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("reference.yaml (-want +got):\n%s", diff)
	}
	web, db := got.Networks[2], got.Networks[3]
	switch {
	case web.Namespace != "shop" || web.Ports["guard"] != "on" || web.Ports["storm_multicast"] != "1000/200":
		t.Errorf("web is %+v", web)
	case web.PortVLAN.Tagged.String() != "10,20-29" || web.VLAN.PVID != 1 || !web.Snooping.Querier || web.Services.DHCP4.Lease != 3600:
		t.Errorf("web is %+v", web)
	case len(web.Queueing.Egress.Qdiscs) != 2 || len(web.Queueing.Egress.Classes) != 1 || web.Queueing.Ingress.Qdiscs[0].TBF.Rate.Bytes != 50_000_000/8:
		t.Errorf("queueing of web: %+v", web.Queueing)
	case got.Node.Shares.Egress.Burst != 5<<20 || got.Node.Shares.Ingress.Rate.Bytes != 10e9/8 || got.Namespaces[0].Shares.Ingress.Ceil.Bytes != 10e9/8 ||
		web.Queueing.Shares.Egress.Prio != 1 || web.Queueing.Shares.Ingress.Ceil.Bytes != 500e6/8 || got.Uplinks[0].Queueing.Shares.Egress.Rate.Bytes != 1e9/8:
		t.Errorf("trees are %+v, %+v, %+v", got.Node, got.Namespaces[0].Shares, web.Queueing.Shares)
	case web.Routed.Egress.Qdiscs[0].Kind != "fq_codel" || got.Namespaces[0].Links[0].Queueing.Egress.Qdiscs[0].TBF.Burst != 256<<10:
		t.Errorf("routed into web: %+v; sent by a link: %+v", web.Routed, got.Namespaces[0].Links)
	case got.Uplinks[0].Queueing.Egress.Qdiscs[0].Kind != "fq_codel" || got.Uplinks[1].Queueing.Egress != nil:
		t.Errorf("uplinks are %+v", got.Uplinks)
	case db.VRF != "red" || len(db.Stations) != 1 || db.Stations[0].Dev != "store" || len(db.Groups) != 1:
		t.Errorf("db is %+v", db)
	}
	shop := got.Namespaces[0]
	if len(shop.Routes) != 5 || len(shop.Rules) != 3 || len(shop.Neighbours) != 1 || shop.Routes[0].Table != 100 || shop.Links[0].Device["clamp_mss"] != "pmtu" {
		t.Errorf("shop is %+v", shop)
	}
	if c := shop.Connections; !*c.Track || c.Profile != "rfc" || c.LingerSeconds != 120 || c.QuotaPerPort != 4096 || len(c.NAT) != 4 || len(c.Published) != 2 ||
		len(c.Services) != 1 || len(c.Services[0].Real) != 3 || *c.Services[0].Persistent != 300 || c.NAT64.Device != "to-edge" || len(c.Maps) != 1 || !c.Bridged {
		t.Errorf("connections of shop: %+v", c)
	}
	if d := shop.DNS; d.Domain != "shop.example" || len(d.Upstreams) != 2 || d.Via != "namespace" || d.Prefix64.Bits() != 96 || d.CacheEntries != 1000 {
		t.Errorf("DNS of shop: %+v", d)
	}
}

// TestReferenceNamesEveryField keeps the reference complete: removing a field
// from it must be noticed, and so must a field that it forgets.
func TestReferenceNamesEveryField(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{
		"x: 1", "networks: [{x: 1}]", "networks: [{fdb: {x: 1}}]", "networks: [{mdb: {x: 1}}]", "networks: [{vlan: {x: 1}}]",
		"networks: [{snooping: {x: 1}}]", "networks: [{ports: {x: 1}}]", "networks: [{ports: {storm: {x: 1}}}]",
		"networks: [{ports: {vlan: {x: 1}}}]", "networks: [{ports: {mirror: {x: 1}}}]", "networks: [{advertise: {x: 1}}]",
		"networks: [{advertise: {prefixes: [{x: 1}]}}]", "networks: [{advertise: {routes: [{x: 1}]}}]", "networks: [{dhcp: {x: 1}}]",
		"networks: [{dhcp: {routes: [{x: 1}]}}]", "networks: [{dhcp6: {x: 1}}]", "networks: [{leases: {x: 1}}]", "namespaces: [{x: 1}]", "namespaces: [{vrfs: [{x: 1}]}]",
		"namespaces: [{links: [{x: 1}]}]", "namespaces: [{conntrack: {x: 1}}]", "namespaces: [{nat64: {x: 1}}]", "namespaces: [{services: [{x: 1}]}]", "namespaces: [{maps: [{x: 1}]}]",
		"namespaces: [{links: [{peer: {x: 1}}]}]", "uplinks: [{x: 1}]",
	} {
		_, err := config.Parse([]byte(at))
		_, fields, ok := strings.Cut(fmt.Sprint(err), "expected ")
		if !ok {
			t.Fatalf("%s: error %v lists no fields", at, err)
		}
		for name := range strings.SplitSeq(fields, ", ") {
			if !strings.Contains(string(text), name+":") {
				t.Errorf("field %s is not in the reference", name)
			}
		}
	}
}

// one returns a file of one network with the given lines added to it.
func one(lines ...string) string {
	return "networks:\n  - name: blue\n    " + strings.Join(lines, "\n    ") + "\n"
}

func TestFaults(t *testing.T) {
	const v4 = "subnets: [10.44.0.0/24]"
	tests := map[string]struct{ text, want string }{
		"empty file":        {"", "networks: missing; an empty list (networks: []) declares that there are none"},
		"only a comment":    {"# nothing\n", "networks: missing; an empty list (networks: []) declares that there are none"},
		"null networks":     {"networks:\n", "line 1: networks: missing; an empty list (networks: []) declares that there are none"},
		"a list":            {"- name: blue\n", "line 1: must be a mapping with the field networks"},
		"broken YAML":       {"networks: [\n", "line 1: sequence end token ']' not found"},
		"second document":   {"networks: []\n---\nnetworks: []\n", "line 3: second document; expected one"},
		"alias":             {"networks: &a []\nx: *a\n", `line 1: "&": anchors, aliases, merge keys and tags are not supported`},
		"deep flow nesting": {strings.Repeat("[", 1000), "line 1: nested deeper than 16 or beyond column 512"},
		"deep nesting":      {strings.Repeat("- ", 1000), "line 1: nested deeper than 16 or beyond column 512"},
		"field given twice": {"networks: []\nnetworks: []\n", `line 2: mapping key "networks" already defined at [1:1]`},

		"name of the loopback": {"networks: [{name: lo, subnets: [10.44.0.0/24]}]\n", `line 1: networks[0].name: "lo" is the name of every namespace's own device`},
		"two of one gateway": {
			"namespaces: [{name: s}]\nnetworks:\n  - {name: a, namespace: s, subnets: [10.44.0.0/24]}\n  - {name: b, namespace: s, subnets: [10.44.0.0/16], gateways: [10.44.0.1]}\n",
			"line 4: networks[1].gateways: 10.44.0.1 is the address of a already",
		},
		"subnets that overlap": {
			"namespaces: [{name: s}]\nnetworks:\n  - {name: a, namespace: s, subnets: [10.44.0.0/16, \"fd44::/64\"]}\n  - {name: b, namespace: s, subnets: [\"fd45::/64\", 10.44.1.0/24]}\n",
			"line 4: networks[1].subnets[1]: 10.44.1.0/24 overlaps 10.44.0.0/16 of network a in namespace s",
		},
		"neighbour that is the gateway": {
			"namespaces:\n  - name: s\n    neighbours: [10.44.0.1 lladdr 02:00:00:00:00:09 dev a]\nnetworks:\n  - {name: a, namespace: s, subnets: [10.44.0.0/24]}\n",
			"line 3: namespaces[0].neighbours[0]: 10.44.0.1 is the address of a itself",
		},
		"name that is octal": {"networks: [{name: 012, subnets: [10.44.0.0/24]}]\n", `line 1: "012" would be read as another number than it looks; quote it, or write it in decimal`},
		"hexadecimal number": {one(v4, "mtu: 0x5dc"), `line 4: "0x5dc" would be read as another number than it looks; quote it, or write it in decimal`},

		"unknown field at the top": {"network: []\n", "line 1: network: unknown field; expected node, namespaces, networks, uplinks"},
		"unknown field of a network": {
			one(v4, "mtuu: 1500"),
			"line 4: networks[0].mtuu: unknown field; expected name, namespace, subnets, gateways, mtu, ageing, fdb, mdb, echo, dns, " +
				"vrf, forwarding, rpFilter, redirects, clampMSS, qdisc, vlan, snooping, ports, leases, advertise, dhcp, dhcp6",
		},
		"unknown field of fdb": {one(v4, "fdb: {max: 4096, ports: 3}"), "line 4: networks[0].fdb.ports: unknown field; expected max, maxPerPort, static"},
		"text for a number":    {one(v4, "mtu: big"), "line 4: networks[0].mtu: must be a whole number"},
		"number for a switch":  {one(v4, "echo: 3"), "line 4: networks[0].echo: must be true or false"},
		"one prefix, no list":  {one("subnets: 10.44.0.0/24"), "line 3: networks[0].subnets: must be a list"},

		"no name":        {"networks:\n  - subnets: [10.44.0.0/24]\n", "line 2: networks[0].name: missing"},
		"upper case":     {"networks:\n  - name: Blue\n    " + v4, `line 2: networks[0].name: "Blue": 1 to 32 of a-z, 0-9 and -, not beginning with -`},
		"name too long":  {"networks:\n  - name: " + strings.Repeat("a", 33) + "\n    " + v4, `line 2: networks[0].name: "` + strings.Repeat("a", 33) + `": 1 to 32 of a-z, 0-9 and -, not beginning with -`},
		"duplicate name": {one(v4) + "  - name: blue\n    " + v4, `line 4: networks[1].name: "blue" is already the name of networks[0]`},

		"no subnet":        {"networks:\n  - name: blue\n", "line 2: networks[0].subnets: missing; expected an IPv4 prefix, an IPv6 prefix or both"},
		"not a prefix":     {one("subnets: [10.44.0.0]"), `line 3: networks[0].subnets[0]: "10.44.0.0" is not a prefix, as 10.44.0.0/24 or fd44::/64`},
		"host bits":        {one("subnets: [10.44.0.1/24]"), "line 3: networks[0].subnets[0]: 10.44.0.1/24 has host bits set; did you mean 10.44.0.0/24?"},
		"two of a family":  {one("subnets:", "  - 10.44.0.0/24", "  - 10.45.0.0/24"), "line 5: networks[0].subnets[1]: 10.45.0.0/24: a second IPv4 subnet; at most one of each family is supported"},
		"too small IPv4":   {one("subnets: [10.44.0.0/31]"), "line 3: networks[0].subnets[0]: 10.44.0.0/31 is too small for a gateway and a container; the longest prefix is /30"},
		"too small IPv6":   {one("subnets: [fd44::/127]"), "line 3: networks[0].subnets[0]: fd44::/127 is too small for a gateway and a container; the longest prefix is /126"},
		"loopback":         {one("subnets: [127.1.0.0/16]"), "line 3: networks[0].subnets[0]: 127.1.0.0/16 overlaps 127.0.0.0/8 (loopback), which no container may have"},
		"link-local IPv6":  {one("subnets: [fe80::/64]"), "line 3: networks[0].subnets[0]: fe80::/64 overlaps fe80::/10 (link-local), which no container may have"},
		"IPv4-mapped IPv6": {one(`subnets: ["::ffff:10.0.0.0/120"]`), "line 3: networks[0].subnets[0]: ::ffff:10.0.0.0/120 overlaps ::ffff:0:0/96 (IPv4-mapped), which no container may have"},

		"gateway no address":    {one(v4, "gateways: [ten]"), `line 4: networks[0].gateways[0]: "ten" is not an IP address`},
		"gateway outside":       {one(v4, "gateways: [10.45.0.1]"), "line 4: networks[0].gateways[0]: 10.45.0.1 is outside the subnet 10.44.0.0/24"},
		"gateway wrong family":  {one(v4, `gateways: ["fd44::1"]`), "line 4: networks[0].gateways[0]: fd44::1: the network has no IPv6 subnet"},
		"gateway twice":         {one(v4, "gateways: [10.44.0.1, 10.44.0.2]"), "line 4: networks[0].gateways[1]: 10.44.0.2: a second IPv4 gateway"},
		"gateway is network":    {one(v4, "gateways: [10.44.0.0]"), "line 4: networks[0].gateways[0]: 10.44.0.0 is the network address of 10.44.0.0/24"},
		"gateway is broadcast":  {one(v4, "gateways: [10.44.0.255]"), "line 4: networks[0].gateways[0]: 10.44.0.255 is the broadcast address of 10.44.0.0/24"},
		"gateway is anycast":    {one(`subnets: ["fd44::/64"]`, `gateways: ["fd44::"]`), "line 4: networks[0].gateways[0]: fd44:: is the subnet-router anycast address of fd44::/64"},
		"gateway with a zone":   {one(`subnets: ["fd44::/64"]`, `gateways: ["fd44::1%eth0"]`), "line 4: networks[0].gateways[0]: fd44::1%eth0 is outside the subnet fd44::/64"},
		"MTU too small":         {one(v4, "mtu: 575"), "line 4: networks[0].mtu: 575 is out of range; expected 576 to 65535"},
		"MTU zero":              {one(v4, "mtu: 0"), "line 4: networks[0].mtu: 0 is out of range; expected 576 to 65535"},
		"MTU too small, IPv6":   {one(`subnets: ["fd44::/64"]`, "mtu: 1279"), "line 4: networks[0].mtu: 1279 is out of range; expected 1280 to 65535 (IPv6)"},
		"MTU too large":         {one(v4, "mtu: 65536"), "line 4: networks[0].mtu: 65536 is out of range; expected 576 to 65535"},
		"ageing without a unit": {one(v4, "ageing: 300"), `line 4: networks[0].ageing: "300" is not a duration, as 300s or 5m`},
		"ageing in fractions":   {one(v4, "ageing: 1500ms"), "line 4: networks[0].ageing: 1500ms is out of range; expected whole seconds, 1s to 24h0m0s"},
		"ageing negative":       {one(v4, "ageing: -5s"), "line 4: networks[0].ageing: -5s is out of range; expected whole seconds, 1s to 24h0m0s"},
		"FDB too small":         {one(v4, "fdb: {max: 15}"), "line 4: networks[0].fdb.max: 15 is out of range; expected 16 to 1048576"},
		"FDB port above all":    {one(v4, "fdb:", "  max: 100", "  maxPerPort: 101"), "line 6: networks[0].fdb.maxPerPort: 101 is out of range; expected 1 to 100, which is fdb.max"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse([]byte(tt.text))
			if _, ok := errors.AsType[*config.Error](err); !ok {
				t.Fatalf("error is %T: %v", err, err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("text:\n%s\nerror (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

// shop returns a file of two namespaces with the given lines in the first one.
func shop(lines ...string) string {
	return "namespaces:\n  - name: shop\n    " + strings.Join(lines, "\n    ") + "\n  - name: edge\n" +
		"networks:\n  - {name: web, namespace: shop, subnets: [10.50.0.0/24]}\n"
}

func TestFaultsOfNamespaces(t *testing.T) {
	const v4 = "subnets: [10.44.0.0/24]"
	long := strings.Repeat("a", 16)
	tests := map[string]struct{ text, want string }{
		"namespace not declared":  {one(v4, "namespace: shop"), `line 4: networks[0].namespace: no namespace "shop" is declared`},
		"VRF of no namespace":     {one(v4, "vrf: red"), `line 4: networks[0].vrf: no VRF "red": the network's namespace is not declared`},
		"namespace twice":         {shop() + "namespaces: []", `line 7: mapping key "namespaces" already defined at [1:1]`},
		"namespace without name":  {"namespaces: [{tables: {}}]\nnetworks: []", "line 1: namespaces[0].name: missing"},
		"route":                   {shop("routes: [default via 10.50.0.300]"), `line 3: namespaces[0].routes[0]: "default via 10.50.0.300": "10.50.0.300": not an address`},
		"second route":            {shop("routes:", "  - 10.0.0.0/8 dev web", "  - 10.0.0.0/8 dev web encap mpls"), `line 5: namespaces[0].routes[1]: "10.0.0.0/8 dev web encap mpls": "encap": not supported`},
		"route of an unknown VRF": {shop("routes: [default via 10.50.0.9 vrf red]"), `line 3: namespaces[0].routes[0]: "default via 10.50.0.9 vrf red": "red": no VRF of that name`},
		"route with a verb":       {shop("routes: [add 10.0.0.0/8 dev web]"), `line 3: namespaces[0].routes[0]: "add 10.0.0.0/8 dev web": "add": not a prefix`},
		"rule":                    {shop("rules: [from 10.0.0.0/8 lookup blue]"), `line 3: namespaces[0].rules[0]: "from 10.0.0.0/8 lookup blue": "blue": no such table name`},
		"no rules at all":         {shop("defaultRules: false"), "line 3: namespaces[0].defaultRules: without any rule nothing is routed; give rules"},
		"table out of range":      {shop("tables: {blue: 0}"), "line 3: namespaces[0].tables.blue: 0 is out of range; expected 1 to 4294967295"},
		"reserved table":          {shop("tables: {main: 7}"), `line 3: namespaces[0].tables: table 7, name "main": reserved`},
		"neighbour":               {shop("neighbours: [10.50.0.9 dev web]"), `line 3: namespaces[0].neighbours[0]: "10.50.0.9 dev web": needs lladdr`},
		"neighbour elsewhere":     {shop("neighbours: [10.50.0.9 dev db lladdr 02:00:00:00:00:09]"), `line 3: namespaces[0].neighbours[0]: no network "db" in the namespace`},
		"neighbour twice":         {shop("neighbours:", "  - 10.50.0.9 dev web lladdr 02:00:00:00:00:09", "  - 10.50.0.9 dev web lladdr 02:00:00:00:00:08"), "line 5: namespaces[0].neighbours[1]: 10.50.0.9 dev web is neighbours[0] already"},
		"conntrack profile":       {shop("conntrack: {profile: linux}"), `line 3: namespaces[0].conntrack.profile: "linux": want one of ["kernel" "rfc"]`},
		"filtering of kernel":     {shop("conntrack: {filtering: address}"), `line 3: namespaces[0].conntrack.filtering: is of the profile rfc`},
		"linger":                  {shop("conntrack: {profile: rfc, linger: 2h}"), `line 3: namespaces[0].conntrack.linger: "2h": want whole seconds, as 120s, at most 1h0m0s`},
		"quota":                   {shop("conntrack: {quotaPerPort: 0}"), `line 3: namespaces[0].conntrack.quotaPerPort: 0 is out of range; expected 1 to 16777216`},
		"NAT without tracking":    {shop("conntrack: {track: false}", "nat: [postrouting masquerade]"), `line 3: namespaces[0].conntrack.track: false, but nat, publish, services and nat64 need it: leave it out, or them`},
		"bridged, not tracked":    {shop("conntrack: {track: false, bridged: true}"), `line 3: namespaces[0].conntrack.bridged: needs track`},
		"NAT64 without a source":  {shop("nat64: {prefix: \"64:ff9b::/96\"}"), `line 3: namespaces[0].nat64.masquerade: missing: the device whose IPv4 address is the source, or pool`},
		"NAT64 by another device": {shop("nat64: {masquerade: wan}"), `line 3: namespaces[0].nat64.masquerade: no network, uplink or link "wan" in the namespace`},
		"NAT64 prefix":            {shop("nat64: {masquerade: web, prefix: \"64:ff9b::/95\"}"), `line 3: namespaces[0].nat64.prefix: want 32, 40, 48, 56, 64 or 96 bits, and none set behind them, nor in the ninth byte (RFC 6052)`},
		"service without a place": {shop("services: [{name: web}]"), `line 3: namespaces[0].services[0].listen: 0 places; want 1 to 64, as tcp 10.96.0.10:80`},
		"service's name":          {shop("services: [{name: a b, listen: [tcp 10.96.0.1:80]}]"), `line 3: namespaces[0].services[0].name: "a b": want letters, digits and - . _, at most 63`},
		"place of two services":   {shop("services:", "  - {name: a, listen: [tcp 10.96.0.1:80]}", "  - {name: b, listen: [tcp 10.96.0.1:80]}"), `line 5: namespaces[0].services[1].listen[0]: tcp 10.96.0.1:80 is where service a is already`},
		"backend":                 {shop("services: [{name: a, listen: [tcp 10.96.0.1:80], backends: [10.50.0.2:80 weight 0]}]"), `line 3: namespaces[0].services[0].backends[0]: "10.50.0.2:80 weight 0": "0": want a weight from 1 to 65535; who shall have no new connections is in state draining`},
		"backend twice":           {shop("services: [{name: a, listen: [tcp 10.96.0.1:80], backends: [10.50.0.2:80, 10.50.0.2:80 weight 2]}]"), `line 3: namespaces[0].services[0].backends[1]: 10.50.0.2:80 is backends[0] already`},
		"affinity":                {shop("services: [{name: a, listen: [tcp 10.96.0.1:80], affinity: forever}]"), `line 3: namespaces[0].services[0].affinity: "forever": want whole seconds, as 300s, at most 86400s`},
		"map that isn't there":    {shop("nat: [prerouting dnat to tcp dport map @ports]"), `line 3: namespaces[0].nat[0]: no map "ports" in the namespace's maps`},
		"map of another type":     {shop("maps: [{name: m, type: \"ipv4_addr : ipv4_addr\", elements: []}]", "nat: [prerouting dnat to tcp dport map @m]"), `line 4: namespaces[0].nat[0]: map m has keys of type ipv4_addr, this one is inet_service`},
		"element of a map":        {shop("maps: [{name: m, type: \"ipv4_addr : ipv4_addr\", elements: [\"10.0.0.1 : fd00::1\"]}]"), `line 3: namespaces[0].maps[0].elements[0]: "10.0.0.1 : fd00::1": "fd00::1": want what it becomes, an address of the map's type`},
		"NAT":                     {shop("nat:", "  - postrouting masquerade", "  - postrouting oifname web masqerade"), `line 5: namespaces[0].nat[1]: "postrouting oifname web masqerade": "masqerade": want iifname, oifname, ip, ip6, tcp, udp, sctp, th, meta or fib, and then accept, snat, dnat, masquerade or redirect`},
		"NAT by another device":   {shop("nat: [postrouting oifname wan masquerade]"), `line 3: namespaces[0].nat[0]: "postrouting oifname wan masquerade": no network or link "wan" in the namespace`},
		"published":               {shop("publish: [tcp 80 web]"), `line 3: namespaces[0].publish[0]: "tcp 80 web": "web": want to`},
		"published twice":         {shop("publish: [tcp 80 to a, tcp 70-90 to b]"), `line 3: namespaces[0].publish[1]: "tcp 70-90 to b": tcp 80 is published for a already, see publish[0]`},
		"VRF name too long":       {shop("vrfs: [{name: " + long + ", table: 7}]"), `line 3: namespaces[0].vrfs[0].name: "` + long + `": 1 to 15 printable characters without space, / and :`},
		"VRF without table":       {shop("vrfs: [{name: red}]"), "line 3: namespaces[0].vrfs[0].table: missing"},
		"VRF with main":           {shop("vrfs: [{name: red, table: main}]"), "line 3: namespaces[0].vrfs[0].table: table main is everybody's"},
		"VRFs with one table":     {shop("vrfs: [{name: red, table: 7}, {name: blue, table: 7}]"), "line 3: namespaces[0].vrfs[1].table: table 7 is that of VRF red"},
		"VRF of nothing":          {shop("vrfs: [{name: red, table: 7, devices: [x]}]"), `line 3: namespaces[0].vrfs[0].devices[0]: no network or link "x" in the namespace`},
		"name of a network":       {shop("vrfs: [{name: web, table: 7}]"), `line 6: networks[0].name: "web" is already the name of a device of the namespace, see namespaces[0].vrfs[0].name`},
		"in two VRFs":             {shop("vrfs: [{name: red, table: 7, devices: [web]}, {name: blue, table: 8, devices: [web]}]"), "line 3: namespaces[0].vrfs[1].devices[0]: web is in VRF red already"},
		"link without peer":       {shop("links: [{name: a}]"), "line 3: namespaces[0].links[0].peer: missing: the namespace and the link of the other end"},
		"link to nothing":         {shop("links: [{name: a, peer: {namespace: edge, link: b}}]"), `line 3: namespaces[0].links[0].peer: no link "b" in a namespace "edge"`},
		"link to itself":          {shop("links: [{name: a, peer: {namespace: shop, link: a}}]"), "line 3: namespaces[0].links[0].peer: the other end must be in another namespace"},
		"link with a group":       {shop("links: [{name: a, peer: {namespace: edge, link: b}, addresses: [224.0.0.1/24]}]"), "line 3: namespaces[0].links[0].addresses[0]: 224.0.0.1/24 is not an address that a link can have, or there twice"},
		"link MTU":                {shop("links: [{name: a, peer: {namespace: edge, link: b}, mtu: 1279}]"), "line 3: namespaces[0].links[0].mtu: 1279 is out of range; expected 1280 to 65535"},

		"rpFilter":            {one(v4, "rpFilter: on"), `line 4: networks[0].rpFilter: "on": no value of rp_filter: want off, strict or loose`},
		"clampMSS":            {one(v4, "clampMSS: 20"), `line 4: networks[0].clampMSS: "20": no value of clamp_mss: want off, pmtu or 88 to 65495`},
		"guard":               {one(v4, "ports: {guard: [mac, x]}"), `line 4: networks[0].ports.guard: "mac,x": no value of guard: want on, off or a list of mac,ip,arp,nd,ra,dhcp,dhcp6,query`},
		"guardAllow":          {one(v4, "ports: {guardAllow: [ten]}"), `line 4: networks[0].ports.guardAllow: "ten": no value of guard_allow: want prefixes, as 10.9.0.0/16,fd09::/64, or off`},
		"storm":               {one(v4, "ports: {storm: {broadcast: 0}}"), `line 4: networks[0].ports.storm.broadcast: "0": no value of storm_broadcast: want off, or frames in a second, as 100 or 100/50 with a burst`},
		"a tree's words":      {"node: {tree: [rate fast]}\n" + one(v4, ""), `line 1: node.tree[0]: "rate fast": htb: rate: "fast": want a number with a unit`},
		"a tree's ceiling":    {"node: {tree: [from rate 2mbit ceil 1mbit]}\n" + one(v4, ""), `line 1: node.tree[0]: "from rate 2mbit ceil 1mbit": ceil: 125000 bytes/s is below the rate of 250000`},
		"two of a tree":       {"node: {tree: [rate 2mbit, rate 1mbit]}\n" + one(v4, ""), `line 1: node.tree[1]: "rate 1mbit": there is a line for this direction already`},
		"part of no tree":     {one(v4, "ports: {tree: [rate 1mbit]}"), `line 4: networks[0].ports.tree: neither namespace "blue" nor the node has shares in that direction`},
		"mcastRouter":         {one(v4, "ports: {mcastRouter: 3}"), `line 4: networks[0].ports.mcastRouter: "3": no value of mcast_router: want 0 (never), 1 (if one is heard) or 2 (always)`},
		"VLAN out of range":   {one(v4, "ports: {vlan: {tagged: [4095]}}"), `line 4: networks[0].ports.vlan.tagged: "4095": want VLANs from 1 to 4094, as 10 or 20-29`},
		"no VLAN":             {one(v4, "vlan: {}"), "line 4: networks[0].vlan: names no VLAN; leave it out for a port that carries all"},
		"pvid":                {one(v4, "vlan: {pvid: 4095}"), "line 4: networks[0].vlan.pvid: 4095 is out of range; expected 1 to 4094, or 0 for none"},
		"snooping":            {one(v4, "snooping: {igmpVersion: 1}"), "line 4: networks[0].snooping.igmpVersion: 1 is out of range; expected 2 to 3"},
		"query interval":      {one(v4, "snooping: {queryInterval: 2h}"), "line 4: networks[0].snooping.queryInterval: 2h is out of range; expected 1s to 1h0m0s"},
		"station":             {one(v4, `fdb: {static: ["02:00:00:00:00:09 vlan 10"]}`), `line 4: networks[0].fdb.static[0]: "02:00:00:00:00:09 vlan 10": needs dev`},
		"station twice":       {one(v4, `fdb: {static: ["02:00:00:00:00:09 dev a", "02:00:00:00:00:09 dev b"]}`), "line 4: networks[0].fdb.static[1]: 02:00:00:00:00:09 has an entry already, static[0]"},
		"group":               {one(v4, "mdb: {static: [port a grp 224.0.0.1]}"), `line 4: networks[0].mdb.static[0]: "port a grp 224.0.0.1": "224.0.0.1": not a multicast group that is forwarded by membership`},
		"adverts without v6":  {one(v4, "advertise: {mtu: 1400, preference: best}"), `line 4: networks[0].advertise.preference: preference "best": not low, medium or high`},
		"lease in fractions":  {one(v4, "dhcp: {lease: 1500ms}"), "line 4: networks[0].dhcp.lease: 1500ms is out of range; expected whole seconds, 1s to 1193046h28m14s"},
		"resolver":            {one(v4, "dhcp: {dns: [ns]}"), `line 4: networks[0].dhcp.dns[0]: "ns" is not an IP address`},
		"domain is no domain": {one(v4, "dhcp: {domain: -x-}"), `line 4: networks[0].dhcp: dhcp4: domain: "-x-" is no domain name`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse([]byte(tt.text))
			if diff := cmp.Diff(tt.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("text:\n%s\nerror (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

// TestFault puts a line to faults that show later.
func TestFault(t *testing.T) {
	c, err := config.Parse([]byte(shop("routes:", "  - 10.0.0.0/8 dev web", "  - 10.0.0.0/8 dev web")))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Fault("namespaces[0].routes[1]", "file exists").Error(), "line 5: namespaces[0].routes[1]: file exists"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestManyRoutes(t *testing.T) {
	var b strings.Builder
	b.WriteString("networks: [{name: web, subnets: [10.50.0.0/24]}]\nnamespaces:\n  - name: web\n    routes:\n")
	for i := range 100_000 {
		fmt.Fprintf(&b, "      - 11.%d.%d.%d/32 via 10.50.0.9 metric 5 table 100\n", i>>16, i>>8&255, i&255)
	}
	begin := time.Now()
	c, err := config.Parse([]byte(b.String()))
	if err != nil || len(c.Namespaces[0].Routes) != 100_000 {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("100,000 routes took %v", took)
	}
}

func TestAccepted(t *testing.T) {
	tests := map[string]string{
		"no networks":                    "networks: []\n",
		"smallest IPv4":                  one("subnets: [10.44.0.0/30]"),
		"smallest IPv6":                  one(`subnets: ["fd44::/126"]`),
		"quoted, block and flow":         one(`"subnets":`, `  - "10.44.0.0/24"`, `  - 'fd44::/64'`),
		"smallest MTU of each family":    one("subnets: [10.44.0.0/24]", "mtu: 576"),
		"overlapping, separate networks": one("subnets: [10.44.0.0/24]") + "  - {name: red, subnets: [10.44.0.0/16]}\n",
		"overlapping, separate VRFs": "namespaces: [{name: s, vrfs: [{name: v, table: 7, devices: [b]}]}]\nnetworks:\n" +
			"  - {name: a, namespace: s, subnets: [10.44.0.0/16]}\n  - {name: b, namespace: s, subnets: [10.44.1.0/24]}\n",
		"document marker":                "---\nnetworks: []\n...\n",
		"only the IPv6 gateway":          one(`subnets: [10.44.0.0/24, "fd44::/64"]`, `gateways: ["fd44::99"]`),
		"IPv6 prefix in a flow mapping":  "networks: [{name: blue, subnets: [10.44.0.0/24, fd44::/64], gateways: [10.44.0.9, fd44::1]}]\n",
		"prefix of many colons, in flow": "networks: [{name: blue, subnets: [fd44:0:0:1::/64 , 10.44.0.0/24]}]\n",
		"prefix that begins as a number": "networks: [{name: blue, subnets: [2001:db8:44::/64, 10.44.0.0/24]}]\n",
		"MAC in a flow mapping":          "networks: [{name: blue, subnets: [10.44.0.0/24], fdb: {static: [02:00:00:00:00:09 dev red vlan 3, 00:aa:00:00:00:0a dev red]}}]\n",
		"Windows line ends":              "networks:\r\n  - name: blue\r\n    subnets: [10.44.0.0/24]\r\n",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := config.Parse([]byte(text)); err != nil {
				t.Errorf("%v in:\n%s", err, text)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	var b strings.Builder
	b.WriteString("networks:\n")
	for i := range config.MaxNetworks + 1 {
		fmt.Fprintf(&b, "  - {name: n%d, subnets: [10.0.0.0/24]}\n", i)
	}
	_, err := config.Parse([]byte(b.String()))
	if want := "line 2: networks: 1025 networks; at most 1024 are supported"; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = config.Parse(make([]byte, config.MaxSize+1))
	if want := "the file is larger than 33554432 bytes"; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "networks.yaml")
	if _, err := config.Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want not exist", err)
	}
	if err := os.WriteFile(path, []byte("x: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(path)
	if want := path + ": line 1: x: unknown field; expected node, namespaces, networks, uplinks"; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
