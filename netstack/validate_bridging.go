// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"

	"sluice/bridge"
	"sluice/bridge/snoop"
	"sluice/packet"
)

// validateBridging checks what the network says of VLANs, flags, guards, snooping
// and entries. Each error begins with the name of the field.
func (s *NetworkSpec) validateBridging() error {
	members := map[uint16]bool{}
	for i := range s.Ports {
		members[s.Ports[i].Index] = true
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		if err := p.validateBridging(members); err != nil {
			return fmt.Errorf("port %d (%s): %w", p.Index, p.Name, err)
		}
	}
	b := &s.Bridge
	for _, err := range []error{
		b.validateVLAN(), b.validateSnooping(), s.validateStatic(members), b.validateGroups(members),
	} {
		if err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
	}
	return nil
}

func (p *PortSpec) validateBridging(members map[uint16]bool) error {
	if err := p.VLAN.Validate(); err != nil {
		return fmt.Errorf("vlan: %w", err)
	}
	switch {
	case p.Flags&^bridge.AllFlags != 0:
		return fmt.Errorf("flags: there is no flag %#x", uint16(p.Flags&^bridge.AllFlags))
	case p.Router > snoop.RouterAlways:
		return fmt.Errorf("router: there is no mode %d", p.Router)
	}
	for _, a := range p.GuardAddrs {
		if !a.IsValid() || a.Addr().Is4In6() {
			return fmt.Errorf("guardAddrs: %q is no prefix", a)
		}
	}
	if err := p.validateMirror("mirrorIn", p.MirrorIn, members); err != nil {
		return err
	}
	return p.validateMirror("mirrorOut", p.MirrorOut, members)
}

func (p *PortSpec) validateMirror(field string, to uint16, members map[uint16]bool) error {
	switch {
	case to == 0:
		return nil
	case to == p.Index:
		return fmt.Errorf("%s: a port can't be its own mirror", field)
	case !members[to]:
		return fmt.Errorf("%s: %d is not a container's port of the network", field, to)
	}
	return nil
}

// validateVLAN: the host stack knows no tags.
func (b *BridgeSpec) validateVLAN() error {
	if err := b.VLAN.Validate(); err != nil {
		return fmt.Errorf("vlan: %w", err)
	}
	if b.VLAN.Aware() && b.VLAN.PVID == 0 {
		return errors.New("vlan: the gateway needs a pvid")
	}
	return nil
}

func (b *BridgeSpec) validateSnooping() error {
	if b.Snooping == nil {
		return nil
	}
	if err := b.Snooping.Validate(); err != nil {
		return fmt.Errorf("snooping: %w", err)
	}
	return nil
}

// station names an entry of the FDB.
type station struct {
	mac  packet.MAC
	vlan uint16
}

// validateStatic checks the static entries: they are beside those of the
// containers and of the host stack, and not instead of them.
func (s *NetworkSpec) validateStatic(members map[uint16]bool) error {
	if n := len(s.Bridge.Static); n > maxTable {
		return fmt.Errorf("static: %d entries are more than %d", n, maxTable)
	}
	seen := map[station]bool{}
	for i := range s.Ports {
		seen[station{s.Ports[i].MAC, home(&s.Ports[i].VLAN)}] = true
	}
	for _, e := range s.Bridge.Static {
		k := station{e.MAC, e.VLAN}
		switch {
		case !isStation(e.MAC):
			return fmt.Errorf("static: MAC %s is not a unicast address", e.MAC)
		case e.MAC == s.Bridge.MAC:
			return fmt.Errorf("static: MAC %s is the bridge's own", e.MAC)
		case e.VLAN > bridge.MaxVID:
			return fmt.Errorf("static: %s: vlan %d is not in 0..%d", e.MAC, e.VLAN, bridge.MaxVID)
		case !members[e.Port]:
			return fmt.Errorf("static: %s: %d is not a container's port of the network", e.MAC, e.Port)
		case seen[k]:
			return fmt.Errorf("static: there is an entry of %s in VLAN %d already", e.MAC, e.VLAN)
		}
		seen[k] = true
	}
	return nil
}

// validateGroups checks the static members of groups. Without snooping they would
// have no effect, which is an error on Linux too.
func (b *BridgeSpec) validateGroups(members map[uint16]bool) error {
	if len(b.Groups) > 0 && b.Snooping == nil {
		return errors.New("groups: snooping is off")
	}
	if n := len(b.Groups); n > maxTable {
		return fmt.Errorf("groups: %d entries are more than %d", n, maxTable)
	}
	seen := map[GroupSpec]bool{}
	for _, g := range b.Groups {
		s := snoop.Static{Group: g.Group, VLAN: g.VLAN, Port: g.Port}
		if err := s.Validate(); err != nil {
			return fmt.Errorf("groups: %w", err)
		}
		switch {
		case g.Port != b.Index && !members[g.Port]:
			return fmt.Errorf("groups: %s: %d is not a port of the network", g.Group, g.Port)
		case seen[g]:
			return fmt.Errorf("groups: port %d is in %s twice", g.Port, g.Group)
		}
		seen[g] = true
	}
	return nil
}
