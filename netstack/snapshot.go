// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"

	"sluice/autoconf"
	"sluice/bridge"
	"sluice/bridge/guard"
	"sluice/bridge/snoop"
	"sluice/conntrack"
	"sluice/dns"
	"sluice/packet"
	"sluice/policy/journal"
	"sluice/qdisc"
	"sluice/routing"
)

// MaxIndex is the highest port number of a snapshot: 65535 stays free as
// "none", and 0 is the counter slot of nobody.
const MaxIndex = 65534

// Snapshot is the whole configuration of a Netstack. It is inert: the agent
// builds it, it travels as JSON, and Apply makes it real, all of it or none.
// The zero value has no namespace and is valid.
type Snapshot struct {
	// Generation is the agent's name for this state. It is reported back
	// (Netstack.Generation) and has no other effect.
	Generation uint64          `json:"generation"`
	Namespaces []NamespaceSpec `json:"namespaces"`
	// Shares are what all ports that share have together. Nil in a direction: there is
	// no bound, and each namespace has a tree of its own.
	Shares qdisc.Shares `json:"shares,omitzero"`
}

// NamespaceSpec describes one namespace: a routing domain with one host stack.
// Two namespaces may use the same addresses and the same MACs.
type NamespaceSpec struct {
	// Name is unique in the snapshot; a namespace of the same name in the next
	// snapshot is the same namespace and keeps its sockets.
	Name string `json:"name"`
	// Networks are its bridges. Each is a device of the namespace's routing.
	Networks []NetworkSpec `json:"networks,omitempty"`
	// Links lead to other namespaces.
	Links []LinkSpec `json:"links,omitempty"`
	// Sockets are uplinks whose connections go on as sockets of the host.
	Sockets []SocketSpec `json:"sockets,omitempty"`
	// VRFs are tables of their own for some of the devices (ip-vrf(8)).
	VRFs    []VRFSpec   `json:"vrfs,omitempty"`
	Routing RoutingSpec `json:"routing,omitzero"`
	// Connections are tracked, and their addresses translated, if it says so.
	Connections ConnectionsSpec `json:"connections,omitzero"`
	// DNS is how names are answered in the networks that have it; nil: in none.
	DNS *dns.Config `json:"dns,omitempty"`
	// Rules are the ruleset of its hooks, for which connections are to be tracked; nil:
	// there is none.
	Rules *journal.Journal `json:"nft,omitempty"`
	// Shares are what those of its ports have together that have some themselves.
	Shares qdisc.Shares `json:"shares,omitzero"`
}

// RoutingSpec is what the routing of a namespace has beside the connected and
// local routes of its devices, which are made of their addresses.
type RoutingSpec struct {
	// Routes are complete (routing.OpRestore): they were checked when they came.
	Routes RouteList `json:"routes,omitempty"`
	// Rules replace those of both families; nil means the three that a new
	// network namespace has, in each.
	Rules []routing.Rule `json:"rules"`
	// Neighbours are static ones (nud permanent). A container's addresses need
	// none: they are known.
	Neighbours []NeighbourSpec `json:"neighbours,omitempty"`
	// Seed is what flow hashes are keyed with, so that flows keep their next hop
	// over a restart.
	Seed uint64 `json:"seed,omitempty"`
}

// NeighbourSpec is a static neighbour.
type NeighbourSpec struct {
	Dev  string     `json:"dev"` // a network of the namespace
	Addr netip.Addr `json:"addr"`
	MAC  packet.MAC `json:"mac"`
}

// VRFSpec is a virtual routing and forwarding domain: packets that come by, or
// leave by, one of its networks are looked up in its table, by the rule l3mdev.
type VRFSpec struct {
	Name  string          `json:"name"`
	Index uint16          `json:"index"` // as that of a port
	Table routing.TableID `json:"table"`
}

