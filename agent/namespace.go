// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"sluice/config"
	"sluice/iproute"
	"sluice/qdisc"
	"sluice/routing"
)

// namespaceRecord is a namespace in the state file: what was declared of it, or
// changed since, but for its routes.
type namespaceRecord struct {
	Name   string                     `json:"name"`
	Origin string                     `json:"origin,omitempty"` // as that of a network
	Tables map[string]routing.TableID `json:"tables,omitempty"`
	// Rules are those of both families; nil: those that a namespace has from the
	// beginning. None at all is something else, so it is not omitted.
	Rules      []routing.Rule      `json:"rules"`
	Neighbours []iproute.Neighbour `json:"neighbours,omitempty"`
	VRFs       []vrfRecord         `json:"vrfs,omitempty"`
	Links      []linkRecord        `json:"links,omitempty"`

	Connections connectionsRecord `json:"connections,omitzero"`
	DNS         *config.DNS       `json:"dns,omitempty"`

	rulesRecord

	// Shares are what its ports have together, see sharing.go.
	Shares qdisc.Shares `json:"shares,omitzero"`
}

// vrfRecord is a VRF. Index stays as long as it does.
type vrfRecord struct {
	Name  string          `json:"name"`
	Index uint16          `json:"index"`
	Table routing.TableID `json:"table"`
}

// linkRecord is one end of a link. Index stays as long as it does.
type linkRecord struct {
	Name          string           `json:"name"`
	Index         uint16           `json:"index"`
	PeerNamespace string           `json:"peer_namespace"`
	Peer          string           `json:"peer"`
	Addresses     []netip.Prefix   `json:"addresses,omitempty"`
	MTU           int              `json:"mtu"`
	Device        iproute.Settings `json:"device,omitempty"`
	VRF           string           `json:"vrf,omitempty"`
	Queue         deviceQueue      `json:"queue,omitzero"`
}

// indices notes the numbers that the namespace's devices have, but for networks.
func (n *namespaceRecord) indices(taken map[uint16]bool) {
	for _, v := range n.VRFs {
		taken[v.Index] = true
	}
	for _, l := range n.Links {
		taken[l.Index] = true
	}
}

// names are the tables that have names.
func (n *namespaceRecord) names() *routing.Names {
	names, err := routing.NewNames(n.Tables)
	if err != nil { // checked when they were declared
		return nil
	}
	return names
}

// vrf returns nil if there is none of that name.
func (n *namespaceRecord) vrf(name string) *vrfRecord {
	if i := slices.IndexFunc(n.VRFs, func(v vrfRecord) bool { return v.Name == name }); i >= 0 {
		return &n.VRFs[i]
	}
	return nil
}

// vrfTable is the table of a VRF; false if there is no such VRF.
func (n *namespaceRecord) vrfTable(name string) (routing.TableID, bool) {
	v := n.vrf(name)
	if v == nil {
		return 0, false
	}
	return v.Table, true
}

// link returns nil if there is none of that name.
func (n *namespaceRecord) link(name string) *linkRecord {
	if i := slices.IndexFunc(n.Links, func(l linkRecord) bool { return l.Name == name }); i >= 0 {
		return &n.Links[i]
	}
	return nil
}

// spaces are the names of all namespaces, sorted: those with a record, and those
// that a network has for itself.
func (s *state) spaces() []string {
	var out []string
	for i := range s.namespaces {
		out = append(out, s.namespaces[i].Name)
	}
	for i := range s.networks {
		out = append(out, s.networks[i].space())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// namespace returns the record of a namespace, an empty one if it has none yet;
// nil if there is no such namespace.
func (s *state) namespace(name string) *namespaceRecord {
	for i := range s.namespaces {
		if s.namespaces[i].Name == name {
			return &s.namespaces[i]
		}
	}
	for i := range s.networks {
		if s.networks[i].space() == name {
			return &namespaceRecord{Name: name}
		}
	}
	return nil
}

// in returns the networks of a namespace, by name.
func (s *state) in(namespace string) []*networkRecord {
	var out []*networkRecord
	for i := range s.networks {
		if s.networks[i].space() == namespace {
			out = append(out, &s.networks[i])
		}
	}
	return out
}

// attachedIn returns the attachments of a namespace's networks, by name.
func (s *state) attachedIn(namespace string) []*attachmentRecord {
	var out []*attachmentRecord
	for _, n := range s.in(namespace) {
		out = append(out, s.of(n.Name)...)
	}
	slices.SortFunc(out, func(a, b *attachmentRecord) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// isDevice reports whether a namespace has a network, link or VRF of a name.
func (s *state) isDevice(namespace, name string) bool { return s.devices(namespace)[name] }

// devices are the names of a namespace's networks, links and VRFs.
func (s *state) devices(namespace string) map[string]bool {
	out := make(map[string]bool)
	for _, n := range s.in(namespace) {
		out[n.Name] = true
	}
	if n := s.namespace(namespace); n != nil {
		for _, v := range n.VRFs {
			out[v.Name] = true
		}
		for _, l := range n.Links {
			out[l.Name] = true
		}
	}
	return out
}

// portDevices says by which name a rule can mean each attachment of a namespace: its
// own, if a device can have it and none has, else that of its host end.
func (s *state) portDevices(namespace string) map[string]string {
	out := make(map[string]string)
	taken := s.devices(namespace)
	for _, a := range s.attachedIn(namespace) {
		own := a.hostIfName()
		switch {
		case iproute.IsDeviceName(a.Name) && !isHostEnd(a.Name) && !taken[a.Name]:
			out[a.ID] = a.Name
		case !taken[own]:
			out[a.ID] = own
		}
	}
	return out
}

// isHostEnd reports whether a name is one that attachmentRecord.hostIfName gives.
func isHostEnd(name string) bool {
	var port uint16
	n, err := fmt.Sscanf(name, "sl%d", &port)
	return n == 1 && err == nil && name == fmt.Sprintf("sl%d", port)
}

// flowSeed is what a namespace's flows are told apart with: the same as long as the
// state file lives, and nothing that a container could guess.
func (s *state) flowSeed(namespace string) uint64 {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, s.seed), namespace...))
	return binary.BigEndian.Uint64(sum[:])
}
