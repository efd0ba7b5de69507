// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sluice/packet"
)

// The defaults of Config. Linux has the same, as mcast_* in ip-link(8).
const (
	DefaultQueryInterval    = 125 * time.Second // RFC 2236 §8.2
	DefaultResponseInterval = 10 * time.Second  // RFC 2236 §8.3
	DefaultLastMember       = time.Second       // RFC 2236 §8.8
	DefaultRobustness       = 2                 // RFC 2236 §8.1
	DefaultMaxGroups        = 4096
	DefaultMaxPerPort       = 256
)

// Config is how a Table queries and what it holds. Zero only listens, with the
// default timers.
type Config struct {
	// Querier: query in the VLANs of SetPorts while nobody with a lower address
	// does.
	Querier bool `json:"querier,omitempty"`

	// MAC is the source of queries.
	MAC packet.MAC `json:"mac,omitzero"`

	// Addr4 and Addr6 are the source addresses of queries. Zero: 0.0.0.0, with
	// which every other querier wins, and the link-local address of MAC.
	Addr4 netip.Addr `json:"addr4,omitzero"`
	Addr6 netip.Addr `json:"addr6,omitzero"`

	// Version4 is 2 or 3, of IGMP; Version6 1 or 2, of MLD: those of the queries
	// that are sent. All versions are understood. 0: 2 and 1, as on Linux.
	Version4 uint8 `json:"version4,omitempty"`
	Version6 uint8 `json:"version6,omitempty"`

	// QueryInterval is the time from one general query to the next, 1 s to 1 h;
	// ResponseInterval that in which hosts are to answer, 1 s to 25 s and less
	// than QueryInterval; LastMember the same for a group that was left, 100 ms
	// to 25 s. Tables count whole seconds: what they wait for is rounded up.
	QueryInterval    time.Duration `json:"queryInterval,omitempty"`
	ResponseInterval time.Duration `json:"responseInterval,omitempty"`
	LastMember       time.Duration `json:"lastMember,omitempty"`

	// Robustness is the number of times that a message is sent, one of which is
	// taken to arrive; 1 to 7.
	Robustness uint8 `json:"robustness,omitempty"`

	// MaxGroups bounds the groups, each in one VLAN; MaxPerPort those that one
	// port is a member of. 0: 4096 and 256.
	MaxGroups  int `json:"maxGroups,omitempty"`
	MaxPerPort int `json:"maxPerPort,omitempty"`
}

// ErrConfig says that a part of a Config is not within its bounds.
var ErrConfig = errors.New("not within its bounds")

// Validate reports what is wrong with c. New takes it all the same, and brings it
// within the bounds.
func (c *Config) Validate() error {
	d := c.withDefaults()
	for _, part := range []struct {
		name string
		ok   bool
	}{
		{"mac", !c.MAC.IsMulticast()},
		{"addr4", within(c.Addr4, d.Addr4)},
		{"addr6", within(c.Addr6, d.Addr6) && d.Addr6.IsLinkLocalUnicast()},
		{"version4", within(c.Version4, d.Version4)},
		{"version6", within(c.Version6, d.Version6)},
		{"queryInterval", within(c.QueryInterval, d.QueryInterval)},
		{"responseInterval", within(c.ResponseInterval, d.ResponseInterval)},
		{"lastMember", within(c.LastMember, d.LastMember)},
		{"robustness", within(c.Robustness, d.Robustness)},
		{"maxGroups", within(c.MaxGroups, d.MaxGroups)},
		{"maxPerPort", within(c.MaxPerPort, d.MaxPerPort)},
	} {
		if !part.ok {
			return fmt.Errorf("%s: %w", part.name, ErrConfig)
		}
	}
	return nil
}

// within reports whether v is zero, or was not changed when it was bounded.
func within[T comparable](v, bounded T) bool {
	var zero T
	return v == zero || v == bounded
}

// withDefaults fills in what is zero and bounds what is not.
func (c Config) withDefaults() Config {
	c.QueryInterval = between(c.QueryInterval, DefaultQueryInterval, time.Second, time.Hour)
	c.ResponseInterval = between(c.ResponseInterval, DefaultResponseInterval, time.Second, 25*time.Second)
	c.ResponseInterval = min(c.ResponseInterval, c.QueryInterval)
	c.LastMember = between(c.LastMember, DefaultLastMember, 100*time.Millisecond, 25*time.Second)
	c.Robustness = between(c.Robustness, DefaultRobustness, 1, 7)
	c.MaxGroups = between(c.MaxGroups, DefaultMaxGroups, 1, 1<<20)
	c.MaxPerPort = between(c.MaxPerPort, DefaultMaxPerPort, 1, 1<<20)
	c.Version4 = between(c.Version4, 2, 2, 3)
	c.Version6 = between(c.Version6, 1, 1, 2)
	if !c.Addr4.Is4() {
		c.Addr4 = netip.IPv4Unspecified()
	}
	if !c.Addr6.Is6() || c.Addr6.Is4In6() {
		m := c.MAC
		c.Addr6 = netip.AddrFrom16([16]byte{
			0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
		})
	}
	return c
}

// between is v within its bounds, or its default if v is zero.
func between[T uint8 | int | time.Duration](v, otherwise, least, most T) T {
	if v == 0 {
		return otherwise
	}
	return min(max(v, least), most)
}

// seconds rounds a duration up.
func (*Config) seconds(d time.Duration) uint32 { return uint32((d + time.Second - 1) / time.Second) }

// membership is how long a report is good for, RFC 2236 §8.4.
func (c *Config) membership() uint32 {
	return c.seconds(time.Duration(c.Robustness)*c.QueryInterval + c.ResponseInterval)
}

// otherQuerier is how long another querier is believed to be there, RFC 2236
// §8.5. It also ends a router port.
func (c *Config) otherQuerier() uint32 {
	return c.seconds(time.Duration(c.Robustness)*c.QueryInterval + c.ResponseInterval/2)
}

// startup is the time between the first queries, RFC 2236 §8.6.
func (c *Config) startup() uint32 { return max(1, c.seconds(c.QueryInterval/4)) }

// lastMember is how long a group lives on a port that left it, if nobody there
// answers: RFC 2236 §8.8 and §8.9.
func (c *Config) lastMember() uint32 {
	return c.seconds(time.Duration(c.Robustness) * c.LastMember)
}
