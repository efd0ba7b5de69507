// SPDX-License-Identifier: Apache-2.0

// Package dial makes sockets for who may not make any: both ends of the channel by
// which the sandboxed dataplane asks the agent to dial, and gets descriptors.
//
//	dataplane (Client)                              agent (Server)
//	  Dial: to 192.0.2.1:443 by TCP  -- request -->  may it? socket, connect
//	                                 <-- socket --   the descriptor, or an error
//
//	  Polled: has few sockets left   -- more ----->  may it? sockets, as they are
//	    it connects them             <-- stock ---   the descriptors
//
//	  Accepted: for the container <-- accepted -- the descriptor of who came (Pass)
//	                                 --- over --> that it has ended
//
// The channel is a SOCK_SEQPACKET socket of its own, beside the control connection.
// A message is one datagram of fixed size, with at most one descriptor, a stock with more.
//
// # Nobody waits
//
// connect(2) is started and not awaited: the descriptor is passed on at once, and
// whoever has it sees when it is connected, or why not. So the agent keeps no state
// of a dial, and one that takes a minute costs it nothing.
//
// # What the agent believes
//
// Nothing. What it dials for whom, a Policy says: a dataplane that was taken over
// reaches what its containers reach, by the protocols that they have. It has the
// descriptor of each connection, and can do with it what that connection may do, or another
// one to whoever is not behind the fence that is around it (package fence). Of
// published datagrams it has none of the host's (Accepted).
package dial
