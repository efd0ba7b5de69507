// SPDX-License-Identifier: Apache-2.0

// Package agent is the privileged half of the daemon: it makes the veth pairs,
// leases the addresses, remembers both, and keeps a dataplane running.
//
// # Theory of operation
//
// The state file (store.go) is the only truth. A mutation decides everything
// first, writes it down as an intent, acts, and writes down that it is done; a
// query reads the last committed transaction and so never waits for a mutation.
// What the dataplane is told (snapshot.go) is computed from the state file, and
// so is what the kernel should hold (restore.go). Hence kill -9 is an ordinary
// way to end: whatever the next start finds, the state file says what to do.
//
// An attachment's life, with what exists in each state and what a start does:
//
//	state     record  veth pair  socket  snapshot   at the next start
//	(none)    no      no         no      no         a pair nobody recorded is removed
//	creating  yes     maybe      maybe   maybe      undone: pair, then record
//	ready     yes     yes        yes     yes        restored (see below)
//	deleting  yes     maybe      maybe   no         undone: pair, then record
//	failed    yes     maybe      no      no         restored (see below)
//
//	attach:  (none) -> creating -> ready      in the order of the columns
//	detach:  ready -> deleting -> (none)      in the opposite order
//	reap:    as detach, when the kernel says that the pair is gone
//
// The record is first to come and last to go, so that a lease never outlives its
// attachment, nor an attachment its lease.
//
// A ready attachment is restored thus: if its pair is there, its socket is taken
// over from the running dataplane or opened anew; if the pair is gone but the
// container's namespace is the same as before (identity.go), the pair is made
// again with the same addresses; if the namespace is gone, so is the attachment.
// If anything else is in the way the attachment is failed: it keeps what it has,
// and is tried again (mend.go) until it is ready or its namespace is gone.
//
// # What was declared, and what was commanded
//
// Networks and namespaces are what the file says (declare.go), and what commands in
// the words of ip(8) have changed since (command.go): one record, changed by one
// transaction each, all of it or nothing. Whether routes are right is seen by building
// the routing with what the dataplane builds it with (wiring.go), before anything is
// written. Then the dataplane is told; if it refuses, the transaction is taken back
// (store.go:store.attempt). Killed in between, the next start tells the dataplane what
// is written. Routes are not in the records, since they are many (routestore.go).
//
// # Locks
//
// Agent.mu serialises mutations and is held while the kernel works, for
// milliseconds. plane.mu serialises what is told to the dataplane and its
// replacement. sockets.mu guards the table of packet sockets for moments. They
// are taken in this order; queries take only the last. The caches of routes and of
// what was built of them (routeCache.mu, sets.mu) are leaves.
package agent
