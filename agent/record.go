// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/api"
	"sluice/autoconf"
	"sluice/config"
	"sluice/ipam"
	"sluice/iproute"
	"sluice/packet"
	"sluice/policy/journal"
	"sluice/qdisc"
)

// networkRecord is a network in the state file.
type networkRecord struct {
	Name          string         `json:"name"`
	Subnets       []netip.Prefix `json:"subnets"`
	Gateways      []netip.Addr   `json:"gateways"` // one for each subnet
	MTU           int            `json:"mtu"`
	AgeingSeconds int            `json:"ageing_seconds"`
	FDBMax        int            `json:"fdb_max"`
	FDBMaxPerPort int            `json:"fdb_max_per_port"`
	Echo          bool           `json:"echo"`
	DNS           *bool          `json:"dns,omitempty"`

	// What the agent decided: the local port and the gateway's MAC, which stay as
	// long as the network does, and the address leased last in each subnet.
	Port uint16       `json:"port"`
	MAC  packet.MAC   `json:"mac"`
	Last []netip.Addr `json:"last"`

	// Namespace is where the network is a device; empty: one of its own, of its name.
	Namespace string           `json:"namespace,omitempty"`
	VRF       string           `json:"vrf,omitempty"`
	Device    iproute.Settings `json:"device,omitempty"`
	// Settings and PortVLAN are what its ports have unless their attachment says
	// otherwise; VLAN is the gateway's port's.
	Settings iproute.Settings  `json:"settings,omitempty"`
	PortVLAN *iproute.VLAN     `json:"port_vlan,omitempty"`
	VLAN     *iproute.VLAN     `json:"vlan,omitempty"`
	Snooping *config.Snooping  `json:"snooping,omitempty"`
	Stations []iproute.Station `json:"stations,omitempty"`
	Groups   []iproute.Group   `json:"groups,omitempty"`
	// Services are those by which containers configure themselves.
	Services autoconf.Config `json:"services,omitzero"`
	Leases   config.Leases   `json:"leases,omitzero"`
	// Released are addresses in quarantine, the oldest first.
	Released []released `json:"released,omitempty"`
	// Origin is the network configuration of CNI that declares it, by the text
	// Declared; empty: the daemon's file does.
	Origin   string `json:"origin,omitempty"`
	Declared string `json:"declared,omitempty"`

	// Egress and Ingress are the queueing disciplines of ports that have none of their
	// own, Qdisc what the file says of them. Nil: none. What they point to does not change.
	Qdisc   []string    `json:"qdisc,omitempty"`
	Egress  *qdisc.Spec `json:"egress,omitempty"`
	Ingress *qdisc.Spec `json:"ingress,omitempty"`
	// Shares are those of its ports that have none of their own, see sharing.go.
	Shares qdisc.Shares `json:"shares,omitzero"`

	// Queue is that of what is routed into the network, or to a socket uplink.
	Queue deviceQueue `json:"queue,omitzero"`

	// PortNFT is the ruleset of ports that have none of their own, as the file says.
	PortNFT *journal.Journal `json:"port_nft,omitempty"`

	// Uplink makes it that of an uplink, see uplink.go.
	Uplink *uplinkRecord `json:"uplink,omitempty"`
}

// space is the name of the network's namespace.
func (n *networkRecord) space() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace
}

// declare takes over what the file says and keeps what the agent decided.
func (n *networkRecord) declare(c *config.Network) {
	n.Name, n.MTU, n.Echo, n.DNS = c.Name, c.MTU, c.Echo, c.DNS
	n.AgeingSeconds = int(c.Ageing / time.Second)
	n.FDBMax, n.FDBMaxPerPort = c.FDBMax, c.FDBMaxPerPort
	if !slices.Equal(n.Subnets, c.Subnets) {
		n.Last = make([]netip.Addr, len(c.Subnets))
	}
	n.Subnets, n.Gateways = c.Subnets, c.Gateways
	if n.Namespace = c.Namespace; n.Namespace == n.Name {
		n.Namespace = ""
	}
	n.VRF, n.Device = c.VRF, c.Device
	n.Settings, n.PortVLAN, n.VLAN, n.Snooping = c.Ports, c.PortVLAN, c.VLAN, c.Snooping
	n.declareQueueing(&c.Queueing)
	n.Queue.declare(&c.Routed)
	n.Stations, n.Groups, n.Services, n.Leases = c.Stations, c.Groups, c.Services, c.Leases
}

