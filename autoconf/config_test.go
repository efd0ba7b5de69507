// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
)

// TestConfigTravels: the configuration is part of the snapshot, which is JSON.
func TestConfigTravels(t *testing.T) {
	want := Config{Advert: fullAdvert(), DHCP4: full4(), DHCP6: full6()}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	samePrefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, got, same, samePrefix); diff != "" {
		t.Errorf("%s\n%s", text, diff)
	}
	if !strings.Contains(string(text), `"preference":"high"`) {
		t.Errorf("preferences are not words: %s", text)
	}
	if err := json.Unmarshal([]byte(`{"advert":{"preference":"highest"}}`), &got); err == nil {
		t.Error("an unknown preference is accepted")
	}
	if text, err := json.Marshal(Config{}); err != nil || string(text) != "{}" {
		t.Errorf("nothing is %s, %v", text, err)
	}
}

// TestFaultsAreNamed: a wrong configuration is refused as a whole, and says where.
func TestFaultsAreNamed(t *testing.T) {
	many := make([]netip.Addr, 9)
	for i := range many {
		many[i] = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i + 1)})
	}
	link4 := testLink()
	link4.Addrs = []netip.Prefix{prefix("10.44.0.1/24")}
	link6 := testLink()
	link6.Addrs = []netip.Prefix{prefix("fd44::1/64")}
	small := testLink()
	small.MTU = 1000
	for name, tc := range map[string]struct {
		config Config
		link   Link
		want   string // "": right
	}{
		"nothing":                {Config{}, testLink(), ""},
		"everything":             {Config{Advert: fullAdvert(), DHCP4: full4(), DHCP6: full6()}, testLink(), ""},
		"defaults":               {Config{Advert: &Advert{}, DHCP4: &DHCP4{}, DHCP6: &DHCP6{}}, testLink(), ""},
		"adverts without subnet": {Config{Advert: &Advert{}}, link4, ""},
		"no IPv4":                {Config{DHCP4: &DHCP4{}}, link6, "dhcp4: the network has no IPv4 subnet"},
		"MTU below IPv6's":       {Config{Advert: &Advert{}}, small, "advert: mtu 1000"},
		"MTU below IPv6's, DHCP": {Config{DHCP6: &DHCP6{}}, small, "dhcp6: the network's MTU 1000"},
		"no MAC":                 {Config{}, Link{MTU: 1500}, "gateway's MAC"},
		"link-local is none":     {Config{}, Link{MAC: mac(gatewayMAC), MTU: 1500, LinkLocal: netip.MustParseAddr("fd44::1")}, "link-local"},
		"address without subnet": {Config{}, Link{MAC: mac(gatewayMAC), MTU: 1500, Addrs: []netip.Prefix{{}}}, "subnet"},
		"interval too short":     {Config{Advert: &Advert{MaxInterval: 3}}, testLink(), "advert: maxInterval 3"},
		"shortest interval":      {Config{Advert: &Advert{MaxInterval: 4}}, testLink(), ""},
		"min too long":           {Config{Advert: &Advert{MinInterval: 451}}, testLink(), "advert: minInterval 451"},
		"min too short":          {Config{Advert: &Advert{MinInterval: 2}}, testLink(), "advert: minInterval 2"},
		"lifetime too short":     {Config{Advert: &Advert{Lifetime: 599}}, testLink(), "advert: lifetime 599"},
		"mtu too small":          {Config{Advert: &Advert{MTU: 1279}}, testLink(), "advert: mtu 1279"},
		"mtu too large":          {Config{Advert: &Advert{MTU: 1501}}, testLink(), "advert: mtu 1501"},
		"preference":             {Config{Advert: &Advert{Preference: 2}}, testLink(), "advert: preference 2"},
		"IPv4 prefix":            {Config{Advert: &Advert{Prefixes: []Prefix{{Prefix: prefix("10.0.0.0/8")}}}}, testLink(), "advert: prefix 10.0.0.0/8"},
		"link-local prefix":      {Config{Advert: &Advert{Prefixes: []Prefix{{Prefix: prefix("fe80::/64")}}}}, testLink(), "advert: prefix fe80::/64"},
		"autonomous /48":         {Config{Advert: &Advert{Prefixes: []Prefix{{Prefix: prefix("fd44::/48"), Autonomous: true}}}}, testLink(), "advert: prefix fd44::/48: autonomous"},
		"preferred too long":     {Config{Advert: &Advert{Prefixes: []Prefix{{Prefix: prefix("fd44::/64"), Valid: 1, Preferred: 2}}}}, testLink(), "advert: prefix fd44::/64: preferred"},
		"IPv4 route":             {Config{Advert: &Advert{Routes: []AdvertRoute{{Dst: prefix("10.0.0.0/8")}}}}, testLink(), "advert: route 10.0.0.0/8"},
		"route's preference":     {Config{Advert: &Advert{Routes: []AdvertRoute{{Dst: prefix("fd00::/8"), Preference: -2}}}}, testLink(), "advert: route fd00::/8: preference"},
		"IPv4 resolver":          {Config{Advert: &Advert{DNS: addrs("10.44.0.53")}}, testLink(), "advert: dns: 10.44.0.53"},
		"nine resolvers":         {Config{Advert: &Advert{DNS: many}}, testLink(), "advert: dns: more than 8"},
		"search":                 {Config{Advert: &Advert{Search: []string{"a b"}}}, testLink(), `advert: search: "a b"`},
		"too many options":       {Config{Advert: &Advert{Prefixes: make40(t)}}, testLink(), "advert: more options"},
		"mtu4 too small":         {Config{DHCP4: &DHCP4{MTU: 575}}, testLink(), "dhcp4: mtu 575"},
		"mtu4 too large":         {Config{DHCP4: &DHCP4{MTU: 1501}}, testLink(), "dhcp4: mtu 1501"},
		"domain":                 {Config{DHCP4: &DHCP4{Domain: "x\n"}}, testLink(), `dhcp4: domain: "x\n"`},
		"IPv6 in DHCPv4":         {Config{DHCP4: &DHCP4{DNS: addrs("fd44::53")}}, testLink(), "dhcp4: dns: fd44::53"},
		"IPv6 clock in DHCPv4":   {Config{DHCP4: &DHCP4{NTP: addrs("fd44::53")}}, testLink(), "dhcp4: ntp: fd44::53"},
		"IPv6 route in DHCPv4":   {Config{DHCP4: &DHCP4{Routes: []Route{{Dst: prefix("fd00::/8")}}}}, testLink(), "dhcp4: route fd00::/8"},
		"65 routes":              {Config{DHCP4: &DHCP4{Routes: make([]Route, 65)}}, testLink(), "dhcp4: routes: more than 64"},
		"long search":            {Config{DHCP4: &DHCP4{Search: strings.Fields(strings.Repeat("aaaaaaaaaaaaaaaaaaaa ", 12))}}, testLink(), "dhcp4: search: more than 256"},
		"valid too short":        {Config{DHCP6: &DHCP6{Preferred: 2, Valid: 1}}, testLink(), "dhcp6: preferred"},
		"refresh":                {Config{DHCP6: &DHCP6{Refresh: 599}}, testLink(), "dhcp6: refresh 599"},
		"zone":                   {Config{DHCP6: &DHCP6{NTP: addrs("fe80::1%eth0")}}, testLink(), "dhcp6: ntp: fe80::1%eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.config.Validate(tc.link)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			s := New(1)
			if change, err := s.Prepare(tc.link, tc.config); (err == nil) != (tc.want == "") || (change == nil) != (err != nil) {
				t.Errorf("prepared %v, %v", change, err)
			}
		})
	}
}

// make40 is more prefixes than fit into an advert.
func make40(t *testing.T) []Prefix {
	t.Helper()
	var list []Prefix
	for i := range byte(40) {
		list = append(list, Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: i}), 64)})
	}
	return list
}

func TestReasons(t *testing.T) {
	for v, want := range map[Verdict]string{Pass: "none", Done: "none", Malformed: "conf_malformed", Refused: "conf_refused"} {
		if got := v.Reason().String(); got != want {
			t.Errorf("verdict %d: %s, want %s", v, got, want)
		}
	}
}

// TestMACOfGroup: a group is no gateway.
func TestMACOfGroup(t *testing.T) {
	l := testLink()
	l.MAC = packet.Broadcast()
	if err := (Config{}).Validate(l); err == nil {
		t.Error("accepted")
	}
}
