// SPDX-License-Identifier: Apache-2.0

package routing

import "testing"

func TestMartians(t *testing.T) {
	for _, tc := range []struct {
		name, src, dst string
		input, forward Martian
	}{
		{"ordinary", "10.0.0.1", "10.0.0.2", NotMartian, NotMartian},
		{"class E, as in Linux", "240.0.0.1", "241.0.0.1", NotMartian, NotMartian},
		{"from a group", "224.0.0.1", "10.0.0.2", MartianSource, MartianSource},
		{"from everybody", "255.255.255.255", "10.0.0.2", MartianSource, MartianSource},
		{"from loopback", "127.0.0.1", "10.0.0.2", MartianSource, MartianSource},
		{"from this network", "0.1.2.3", "10.0.0.2", MartianSource, MartianSource},
		{"from nobody", "0.0.0.0", "10.0.0.2", MartianSource, MartianSource},
		{"a DHCP client", "0.0.0.0", "255.255.255.255", NotMartian, NotUnicast},
		{"an old DHCP client", "0.0.0.0", "0.0.0.0", NotMartian, NotUnicast},
		{"an IGMP report before there is an address", "0.0.0.0", "224.0.0.22", NotMartian, NotUnicast},
		{"to loopback", "10.0.0.1", "127.0.0.1", MartianDestination, MartianDestination},
		{"to this network", "10.0.0.1", "0.0.0.9", MartianDestination, MartianDestination},
		{"to a group", "10.0.0.1", "239.1.1.1", NotMartian, NotUnicast},
		{"link local", "169.254.1.1", "10.0.0.2", NotMartian, LinkLocal},
		{"to link local", "10.0.0.1", "169.254.169.254", NotMartian, LinkLocal},

		{"IPv6", "fd00::1", "2001:db8::1", NotMartian, NotMartian},
		{"IPv6 from a group", "ff02::1", "fd00::1", MartianSource, MartianSource},
		{"IPv6 from loopback", "::1", "fd00::1", MartianSource, MartianSource},
		{"IPv6 from IPv4", "::ffff:10.0.0.1", "fd00::1", MartianSource, MartianSource},
		{"IPv6 to loopback", "fd00::1", "::1", MartianDestination, MartianDestination},
		{"IPv6 to nobody", "fd00::1", "::", MartianDestination, MartianDestination},
		{"IPv6 to a group of the interface", "fd00::1", "ff01::1", MartianDestination, MartianDestination},
		{"duplicate address detection", "::", "ff02::1:ff00:1", NotMartian, NotUnicast},
		{"IPv6 from nobody", "::", "fd00::1", NotMartian, MartianSource},
		{"IPv6 link local", "fe80::1", "fd00::1", NotMartian, LinkLocal},
		{"IPv6 to link local", "fd00::1", "fe80::1", NotMartian, LinkLocal},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := MartianInput(ip(tc.src), ip(tc.dst)); got != tc.input {
				t.Errorf("input: %v, want %v", got, tc.input)
			}
			if got := MartianForward(ip(tc.src), ip(tc.dst)); got != tc.forward {
				t.Errorf("forward: %v, want %v", got, tc.forward)
			}
		})
	}
}

func TestSpecial(t *testing.T) {
	for addr, want := range map[string]string{
		"10.1.2.3": "10.0.0.0/8", "192.0.0.9": "192.0.0.9/32", "192.0.0.1": "192.0.0.0/29", "192.0.0.99": "192.0.0.0/24",
		"8.8.8.8": "", "2001:db8::1": "2001:db8::/32", "2001::1": "2001::/32", "2001:5::1": "2001::/23", "2600::1": "", "fe80::1": "fe80::/10",
	} {
		b, ok := SpecialOf(ip(addr))
		if got := b.Prefix.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %v %v, want %q", addr, got, ok, want)
		}
		if b.Forwardable && (!b.Source || !b.Destination) || b.Global && !b.Forwardable {
			t.Errorf("%s: %+v", addr, b)
		}
	}
}

// What the registry calls unfit as a source and as a destination, and what must
// not be forwarded, is no packet on a link, or one that Linux lets pass on purpose.
func TestMartiansAndTheRegistry(t *testing.T) {
	lenient := map[string]bool{
		"192.0.0.0/24": true, "192.0.0.170/31": true, "192.0.2.0/24": true, "198.51.100.0/24": true, "203.0.113.0/24": true,
		"240.0.0.0/4": true, "192.0.0.8/32": true, "100:0:0:1::/64": true, "2001::/23": true, "2001:db8::/32": true, "3fff::/20": true,
	}
	for _, b := range specialTable {
		s, _ := SpecialOf(mustPrefix(b.prefix).Addr())
		if lenient[b.prefix] || s.Prefix.String() != b.prefix || s.Forwardable {
			continue
		}
		other := ip("198.18.0.1")
		if s.Prefix.Addr().Is6() {
			other = ip("2600::1")
		}
		if MartianForward(s.Prefix.Addr(), other) == NotMartian {
			t.Errorf("%s (%s) is forwarded", b.prefix, b.name)
		}
	}
}
