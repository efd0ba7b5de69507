// SPDX-License-Identifier: Apache-2.0

// Package proxy ends containers' connections in a gVisor stack, and goes on with
// sockets of the host: the socket uplink.
//
//	container --- TCP, UDP, ping ---> uplink stack | Proxy ---> socket ---> world
//
// The stack takes packets for any destination, and answers from it. Whoever embeds
// the package gives it the stack's one interface and a Dialer, and feeds the stack.
//
// # TCP (conn.go, splice.go)
//
// Dial first: a SYN is answered when the outer connection is there. If it is refused
// the container gets a reset, if the outside can't be reached the ICMP error that says
// so, and if nobody answers, nothing. Then bytes are carried, straight from the stack's
// buffers into the socket and back. Nothing is buffered between: when the socket is
// full, the stack's receive buffer fills and its window shuts, and when the stack's send
// buffer is full, the socket's window does. Half-close and reset are passed on, in both
// directions.
//
// # UDP and ping (flow.go, datagram.go, echo.go)
//
// A flow is what one address and port sends to another, or one identifier of echo
// requests to one address. It has a connected socket. What the container sends is
// written by who delivers it to the stack, and never waits. A flow that is idle ends.
//
// The socket sends with the hop limit, the class and the bit DF of the container's packet
// (terms.go), which are set when they change: most flows have the same for good. ICMP
// errors about it, and what the host itself has to say, come to the container as a router
// would have passed them on (report.go).
//
// # Whose time it is (run.go)
//
// No connection has a goroutine. All is done by those who bring packets and who watch the
// sockets, handshakes and the handling of segments included (inline_unsafe.go,
// timewait.go).
//
// # Bounds
//
// Each container's port has quotas (limits.go), by the port's number that packets
// carry in their Hash field; 0 is nobody's. What is refused is counted there, by its
// reason. All else ends by time: dials, handshakes, idle flows, closed connections
// whose peer acknowledges nothing.
package proxy
