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
)

func TestReferenceFile(t *testing.T) {
	got, err := config.Load(filepath.Join("testdata", "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{Networks: []config.Network{
		{
			Name:     "blue",
			Subnets:  []netip.Prefix{netip.MustParsePrefix("10.44.0.0/24"), netip.MustParsePrefix("fd44::/64")},
			Gateways: []netip.Addr{netip.MustParseAddr("10.44.0.1"), netip.MustParseAddr("fd44::1")},
			MTU:      1500, Ageing: 300 * time.Second, FDBMax: 4096, FDBMaxPerPort: 1024,
		},
		{
			Name:     "red",
			Subnets:  []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")},
			Gateways: []netip.Addr{netip.MustParseAddr("192.168.7.1")},
			MTU:      1500, Ageing: 300 * time.Second, FDBMax: 4096, FDBMaxPerPort: 1024,
		},
	}}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("reference.yaml (-want +got):\n%s", diff)
	}
}

// TestReferenceNamesEveryField keeps the reference complete: removing a field
// from it must be noticed, and so must a field that it forgets.
func TestReferenceNamesEveryField(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"x: 1", "networks: [{x: 1}]", "networks: [{fdb: {x: 1}}]"} {
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

		"unknown field at the top": {"network: []\n", "line 1: network: unknown field; expected networks"},
		"unknown field of a network": {
			one(v4, "mtuu: 1500"),
			"line 4: networks[0].mtuu: unknown field; expected name, subnets, gateways, mtu, ageing, fdb, echo",
		},
		"unknown field of fdb": {one(v4, "fdb: {max: 4096, ports: 3}"), "line 4: networks[0].fdb.ports: unknown field; expected max, maxPerPort"},
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

func TestAccepted(t *testing.T) {
	tests := map[string]string{
		"no networks":                    "networks: []\n",
		"smallest IPv4":                  one("subnets: [10.44.0.0/30]"),
		"smallest IPv6":                  one(`subnets: ["fd44::/126"]`),
		"quoted, block and flow":         one(`"subnets":`, `  - "10.44.0.0/24"`, `  - 'fd44::/64'`),
		"smallest MTU of each family":    one("subnets: [10.44.0.0/24]", "mtu: 576"),
		"overlapping, separate networks": one("subnets: [10.44.0.0/24]") + "  - {name: red, subnets: [10.44.0.0/16]}\n",
		"document marker":                "---\nnetworks: []\n...\n",
		"only the IPv6 gateway":          one(`subnets: [10.44.0.0/24, "fd44::/64"]`, `gateways: ["fd44::99"]`),
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
	if want := "the file is larger than 1048576 bytes"; fmt.Sprint(err) != want {
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
	if want := path + ": line 1: x: unknown field; expected networks"; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
