// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"fmt"
	"math"
	"net/netip"

	"sluice/packet"
)

// Forever is the lifetime that does not end, in each of the protocols.
const Forever = math.MaxUint32

// The defaults of Config, in seconds.
const (
	DefaultMaxInterval = 600     // RFC 4861 §6.2.1
	DefaultValid       = 2592000 // of a prefix, RFC 4861 §6.2.1
	DefaultPreferred   = 604800  // of a prefix, RFC 4861 §6.2.1
	DefaultHopLimit    = 64      // IANA "IP Parameters", default TTL
	DefaultLease       = 3600
	DefaultRefresh     = 86400 // IRT_DEFAULT, RFC 8415 §21.23
)

// Config is what a network tells its containers. A service that is nil is off.
// It is inert and travels as JSON. All times are in seconds; one that is zero
// takes its default.
type Config struct {
	Advert *Advert `json:"advert,omitempty"`
	DHCP4  *DHCP4  `json:"dhcp4,omitempty"`
	DHCP6  *DHCP6  `json:"dhcp6,omitempty"`
}

// Advert is what is said in router advertisements; the names are those of RFC
// 4861 §6.2.1 without their prefix. Zero announces the gateway as the default
// router, the MTU and the network's IPv6 subnets, which are on-link.
type Advert struct {
	// MinInterval and MaxInterval bound the random time between adverts: Max is
	// 4 to 65535 (RFC 8319), Min 3 to three quarters of it, and a third if zero.
	MinInterval uint16 `json:"minInterval,omitempty"`
	MaxInterval uint16 `json:"maxInterval,omitempty"`
	// Lifetime of the default route: MaxInterval to 65535, three times MaxInterval
	// if zero.
	Lifetime uint16 `json:"lifetime,omitempty"`
	// NoDefault: the gateway is no default router, Lifetime is sent as zero.
	NoDefault  bool       `json:"noDefault,omitempty"`
	Preference Preference `json:"preference,omitzero"`
	Managed    bool       `json:"managed,omitempty"` // addresses by DHCPv6
	Other      bool       `json:"other,omitempty"`   // all else by DHCPv6
	HopLimit   uint8      `json:"hopLimit,omitempty"`
	// ReachableMillis and RetransMillis are for the neighbour discovery of the
	// hosts, in milliseconds; zero leaves them what they have.
	ReachableMillis uint32 `json:"reachableMillis,omitempty"`
	RetransMillis   uint32 `json:"retransMillis,omitempty"`
	// MTU is 1280 up to that of the network, which zero means.
	MTU uint32 `json:"mtu,omitempty"`
	// Prefixes replace the subnets of the gateway, if not nil.
	Prefixes []Prefix      `json:"prefixes,omitempty"`
	Routes   []AdvertRoute `json:"routes,omitempty"`
	// DNS and Search are the resolvers and the search list of RFC 8106, good for
	// DNSLifetime, which is three times MaxInterval if zero.
	DNS         []netip.Addr `json:"dns,omitempty"`
	Search      []string     `json:"search,omitempty"`
	DNSLifetime uint32       `json:"dnsLifetime,omitempty"`
}

// Prefix is a prefix information option, RFC 4861 §4.6.2.
type Prefix struct {
	Prefix netip.Prefix `json:"prefix"`
	// OffLink: hosts reach the prefix by a router.
	OffLink bool `json:"offLink,omitempty"`
	// Autonomous: hosts make themselves addresses of it (RFC 4862). It has 64 bits
	// then, as interface identifiers have on Ethernet.
	Autonomous bool   `json:"autonomous,omitempty"`
	Valid      uint32 `json:"valid,omitempty"`
	Preferred  uint32 `json:"preferred,omitempty"`
	// Deprecated: no new connection is to use it, Preferred is sent as zero.
	Deprecated bool `json:"deprecated,omitempty"`
}

// AdvertRoute is a route information option, RFC 4191 §2.3.
type AdvertRoute struct {
	Dst        netip.Prefix `json:"dst"`
	Preference Preference   `json:"preference,omitzero"`
	// Lifetime is three times MaxInterval if zero.
	Lifetime uint32 `json:"lifetime,omitempty"`
}

// Preference is which router hosts prefer, RFC 4191 §2.1. Zero is medium.
type Preference int8

// The preferences.
const (
	Low    Preference = -1
	Medium Preference = 0
	High   Preference = 1
)

// String is the preference in RFC 4191's word.
func (p Preference) String() string {
	switch {
	case p < 0:
		return "low"
	case p > 0:
		return "high"
	}
	return "medium"
}

// MarshalText makes JSON and YAML show the word.
func (p Preference) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the word.
func (p *Preference) UnmarshalText(text []byte) error {
	for _, v := range []Preference{Low, Medium, High} {
		if v.String() == string(text) {
			*p = v
			return nil
		}
	}
	return fmt.Errorf("preference %q: not low, medium or high", text)
}

// bits are the two of RFC 4191 §2.1, at their place in the octet of flags.
func (p Preference) bits() uint8 { return uint8(p) & 3 << 3 }

// DHCP4 is what DHCPv4 tells beside the addresses. Zero gives the address, its
// subnet, the gateway as router and the MTU.
type DHCP4 struct {
	// Lease is the time after which a client must have asked again.
	Lease uint32 `json:"lease,omitempty"`
	// NoRouter: the gateway is not told as the default router.
	NoRouter bool `json:"noRouter,omitempty"`
	// Routes are told by option 121, together with the default route.
	Routes []Route      `json:"routes,omitempty"`
	DNS    []netip.Addr `json:"dns,omitempty"`
	Domain string       `json:"domain,omitempty"`
	Search []string     `json:"search,omitempty"`
	NTP    []netip.Addr `json:"ntp,omitempty"`
	// MTU is 576 up to that of the network, which zero means.
	MTU uint16 `json:"mtu,omitempty"`
	// HostName: a container is told its name, if that is one of a host.
	HostName bool `json:"hostName,omitempty"`
}

// Route is a classless static route, RFC 3442.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	// Via is the next hop. The zero Addr means the gateway of the client's subnet,
	// 0.0.0.0 that Dst is on-link. One in another subnet is not told.
	Via netip.Addr `json:"via,omitzero"`
}

// DHCP6 is what DHCPv6 tells beside the addresses.
type DHCP6 struct {
	// Stateless: no addresses are given, only the rest is told.
	Stateless bool `json:"stateless,omitempty"`
	// Preferred and Valid are the lifetimes of addresses: DefaultLease and twice
	// Preferred if zero.
	Preferred uint32       `json:"preferred,omitempty"`
	Valid     uint32       `json:"valid,omitempty"`
	DNS       []netip.Addr `json:"dns,omitempty"`
	Search    []string     `json:"search,omitempty"`
	NTP       []netip.Addr `json:"ntp,omitempty"`
	// Refresh is when a client that got no address asks again, 600 at least.
	Refresh uint32 `json:"refresh,omitempty"`
}

// Link is what is known of a network beside its Config.
type Link struct {
	// MAC is the gateway's.
	MAC packet.MAC
	// Addrs are the gateway's addresses with the length of their subnet.
	Addrs []netip.Prefix
	// LinkLocal is the gateway's link-local IPv6 address; the zero Addr means the
	// one that is made of the MAC (RFC 4291 Appendix A).
	LinkLocal netip.Addr
	MTU       int
}

// Client is the container behind the port that a frame came in by.
type Client struct {
	MAC packet.MAC
	// Addrs are those that it was attached with.
	Addrs []netip.Addr
	// Name is its host name, see DHCP4.HostName.
	Name string
}
