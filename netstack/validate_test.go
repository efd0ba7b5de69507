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
		change func(*NamespaceSpec)
		want   string // "" if it is right
	}{
		"right":                   {func(*NamespaceSpec) {}, ""},
		"no address":              {func(s *NamespaceSpec) { s.Addresses = nil }, ""},
		"no name":                 {func(s *NamespaceSpec) { s.Name = "" }, "name must have"},
		"name used twice":         {func(s *NamespaceSpec) { s.Name = "red" }, "name used twice"},
		"bridge without index":    {func(s *NamespaceSpec) { s.Bridge.Index = 0 }, "index 0"},
		"reserved index":          {func(s *NamespaceSpec) { s.Bridge.Index = 65535 }, "index 65535"},
		"index of another bridge": {func(s *NamespaceSpec) { s.Ports[0].Index = 200 }, "used by bridge of red"},
		"index used twice":        {func(s *NamespaceSpec) { s.Ports[1].Index = 1 }, "index 1 is used by port 1"},
		"group MAC":               {func(s *NamespaceSpec) { s.Bridge.MAC = packet.Broadcast() }, "not a unicast"},
		"zero MAC":                {func(s *NamespaceSpec) { s.Ports[0].MAC = packet.MAC{} }, "not a unicast"},
		"MAC used twice":          {func(s *NamespaceSpec) { s.Ports[1].MAC = mac(1) }, "is used by port 1"},
		"MAC of the bridge":       {func(s *NamespaceSpec) { s.Ports[1].MAC = gatewayMAC() }, "is used by the bridge"},
		"MTU too small for IPv6":  {func(s *NamespaceSpec) { s.Bridge.MTU = 1279 }, "1280..65535"},
		"MTU of IPv4": {func(s *NamespaceSpec) {
			s.Bridge.MTU, s.Addresses = 576, s.Addresses[:1]
		}, ""},
		"MTU too small":             {func(s *NamespaceSpec) { s.Bridge.MTU, s.Addresses = 575, nil }, "576..65535"},
		"MTU too large":             {func(s *NamespaceSpec) { s.Bridge.MTU = 65536 }, "1280..65535"},
		"port MTU too small":        {func(s *NamespaceSpec) { s.Ports[0].MTU = 67 }, "68..65535"},
		"negative ageing":           {func(s *NamespaceSpec) { s.Bridge.AgeingSeconds = -1 }, "ageing"},
		"negative table":            {func(s *NamespaceSpec) { s.Bridge.MaxEntries = -1 }, "maxEntries"},
		"huge quota":                {func(s *NamespaceSpec) { s.Bridge.MaxPerPort = 1 << 30 }, "maxPerPort"},
		"gateway twice":             {func(s *NamespaceSpec) { s.Addresses[1] = s.Addresses[0] }, "given twice"},
		"multicast gateway":         {func(s *NamespaceSpec) { s.Addresses[0] = netip.MustParsePrefix("224.0.0.1/24") }, "not a host's"},
		"unspecified gateway":       {func(s *NamespaceSpec) { s.Addresses[0] = netip.MustParsePrefix("0.0.0.0/0") }, "not a host's"},
		"no gateway":                {func(s *NamespaceSpec) { s.Addresses[0] = netip.Prefix{} }, "not a host's"},
		"4-in-6 address":            {func(s *NamespaceSpec) { s.Ports[0].Addresses[0] = netip.MustParseAddr("::ffff:10.0.0.1") }, "not a host's"},
		"zone":                      {func(s *NamespaceSpec) { s.Ports[0].Addresses[0] = netip.MustParseAddr("fe80::1%eth0") }, "not a host's"},
		"broadcast":                 {func(s *NamespaceSpec) { s.Ports[0].Addresses[0] = netip.MustParseAddr("255.255.255.255") }, "not a host's"},
		"address used twice":        {func(s *NamespaceSpec) { s.Ports[1].Addresses[0] = addr4(1) }, "is used by port 1"},
		"address of the gateway":    {func(s *NamespaceSpec) { s.Ports[1].Addresses[0] = gateway4() }, "is used by the gateway"},
		"name that is far too long": {func(s *NamespaceSpec) { s.Name = strings.Repeat("x", 65) }, "name must have"},
	} {
		t.Run(name, func(t *testing.T) {
			other := NamespaceSpec{Name: "red", Bridge: BridgeSpec{Index: 200, MAC: gatewayMAC(), MTU: 1500}}
			s := Snapshot{Namespaces: []NamespaceSpec{other, blue(2)}}
			tc.change(&s.Namespaces[1])
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

func TestSnapshotSurvivesJSON(t *testing.T) {
	want := Snapshot{Generation: 7, Namespaces: []NamespaceSpec{blue(2), {
		Name: "red", Echo: true,
		Bridge: BridgeSpec{Index: 9, MAC: gatewayMAC(), MTU: 9000, AgeingSeconds: 1, MaxEntries: 2, MaxPerPort: 3},
	}}}
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
