// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/netip"
	"time"
)

// Link is an attachment with its counters, as in `ip -s link`.
type Link struct {
	Attachment
	// Stats are nil unless asked for.
	Stats *Stats `json:"stats,omitempty"`
}

// Stats are one port's counters since it was attached. They outlive restarts of
// the daemon and of the dataplane.
type Stats struct {
	// RX is what the container sent, TX what it was sent.
	RX Direction `json:"rx"`
	TX Direction `json:"tx"`
	// FlowHits and FlowMisses count look-ups in the workers' flow caches.
	FlowHits   uint64 `json:"flow_hits"`
	FlowMisses uint64 `json:"flow_misses"`
	// Flooded counts frames sent to every port, Learned the stations learned here.
	Flooded uint64 `json:"flooded"`
	Learned uint64 `json:"learned"`
	// Drops counts dropped frames by reason; reasons that never occurred are absent.
	Drops map[string]uint64 `json:"drops"`
	// DroppedBy says for nft_drop and nft_reject which rule it was last, while that is
	// known: not after the dataplane was replaced, or the ruleset.
	DroppedBy map[string]RuleDrop `json:"dropped_by,omitempty"`
}

// RuleDrop is a rule that has dropped or refused a frame.
type RuleDrop struct {
	// Namespace is whose ruleset it is in, if not that of the port: the frame has come to it
	// by a link. Port says that the ruleset is the port's own.
	Namespace string `json:"namespace,omitempty"`
	Port      bool   `json:"port,omitempty"`
	// Table is family and name. Chain is empty if the rule is gone, Handle 0 if it was
	// the chain's policy.
	Table  string `json:"table"`
	Chain  string `json:"chain,omitempty"`
	Handle uint64 `json:"handle,omitempty"`
	Rule   string `json:"rule,omitempty"`
	// Pos is the file and line that it was loaded from.
	Pos string `json:"pos,omitempty"`
}

// Direction counts one way of a port.
type Direction struct {
	// Packets and Bytes count frames as they would be on a wire: a 64 KB
	// segmentation-offload frame counts as its segments.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	// Batches counts the system calls that moved them.
	Batches uint64 `json:"batches"`
	// GSO counts segmentation-offload frames.
	GSO uint64 `json:"gso"`
}

// Dropped returns the sum over all reasons.
func (s *Stats) Dropped() uint64 {
	var n uint64
	for _, v := range s.Drops {
		n += v
	}
	return n
}

// Network is a declared network as it stands.
type Network struct {
	Name     string         `json:"name"`
	Subnets  []netip.Prefix `json:"subnets"`
	Gateways []netip.Addr   `json:"gateways"`
	// Port is the bridge's local port: its number and counter slot.
	Port uint16 `json:"port"`
	// MAC is the gateway's address; it never changes while the network exists.
	MAC string `json:"mac"`
	MTU int    `json:"mtu"`
	// AgeingSeconds is after how long a silent station is forgotten.
	AgeingSeconds int `json:"ageing_seconds"`
	// FDBMax and FDBMaxPerPort bound the forwarding table.
	FDBMax        int `json:"fdb_max"`
	FDBMaxPerPort int `json:"fdb_max_per_port"`
	// Echo says whether the gateway answers RFC 862 echo and RFC 863 discard.
	Echo bool `json:"echo"`
	// Attachments counts the attachments of the network.
	Attachments int `json:"attachments"`
	// Namespace is the one that the network is a device of; VRF is one of it, or empty.
	Namespace string `json:"namespace,omitempty"`
	VRF       string `json:"vrf,omitempty"`
	// Config is the network configuration of CNI that declares it; empty: the file does.
	Config string `json:"config,omitempty"`
	// Stats are the local port's; nil unless asked for.
	Stats *Stats `json:"stats,omitempty"`
}