// LinkSpec is one end of a point-to-point link between two namespaces, a device
// without addresses of a link layer: what one routes over it comes in at the
// other.
type LinkSpec struct {
	Name  string `json:"name"`
	Index uint16 `json:"index"` // as that of a port
	// Peer is the Index of the other end, which is in another namespace and names
	// this one.
	Peer uint16 `json:"peer"`
	// Addresses of this end; none is fine.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	MTU       int            `json:"mtu"`
	Device    DeviceSpec     `json:"device,omitzero"`
	VRF       string         `json:"vrf,omitempty"`
	// Egress is the queueing discipline of what is sent by this end: what the namespace
	// routes over the link. Nil: none.
	Egress *qdisc.Spec `json:"egress,omitempty"`
}

// NetworkSpec describes one network: a bridge, the gateway's addresses in the
// host stack, and the containers' ports.
type NetworkSpec struct {
	// Name is unique in the namespace, and the name of the device.
	Name   string     `json:"name"`
	Bridge BridgeSpec `json:"bridge"`
	// Addresses are the gateway addresses with the length of their subnet.
	// None means that the host stack has no address and answers nothing.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Ports     []PortSpec     `json:"ports,omitempty"`
	// Egress is the queueing discipline of the device: of what is routed into the network,
	// wherever in it that goes. Nil: none.
	Egress *qdisc.Spec `json:"egress,omitempty"`
	// Echo starts the echo (RFC 862, port 7) and discard (RFC 863, port 9)
	// services on TCP and UDP of the gateway's addresses.
	Echo   bool       `json:"echo,omitempty"`
	Device DeviceSpec `json:"device,omitzero"`
	// VRF is one of the namespace's, or empty.
	VRF string `json:"vrf,omitempty"`
	// Autoconf is what the network tells containers that configure themselves:
	// router advertisements, DHCP, DHCPv6. Zero: nothing.
	Autoconf autoconf.Config `json:"autoconf,omitzero"`
	// DNS makes the gateway's addresses answer for names, see NamespaceSpec.DNS, and
	// gives the containers names.
	DNS bool `json:"dns,omitempty"`
	// Learn is what the network's device asks of the link behind its ports, as a host
	// would. What it is told is told on (Namespace.Learned), and becomes addresses and
	// routes by the next snapshot.
	Learn autoconf.Learn `json:"learn,omitzero"`
}

// DeviceSpec is what sysctl(8) sets for a device of the kernel
// (net.ipv4.conf.*, net.ipv6.conf.*). Zero forwards without a reverse path check.
type DeviceSpec struct {
	// NoForward: packets that come by the device reach the host stack only.
	NoForward bool `json:"noForward,omitempty"`
	// ReversePath is rp_filter, for both families.
	ReversePath routing.ReverseMode `json:"reversePath,omitempty"`
	// NoRedirects: send_redirects off.
	NoRedirects bool `json:"noRedirects,omitempty"`
	// ClampMSS lowers the MSS option of TCP that comes or leaves by the device to
	// what fits: 1 means the route's MTU (--clamp-mss-to-pmtu of iptables), other
	// values are the limit in bytes (--set-mss, downwards only). 0: off.
	ClampMSS uint16 `json:"clampMSS,omitempty"`
}

// BridgeSpec describes a network's bridge and its local port, behind which
// the host stack stands.
type BridgeSpec struct {
	// Index is the local port's number and counter slot, 1 to MaxIndex, unique
	// among all ports and devices of the snapshot. It is the device's index.
	Index uint16 `json:"index"`
	// MAC is the link address of the host stack: unicast and not zero.
	MAC packet.MAC `json:"mac"`
	// MTU of the host stack in bytes of IP packet, 576 (1280 with an IPv6
	// address) to 65535.
	MTU int `json:"mtu"`
	// AgeingSeconds, MaxEntries and MaxPerPort bound the FDB; zero takes the
	// defaults of bridge.Options. They hold from the network's creation on:
	// a later snapshot that differs makes a new, empty FDB.
	AgeingSeconds int `json:"ageingSeconds,omitempty"`
	MaxEntries    int `json:"maxEntries,omitempty"`
	MaxPerPort    int `json:"maxPerPort,omitempty"`
	// VLAN is the local port's part in VLAN filtering: where the gateway is.
	VLAN bridge.VLAN `json:"vlan,omitzero"`
	// Snooping turns IGMP and MLD snooping on. A change of it forgets the groups.
	Snooping *snoop.Config `json:"snooping,omitempty"`
	// Static are entries of the FDB beside those of the containers.
	Static []StationSpec `json:"static,omitempty"`
	// Groups are static members of multicast groups.
	Groups []GroupSpec `json:"groups,omitempty"`
}

