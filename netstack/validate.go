// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"
	"net/netip"

	"sluice/packet"
)

// ErrInvalid is wrapped by every error of Snapshot.Validate, so that a caller
// can tell a wrong snapshot from a failure to apply a right one.
var ErrInvalid = errors.New("invalid snapshot")

const (
	minMTU     = 576   // RFC 791 §3.2: every host takes 576 bytes
	minMTU6    = 1280  // RFC 8200 §5
	minPortMTU = 68    // RFC 791 §3.2: every link carries 68 bytes
	maxMTU     = 65535 // the largest IP packet
	maxName    = 64    // of a namespace, in bytes
	// maxAgeing is 10^6 s, about 11 days, as bridge(8) allows.
	maxAgeing = 1_000_000
	// maxTable bounds what a snapshot may ask for in FDB entries (memory).
	maxTable = 1 << 20
)

// Validate reports the first thing that is wrong with s, naming it. It looks
// at the snapshot alone: whether the ports' fds exist is seen by Apply.
func (s *Snapshot) Validate() error {
	names := make(map[string]bool, len(s.Namespaces))
	indices := make(map[uint16]string)
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		if names[ns.Name] {
			return invalid("namespace %q: name used twice", ns.Name)
		}
		names[ns.Name] = true
		if err := ns.validate(indices); err != nil {
			return fmt.Errorf("%w: namespace %q: %w", ErrInvalid, ns.Name, err)
		}
	}
	if err := s.validateConnections(); err != nil {
		return err
	}
	if err := s.validateShares(); err != nil {
		return err
	}
	return s.validateLinks()
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// validate checks one namespace; indices holds who uses each index so far.
func (s *NamespaceSpec) validate(indices map[uint16]string) error {
	if s.Name == "" || len(s.Name) > maxName {
		return fmt.Errorf("name must have 1 to %d bytes", maxName)
	}
	taken := make(names)
	macs := make(map[packet.MAC]bool)
	seen := make(map[netip.Addr]bool)
	for i := range s.Networks {
		n := &s.Networks[i]
		if err := taken.claim(n.Name, "network"); err != nil {
			return fmt.Errorf("network %q: %w", n.Name, err)
		}
		if macs[n.Bridge.MAC] {
			return fmt.Errorf("network %q: bridge: MAC %s is another's", n.Name, n.Bridge.MAC)
		}
		macs[n.Bridge.MAC] = true
		if err := n.validate(indices, seen); err != nil {
			return fmt.Errorf("network %q: %w", n.Name, err)
		}
	}
	return s.validateDevices(indices, taken, seen)
}

// validate checks one network; indices holds who uses each index so far, and seen
// the gateway addresses of the namespace.
func (s *NetworkSpec) validate(indices map[uint16]string, seen map[netip.Addr]bool) error {
	if err := claimIndex(indices, s.Bridge.Index, "bridge of "+s.Name); err != nil {
		return err
	}
	if err := s.validateBridge(); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := claimAddresses(s.Addresses, seen); err != nil {
		return err
	}
	if err := validateQueue("egress", s.Egress); err != nil {
		return err
	}
	if err := s.validatePorts(indices); err != nil {
		return err
	}
	return s.validateBridging()
}

func claimIndex(indices map[uint16]string, index uint16, who string) error {
	if index == 0 || index > MaxIndex {
		return fmt.Errorf("%s: index %d is not in 1..%d", who, index, MaxIndex)
	}
	if other, taken := indices[index]; taken {
		return fmt.Errorf("%s: index %d is used by %s", who, index, other)
	}
	indices[index] = who
	return nil
}

func (s *NetworkSpec) validateBridge() error {
	b := &s.Bridge
	low := minMTU
	if s.hasIPv6() {
		low = minMTU6
	}
	switch {
	case !isStation(b.MAC):
		return fmt.Errorf("MAC %s is not a unicast address", b.MAC)
	case b.MTU < low || b.MTU > maxMTU:
		return fmt.Errorf("MTU %d is not in %d..%d", b.MTU, low, maxMTU)
	case b.AgeingSeconds < 0 || b.AgeingSeconds > maxAgeing:
		return fmt.Errorf("ageing of %d s is not in 0..%d", b.AgeingSeconds, maxAgeing)
	case b.MaxEntries < 0 || b.MaxEntries > maxTable:
		return fmt.Errorf("maxEntries %d is not in 0..%d", b.MaxEntries, maxTable)
	case b.MaxPerPort < 0 || b.MaxPerPort > maxTable:
		return fmt.Errorf("maxPerPort %d is not in 0..%d", b.MaxPerPort, maxTable)
	}
	return nil
}

func (s *NetworkSpec) validatePorts(indices map[uint16]string) error {
	macs := map[packet.MAC]string{s.Bridge.MAC: "the bridge"}
	addrs := make(map[netip.Addr]string)
	for _, p := range s.Addresses {
		addrs[p.Addr()] = "the gateway"
	}
	before := &PortSpec{}
	for i := range s.Ports {
		p := &s.Ports[i]
		who := fmt.Sprintf("port %d (%s)", p.Index, p.Name)
		if err := claimIndex(indices, p.Index, who); err != nil {
			return err
		}
		if err := errors.Join(p.validate(who, macs, addrs), p.validateQueues(before)); err != nil {
			return fmt.Errorf("%s: %w", who, err)
		}
		before = p
	}
	return nil
}

// validateMAC checks the MAC, which a link with many stations behind it does not have.
func (p *PortSpec) validateMAC(macs map[packet.MAC]string) error {
	switch other, taken := macs[p.MAC]; {
	case p.MAC.IsZero() && (len(p.Addresses) > 0 || p.Guard != 0):
		return errors.New("without a MAC there are no addresses and no guards")
	case p.MAC.IsZero():
	case p.MAC.IsMulticast():
		return fmt.Errorf("MAC %s is not a unicast address", p.MAC)
	case taken:
		return fmt.Errorf("MAC %s is used by %s", p.MAC, other)
	}
	return nil
}

// validate checks one port; macs and addrs hold who uses them so far.
func (p *PortSpec) validate(who string, macs map[packet.MAC]string, addrs map[netip.Addr]string) error {
	if err := p.validateMAC(macs); err != nil {
		return err
	}
	if p.MTU < minPortMTU || p.MTU > maxMTU {
		return fmt.Errorf("MTU %d is not in %d..%d", p.MTU, minPortMTU, maxMTU)
	}
	if !p.MAC.IsZero() {
		macs[p.MAC] = who
	}
	for _, a := range p.Addresses {
		if !isHost(a) {
			return fmt.Errorf("address %q is not a host's", a)
		}
		if other, taken := addrs[a]; taken {
			return fmt.Errorf("address %s is used by %s", a, other)
		}
		addrs[a] = who
	}
	return nil
}

func (s *NetworkSpec) hasIPv6() bool {
	for _, p := range s.Addresses {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

// isStation reports whether m can be the address of one station.
func isStation(m packet.MAC) bool { return !m.IsZero() && !m.IsMulticast() }

// isHost reports whether a can be the address of one host. A zone has no
// meaning here, and a 4-in-6 address would be a second name of an IPv4 one.
func isHost(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" &&
		!a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