func (n *networkRecord) pool(i int) ipam.Pool {
	p := ipam.Pool{Subnet: n.Subnets[i], Gateway: n.Gateways[i]}
	p.Ranges, p.Exclude = rangesIn(p.Subnet, n.Leases.Ranges), rangesIn(p.Subnet, n.Leases.Exclude)
	return p
}

func (n *networkRecord) hasIPv6() bool {
	return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// hostIndexBase is added to a port's number to make the interface index of its
// host end: above what a container's namespace reaches (see veth.PairConfig).
const hostIndexBase = 1 << 20

// attachmentRecord is an attachment in the state file.
type attachmentRecord struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Network string     `json:"network"`
	Netns   string     `json:"netns"` // see netnsPlace
	NS      nsIdentity `json:"ns"`
	IfName  string     `json:"ifname"`
	// Port decides the name of the host end, too.
	Port      uint16         `json:"port"`
	MAC       packet.MAC     `json:"mac"`
	MTU       int            `json:"mtu"`
	Addresses []netip.Prefix `json:"addresses"`
	Offload   bool           `json:"offload"`
	State     api.State      `json:"state"`
	// Fault is why the state is failed.
	Fault string `json:"fault,omitempty"`

	// Settings are what the attachment says otherwise than its network; VLAN, if it is
	// there, replaces the network's. The entries are static ones of its port.
	Settings iproute.Settings  `json:"settings,omitempty"`
	VLAN     *iproute.VLAN     `json:"vlan,omitempty"`
	Stations []iproute.Station `json:"stations,omitempty"`
	Groups   []iproute.Group   `json:"groups,omitempty"`

	// Aliases are names in DNS beside Name.
	Aliases []string `json:"aliases,omitempty"`

	// Egress and Ingress are queueing disciplines, of what leaves by the port and of what
	// the container sends. Nil: the network's. What they point to does not change.
	Egress  *qdisc.Spec `json:"egress,omitempty"`
	Ingress *qdisc.Spec `json:"ingress,omitempty"`
	// Shares are the port's of what its namespace has, see sharing.go.
	Shares qdisc.Shares `json:"shares,omitzero"`

	rulesRecord

	// RouteTable is the table that the interface's routes are in, in the container; 0:
	// main. Bare: the container is given the interface and nothing else.
	RouteTable uint32 `json:"route_table,omitempty"`
	Bare       bool   `json:"bare,omitempty"`

	// CNI is what a runtime asked for, if it was one; see cni.go.
	CNI *cniRecord `json:"cni,omitempty"`

	// Tap makes it a tap device, see tap.go. Netns is empty if it is in the daemon's own
	// namespace.
	Tap *tapRecord `json:"tap,omitempty"`

	// Uplink says that the container is the host, see uplink.go. Netns and NS are empty.
	Uplink bool `json:"uplink,omitempty"`
}

// hostIfName names the host end. The host namespace is this agent's alone, so
// the port's number makes it unique; it must not change between versions.
func (a *attachmentRecord) hostIfName() string { return fmt.Sprintf("sl%d", a.Port) }

// addrs returns the addresses without their prefix lengths.
func (a *attachmentRecord) addrs() []netip.Addr {
	out := make([]netip.Addr, len(a.Addresses))
	for i, p := range a.Addresses {
		out[i] = p.Addr()
	}
	return out
}

// public is an attachment as the API shows it.
func (s *state) public(a *attachmentRecord) api.Attachment {
	out := s.publicBut(a)
	out.Device = s.portDevices(out.Namespace)[a.ID]
	return out
}

// publicBut is public without the device, for who has all of them at once.
func (s *state) publicBut(a *attachmentRecord) api.Attachment {
	n := s.network(a.Network)
	if n == nil { // never, but for a record of another's making
		n = new(networkRecord)
	}
	configure, hostIfName := "static", a.hostIfName()
	if a.Bare {
		configure = "none"
	}
	if a.Tap != nil {
		hostIfName = ""
	}
	space := n.space()
	return api.Attachment{
		Sandbox:   a.CNI.public(),
		Aliases:   a.Aliases,
		Namespace: space, RouteTable: a.RouteTable, Configure: configure,
		Settings: a.publicSettings(n, s.namespace(space).names()),
		ID:       a.ID, Name: a.Name, Network: a.Network, Netns: a.Netns,
		IfName: a.IfName, HostIfName: hostIfName, Tap: a.Tap != nil, Port: a.Port,
		MAC: a.MAC.String(), MTU: a.MTU, Addresses: a.Addresses, Offload: a.Offload, State: a.State, Fault: a.Fault,
	}
}

