// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"
	"net/netip"
)

// names are those of the devices of a namespace, with what has each.
type names map[string]string

// claim gives a device its name.
func (n names) claim(name, what string) error {
	switch other, taken := n[name]; {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("name must have 1 to %d bytes", maxName)
	case name == "lo":
		return errors.New("name lo is that of the namespace itself")
	case taken:
		return fmt.Errorf("name used twice, by a %s too", other)
	}
	n[name] = what
	return nil
}

// validateDevices checks what devices there are beside networks; seen has the
// addresses of the namespace so far.
func (s *NamespaceSpec) validateDevices(indices map[uint16]string, taken names, seen map[netip.Addr]bool) error {
	vrfs := make(map[string]bool)
	for i := range s.VRFs {
		v := &s.VRFs[i]
		if err := v.validate(indices, taken); err != nil {
			return fmt.Errorf("VRF %q: %w", v.Name, err)
		}
		vrfs[v.Name] = true
	}
	for i := range s.Links {
		l := &s.Links[i]
		if err := l.validate(indices, taken, seen); err != nil {
			return fmt.Errorf("link %q: %w", l.Name, err)
		}
		if l.VRF != "" && !vrfs[l.VRF] {
			return fmt.Errorf("link %q: there is no VRF %q", l.Name, l.VRF)
		}
	}
	for i := range s.Sockets {
		if err := s.Sockets[i].validate(indices, taken, vrfs); err != nil {
			return fmt.Errorf("uplink %q: %w", s.Sockets[i].Name, err)
		}
	}
	for i := range s.Networks {
		n := &s.Networks[i]
		if err := n.validateDevices(vrfs, taken); err != nil {
			return fmt.Errorf("network %q: %w", n.Name, err)
		}
	}
	if err := s.validateDNS(); err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	if err := s.Connections.validate(); err != nil {
		return err
	}
	return s.validateNeighbours(taken)
}

// validateDevices checks what a network is and has as devices.
func (s *NetworkSpec) validateDevices(vrfs map[string]bool, taken names) error {
	if s.VRF != "" && !vrfs[s.VRF] {
		return fmt.Errorf("there is no VRF %q", s.VRF)
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Device == "" {
			continue
		}
		if err := taken.claim(p.Device, "port"); err != nil {
			return fmt.Errorf("port %d: device %q: %w", p.Index, p.Device, err)
		}
	}
	return nil
}

func (v *VRFSpec) validate(indices map[uint16]string, taken names) error {
	if err := taken.claim(v.Name, "VRF"); err != nil {
		return err
	}
	if v.Table == 0 {
		return errors.New("it has no table")
	}
	return claimIndex(indices, v.Index, "VRF "+v.Name)
}

func (l *LinkSpec) validate(indices map[uint16]string, taken names, seen map[netip.Addr]bool) error {
	if err := taken.claim(l.Name, "link"); err != nil {
		return err
	}
	if err := claimIndex(indices, l.Index, "link "+l.Name); err != nil {
		return err
	}
	if l.MTU < minMTU6 || l.MTU > maxMTU {
		return fmt.Errorf("MTU %d is not in %d..%d", l.MTU, minMTU6, maxMTU)
	}
	if err := validateQueue("egress", l.Egress); err != nil {
		return err
	}
	return claimAddresses(l.Addresses, seen)
}

// claimAddresses checks own addresses of a namespace.
func claimAddresses(all []netip.Prefix, seen map[netip.Addr]bool) error {
	for _, p := range all {
		switch a := p.Addr(); {
		case !p.IsValid() || !isHost(a):
			return fmt.Errorf("gateway address %q is not a host's", p)
		case seen[a]:
			return fmt.Errorf("gateway address %s given twice", a)
		default:
			seen[a] = true
		}
	}
	return nil
}

func (s *NamespaceSpec) validateNeighbours(taken names) error {
	for i := range s.Routing.Neighbours {
		n := &s.Routing.Neighbours[i]
		switch {
		case taken[n.Dev] != "network":
			return fmt.Errorf("neighbour %s: device %q is no network", n.Addr, n.Dev)
		case !isHost(n.Addr):
			return fmt.Errorf("neighbour %q is not a host's address", n.Addr)
		case !isStation(n.MAC):
			return fmt.Errorf("neighbour %s: MAC %s is not a unicast address", n.Addr, n.MAC)
		}
	}
	return nil
}

// validateLinks checks that both ends of each link name each other.
func (s *Snapshot) validateLinks() error {
	type end struct {
		link *LinkSpec
		in   int
	}
	ends := make(map[uint16]end)
	for i := range s.Namespaces {
		for j := range s.Namespaces[i].Links {
			l := &s.Namespaces[i].Links[j]
			ends[l.Index] = end{l, i}
		}
	}
	for _, e := range ends {
		peer, ok := ends[e.link.Peer]
		if !ok || peer.link.Peer != e.link.Index || peer.in == e.in {
			return invalid("namespace %q: link %q: its peer %d is no link of another namespace that names it",
				s.Namespaces[e.in].Name, e.link.Name, e.link.Peer)
		}
	}
	return nil
}
