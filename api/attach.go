// SPDX-License-Identifier: Apache-2.0

package api

import "net/netip"

// AttachRequest asks for an interface in a container's network namespace.
// Every field but Netns may be left zero; the daemon then decides.
type AttachRequest struct {
	// Netns is a name under /run/netns as in ip-netns(8), an absolute path, or
	// "pid:N" for the namespace of process N. Empty: the daemon's own, for a Tap.
	Netns string `json:"netns"`
	// Network is the name of a declared network. Empty: the only one there is;
	// refused when there are several.
	Network string `json:"network,omitempty"`
	// Name is the attachment's name, unique on the node. Empty: the base name of
	// Netns, or base-ifname when that is taken or IfName is not the default.
	Name string `json:"name,omitempty"`
	// IfName is the interface's name inside the container. Empty: eth0.
	IfName string `json:"ifname,omitempty"`
	// Aliases are names in the network's DNS beside Name, MaxAliases at most.
	Aliases []string `json:"aliases,omitempty"`
	// IP and IP6 are the wished addresses. Zero: the lowest free one of each
	// family that the network has.
	IP  netip.Addr `json:"ip,omitzero"`
	IP6 netip.Addr `json:"ip6,omitzero"`
	// MAC is a unicast address as text. Empty: derived from network and name.
	MAC string `json:"mac,omitempty"`
	// MTU is at most the network's. Zero: the network's.
	MTU int `json:"mtu,omitempty"`
	// Offload says whether the container may be sent segmentation-offload frames
	// of up to 64 KB with partial checksums. Nil: true.
	Offload *bool `json:"offload,omitempty"`

	// Set are settings of the port, words and values as in `link set`: "isolated",
	// "on", "guard", "mac,ip". They stand above the network's.
	Set []string `json:"set,omitempty"`
	// VLAN, if there are any, are the VLANs of the port in place of the network's, each
	// as in `bridge vlan add`: "vid 10 pvid untagged".
	VLAN []string `json:"vlan,omitempty"`
	// FDB and MDB are static entries of the port: "02:00:00:00:00:09 vlan 10" and
	// "239.1.1.1 vid 10".
	FDB []string `json:"fdb,omitempty"`
	MDB []string `json:"mdb,omitempty"`
	// Qdisc are the queueing disciplines of the port in place of the network's, each as
	// behind `qdisc add dev PORT`, or `class …` and `filter …`: "root tbf rate 10mbit
	// burst 16kb latency 25ms". With "from" first they are those of what the container
	// sends. A direction that none speaks of has the network's.
	Qdisc []string `json:"qdisc,omitempty"`
	// Shares are what the port gets of what its namespace has, one line for each
	// direction, in the words of a class of htb: "rate 10mbit ceil 100mbit", and with
	// "from" first, of what the container sends.
	Shares []string `json:"tree,omitempty"`
	// Table is the routing table, by name or number, in which what the container sends
	// is looked up. Empty: that which the rules say.
	Table string `json:"table,omitempty"`
	// RouteTable is the table inside the container that the interface's routes are
	// put into, with a rule that sends what comes from its addresses there, so that two
	// interfaces may have the same subnet. 0: the main table.
	RouteTable uint32 `json:"route_table,omitempty"`
	// Tap makes the interface a persistent tap device for the monitor of a virtual
	// machine, which opens it by IfName in Netns. Nothing is configured in the guest.
	Tap *Tap `json:"tap,omitempty"`
	// Configure is "static" (or empty) for addresses and routes that are set now, or
	// "none" for a container that asks for them itself, by DHCP or SLAAC.
	Configure string `json:"configure,omitempty"`
}

// Tap is what of a tap device can be chosen.
type Tap struct {
	// Owner and Group may open the device, beside root. Nil: nobody.
	Owner *uint32 `json:"owner,omitempty"`
	Group *uint32 `json:"group,omitempty"`
}

// AttachReply is the new attachment and what a container runtime wants to know
// beside it.
type AttachReply struct {
	Attachment
	// Gateways are the next hops of the default routes that were set in the
	// container: the network's gateways, less those of a family for which the
	// container had a default route before.
	Gateways []netip.Addr `json:"gateways"`
	// GatewayMAC is the gateway's MAC address.
	GatewayMAC string `json:"gateway_mac"`
	// DNS are the gateways, if they answer for names, and Search the domains in which
	// containers have them: what a resolv.conf of the container should say.
	DNS    []netip.Addr `json:"dns,omitempty"`
	Search []string     `json:"search,omitempty"`
}

// State is where an attachment stands in its life. Only StateReady forwards.
type State string

// An attachment's states. The order is the order of its life; a daemon that is
// killed in StateCreating or StateDeleting undoes the attachment at its next start.
const (
	StateCreating State = "creating"
	StateReady    State = "ready"
	StateDeleting State = "deleting"
	// StateFailed is a ready attachment that could not be restored, for a reason
	// that may pass. It keeps its addresses, and is tried again until it is ready.
	StateFailed State = "failed"
)

// Attachment is one interface of one container, as the daemon recorded it.
type Attachment struct {
	// ID identifies the attachment for ever: it is not reused after a detach.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Network is the name of the network it belongs to.
	Network string `json:"network"`
	// Netns is the absolute path of the container's namespace, or "pid:N".
	Netns string `json:"netns"`
	// IfName is the interface's name in the container, HostIfName the name of the
	// other end in the daemon's own namespace; a Tap has none.
	IfName     string `json:"ifname"`
	HostIfName string `json:"host_ifname"`
	// Port is the port's number on the bridge and its counter slot, 1 to 65534.
	Port      uint16         `json:"port"`
	MAC       string         `json:"mac"`
	MTU       int            `json:"mtu"`
	Addresses []netip.Prefix `json:"addresses"`
	Offload   bool           `json:"offload"`
	State     State          `json:"state"`
	// Fault says why, in StateFailed. Empty in all others.
	Fault string `json:"fault,omitempty"`
	// Aliases are as in AttachRequest.
	Aliases []string `json:"aliases,omitempty"`
	// Tap says that the interface is a tap device.
	Tap bool `json:"tap,omitempty"`
	// Namespace is that of the network. Device is what rules call the port.
	Namespace string `json:"namespace,omitempty"`
	Device    string `json:"device,omitempty"`
	// RouteTable and Configure are as in AttachRequest.
	RouteTable uint32 `json:"route_table,omitempty"`
	Configure  string `json:"configure,omitempty"`
	// Sandbox is what a container runtime said of the container; nil: it was none.
	Sandbox *Sandbox `json:"sandbox,omitempty"`
	// Settings are those of the port that are in force.
	Settings *PortSettings `json:"settings,omitempty"`
}

// DetachRequest names an attachment, by Name or by Netns and IfName.
type DetachRequest struct {
	// Name is the attachment's name or ID. Empty: Netns decides.
	Name string `json:"name,omitempty"`
	// Netns is as in AttachRequest; the namespace itself need not exist any more.
	Netns string `json:"netns,omitempty"`
	// IfName is the interface in Netns. Empty: the only attachment of Netns;
	// refused when it has several.
	IfName string `json:"ifname,omitempty"`
}
