// SPDX-License-Identifier: Apache-2.0

package api

import "net/netip"

// ShowQuery selects what a list shows.
type ShowQuery struct {
	// Namespace is the only one that is shown. Empty: all, but for RouteGet.
	Namespace string
	// Port is the attachment whose ruleset is meant, of NFTHistory and NFTEvents; empty: the
	// namespace's.
	Port string
	// Words are what follows `show` in ip(8) or bridge(8). A family option, -4 or
	// -6, may lead them.
	Words []string
}

// Namespace is a routing domain.
type Namespace struct {
	Name     string   `json:"name"`
	Networks []string `json:"networks"`
	Uplinks  []string `json:"uplinks"`
	Links    []string `json:"links"`
	VRFs     []string `json:"vrfs"`
	// Tables are the tables that have names.
	Tables map[string]uint32 `json:"tables"`
	// Routes counts those that a user made; Rules are those of both families.
	Routes int `json:"routes"`
	Rules  int `json:"rules"`
}

// Route is one line of a routing table. The names are those of `ip -j route`.
type Route struct {
	Namespace string        `json:"namespace"`
	Family    string        `json:"family"` // "inet" or "inet6"
	Type      string        `json:"type"`
	Dst       string        `json:"dst"` // "default", an address or a prefix
	Gateway   string        `json:"gateway,omitempty"`
	Via       *Via          `json:"via,omitempty"`
	Dev       string        `json:"dev,omitempty"`
	Table     string        `json:"table"`
	Protocol  string        `json:"protocol"`
	Scope     string        `json:"scope"`
	Prefsrc   string        `json:"prefsrc,omitempty"`
	Metric    uint32        `json:"metric,omitempty"`
	Flags     []string      `json:"flags"`
	Metrics   []RouteMetric `json:"metrics,omitempty"`
	NextHops  []NextHop     `json:"nexthops,omitempty"`
	Pref      string        `json:"pref,omitempty"`
	// Line is the route as ip(8) prints it; several next hops take a line each.
	Line string `json:"line"`
}

// Via is a gateway of another family than the route's.
type Via struct {
	Family string `json:"family"`
	Host   string `json:"host"`
}

// RouteMetric holds the sizes that a route states.
type RouteMetric struct {
	MTU    uint32 `json:"mtu,omitempty"`
	Lock   bool   `json:"lock,omitempty"`
	AdvMSS uint32 `json:"advmss,omitempty"`
}

// NextHop is one of several ways that a route takes.
type NextHop struct {
	Gateway string   `json:"gateway,omitempty"`
	Via     *Via     `json:"via,omitempty"`
	Dev     string   `json:"dev,omitempty"`
	Weight  int      `json:"weight"`
	Flags   []string `json:"flags"`
}

// Rule is one line of the policy database. The names are those of `ip -j rule`.
type Rule struct {
	Namespace      string  `json:"namespace"`
	Family         string  `json:"family"`
	Priority       uint32  `json:"priority"`
	Not            bool    `json:"not,omitempty"`
	Src            string  `json:"src"` // "all" or an address
	SrcLen         int     `json:"srclen,omitempty"`
	Dst            string  `json:"dst,omitempty"`
	DstLen         int     `json:"dstlen,omitempty"`
	TOS            string  `json:"tos,omitempty"`
	FwMark         string  `json:"fwmark,omitempty"`
	FwMask         string  `json:"fwmask,omitempty"`
	IIF            string  `json:"iif,omitempty"`
	OIF            string  `json:"oif,omitempty"`
	L3mdev         bool    `json:"l3mdev,omitempty"`
	IPProto        string  `json:"ipproto,omitempty"`
	Sport          uint16  `json:"sport,omitempty"`
	SportStart     uint16  `json:"sport_start,omitempty"`
	SportEnd       uint16  `json:"sport_end,omitempty"`
	Dport          uint16  `json:"dport,omitempty"`
	DportStart     uint16  `json:"dport_start,omitempty"`
	DportEnd       uint16  `json:"dport_end,omitempty"`
	Table          string  `json:"table,omitempty"`
	Goto           *uint32 `json:"goto,omitempty"`
	Action         string  `json:"action,omitempty"`
	SuppressPrefix *uint8  `json:"suppress_prefixlen,omitempty"`
	Protocol       string  `json:"protocol,omitempty"`
	// Attachment is whose table of its own the rule makes; such a rule goes with it.
	Attachment string `json:"attachment,omitempty"`
	Line       string `json:"line"`
}

// VRF is a virtual routing and forwarding domain.
type VRF struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Table     uint32   `json:"table"`
	TableName string   `json:"table_name"`
	Devices   []string `json:"devices"`
	Line      string   `json:"line"`
}

