// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"

	"sluice/api"
	"sluice/uplink"
)

// apart holds the uplinks that are declared against those of other origins, as package
// config does it within a file: on the host there is one table of routes, and one list
// of interfaces.
func (d *declaration) apart() error {
	for i := range d.c.Uplinks {
		mine := d.is.uplinkPort(d.c.Uplinks[i].Name)
		if mine == nil {
			continue
		}
		for _, a := range d.is.uplinks() {
			n := d.is.network(a.Network)
			if n == nil || d.mine(n.Origin) || a.State == api.StateDeleting {
				continue
			}
			if what := meets(d.is.hostConfig(mine), d.is.hostConfig(a), mine.IfName, a.IfName); what != "" {
				return d.fault(fmt.Sprintf("uplinks[%d]", i), fmt.Errorf("%s of uplink %s, which is declared by %s", what, n.Name, origin{config: n.Origin}))
			}
		}
	}
	return nil
}

// meets says in what two uplinks collide, empty: in nothing. One without a host's side
// has an interface only.
func meets(c, o *uplink.Config, ifname, other string) string {
	if ifname == other {
		return "ifname " + ifname + " is that"
	}
	if c == nil || o == nil {
		return ""
	}
	for _, p := range reached(c) {
		for _, q := range reached(o) {
			if p.Overlaps(q) {
				return fmt.Sprintf("%s overlaps %s", p, q)
			}
		}
	}
	return ""
}

// reached is what the host reaches by an uplink.
func reached(c *uplink.Config) (out []netip.Prefix) {
	for _, p := range c.Addresses {
		out = append(out, p.Masked())
	}
	if c.Routes {
		out = append(out, c.Subnets...)
	}
	return out
}
