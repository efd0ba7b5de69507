// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"time"
)

// Connection is a tracked connection, as in `conntrack -L`.
type Connection struct {
	Namespace string `json:"namespace"`
	Family    string `json:"family"` // "ipv4" or "ipv6"
	Proto     string `json:"proto"`
	ProtoNum  uint8  `json:"protonum"`
	// Timeout is how many seconds it is kept if nothing more comes, Age since its
	// first packet.
	Timeout uint32 `json:"timeout"`
	Age     uint32 `json:"age"`
	// State is that of TCP and SCTP, in the kernel's words.
	State string `json:"state,omitempty"`
	// Original is the way of the first packet as it came, Reply that of an answer as
	// it comes: where the two don't mirror each other, addresses are translated.
	Original ConnectionWay `json:"original"`
	Reply    ConnectionWay `json:"reply"`
	// Status are the kernel's words for the bits: "SEEN_REPLY", "ASSURED", "SRC_NAT", …
	Status []string `json:"status"`
	Mark   uint32   `json:"mark"`
	Labels string   `json:"labels,omitempty"`
	Zone   uint16   `json:"zone"`
	ID     uint32   `json:"id"`
	// Link is the attachment that began it, if one did.
	Link string `json:"link,omitempty"`
	Line string `json:"line"`
}

// ConnectionWay is one direction of a connection.
type ConnectionWay struct {
	Src     netip.Addr `json:"src"`
	Dst     netip.Addr `json:"dst"`
	Sport   uint16     `json:"sport,omitempty"`
	Dport   uint16     `json:"dport,omitempty"`
	ICMP    *ICMPQuery `json:"icmp,omitempty"` // of ICMP and ICMPv6, without ports
	Packets uint64     `json:"packets"`
	Bytes   uint64     `json:"bytes"`
}

// ICMPQuery is what tells queries of ICMP from each other.
type ICMPQuery struct {
	Type uint8  `json:"type"`
	Code uint8  `json:"code"`
	ID   uint16 `json:"id"`
}

// DeleteConnectionsRequest chooses connections that are to end.
type DeleteConnectionsRequest struct {
	// Namespace: empty means all.
	Namespace string `json:"namespace,omitempty"`
	// Words are the options of conntrack(8), with -D or -F.
	Words []string `json:"words"`
	// From is Next of the answer before: one request ends some thousands at most.
	From uint64 `json:"from,omitempty"`
	// Lines says that the answer is to have what conntrack(8) would print.
	Lines bool `json:"lines,omitempty"`
}

// ConnectionStats are those of the table of connections, which all namespaces share,
// by the names of conntrack -S, and those of address translation.
type ConnectionStats struct {
	// Entries is how many connections there are, in the namespace that was asked for or
	// in all. Max is how many there can be.
	Entries int `json:"entries"`
	Max     int `json:"max"`

	Found         uint64 `json:"found"`
	Invalid       uint64 `json:"invalid"`
	Insert        uint64 `json:"insert"`
	InsertFailed  uint64 `json:"insert_failed"`
	Drop          uint64 `json:"drop"`
	EarlyDrop     uint64 `json:"early_drop"`
	Error         uint64 `json:"error"`
	SearchRestart uint64 `json:"search_restart"`
	ClashResolve  uint64 `json:"clash_resolve"`
	ChainTooLong  uint64 `json:"chaintoolong"`
	Delete        uint64 `json:"delete"`

	// Exhausted, NoAddress and NoBackend are connections refused for want of a port, an
	// address or a backend.
	Exhausted uint64 `json:"nat_exhausted"`
	NoAddress uint64 `json:"nat_no_address"`
	NoBackend uint64 `json:"nat_no_backend"`
	Bindings  int    `json:"nat_bindings"`

	Line string `json:"line"`
}

// ConnectionEvent is one thing that happened to a connection, as in `conntrack -E`.
type ConnectionEvent struct {
	Time time.Time `json:"time"`
	// Kind is "new", "update" or "destroy".
	Kind       string     `json:"kind"`
	Connection Connection `json:"connection"`
	Line       string     `json:"line"`
}

// NATRule is a rule of address translation.
type NATRule struct {
	Namespace string `json:"namespace"`
	Hook      string `json:"hook"` // "prerouting", "output", "input" or "postrouting"
	// Rule is in nft's words, or what is published.
	Rule string `json:"rule"`
	// Published says that a published port made it.
	Published bool `json:"published,omitempty"`
	// Active is false while a device that the rule speaks of is not there.
	Active bool   `json:"active"`
	Line   string `json:"line"`
}

