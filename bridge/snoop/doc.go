// SPDX-License-Identifier: Apache-2.0

// Package snoop learns which ports of a bridge want which multicast groups, from
// the IGMP (versions 1 to 3) and MLD (1 and 2) messages that pass, and queries
// for them where nobody else does: RFC 4541, with the timers of RFC 2236, RFC
// 3376, RFC 2710 and RFC 3810.
//
// Table.Input looks at one multicast frame: it takes up what a message says, and
// returns where the frame goes. Looking up takes no lock; a message takes the
// table's. Time is passed in, in seconds; Table.Poll, called each second, lets
// memberships expire and returns the queries that are due.
//
// A group is known by its address and VLAN. Sources are not told apart: a report
// that asks for some of them asks for the group, as RFC 4541 §2.1.2 allows, and
// hosts filter themselves. In each VLAN a family is limited to members only
// while a querier is known to ask, as on Linux: else memberships could not be
// trusted to be complete, and all is flooded.
//
// Bounds. Groups in all and for each port (Config). A port beyond its own does
// not join, its loss. If the table is full, groups that are not in it are
// flooded until it can have been learned anew: nobody loses what is his.
//
// Where it differs from Linux (net/bridge/br_multicast.c), on purpose:
//
//   - Reports and leaves go to router ports only, also those of IGMPv3 and MLDv2
//     (RFC 4541 §2.1.1); Linux floods some of them.
//   - Link-local IPv6 groups that nobody has joined are flooded, not only
//     ff02::1: neighbour discovery must not depend on a report that was lost.
//   - A query from 0.0.0.0 neither wins an election nor makes a router port.
//   - A full table doesn't end snooping.
//   - Router ports, queriers and elections are per VLAN.
package snoop
