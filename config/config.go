// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"time"
)

// Defaults and ranges of the fields.
const (
	// DefaultMTU is Ethernet's (RFC 894).
	DefaultMTU = 1500
	// MinMTU is what every IPv4 host must be able to reassemble (RFC 791 §3.1);
	// below it names stop to resolve. MinMTU6 is the least IPv6 allows (RFC 8200 §5).
	MinMTU  = 576
	MinMTU6 = 1280
	// MaxMTU is the largest IP packet without jumbograms.
	MaxMTU = 65535

	// DefaultAgeing is bridge(8)'s ageing_time, IEEE 802.1D §7.9.2.
	DefaultAgeing = 300 * time.Second
	MinAgeing     = time.Second
	MaxAgeing     = 24 * time.Hour

	DefaultFDBMax        = 4096
	MinFDBMax            = 16
	MaxFDBMax            = 1 << 20
	DefaultFDBMaxPerPort = 1024

	// MaxNetworks bounds a file; each network costs a stack of its own.
	MaxNetworks = 1024
	// MaxSize bounds the text, in bytes.
	MaxSize = 1 << 20
)

// Config is a validated file. The zero value declares no network.
type Config struct {
	// Networks are in the order of the file; names are unique.
	Networks []Network
}

// Network is one declared network.
type Network struct {
	// Name is [a-z0-9][a-z0-9-]{0,31}.
	Name string
	// Subnets holds one or two prefixes of different families, host bits zero.
	Subnets []netip.Prefix
	// Gateways[i] is the gateway's address in Subnets[i]: inside it, and neither
	// its network, broadcast nor subnet-router anycast address.
	Gateways []netip.Addr
	// MTU is MinMTU (MinMTU6 if there is an IPv6 subnet) to MaxMTU.
	MTU int
	// Ageing is whole seconds, MinAgeing to MaxAgeing.
	Ageing time.Duration
	// FDBMax and FDBMaxPerPort bound the forwarding table; the latter is at most
	// the former.
	FDBMax        int
	FDBMaxPerPort int
	// Echo makes the gateway answer RFC 862 echo and RFC 863 discard.
	Echo bool
}

// FirstUsable returns the lowest address of a subnet that an interface may
// have: the one after the network's own address (IPv4) or after the
// subnet-router anycast address (RFC 4291 §2.6.1).
func FirstUsable(subnet netip.Prefix) netip.Addr {
	return subnet.Masked().Addr().Next()
}