// Binding is a mapping of the profile rfc: what a source's end is outside.
type Binding struct {
	Namespace string         `json:"namespace"`
	Proto     string         `json:"proto"`
	Inside    netip.AddrPort `json:"inside"`
	Outside   netip.AddrPort `json:"outside"`
	// Connections use it.
	Connections int    `json:"connections"`
	Line        string `json:"line"`
}

// Published is a published port, or a range of them.
type Published struct {
	Namespace string `json:"namespace"`
	Proto     string `json:"proto"`
	// Addr is the only address of the namespace that it is published on. Zero: all.
	Addr    netip.Addr `json:"addr,omitzero"`
	Port    uint16     `json:"port"`
	PortEnd uint16     `json:"port_end,omitempty"`
	// To is the attachment, ToPort the first port there.
	To     string `json:"to"`
	ToPort uint16 `json:"to_port"`
	// Addresses are the attachment's; none while it isn't there.
	Addresses []netip.Addr `json:"addresses"`
	Line      string       `json:"line"`
}

// Service spreads connections over backends.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Listen are its places, as "tcp 10.96.0.10:80".
	Listen []string `json:"listen"`
	// Persistent is for how many seconds a client comes to the same backend; 0: each
	// connection by itself.
	Persistent uint32           `json:"persistent"`
	Backends   []ServiceBackend `json:"backends"`
	Line       string           `json:"line"`
}

// ServiceBackend is a backend, with what it has and what it has had since the dataplane
// began. In is what went to it.
type ServiceBackend struct {
	Addr   netip.Addr `json:"addr"`
	Port   uint16     `json:"port,omitempty"` // 0: that of the service
	Weight uint16     `json:"weight"`
	State  string     `json:"state"` // "ready", "draining" or "gone"

	Active     int    `json:"active"`
	Conns      uint64 `json:"conns"`
	InPackets  uint64 `json:"in_packets"`
	OutPackets uint64 `json:"out_packets"`
	InBytes    uint64 `json:"in_bytes"`
	OutBytes   uint64 `json:"out_bytes"`
}

// Connections returns a part of the tracked connections: a Connection in each line. Its
// words are the options of conntrack(8).
func (c *Client) Connections(ctx context.Context, q PageQuery) (*Page, error) {
	return c.page(ctx, http.MethodGet, q.path(PathConnections), nil)
}

// DeleteConnections ends connections, and returns those that it ended; not all of them,
// if Next says so.
func (c *Client) DeleteConnections(ctx context.Context, r *DeleteConnectionsRequest) (*Page, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return c.page(ctx, http.MethodPost, PathConnDelete, body)
}

// ConnectionStats returns the statistics of the table of connections. Its words are the
// options of conntrack(8), with -C or -S: Entries are those that they choose.
func (c *Client) ConnectionStats(ctx context.Context, q ShowQuery) (*ConnectionStats, error) {
	out := new(ConnectionStats)
	err := c.do(ctx, http.MethodGet, PathConnStats+"?"+q.values().Encode(), nil, out)
	return out, err
}

// ConnectionEvents waits about a second for events after those that an earlier answer
// had, and returns them, a ConnectionEvent in each line: none is an answer too.
func (c *Client) ConnectionEvents(ctx context.Context, q PageQuery) (*Page, error) {
	return c.page(ctx, http.MethodGet, q.path(PathConnEvents), nil)
}

// NAT returns the rules of address translation, in their order.
func (c *Client) NAT(ctx context.Context, q ShowQuery) ([]NATRule, error) {
	return list[NATRule](ctx, c, PathNAT, q.values())
}

// Bindings returns the mappings of the profile rfc.
func (c *Client) Bindings(ctx context.Context, q ShowQuery) ([]Binding, error) {
	return list[Binding](ctx, c, PathBindings, q.values())
}

// Services returns the services.
func (c *Client) Services(ctx context.Context, q ShowQuery) ([]Service, error) {
	return list[Service](ctx, c, PathServices, q.values())
}

// Published returns the published ports.
func (c *Client) Published(ctx context.Context, q ShowQuery) ([]Published, error) {
	return list[Published](ctx, c, PathPublished, q.values())
}
