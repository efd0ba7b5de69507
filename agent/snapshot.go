// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"

	"sluice/api"
	"sluice/netstack"
)

// snapshot is what the dataplane has to forward by: every network with its ready
// attachments, and the one with the identifier also, which is about to become
// ready. Empty: none.
func (s *state) snapshot(also string) *netstack.Snapshot {
	out := &netstack.Snapshot{Generation: s.generation}
	for i := range s.networks {
		out.Namespaces = append(out.Namespaces, s.namespace(&s.networks[i], also))
	}
	return out
}

func (s *state) namespace(n *networkRecord, also string) netstack.NamespaceSpec {
	return netstack.NamespaceSpec{Name: n.Name, Networks: []netstack.NetworkSpec{s.networkSpec(n, also)}}
}

func (s *state) networkSpec(n *networkRecord, also string) netstack.NetworkSpec {
	spec := netstack.NetworkSpec{
		Name: n.Name,
		Echo: n.Echo,
		Bridge: netstack.BridgeSpec{
			Index: n.Port, MAC: n.MAC, MTU: n.MTU,
			AgeingSeconds: n.AgeingSeconds, MaxEntries: n.FDBMax, MaxPerPort: n.FDBMaxPerPort,
		},
	}
	for i, g := range n.Gateways {
		spec.Addresses = append(spec.Addresses, netip.PrefixFrom(g, n.Subnets[i].Bits()))
	}
	for _, a := range s.of(n.Name) {
		if a.State == api.StateReady || a.ID == also {
			spec.Ports = append(spec.Ports, a.portSpec())
		}
	}
	return spec
}

func (a *attachmentRecord) portSpec() netstack.PortSpec {
	return netstack.PortSpec{
		Index: a.Port, Name: a.Name, MAC: a.MAC, MTU: a.MTU, Offload: a.Offload, Addresses: a.addrs(),
	}
}

// portsOf returns the container ports of a snapshot, by number.
func portsOf(s *netstack.Snapshot) map[uint16]netstack.PortSpec {
	out := make(map[uint16]netstack.PortSpec)
	if s == nil {
		return out
	}
	for p := range s.Ports() {
		out[p.Index] = *p
	}
	return out
}

// portSet returns the numbers of a snapshot's container ports.
func portSet(s *netstack.Snapshot) map[uint16]bool {
	out := make(map[uint16]bool)
	for port := range portsOf(s) {
		out[port] = true
	}
	return out
}

// without returns a copy of a snapshot that lacks some ports.
func without(s *netstack.Snapshot, ports map[uint16]bool) *netstack.Snapshot {
	out := &netstack.Snapshot{Generation: s.Generation}
	for _, ns := range s.Namespaces {
		ns.Networks = slices.Clone(ns.Networks)
		for i := range ns.Networks {
			n := &ns.Networks[i]
			n.Ports = slices.DeleteFunc(slices.Clone(n.Ports), func(p netstack.PortSpec) bool { return ports[p.Index] })
		}
		out.Namespaces = append(out.Namespaces, ns)
	}
	return out
}
