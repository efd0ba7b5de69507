// SPDX-License-Identifier: Apache-2.0

// Package fragment knows which flow a fragment of IP is of. Only the first one
// of a datagram has ports; whoever chooses a way by ports, a router with several
// equal next hops or with rules about ports, needs those of the others too. It
// is virtual reassembly: ports and places are remembered, the data goes on in
// the pieces that it came in.
//
//	first fragment    its ports are those of the datagram            Known
//	a later one       after the first: the same ports                Known
//	                  before it: a copy waits for it, and is given
//	                  back with the first one's verdict              Hold
//	overlap           the datagram is dead, with all that is still
//	                  to come of it (RFC 5722, as Linux for IPv4)    Refused
//	repetition        of what has passed already: this one only      Refused
//
// So what is let through is at most one fragment for each byte of a datagram,
// and all who reassemble it get the same. A first fragment without its L4 header
// (RFC 1858, RFC 7112) is refused by the parse before it comes here.
//
// A datagram is known by its addresses and identification, by the protocol if it
// is IPv4 (RFC 791 §2.3, RFC 8200 §4.5), and by the port and the device that it
// came from: nobody can break the datagrams of another.
//
// All is bounded, in total and for each ingress port. A port with too many
// unfinished datagrams loses its own oldest; when the table fills up, the ports
// with most in it shrink first (see Table.share).
package fragment
