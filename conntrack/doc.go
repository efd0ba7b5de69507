// SPDX-License-Identifier: Apache-2.0

// Package conntrack tracks connections as Linux's nf_conntrack does: which one a
// packet belongs to, in which direction, and whether it may.
//
// # The way of a packet
//
// Table.Look finds the connection of a packet, or lets it begin one, which is a
// Pending until Table.Confirm enters it: so a packet that is dropped on the way
// leaves nothing behind, and address translation decides before anybody else sees
// the connection. What remembers the decision keeps the Conn, and shows it the
// next packets with Conn.Packet.
//
// # Memory
//
// A connection is a record of fixed size in a file that outlives the process:
// both tuples, state, windows, counters, timeouts as absolute seconds. There is no
// pointer in it. All that leads to the records, as chains, wheel, lists of ports
// and free records, is in memory of the process, and made anew when a process
// opens the file; or before, by one that stands by and follows the one that works
// (mapped.go).
//
// A process may be killed at any store. Each record has a life word, which says
// that it is live only while its tuples are whole: what was being made or ended
// is dropped at the next start. What follows the packets is written under a lock
// word of the record. If that is found locked, the connection is kept, and the
// windows of TCP are learned anew.
//
// # Who may change what
//
// Look-ups take no lock: a chain is read while it changes, and a record's life is
// asked before and after its tuple was compared. A packet holds the lock of its
// own record, which it shares with packets of the other direction at most.
// Connections come and go under the locks of their two chains, and for the counts
// and the wheel under one of the table, for moments.
//
// # Bounds
//
// The table has a fixed number of records. Ports have quotas, and reserves that
// the others can't use. Where there is no room, what is half open or about to be
// closed gives way, the oldest first: of the same port, or else of the one that
// is furthest beyond its reserve. Chains have a greatest length; the hash is
// keyed.
package conntrack