// Device is a device of a namespace's routing, or a container's port.
type Device struct {
	Namespace string `json:"namespace"`
	IfIndex   uint16 `json:"ifindex"`
	// IfName is what commands call it; for a port the attachment's name.
	IfName string `json:"ifname"`
	// Kind is "network", "uplink", "link", "vrf" or "port".
	Kind      string         `json:"kind"`
	MTU       int            `json:"mtu,omitempty"`
	MAC       string         `json:"mac,omitempty"`
	Addresses []netip.Prefix `json:"addresses"`
	// Master is the VRF, or the network of a port.
	Master string `json:"master,omitempty"`
	// Table is a VRF's, or a port's own.
	Table string `json:"table,omitempty"`
	// Peer is the other end of a link.
	Peer          string `json:"peer,omitempty"`
	PeerNamespace string `json:"peer_namespace,omitempty"`
	// Forwarding to ClampMSS are a network's or link's.
	Forwarding bool   `json:"forwarding,omitempty"`
	RPFilter   string `json:"rp_filter,omitempty"`
	Redirects  bool   `json:"redirects,omitempty"`
	ClampMSS   string `json:"clamp_mss,omitempty"`
	// VLAN is that of a network's gateway.
	VLAN *VLAN `json:"vlan,omitempty"`
	// Port is a container's port's.
	Port *PortSettings `json:"port,omitempty"`
	Line string        `json:"line"`
}

// VLAN is a port's part in VLAN filtering; nil where it carries all.
type VLAN struct {
	PVID     uint16 `json:"pvid,omitempty"`
	Tagged   string `json:"tagged,omitempty"` // "10,20-29"
	Untagged string `json:"untagged,omitempty"`
	QinQ     bool   `json:"qinq,omitempty"`
}

// PortSettings are the settings of a container's port that are in force, the
// network's and the attachment's own. The names are those of `bridge -d -j link`.
type PortSettings struct {
	// Guard are the guards that are on.
	Guard      []string       `json:"guard"`
	GuardAllow []netip.Prefix `json:"guard_allow,omitempty"`
	Isolated   bool           `json:"isolated"`
	Hairpin    bool           `json:"hairpin"`
	Learning   bool           `json:"learning"`
	Locked     bool           `json:"locked"`
	Flood      bool           `json:"flood"`
	McastFlood bool           `json:"mcast_flood"`
	BcastFlood bool           `json:"bcast_flood"`
	FastLeave  bool           `json:"fastleave"`
	Suppress   bool           `json:"neigh_suppress"`
	BPDUFilter bool           `json:"bpdu_filter"`
	// McastRouter is 0 (never), 1 (if one is heard) or 2 (always).
	McastRouter int   `json:"mcast_router"`
	Storm       Storm `json:"storm"`
	VLAN        *VLAN `json:"vlan,omitempty"`
	// MirrorIn and MirrorOut are the ports that get copies.
	MirrorIn  string `json:"mirror_in,omitempty"`
	MirrorOut string `json:"mirror_out,omitempty"`
	// ClampMSS is "off", "pmtu" or a number of bytes.
	ClampMSS string `json:"clamp_mss"`
	// Table is the port's own routing table.
	Table string `json:"table,omitempty"`
}

// Storm limits what a port may have flooded, in frames a second, "100" or "100/50"
// with a burst; empty: no limit.
type Storm struct {
	Broadcast string `json:"broadcast,omitempty"`
	Multicast string `json:"multicast,omitempty"`
	Unknown   string `json:"unknown,omitempty"`
}

// VLANPort is a port with its VLANs, as `bridge -j vlan` shows it.
type VLANPort struct {
	Namespace string      `json:"namespace"`
	Network   string      `json:"network"`
	IfName    string      `json:"ifname"`
	VLANs     []VLANEntry `json:"vlans"`
	// Line has a line for each entry.
	Line string `json:"line"`
}

// VLANEntry is a VLAN, or those up to VLANEnd.
type VLANEntry struct {
	VLAN    uint16   `json:"vlan"`
	VLANEnd uint16   `json:"vlanEnd,omitempty"`
	Flags   []string `json:"flags,omitempty"` // "PVID", "Egress Untagged"
}

// Queueing is the queueing disciplines, classes or filters of ports, as tc(8) prints
// them: text, or JSON if the words had -j.
type Queueing struct {
	Text string `json:"text"`
}

// MDBEntry is a member of a multicast group or, without a group, a port behind which
// a multicast router is.
type MDBEntry struct {
	Namespace string `json:"namespace"`
	Dev       string `json:"dev"` // the network
	Port      string `json:"port"`
	Group     string `json:"grp,omitempty"`
	VID       uint16 `json:"vid,omitempty"`
	State     string `json:"state"` // "permanent" or "temp"
	Router    bool   `json:"router,omitempty"`
	// TimerSeconds is how long a member is one yet, if it is not heard.
	TimerSeconds int    `json:"timer_seconds,omitempty"`
	Line         string `json:"line"`
}

// RouteGet is where a packet would go and why. Rule and Route are nil if none
// decided.
type RouteGet struct {
	Namespace string `json:"namespace"`
	Type      string `json:"type"` // of the route; "unreachable" if there is none
	Dst       string `json:"dst"`
	From      string `json:"from,omitempty"`
	IIF       string `json:"iif,omitempty"`
	Gateway   string `json:"gateway,omitempty"`
	Dev       string `json:"dev,omitempty"`
	Prefsrc   string `json:"prefsrc,omitempty"`
	Table     string `json:"table,omitempty"`
	MTU       uint32 `json:"mtu,omitempty"`
	Rule      *Rule  `json:"rule,omitempty"`
	Route     *Route `json:"route,omitempty"`
	// Neighbour is that of the next hop, if it is known.
	Neighbour *Neighbour `json:"neighbour,omitempty"`
	// Line is all of it as text, in several lines.
	Line string `json:"line"`
}