// FDBEntry is one line of a bridge's forwarding table, as in `bridge fdb`.
type FDBEntry struct {
	Network string `json:"network"`
	MAC     string `json:"mac"`
	// VLAN is the outer 802.1Q identifier, 0 for untagged.
	VLAN uint16 `json:"vlan"`
	Port uint16 `json:"port"`
	// Link is the attachment's name; the network's name for the local port.
	Link string `json:"link"`
	// Kind is "own", "static" or "dynamic".
	Kind string `json:"kind"`
	// AgeSeconds is since the station was last heard; 0 unless dynamic.
	AgeSeconds int `json:"age_seconds"`
	// IfName, Master and Flags are as `bridge -j fdb` has them: Link and Network, and
	// nothing. EntryState is its "state": "permanent" for own entries, "static", or empty.
	Namespace  string   `json:"namespace,omitempty"`
	IfName     string   `json:"ifname,omitempty"`
	Master     string   `json:"master,omitempty"`
	Flags      []string `json:"flags,omitempty"`
	EntryState string   `json:"state,omitempty"`
	Line       string   `json:"line,omitempty"`
}

// Neighbour is one line of the gateway's ARP or ND table, as in `ip neigh`.
type Neighbour struct {
	Network string     `json:"network"`
	Addr    netip.Addr `json:"addr"`
	// MAC is empty while unresolved.
	MAC string `json:"mac"`
	// State is the word of RFC 4861 §7.3.2 in lower case: reachable, stale, …
	State string `json:"state"`
	// Dst, Dev and LLAddr are as `ip -j neigh` has them: Addr, Network and MAC.
	Namespace string `json:"namespace,omitempty"`
	Dst       string `json:"dst,omitempty"`
	Dev       string `json:"dev,omitempty"`
	LLAddr    string `json:"lladdr,omitempty"`
	Line      string `json:"line,omitempty"`
}

// Address is an address and who holds it, as in `ip addr`.
type Address struct {
	Network string       `json:"network"`
	Prefix  netip.Prefix `json:"prefix"`
	// Kind is "gateway" or "attachment".
	Kind string `json:"kind"`
	// Link is the attachment's name; the network's name for a gateway.
	Link string `json:"link"`
	MAC  string `json:"mac"`
}

// Socket is an endpoint of a network's host stack, as in `ss`.
type Socket struct {
	Network string `json:"network"`
	// Proto is "tcp" or "udp".
	Proto string `json:"proto"`
	// State is the word of ss(8), as "listen" or "estab"; "unconn" for unconnected UDP.
	State  string         `json:"state"`
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote,omitzero"`
	// RecvQ is the number of bytes that wait to be read.
	RecvQ     int    `json:"recv_q"`
	Namespace string `json:"namespace,omitempty"`
	// Process is the container whose connection by a socket uplink it is: Remote. Local
	// is whom it talks to. Empty for the gateways' own sockets.
	Process string `json:"process,omitempty"`
}

// Status tells how the two processes are.
type Status struct {
	// Version and Build identify the daemon's binary.
	Version string    `json:"version"`
	Build   string    `json:"build"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// RunDir and StateDir are where this daemon keeps its sockets and its state.
	RunDir      string `json:"run_dir"`
	StateDir    string `json:"state_dir"`
	Networks    int    `json:"networks"`
	Attachments int    `json:"attachments"`
	Uplinks     int    `json:"uplinks,omitempty"`
	// ConfigError says why the file of networks that the daemon was started with
	// is not in force. Empty: it is, or there is none.
	ConfigError string `json:"config_error,omitempty"`
	// Failed counts the attachments in StateFailed.
	Failed    int             `json:"failed,omitempty"`
	Dataplane DataplaneStatus `json:"dataplane"`
	// Goroutines is how many the daemon has.
	Goroutines int `json:"goroutines,omitempty"`
}

// DataplaneStatus tells how the sandboxed process is.
type DataplaneStatus struct {
	// State is "running", "down" or "backoff".
	State string `json:"state"`
	PID   int    `json:"pid"`
	Build string `json:"build"`
	// Adopted says that it was found running when the daemon started.
	Adopted bool `json:"adopted"`
	// Workers is its number of packet threads.
	Workers int `json:"workers"`
	// Generation is the number of the snapshot it forwards by.
	Generation uint64 `json:"generation"`
	// Restarts counts replacements since the daemon started, LastGapMicros how long
	// nothing was forwarded at the last one, in microseconds, as the daemon saw it.
	Restarts      int   `json:"restarts"`
	LastGapMicros int64 `json:"last_gap_us"`
	// Spare is the process that stands by to replace it; 0: none does.
	Spare int `json:"spare,omitempty"`
	// Goroutines is how many it has.
	Goroutines int `json:"goroutines,omitempty"`
}
