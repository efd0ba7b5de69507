// SPDX-License-Identifier: Apache-2.0

// Package guard refuses the frames by which a container would pass for another
// one, or for a router or a server of the network: forged source MAC and IP
// addresses, forged ARP and neighbour discovery, router advertisements, answers
// of a DHCP or DHCPv6 server, and multicast queries. Each has its own reason.
//
// A Profile is made from a Config once and is immutable. Check is a pure function
// of it and the frame; it looks at no state, so that what it said of one frame of
// a flow holds for every other one with the same addresses, protocol and ports.
// The exceptions are messages whose body it reads: ARP, neighbour discovery and
// IGMP. No decision about them may be remembered.
//
// What it rests on: View.Parse refuses headers that are cut short and first
// fragments without a whole upper-layer header (RFC 7112), so that nothing that
// passes here has hidden its type. Neighbour discovery in fragments is refused,
// as RFC 6980 demands.
package guard
