// SPDX-License-Identifier: Apache-2.0

// Package routing decides where an IP packet goes: rules choose a table, the
// longest prefix in it chooses a route, the hash of the flow chooses one of the
// route's next hops. What Linux does with ip-rule(8) and ip-route(8), for IPv4
// and IPv6 alike, in the same words.
//
// A Set is all of it for one namespace: devices, tables and rules of one version.
// It never changes, so any number of workers look up in it without a lock;
// Set.Apply makes the next version out of a list of changes, all of them or none.
// A look-up takes as many steps in ten routes as in a hundred thousand, some 50 ns,
// or 150 ns once the table is larger than the CPU's cache; it allocates nothing.
// Each rule that doesn't select the packet costs some 3 ns.
//
//	Query --rules--> table --longest prefix--> route --flow hash--> next hop
//	          |                   |               |
//	          | blackhole …       | none, throw:  | blackhole, unreachable,
//	          v                   | next rule     v prohibit
//	        Result              <-+             Result
//
// Not here, and refused by name: type of service in the key of a route, nexthop
// objects, encapsulation, realms, and rules on uid, tunnel id or device group.
//
// Where it differs from Linux, on purpose:
//
//   - A flow's next hop is chosen by rendezvous hashing. When one goes or comes,
//     only its own flows move; Linux needs a resilient nexthop group for that.
//   - Routes over a device that is down stay, and are passed over until it is up
//     again. Linux deletes them.
//   - A gateway must not be an own address, in IPv4 either; Linux reads that as
//     "on this link", which is what a route without `via` says.
//   - A local route needs no device.
//   - The output device of a query binds in IPv6 as in IPv4, and without a route
//     over it there is none; Linux assumes in IPv4 that everybody is on its link.
//   - `del` compares the type in IPv6 too, so that `del prohibit P` spares a throw.
//   - Next hops that `append` joins in IPv6 share the attributes of the route
//     that was there first.
package routing
