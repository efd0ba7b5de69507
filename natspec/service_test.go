// SPDX-License-Identifier: Apache-2.0

package natspec_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"sluice/nat"
	"sluice/natspec"
)

func TestServices(t *testing.T) {
	for text, want := range map[string]string{
		"web tcp 10.96.0.10:80 real 10.50.0.2:8080":                                       "",
		"web tcp 10.96.0.10:80 tcp [fd96::10]:80 persistent 300s real [fd50::2] weight 1": "web tcp 10.96.0.10:80 tcp [fd96::10]:80 persistent 300 real [fd50::2]",
		"dns udp 10.96.0.10:53 real 10.50.0.2 weight 2 state draining real 10.50.0.3:54":  "",
		"web persistent off real 10.50.0.2:80 state ready":                                "web real 10.50.0.2:80",
		"web real 10.50.0.2:80 state gone":                                                "",
		"web":                                                                             "",
		"":                                                                                "! want the name",
		"a/b tcp 10.96.0.10:80":                                                           "! want the name",
		"web icmp 10.96.0.10:8":                                                           "! want tcp, udp or sctp",
		"web tcp 10.96.0.10":                                                              "! want an address and a port",
		"web tcp 10.96.0.10:80-81":                                                        "! want an address and a port",
		"web tcp fd96::10:80":                                                             "! want an address and a port",
		"web tcp 224.0.0.1:80":                                                            "! want an address and a port",
		"web tcp 10.96.0.10:80 tcp 10.96.0.10:80":                                         "! said twice",
		"web persistent long":                                                             "! want seconds",
		"web persistent 86401":                                                            "! want seconds",
		"web real 10.50.0.2:80 weight 0":                                                  "! state draining",
		"web real 10.50.0.2:80 state dead":                                                "! want ready, draining or gone",
		"web real 10.50.0.2:80 real 10.50.0.2:80 weight 2":                                "! said twice",
		"web real 10.50.0.2:80 wait 2":                                                    "! want tcp, udp or sctp",
	} {
		s, err := natspec.ParseService(text)
		if reason, bad := strings.CutPrefix(want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("%q: %v, want %q in it", text, err, reason)
			}
			continue
		}
		if want == "" {
			want = text
		}
		if got := s.String(); err != nil || got != want {
			t.Errorf("%q is %q, %v", text, got, err)
		}
		b, err := json.Marshal(s)
		var again natspec.Service
		if err == nil {
			err = json.Unmarshal(b, &again)
		}
		if err != nil || again.String() != s.String() {
			t.Errorf("%s becomes %q: %v", b, again, err)
		}
	}
}

func TestMaps(t *testing.T) {
	m, _, err := natspec.ParseMap("ports", "ipv4_addr.inet_service", nil)
	if err == nil {
		t.Errorf("a map without values: %v", m)
	}
	m, _, err = natspec.ParseMap("ports", "ipv4_addr . inet_service : ipv4_addr . inet_service", []string{"192.0.2.1 . 80 : 10.0.0.1 . 8080", "192.0.2.1 . 443 : 10.0.0.1 . 8443"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := natspec.Parse("prerouting iifname wan dnat to ip daddr . tcp dport map @ports")
	if err != nil || s.Fits(&m) != nil {
		t.Fatal(err, s.Fits(&m))
	}
	r, _ := s.Rule(func(string) (uint16, bool) { return 1, true }, &m)
	to := r.Map.Elements[nat.MapKey{Addr: netip.MustParseAddr("192.0.2.1"), Port: 443}]
	if len(r.Map.Elements) != 2 || to.Addrs.Min != netip.MustParseAddr("10.0.0.1") || to.Ports.Min != 8443 || r.Map.By != nat.ByDstAddr|nat.ByDstPort {
		t.Errorf("%+v", r.Map)
	}
	other, _ := natspec.Parse("prerouting dnat to tcp dport map @ports")
	if err := other.Fits(&m); err == nil || !strings.Contains(err.Error(), "keys of type ipv4_addr . inet_service, this one is inet_service") {
		t.Errorf("another type: %v", err)
	}
	for text, want := range map[string]string{
		"80 : 10.0.0.1":                        "type ipv4_addr",
		"192.0.2.1 . 80 : 10.0.0.1":            "want .",
		"192.0.2.1 . 80 : fd00::1 . 80":        "type",
		"192.0.2.1 . 80 : 10.0.0.1 . 80 extra": "nothing may follow",
		"192.0.2.1 . 80-90 : 10.0.0.1 . 80":    "type inet_service",
	} {
		if _, at, err := natspec.ParseMap("m", m.Type, []string{m.Elements[0], text}); err == nil || at != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v", text, at, err)
		}
	}
}

func TestNAT64(t *testing.T) {
	for words, want := range map[[3]string]string{
		{"", "wan", ""}: "ip6 daddr 64:ff9b::/96 nat64 masquerade wan",
		{"2001:db8:64::/64", "", "192.0.2.8-192.0.2.9"}: "ip6 daddr 2001:db8:64::/64 nat64 to 192.0.2.8-192.0.2.9",
		{"", "", ""}:                 "! missing",
		{"", "wan", "192.0.2.8"}:     "! one of them",
		{"", "", "fd00::1"}:          "! an IPv4 address",
		{"64:ff9b::/95", "wan", ""}:  "! RFC 6052",
		{"64:ff9b::1/96", "wan", ""}: "! RFC 6052",
		{"10.0.0.0/8", "wan", ""}:    "! RFC 6052",
		{"nothing", "wan", ""}:       "! prefix of IPv6",
	} {
		n, _, err := natspec.ParseNAT64(words[0], words[1], words[2])
		if reason, bad := strings.CutPrefix(want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("%q: %v", words, err)
			}
		} else if err != nil || n.String() != want {
			t.Errorf("%q is %q, %v", words, n, err)
		}
	}
}

func FuzzService(f *testing.F) {
	f.Add("web tcp 10.96.0.10:80 tcp [fd96::10]:80 persistent 300 real 10.50.0.2:8080 weight 2 state draining")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := natspec.ParseService(text)
		if err != nil {
			return
		}
		for i := range s.Real {
			s.Real[i].Complete()
		}
		if again, err := natspec.ParseService(s.String()); err != nil || again.String() != s.String() {
			t.Fatalf("%q is written %q: %v", text, s, err)
		}
	})
}

func FuzzMap(f *testing.F) {
	f.Add("ipv4_addr . inet_service : ipv4_addr . inet_service", "192.0.2.1 . 80 : 10.0.0.1 . 8080")
	f.Add("inet_proto . ipv6_addr : ipv6_addr", "tcp . fd00::1 : fd00::2-fd00::5")
	f.Fuzz(func(t *testing.T, kind, element string) {
		m, _, err := natspec.ParseMap("m", kind, []string{element})
		if err != nil {
			return
		}
		again, at, err := natspec.ParseMap("m", m.Type, m.Elements)
		if err != nil || again.Type != m.Type || again.Elements[0] != m.Elements[0] {
			t.Fatalf("%q %q: %v becomes %v: %d %v", kind, element, m, again, at, err)
		}
	})
}
