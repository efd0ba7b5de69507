// SPDX-License-Identifier: Apache-2.0

package api

import "net/netip"

// Uplink is a way out of a namespace, as `sluice uplink` shows it.
type Uplink struct {
	Namespace string `json:"namespace"`
	// IfIndex and Name are those of the device in the namespace.
	IfIndex uint16 `json:"ifindex"`
	Name    string `json:"name"`
	// Type is "host" or "nic".
	Type string `json:"type"`
	// IfName is the interface on the host, HostIfName the host end of its pair and Port
	// that end's port, whose counters are in Stats.
	IfName     string `json:"ifname"`
	HostIfName string `json:"host_ifname"`
	Port       uint16 `json:"port"`
	MTU        int    `json:"mtu"`
	VRF        string `json:"vrf,omitempty"`
	// MAC and Addresses are those of Sluice's end, PeerMAC and Peers of the host's.
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`
	PeerMAC   string         `json:"peer_mac,omitempty"`
	Peers     []netip.Addr   `json:"peers,omitempty"`
	// NIC is what one of type nic has; IfName is what the interface is called when the
	// host has it, and HostIfName what it is called now.
	NIC *UplinkNIC `json:"nic,omitempty"`

	DefaultRoute bool `json:"default_route"`
	// HostRoutes are the subnets that the host has routes to.
	HostRoutes []netip.Prefix `json:"host_routes"`
	Masquerade bool           `json:"masquerade"`
	// Forward is what was asked for, HostForwards whether the host forwards packets of
	// the uplink's families.
	Forward      bool `json:"forward"`
	HostForwards bool `json:"host_forwards"`

	// State is that of an attachment. Fault says why it is failed, or what the host
	// could not be given.
	State State  `json:"state"`
	Fault string `json:"fault,omitempty"`
	// Stats are nil unless asked for. RX is what the host sent.
	Stats *Stats `json:"stats,omitempty"`
	Line  string `json:"line"`
}

// UplinkNIC is what an uplink of type nic has beside.
type UplinkNIC struct {
	// Share is the mode of the macvlan; empty: the interface is Sluice's as a whole.
	Share string `json:"share,omitempty"`
	// Gateways are those of default routes, and DNS the servers of names, stated and
	// learned.
	Gateways []netip.Addr `json:"gateways"`
	DNS      []netip.Addr `json:"dns"`
	// DHCP, SLAAC and DHCP6 are on if they are asked.
	DHCP  bool `json:"dhcp"`
	SLAAC bool `json:"slaac"`
	DHCP6 bool `json:"dhcp6"`
}
