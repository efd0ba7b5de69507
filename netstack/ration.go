// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"time"

	"sluice/packet"
)

// Theory of operation.
//
// All ports of a bridge share its host stack: one ring, sockets, a table of
// connections. So each port has a ration of it, a token bucket, which lives with
// its socket and is used by its worker alone. A port that floods the gateway
// loses its own frames, at its own expense, and nobody else's.
//
// The prices are those of the work: a TCP segment, also one of 64 KB, is queued
// for a socket; a datagram may be answered by a service; an echo request, ARP, ND
// and a SYN are answered on the spot, with a packet through the ring.
//
// A bucket is asked the time only when it is empty, and the clock is read once a
// round for all of them: a port that stays within its ration costs no clock.

const (
	// localRate is the ration of a port in tokens a second, localBurst what it
	// may save up: 262,144 TCP segments (137 Gbit/s of 64 KB), 131,072 datagrams,
	// or 8192 echo requests a second.
	localRate  = 1 << 18
	localBurst = 1 << 12

	costSegment  = 1
	costDatagram = 2
	costReply    = 32
)

// bucket is a token bucket. Zero is empty.
type bucket struct {
	tokens int
	at     time.Duration // up to when tokens were given
}

// take pays a price, or reports false and takes nothing.
func (b *bucket) take(price int, c *clock) bool {
	if b.tokens < price {
		b.refill(c.time())
	}
	if b.tokens < price {
		return false
	}
	b.tokens -= price
	return true
}

// refill gives what has come together. Parts of a token stay in at.
func (b *bucket) refill(now time.Duration) {
	const full = localBurst * time.Second / localRate
	if now-b.at >= full {
		b.tokens, b.at = localBurst, now
		return
	}
	n := int((now - b.at) * localRate / time.Second)
	b.at += time.Duration(n * int(time.Second) / localRate)
	b.tokens = min(b.tokens+n, localBurst)
}

// price is what a frame for a host stack costs. A train is as many datagrams.
// Preconditions: the frame passed inspect.
func price(f *packet.Frame) int {
	switch {
	case opens(f):
		return costReply
	case f.View.Proto == packet.ProtoTCP:
		return costSegment
	case f.View.Proto == packet.ProtoUDP:
		n, _ := f.Segments()
		return n * costDatagram
	}
	return costReply
}

// priceAt is price at a local port. At a socket uplink a datagram is free: it ends in a
// socket of its flow's own, at the expense of its port's turn (work.go), and those that
// begin flows have bounds of their own (package proxy). So is what begins a connection no
// dearer than what follows: to dial is work of the turn. A fragment is: the stack keeps
// it until the datagram is whole.
func priceAt(p *port, f *packet.Frame) int {
	switch {
	case p.outside == nil:
		return price(f)
	case f.View.Proto == packet.ProtoUDP && entire(f):
		return 0
	case dials(f):
		return costSegment
	}
	return price(f)
}

// entire reports whether a frame is a whole datagram or segment of the transport layer.
func entire(f *packet.Frame) bool {
	return f.View.Is(packet.ViewHasL4) && !f.View.Is(packet.ViewFrag|packet.ViewRouted)
}

// dials reports whether a frame that comes to a socket uplink begins a connection there.
func dials(f *packet.Frame) bool { return opens(f) && entire(f) }

// opens reports whether a frame asks for a connection: TCP with SYN and without
// ACK, also in the first of some fragments, which has the whole header.
func opens(f *packet.Frame) bool {
	const syn, ack = 0x02, 0x10
	if f.View.Proto != packet.ProtoTCP || !f.View.Is(packet.ViewHasL4) {
		return false
	}
	return f.Bytes()[f.View.L4+13]&(syn|ack) == syn
}
