// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/packet"
)

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*NetworkSpec)
		want   string // "" if it is right
	}{
		"right":                   {func(*NetworkSpec) {}, ""},
		"no address":              {func(s *NetworkSpec) { s.Addresses = nil }, ""},
		"no name":                 {func(s *NetworkSpec) { s.Name = "" }, "name must have"},
		"bridge without index":    {func(s *NetworkSpec) { s.Bridge.Index = 0 }, "index 0"},
		"reserved index":          {func(s *NetworkSpec) { s.Bridge.Index = 65535 }, "index 65535"},
		"index of another bridge": {func(s *NetworkSpec) { s.Ports[0].Index = 200 }, "used by bridge of red"},
		"index used twice":        {func(s *NetworkSpec) { s.Ports[1].Index = 1 }, "index 1 is used by port 1"},
		"group MAC":               {func(s *NetworkSpec) { s.Bridge.MAC = packet.Broadcast() }, "not a unicast"},
		"zero MAC":                {func(s *NetworkSpec) { s.Ports[0].MAC = packet.MAC{} }, "without a MAC"},
		"MAC used twice":          {func(s *NetworkSpec) { s.Ports[1].MAC = mac(1) }, "is used by port 1"},
		"MAC of the bridge":       {func(s *NetworkSpec) { s.Ports[1].MAC = gatewayMAC() }, "is used by the bridge"},
		"MTU too small for IPv6":  {func(s *NetworkSpec) { s.Bridge.MTU = 1279 }, "1280..65535"},
		"MTU of IPv4": {func(s *NetworkSpec) {
			s.Bridge.MTU, s.Addresses = 576, s.Addresses[:1]
		}, ""},
		"MTU too small":             {func(s *NetworkSpec) { s.Bridge.MTU, s.Addresses = 575, nil }, "576..65535"},
		"MTU too large":             {func(s *NetworkSpec) { s.Bridge.MTU = 65536 }, "1280..65535"},
		"port MTU too small":        {func(s *NetworkSpec) { s.Ports[0].MTU = 67 }, "68..65535"},
		"negative ageing":           {func(s *NetworkSpec) { s.Bridge.AgeingSeconds = -1 }, "ageing"},
		"negative table":            {func(s *NetworkSpec) { s.Bridge.MaxEntries = -1 }, "maxEntries"},
		"huge quota":                {func(s *NetworkSpec) { s.Bridge.MaxPerPort = 1 << 30 }, "maxPerPort"},
		"gateway twice":             {func(s *NetworkSpec) { s.Addresses[1] = s.Addresses[0] }, "given twice"},
		"multicast gateway":         {func(s *NetworkSpec) { s.Addresses[0] = netip.MustParsePrefix("224.0.0.1/24") }, "not a host's"},
		"unspecified gateway":       {func(s *NetworkSpec) { s.Addresses[0] = netip.MustParsePrefix("0.0.0.0/0") }, "not a host's"},
		"no gateway":                {func(s *NetworkSpec) { s.Addresses[0] = netip.Prefix{} }, "not a host's"},
		"4-in-6 address":            {func(s *NetworkSpec) { s.Ports[0].Addresses[0] = netip.MustParseAddr("::ffff:10.0.0.1") }, "not a host's"},
		"zone":                      {func(s *NetworkSpec) { s.Ports[0].Addresses[0] = netip.MustParseAddr("fe80::1%eth0") }, "not a host's"},
		"broadcast":                 {func(s *NetworkSpec) { s.Ports[0].Addresses[0] = netip.MustParseAddr("255.255.255.255") }, "not a host's"},
		"address used twice":        {func(s *NetworkSpec) { s.Ports[1].Addresses[0] = addr4(1) }, "is used by port 1"},
		"address of the gateway":    {func(s *NetworkSpec) { s.Ports[1].Addresses[0] = gateway4() }, "is used by the gateway"},
		"name that is far too long": {func(s *NetworkSpec) { s.Name = strings.Repeat("x", 65) }, "name must have"},
	} {
		t.Run(name, func(t *testing.T) {
			other := NetworkSpec{Name: "red", Bridge: BridgeSpec{Index: 200, MAC: gatewayMAC(), MTU: 1500}}
			s := Snapshot{Namespaces: []NamespaceSpec{alone(other), alone(blue(2))}}
			tc.change(&s.Namespaces[1].Networks[0])
			err := s.Validate()
			if tc.want == "" {
				if err != nil {
					t.Errorf("got %v, want none", err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestNamesAndMACsAreUnique(t *testing.T) {
	other := blue(0)
	other.Name, other.Bridge.Index, other.Addresses = "other", 200, nil
	sameName, sameMAC := other, other
	sameName.Name, sameName.Bridge.MAC = "blue", mac(9)
	for want, s := range map[string]Snapshot{
		`namespace "blue": name used twice`: {Namespaces: []NamespaceSpec{alone(blue(1)), alone(blue(0))}},
		`network "blue": name used twice`:   {Namespaces: []NamespaceSpec{{Name: "n", Networks: []NetworkSpec{blue(1), sameName}}}},
		`is another's`:                      {Namespaces: []NamespaceSpec{{Name: "n", Networks: []NetworkSpec{blue(1), sameMAC}}}},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestSnapshotSurvivesJSON(t *testing.T) {
	want := Snapshot{Generation: 7, Namespaces: []NamespaceSpec{alone(blue(2)), alone(NetworkSpec{
		Name: "red", Echo: true,
		Bridge: BridgeSpec{Index: 9, MAC: gatewayMAC(), MTU: 9000, AgeingSeconds: 1, MaxEntries: 2, MaxPerPort: 3},
	})}}
	b, err := json.Marshal(&want)
	if err != nil {
		t.Fatal(err)
	}
	var got Snapshot
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, b)
	}
}
