// SPDX-License-Identifier: Apache-2.0

// Package router is the IP layer of one namespace: what Linux does with a packet
// between ip_rcv and the neighbour's MAC address, for IPv4 and IPv6.
//
//	martians, rules and routes,      drop, silently or with an ICMP error
//	reverse path                     deliver to the namespace's own stack
//	  |
//	hop limit, MTU, redirect         drop with an ICMP error; fragments
//	  |
//	neighbour                        held until it is resolved
//	  v
//	forward: which device, which MAC addresses
//
// Input is one function of a packet and the router's tables. It never changes the
// frame; who asks does what the Verdict says, and may remember it while its Epoch
// and its Neigh are valid. What the router itself sends (ICMP errors, fragments,
// solicitations, packets whose neighbour was found) goes to a Sink.
//
// A Router is used by any number of workers at once. A packet whose neighbour is
// resolved takes no lock and allocates nothing. Its configuration is a Config,
// which Prepare compiles and Commit swaps in.
//
// Where it differs from Linux, on purpose:
//
//   - A packet with a link-local address of IPv4 is not forwarded (RFC 3927 §2.7).
//   - 0.0.0.0/8 is a martian as a whole (RFC 1122 §3.2.1.3); to Linux only 0.0.0.0 is.
//   - Nobody's address (::) is not forwarded, not even to where it came from (RFC
//     4291 §2.5.2).
//   - Redirects of IPv6 can be turned off, and go only to the link that the packet
//     came from.
//   - A source that is a broadcast address is a martian also without any rules.
//   - The reverse path is checked for IPv6 too, where a device asks for it.
//   - A route's MTU counts for packets that are forwarded in IPv6 too, locked or
//     not, and never beyond the device's.
//   - Fragments keep to the way of their flow, and rules see the ports of all of
//     them (package fragment).
//   - A next hop of several that answers nobody is passed over, until it does.
//   - What one ingress port may cause of ICMP errors is bounded beside Linux' rate
//     limits, so that it doesn't use up those of the others.
package router
