// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"net/netip"

	"sluice/packet"
)

// Config is what the host is to have for one uplink. The interface is there already.
type Config struct {
	// IfName is the host's interface, and the name of the table.
	IfName string
	// Comment is a line for people, in the table.
	Comment string
	// Addresses are the host's, with their prefix length.
	Addresses []netip.Prefix
	// Ends are the addresses of the other end, one of each family at most, and MAC is
	// where they are.
	Ends []netip.Addr
	MAC  packet.MAC
	// Subnets are what is behind the other end.
	Subnets []netip.Prefix
	// Routes gives the host a route to each of Subnets.
	Routes bool
	// Forward switches the host's forwarding on, of the families of Ends.
	Forward bool
	// Masquerade hides Subnets behind the host's addresses where they leave it by
	// another interface, and lets nobody begin a connection to them from there.
	Masquerade bool
	// Published are ports of the host that lead to containers of Subnets. They don't
	// overlap.
	Published []Published
}

// end is the other end's address of a family; not valid if it has none.
func (c *Config) end(v6 bool) netip.Addr {
	for _, a := range c.Ends {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// routed are the subnets of the families that the uplink has.
func (c *Config) routed() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range c.Subnets {
		if c.end(s.Addr().Is6()).IsValid() {
			out = append(out, s)
		}
	}
	return out
}
