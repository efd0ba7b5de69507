// SPDX-License-Identifier: Apache-2.0

// Package uplink is what an uplink of kind host needs in the network namespace that
// the daemon runs in, beside the interface itself, which is one end of a veth pair:
// addresses, a neighbour that is known, routes, forwarding, and a table of nftables.
//
// # What is ours, and how it is told from the rest
//
//	thing       how it is known           how it goes
//	interface   the pair's other end      with the pair
//	addresses   they are on it            with it
//	neighbours  they are on it            with it
//	routes      they lead out by it and   with it, or one by one
//	            have protocol Protocol
//	table       inet NAME, where NAME is  Host.Remove
//	            the interface's, with no
//	            chains but ours
//	forwarding  of the whole host         never: others may need it by now
//
// Nothing else of the host is ever changed. What would collide with something that is
// there is refused before anything is done (Survey.Conflict).
//
// Everything is made by comparing what is there with what should be, so that it can be
// done again at any time: after a kill, and when somebody has flushed rules or routes.
package uplink
