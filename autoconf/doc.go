// SPDX-License-Identifier: Apache-2.0

// Package autoconf tells the containers of a network how they are configured:
// router advertisements (RFC 4861 §6.2, with the options of RFC 8106 and RFC
// 4191), DHCPv4 (RFC 2131, options of RFC 2132, RFC 3442 and RFC 3397) and DHCPv6
// (RFC 8415), as far as each is asked for.
//
// A Server is a function of frames: Input takes one that came to the network's
// local port, and appends the answer; Tick, called each second, appends the
// advertisement that is due. Time is passed in, in seconds. Sockets, goroutines
// and clocks there are none.
//
// # Who gets what
//
// There is no lease here. A container was given its addresses when it was
// attached, and that is its lease: each gets exactly those, recognised by the
// port that its frame came in by. What a client says of itself (client
// identifier, DUID, host name) is echoed where the protocol says so and means
// nothing. A DHCP message that doesn't come from the container's own MAC is not
// answered: behind it would be somebody nested, for whom there is no address.
//
// So a DHCPDECLINE, which says that somebody else uses the address, is counted
// and changes nothing, and neither does a release.
//
// # Where it differs from the letter
//
//   - Answers go to the container's MAC, even if the client asked for a broadcast
//     (RFC 2131 §4.1: SHOULD) and the IP destination is one: nobody else needs to
//     see them, and nobody can make a flood of his requests.
//   - A solicitation from an address is answered in the same second, without the
//     delay of RFC 4861 §6.2.6, half a second at most, that keeps several routers
//     apart. There is one.
//   - DHCPv6: the first IA_NA of a message gets all addresses of the container,
//     any other none, since nothing is remembered from one message to the next. A
//     Confirm is judged by the addresses of the container, not by their prefix.
//     There is no prefix delegation, relay, reconfiguration or authentication.
//   - DHCPv4: relays and BOOTP without DHCP get no answer. Options that don't fit
//     into the client's message size are left out, the least important first.
//
// # Hostile input
//
// Every parser here is bounded and total, keeps nothing, and takes a message or
// leaves it: what is malformed gets no answer. Answers don't allocate.
package autoconf
