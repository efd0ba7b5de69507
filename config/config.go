// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"time"

	"github.com/goccy/go-yaml/ast"

	"sluice/autoconf"
	"sluice/iproute"
	"sluice/qdisc"
	"sluice/routing"
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
	// MaxNamespaces, and MaxVRFs and MaxLinks of all namespaces together, bound what
	// else takes a number of those that ports have.
	MaxNamespaces = 1024
	MaxVRFs       = 1024
	MaxLinks      = 1024
	// MaxEntries bounds the neighbours of a namespace, its rules, its tables with a
	// name, and the static entries of a network's FDB and MDB, each list by itself.
	MaxEntries = 65536
	// MaxRoutes bounds the routes of all namespaces together, by what one message to
	// the dataplane can say.
	MaxRoutes = 250_000
	// MaxSize bounds the text, in bytes.
	MaxSize = 32 << 20
)

// Config is a validated file. The zero value declares no network.
type Config struct {
	// Namespaces and Networks are in the order of the file; names are unique. Every
	// namespace that a network names is among the former, but for one that has the
	// network's own name.
	Node       Node
	Namespaces []Namespace
	Networks   []Network
	// Uplinks are in the order of the file, each in one of Namespaces.
	Uplinks []Uplink

	file *ast.File // for Fault
}

// Node is what is said of the node itself.
type Node struct {
	// Shares are what all that share have together.
	Shares qdisc.Shares
}

// Namespace is a declared routing domain.
type Namespace struct {
	// Name is as that of a network.
	Name string
	// Tables are names of routing tables.
	Tables map[string]routing.TableID
	// Routes are to be added in this order, with nothing stated that the file does
	// not state. That their gateways can be reached is not checked here.
	Routes []routing.Route
	// Rules are to be added in this order, to those that every namespace has or, with
	// NoDefaultRules, to none.
	Rules          []routing.Rule
	NoDefaultRules bool
	// Neighbours are on networks of the namespace; no two have the same key.
	Neighbours []iproute.Neighbour
	VRFs       []VRF
	Links      []Link
	// Connections is what is said of tracking, translation and published ports.
	Connections Connections
	// DNS is nil if nothing was said: networks then have it that say so themselves.
	DNS *DNS
	// NFT is a ruleset in the language of nft(8), whole and not yet read; nil: none.
	NFT *string
	// NFTFile is the name of its file, NFTIncluded what that includes, by path; empty:
	// the ruleset stands in the file of networks.
	NFTFile     string
	NFTIncluded map[string]string
	// Shares are what its ports have together.
	Shares qdisc.Shares
}

// Ruleset is a file with a ruleset: its name, by which errors tell places, what is in it
// and in the files that it includes, by path.
type Ruleset struct {
	File     string
	Text     string
	Included map[string]string
}

// VRF is a table of its own for the devices that name it.
type VRF struct {
	Name string
	// Table is no other VRF's, and not one of local, main and default.
	Table routing.TableID
}

// Link is one end of a link between two namespaces. The other one is in the file
// too, and names this one.
type Link struct {
	Name                    string
	PeerNamespace, PeerLink string
	Addresses               []netip.Prefix
	// MTU is MinMTU6 to MaxMTU.
	MTU    int
	Device iproute.Settings
	// VRF is one of the namespace's, or empty.
	VRF string
	// Queueing is that of what is sent by this end: Egress alone.
	Queueing Queueing
}

// Snooping is the settings of IGMP and MLD snooping, see snoop.Config. Zero is that
// package's default.
type Snooping struct {
	Querier          bool          `json:"querier,omitempty"`
	IGMPVersion      uint8         `json:"igmp_version,omitempty"`
	MLDVersion       uint8         `json:"mld_version,omitempty"`
	QueryInterval    time.Duration `json:"query_interval,omitempty"`
	ResponseInterval time.Duration `json:"response_interval,omitempty"`
	LastMember       time.Duration `json:"last_member,omitempty"`
	Robustness       uint8         `json:"robustness,omitempty"`
	MaxGroups        int           `json:"max_groups,omitempty"`
	MaxPerPort       int           `json:"max_per_port,omitempty"`
}

// Fault returns the error that a field of the file is at fault, for a reason that
// shows only in what the file is used for.
func (c *Config) Fault(field, message string) *Error {
	v := validator{file: c.file}
	v.fault(field, "%s", message)
	return v.err
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
	// DNS makes the gateway answer for names; nil: as the namespace says.
	DNS *bool

	// Namespace is the one that the network is a device of.
	Namespace string
	// Device are its settings as a device of routing, Ports those that its containers'
	// ports have unless an attachment says otherwise.
	Device iproute.Settings
	VRF    string // one of the namespace's, or empty
	Ports  iproute.Settings
	// VLAN is the gateway's port's part in VLAN filtering, PortVLAN that of
	// containers' ports. nil: unaware.
	VLAN, PortVLAN *iproute.VLAN
	// Queueing is that of containers' ports, Routed that of what is routed into the network:
	// Egress alone.
	Queueing, Routed Queueing
	// PortNFT is the ruleset of containers' ports, as Namespace.NFT; nil: none.
	PortNFT *string
	// Snooping is nil if it is off.
	Snooping *Snooping
	// Stations and Groups are static entries; their ports need not be there.
	Stations []iproute.Station
	Groups   []iproute.Group
	// Services are those by which containers configure themselves.
	Services autoconf.Config
	// Leases are the addresses that containers are given.
	Leases Leases
}

// Queueing is the queueing disciplines of ports, of what leaves by them and of what comes
// in. Zero: none.
type Queueing struct {
	Lines           []string // what the file says
	Egress, Ingress *qdisc.Spec
	// Shares are the ports' of what their namespace has.
	Shares qdisc.Shares
}

// FirstUsable returns the lowest address of a subnet that an interface may
// have: the one after the network's own address (IPv4) or after the
// subnet-router anycast address (RFC 4291 §2.6.1).
func FirstUsable(subnet netip.Prefix) netip.Addr {
	return subnet.Masked().Addr().Next()
}