// state is everything that one transaction saw. Immutable by convention: a
// mutation works on the state of its own transaction and puts records back.
type state struct {
	// generation grows with every committed transaction, and is kept by the file.
	generation  uint64
	now         time.Time // when it was read
	seed        uint64    // of the node, for what must not be guessed
	node        nodeRecord
	namespaces  []namespaceRecord  // by name; a network's own need not be among them
	networks    []networkRecord    // by name
	attachments []attachmentRecord // by name
	routes      map[string]*routeList
	members     members
}

// members are the attachments by network: a snapshot asks for those of each network,
// several times, and to look at all of them each time is quadratic.
type members struct {
	all []attachmentRecord // that this was made of
	of  map[string][]*attachmentRecord
}

// network returns nil if there is none of that name.
func (s *state) network(name string) *networkRecord {
	for i := range s.networks {
		if s.networks[i].Name == name {
			return &s.networks[i]
		}
	}
	return nil
}

// attachable are the names of the networks that containers can be attached to.
func (s *state) attachable() (out []string) {
	for i := range s.networks {
		if s.networks[i].Uplink == nil {
			out = append(out, s.networks[i].Name)
		}
	}
	return out
}

// find returns the first attachment for which ok is true, or nil.
func (s *state) find(ok func(*attachmentRecord) bool) *attachmentRecord {
	for i := range s.attachments {
		if ok(&s.attachments[i]) {
			return &s.attachments[i]
		}
	}
	return nil
}

// with is the state as it will be with a further attachment.
func (s *state) with(rec *attachmentRecord) *state {
	next := *s
	next.attachments = append(slices.Clip(s.attachments), *rec)
	return &next
}

// where returns the attachments for which ok is true.
func (s *state) where(ok func(*attachmentRecord) bool) []*attachmentRecord {
	var out []*attachmentRecord
	for i := range s.attachments {
		if ok(&s.attachments[i]) {
			out = append(out, &s.attachments[i])
		}
	}
	return out
}

// of returns the attachments of a network.
func (s *state) of(network string) []*attachmentRecord {
	if len(s.attachments) == 0 {
		return nil
	}
	if m := s.members.all; len(m) != len(s.attachments) || &m[0] != &s.attachments[0] {
		s.members = members{all: s.attachments, of: make(map[string][]*attachmentRecord)}
		for i := range s.attachments {
			a := &s.attachments[i]
			s.members.of[a.Network] = append(s.members.of[a.Network], a)
		}
	}
	return s.members.of[network]
}

// failed returns the attachments that wait to be restored.
func (s *state) failed() []*attachmentRecord {
	return s.where(func(a *attachmentRecord) bool { return a.State == api.StateFailed })
}

// holder answers ipam.Used for one network.
func (s *state) holder(network string) ipam.Used {
	held := make(map[netip.Addr]string)
	for _, a := range s.of(network) {
		for _, addr := range a.addrs() {
			held[addr] = a.Name
		}
	}
	return func(a netip.Addr) string { return held[a] }
}

// macTaken says whether a station of the network has a MAC.
func (s *state) macTaken(network string) func([6]byte) bool {
	taken := make(map[packet.MAC]bool)
	if n := s.network(network); n != nil {
		taken[n.MAC] = true
	}
	for _, a := range s.of(network) {
		taken[a.MAC] = true
	}
	return func(m [6]byte) bool { return taken[m] }
}

// freePort returns the lowest port number that nobody has, 0 if there is none.
// Low numbers keep the pages of the counter file together.
func (s *state) freePort() uint16 { return freeNumber(s.numbers()) }

// numbers are those of all ports and devices.
func (s *state) numbers() map[uint16]bool {
	taken := make(map[uint16]bool, len(s.networks)+len(s.attachments))
	for i := range s.networks {
		taken[s.networks[i].Port] = true
	}
	for i := range s.attachments {
		taken[s.attachments[i].Port] = true
	}
	for i := range s.namespaces {
		s.namespaces[i].indices(taken)
	}
	return taken
}

func freeNumber(taken map[uint16]bool) uint16 {
	for port := uint16(1); port < counterSlots; port++ {
		if !taken[port] {
			return port
		}
	}
	return 0
}

// errNoPort is what a request is told for which no number is left.
func errNoPort() error {
	return refuse(api.CodeExhausted, "", "no port number is left: %d networks, links, VRFs, uplinks and attachments", counterSlots-1)
}
