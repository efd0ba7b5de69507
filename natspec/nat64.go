// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"errors"
	"net/netip"

	"sluice/nat"
)

// NAT64 says which IPv6 destinations stand for IPv4 addresses, and as whom these are
// reached: as an address of the pool, or that of a device.
type NAT64 struct {
	Prefix netip.Prefix  `json:"prefix"`
	Device string        `json:"device,omitempty"` // or
	Pool   nat.AddrRange `json:"pool,omitzero"`
}

// WellKnown64 is the prefix of RFC 6052 §2.1.
func WellKnown64() netip.Prefix { return netip.MustParsePrefix("64:ff9b::/96") }

// ParseNAT64 reads a prefix, none for the well-known one, and either the name of a
// device or an address, or a range of them, as "192.0.2.8-192.0.2.15".
func ParseNAT64(prefix, device, pool string) (n NAT64, field string, err error) {
	n = NAT64{Prefix: WellKnown64(), Device: device}
	if prefix != "" {
		if n.Prefix, err = netip.ParsePrefix(prefix); err != nil {
			return n, "prefix", errors.New("want a prefix of IPv6, as 64:ff9b::/96")
		}
	}
	switch ok := false; {
	case device == "" && pool == "":
		return n, "masquerade", errors.New("missing: the device whose IPv4 address is the source, or pool")
	case device != "" && pool != "":
		return n, "pool", errors.New("there is masquerade, too: want one of them")
	case pool != "":
		if n.Pool, ok = addrRange(pool); !ok || !n.Pool.Min.Is4() {
			return n, "pool", errors.New("want an IPv4 address, or a range of them, as 192.0.2.8-192.0.2.15")
		}
	}
	if _, err := nat.Compile([]nat.Rule{n.Rule(uint16(min(1, len(device))))}); err != nil {
		return n, "prefix", errors.New("want 32, 40, 48, 56, 64 or 96 bits, and none set behind them, nor in the ninth byte (RFC 6052)")
	}
	return n, "", nil
}

// String is what is said, in the words of the rule.
func (n NAT64) String() string {
	if n.Device != "" {
		return "ip6 daddr " + n.Prefix.String() + " nat64 masquerade " + n.Device
	}
	return "ip6 daddr " + n.Prefix.String() + " nat64 to " + targetText(&nat.Target{Addrs: n.Pool})
}

// Rule is the rule, with the number of its device, if it has one.
func (n NAT64) Rule(device uint16) nat.Rule {
	return nat.Rule{
		Name: n.String(), Hook: nat.Prerouting, Kind: nat.NAT64, Prefix: n.Prefix, Target: nat.Target{Addrs: n.Pool}, Device: device,
	}
}
