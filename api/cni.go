// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
)

// The paths of the CNI plugin.
const (
	PathCNIAdd    = "/v1/cni/add"
	PathCNIDel    = "/v1/cni/del"
	PathCNICheck  = "/v1/cni/check"
	PathCNIGC     = "/v1/cni/gc"
	PathCNIStatus = "/v1/cni/status"
)

// CNIKey names an attachment as the CNI specification does: at most one of a network
// for a container and an interface.
type CNIKey struct {
	// Config is the name of the network configuration (`name` of the conflist).
	Config string `json:"config"`
	// Container is CNI_CONTAINERID, IfName CNI_IFNAME.
	Container string `json:"container"`
	IfName    string `json:"ifname"`
}

// Sandbox is what a container runtime said of a container.
type Sandbox struct {
	CNIKey
	// Labels are as in CNIAddRequest.
	Labels map[string]string `json:"labels,omitempty"`
}

// CNIAddRequest asks for an interface in the words of the CNI specification. What it
// shares with AttachRequest means the same.
type CNIAddRequest struct {
	CNIKey
	// Netns is the absolute path of the container's network namespace.
	Netns string `json:"netns"`
	// Network is the network that the container is attached to.
	Network string `json:"network"`
	// Declare is a text in the language of the daemon's file, that declares Network and
	// what belongs to it. Empty: the file has declared it. The text belongs to Config: a
	// later one replaces it, and what the file or others have declared is not touched.
	Declare string `json:"declare,omitempty"`

	// Addresses are the wished ones, at most one of each family; with Fixed they are
	// what somebody else has leased, and all that the container gets.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Fixed     bool         `json:"fixed,omitempty"`
	MAC       string       `json:"mac,omitempty"`
	MTU       int          `json:"mtu,omitempty"`
	Offload   *bool        `json:"offload,omitempty"`
	Set       []string     `json:"set,omitempty"`
	VLAN      []string     `json:"vlan,omitempty"`
	Table     string       `json:"table,omitempty"`
	// DefaultRoute says whether the container gets default routes by the gateways.
	DefaultRoute bool `json:"default_route"`
	// Routes are further ones inside the container.
	Routes []CNIRoute `json:"routes,omitempty"`
	// Publish are ports of the host.
	Publish []CNIPort `json:"publish,omitempty"`
	// PortsHeld: the runtime itself holds them, so that nobody else on the host takes them.
	PortsHeld bool `json:"ports_held,omitempty"`
	// Bandwidth bounds what the container gets and sends. Nil: the network's disciplines.
	Bandwidth *CNIBandwidth `json:"bandwidth,omitempty"`
	// Aliases are further names of the container, for DNS.
	Aliases []string `json:"aliases,omitempty"`
	// Labels are shown, and mean nothing to the daemon: K8S_POD_NAME and such.
	Labels map[string]string `json:"labels,omitempty"`
}

// CNIRoute is a route inside the container.
type CNIRoute struct {
	Dst netip.Prefix `json:"dst"`
	// GW is the next hop; zero: the gateway of its family.
	GW netip.Addr `json:"gw,omitzero"`
	// MTU, AdvMSS and Priority (the metric) are those of ip-route(8); zero: none.
	MTU      int `json:"mtu,omitempty"`
	AdvMSS   int `json:"advmss,omitempty"`
	Priority int `json:"priority,omitempty"`
	// Table is the table in the container; zero: main.
	Table int `json:"table,omitempty"`
}

// CNIBandwidth is bounds as CNI's capability bandwidth has them: rates in bits a second,
// bursts in bits. Ingress is towards the container, egress from it. A rate of 0 is none,
// and a burst of 0 the daemon's choice.
type CNIBandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// CNIPort is a port of the host that leads to one of the container.
type CNIPort struct {
	Proto string `json:"proto"` // tcp, udp or sctp
	// HostIP is an address of the host; zero: all of them.
	HostIP netip.Addr `json:"host_ip,omitzero"`
	Host   uint16     `json:"host"`
	To     uint16     `json:"to"`
}

// CNIAddReply is an attachment, and what a result of CNI wants to know beside it.
type CNIAddReply struct {
	Attachment
	// Gateways are those of the network, one for each address of the attachment.
	Gateways []netip.Addr `json:"gateways"`
	// GatewayMAC is the gateway's.
	GatewayMAC string `json:"gateway_mac"`
	// Routes are those that were set in the container.
	Routes []CNIRoute `json:"routes"`
	// DNS and Search are as in AttachReply.
	DNS    []netip.Addr `json:"dns,omitempty"`
	Search []string     `json:"search,omitempty"`
}

// CNIDelRequest takes an attachment away. One that is not there is no error.
type CNIDelRequest struct{ CNIKey }

// CNICheckRequest asks whether an attachment is as it was made. Addresses, MAC and Netns
// are what the runtime remembers; empty: it does not.
type CNICheckRequest struct {
	CNIKey
	Netns     string         `json:"netns,omitempty"`
	MAC       string         `json:"mac,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Routes    []CNIRoute     `json:"routes,omitempty"`
}

// CNICheckReply says what differs, one sentence for each; none: nothing does.
type CNICheckReply struct {
	Differences []string `json:"differences"`
}

// CNIGCRequest takes all attachments of a configuration away but those that are valid.
type CNIGCRequest struct {
	Config string   `json:"config"`
	Valid  []CNIKey `json:"valid"`
	// Began spares attachments that were made after it, of which who asks can't know.
	// Zero: none is.
	Began Moment `json:"began"`
}

// CNIGCReply lists the names of what was removed.
type CNIGCReply struct {
	Removed []string `json:"removed"`
}

// CNIStatus says whether an ADD for a network could work now.
type CNIStatus struct {
	// Dataplane: packets are forwarded now.
	Dataplane bool `json:"dataplane"`
	// Network: it is declared. Free says that it has at least one address, and there is
	// a number for a port, for one more attachment.
	Network bool `json:"network"`
	Free    bool `json:"free"`
}

// CNIAdd gives a container an interface.
func (c *Client) CNIAdd(ctx context.Context, r *CNIAddRequest) (*CNIAddReply, error) {
	return post[CNIAddReply](ctx, c, PathCNIAdd, r)
}

// CNIDel takes it away.
func (c *Client) CNIDel(ctx context.Context, r *CNIDelRequest) error {
	_, err := post[struct{}](ctx, c, PathCNIDel, r)
	return err
}

// CNICheck compares an attachment with what it should be.
func (c *Client) CNICheck(ctx context.Context, r *CNICheckRequest) (*CNICheckReply, error) {
	return post[CNICheckReply](ctx, c, PathCNICheck, r)
}

// CNIGC removes what no runtime knows of.
func (c *Client) CNIGC(ctx context.Context, r *CNIGCRequest) (*CNIGCReply, error) {
	return post[CNIGCReply](ctx, c, PathCNIGC, r)
}

// CNIStatus asks whether an ADD could work.
func (c *Client) CNIStatus(ctx context.Context, network string) (*CNIStatus, error) {
	out := new(CNIStatus)
	err := c.do(ctx, http.MethodGet, PathCNIStatus+"?"+url.Values{"network": {network}}.Encode(), nil, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}
