// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"

	"sluice/packet"
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
}

// NamespaceSpec describes one namespace: a bridge, the gateway's addresses in
// the host stack, and the containers' ports. Two namespaces may use the same
// addresses and the same MACs.
type NamespaceSpec struct {
	// Name is unique in the snapshot; a namespace of the same name in the next
	// snapshot is the same namespace and keeps its FDB and its sockets.
	Name   string     `json:"name"`
	Bridge BridgeSpec `json:"bridge"`
	// Addresses are the gateway addresses with the length of their subnet.
	// None means that the host stack has no address and answers nothing.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Ports     []PortSpec     `json:"ports,omitempty"`
	// Echo starts the echo (RFC 862, port 7) and discard (RFC 863, port 9)
	// services on TCP and UDP of the host stack.
	Echo bool `json:"echo,omitempty"`
}

// BridgeSpec describes a namespace's bridge and its local port, behind which
// the host stack stands.
type BridgeSpec struct {
	// Index is the local port's number and counter slot, 1 to MaxIndex, unique
	// among all ports and bridges of the snapshot.
	Index uint16 `json:"index"`
	// MAC is the link address of the host stack: unicast and not zero.
	MAC packet.MAC `json:"mac"`
	// MTU of the host stack in bytes of IP packet, 576 (1280 with an IPv6
	// address) to 65535.
	MTU int `json:"mtu"`
	// AgeingSeconds, MaxEntries and MaxPerPort bound the FDB; zero takes the
	// defaults of bridge.Options. They hold from the namespace's creation on:
	// a later snapshot that differs makes a new, empty FDB.
	AgeingSeconds int `json:"ageingSeconds,omitempty"`
	MaxEntries    int `json:"maxEntries,omitempty"`
	MaxPerPort    int `json:"maxPerPort,omitempty"`
}

// PortSpec describes one container's port.
type PortSpec struct {
	// Index is the port's number and counter slot, 1 to MaxIndex, unique among
	// all ports and bridges of the snapshot.
	Index uint16 `json:"index"`
	// Name is for people; it need not be unique.
	Name string `json:"name,omitempty"`
	// MAC of the container: a static FDB entry and a static neighbour of the
	// host stack. Unique in the namespace, unicast and not zero.
	MAC packet.MAC `json:"mac"`
	// MTU of the port in bytes of IP packet, 68 (RFC 791) to 65535. A larger
	// packet towards it is dropped as too_big.
	MTU int `json:"mtu"`
	// Offload says that the container takes segmentation-offload frames and
	// partial checksums. If false, frames to it are cut and summed here.
	Offload bool `json:"offload"`
	// Addresses of the container, for the host stack's neighbour table.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}
