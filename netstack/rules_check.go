// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"

	"sluice/policy/nft"
)

// atFrames reports whether a base chain sees frames: of which family, or at which hook.
func atFrames(t *nft.Table, c *nft.Chain) bool {
	switch t.Family {
	case nft.FamilyBridge, nft.FamilyNetdev, nft.FamilyARP:
		return c.Base
	case nft.FamilyIP, nft.FamilyIP6, nft.FamilyInet, nft.FamilyNone:
	}
	return c.Base && (c.Hook == nft.HookIngress || c.Hook == nft.HookEgress)
}

// SeesFrames reports whether some chain of a ruleset does.
func SeesFrames(r *nft.Ruleset) bool {
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			if !t.Dormant && atFrames(t, c) {
				return true
			}
		}
	}
	return false
}

// CheckRules names what of a ruleset no namespace can have: VLANs of the kernel's bridge, and `ct`
// where a bridge doesn't
// know of connections yet.
func CheckRules(r *nft.Ruleset) error {
	for _, t := range r.Tables {
		if t.Family != nft.FamilyBridge {
			continue
		}
		for _, c := range t.Chains {
			if c.Base && t.Uses(c, isBridgeVLAN) != nil {
				return fmt.Errorf("chain bridge %s %s: meta ibrpvid and ibrvproto are not supported", t.Name, c.Name)
			}
			if !c.Base || c.Hook == nft.HookForward || c.Hook == nft.HookPostrouting {
				continue
			}
			if r := t.Uses(c, isCT); r != nil {
				return fmt.Errorf("chain bridge %s %s: at hook %v, nothing is known of connections (ct): only forward and postrouting have them", t.Name, c.Name, c.Hook)
			}
		}
	}
	return nil
}

// isBridgeVLAN finds what the kernel's bridge says of its own VLANs: ours are the ports'.
func isBridgeVLAN(x any) bool {
	m, ok := x.(*nft.Meta)
	return ok && (m.Key == "ibrpvid" || m.Key == "ibrvproto")
}

func isCT(x any) bool {
	switch x := x.(type) {
	case *nft.CT, *nft.CTCount, *nft.Notrack:
		return true
	case *nft.Mangle:
		_, ok := x.Key.(*nft.CT)
		return ok
	}
	return false
}

// CheckRules names what of a ruleset the namespace can't have as it is.
func (s *NamespaceSpec) CheckRules(r *nft.Ruleset) error {
	if err := CheckRules(r); err != nil {
		return err
	}
	others := s.RuleDevices()
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			if t.Family == nft.FamilyBridge && !s.Connections.Bridged && c.Base && t.Uses(c, isCT) != nil {
				return fmt.Errorf("chain bridge %s %s: needs conntrack.bridged: true for ct", t.Name, c.Name)
			}
			for _, d := range c.Devices {
				if _, taken := others[d]; taken {
					return fmt.Errorf("chain %v %s %s: device %q is no container's port: only those have the hooks ingress and egress", t.Family, t.Name, c.Name, d)
				}
			}
		}
	}
	return nil
}

// CheckPortRules names what of a ruleset no port can have.
func CheckPortRules(r *nft.Ruleset) error {
	for _, t := range r.Tables {
		if t.Family != nft.FamilyNetdev {
			return fmt.Errorf("table %v %s: the ruleset of a port has tables of family netdev only", t.Family, t.Name)
		}
		for _, c := range t.Chains {
			for _, d := range c.Devices {
				if d != ownDevice {
					return fmt.Errorf("chain netdev %s %s: device %q: in the ruleset of a port, its device is called %q", t.Name, c.Name, d, ownDevice)
				}
			}
		}
	}
	return nil
}
