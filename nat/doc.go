// SPDX-License-Identifier: Apache-2.0

// Package nat says what a new connection is translated to, and translates packets.
//
// # Theory of operation
//
// A NAT is asked about the first packet of a connection, which conntrack holds as a
// Pending: before routing for its destination, after it for its source
// (NAT.Translate), and at last to enter it into the table (NAT.Confirm). Rules say
// what is to become of it, and a profile how a port is found: as Linux does
// (choose.go), or as the RFCs want it (mapping.go). All that was decided is in the
// connection's two tuples; no later packet asks again.
//
// What one direction of a connection does to its packets is a Rewrite: a value
// without pointers, made of two tuples (Of), kept by whoever remembers the flow's
// decision, and applied to frames in place: Apply for what stays in its family,
// Translate for NAT64, ApplyError and TranslateError for the ICMP errors about it.
// It knows nothing of connections, takes no lock and allocates nothing; checksums
// are not computed anew but follow what changed.
//
// Beside conntrack's table a NAT remembers what can't be told from one connection:
// which outside end a source has (binding.go), which backend a client (service.go),
// and which SYNs wait for their peer (unsolicited.go). All of that is bounded, in
// the process's own memory, and made again, or missed little, after a restart.
//
// # Fragments
//
// A first fragment is rewritten like a whole packet, its checksum included; later
// ones have addresses only. Of which connection they are, the router's fragment
// table says.
package nat