// StationSpec is a static entry of the FDB, `bridge fdb add … static`.
type StationSpec struct {
	MAC  packet.MAC `json:"mac"`
	VLAN uint16     `json:"vlan,omitempty"`
	Port uint16     `json:"port"`
}

// GroupSpec is a static entry of the MDB, `bridge mdb add … permanent`.
type GroupSpec struct {
	Group netip.Addr `json:"group"`
	VLAN  uint16     `json:"vlan,omitempty"`
	Port  uint16     `json:"port"`
}

// PortSpec describes one container's port.
type PortSpec struct {
	// Index is the port's number and counter slot, 1 to MaxIndex, unique among
	// all ports and devices of the snapshot.
	Index uint16 `json:"index"`
	// Name is for people, and the container's in DNS, which has Aliases beside it. None
	// of them need be unique.
	Name    string   `json:"name,omitempty"`
	Aliases []string `json:"aliases,omitempty"`
	// Device is what rules call the port (`ip rule add iif DEVICE`), unique among
	// the devices of the namespace. Empty: no rule can name it.
	Device string `json:"device,omitempty"`
	// MAC of the container: a static FDB entry and a permanent neighbour.
	// Unique in the network and unicast. Zero: behind the port is nobody in
	// particular, but a link with stations that are learned.
	MAC packet.MAC `json:"mac"`
	// MTU of the port in bytes of IP packet, 68 (RFC 791) to 65535.
	MTU int `json:"mtu"`
	// Offload says that the container takes segmentation-offload frames and
	// partial checksums. If false, frames to it are cut and summed here.
	Offload bool `json:"offload"`
	// Addresses of the container, for the neighbour table.
	Addresses []netip.Addr `json:"addresses,omitempty"`

	// What follows is the port's part in its bridge. Zero is an ordinary port.

	Flags  bridge.PortFlags `json:"flags,omitempty"`
	VLAN   bridge.VLAN      `json:"vlan,omitzero"`
	Storm  bridge.Storm     `json:"storm,omitzero"`
	Router snoop.RouterMode `json:"router,omitempty"`
	// Guard is what is checked of the frames that come from the container, whose
	// MAC and Addresses are what it may use. GuardAddrs are more of them.
	Guard      guard.Checks   `json:"guard,omitempty"`
	GuardAddrs []netip.Prefix `json:"guardAddrs,omitempty"`
	// MirrorIn and MirrorOut are ports of the same network that get copies; 0: none.
	MirrorIn  uint16 `json:"mirrorIn,omitempty"`
	MirrorOut uint16 `json:"mirrorOut,omitempty"`
	// ClampMSS is as in DeviceSpec, for what comes from the port or goes to it, when
	// it is routed.
	ClampMSS uint16 `json:"clampMSS,omitempty"`
	// Connections bounds how many connections the container may begin.
	Connections conntrack.PortLimits `json:"connections,omitzero"`
	// Egress and Ingress are queueing disciplines: of what leaves by the port, and of
	// what the container sends. Nil: none.
	Egress  *qdisc.Spec `json:"egress,omitempty"`
	Ingress *qdisc.Spec `json:"ingress,omitempty"`
	// Rules are the port's own ruleset, of family netdev, in which it is the device "port";
	// nil: there is none.
	Rules *journal.Journal `json:"nft,omitempty"`
	// Shares are the port's of what its namespace has. What waits is then in Egress and
	// Ingress, or if these are nil, in fq_codel.
	Shares qdisc.Shares `json:"shares,omitzero"`
	// Tenure is another number whenever Index goes to another container, not 2³²-1:
	// the connections of one end with it. It outlives agent and dataplane. 0: they
	// end when they are over.
	Tenure uint32 `json:"tenure,omitempty"`
}
