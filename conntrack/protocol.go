// SPDX-License-Identifier: Apache-2.0

package conntrack

import "sluice/packet"

// subject is what a packet of a connection is judged by and may change: of a
// record whose lock is held, or of a Pending.
type subject struct {
	cfg    *ZoneConfig
	track  *track
	state  uint32 // of TCP or SCTP; what it is after the packet, when the judgement is done
	status Status // before the packet
	fresh  bool   // not confirmed: this is the first packet
	dir    Dir
	age    uint32 // seconds since the first packet
	left   uint32 // seconds until it is over
}

// action is what a packet does to its connection. Zero makes it invalid.
type action struct {
	verdict verdict
	assured bool
	kill    bool // it is over with this packet
	refresh bool // the packet counts, and the connection lives for timeout from now
	shorten bool // it lives for timeout from now, and the packet does not count
	timeout uint32
}

// verdict is whether the packet is one of the connection.
type verdict uint8

const (
	invalid verdict = iota
	accept
	reopen // the connection is over, and the packet may begin another
)

// judge lets the protocol of the connection see a packet of it. b is a frame
// that v was parsed from, with its L4 header.
func (s *subject) judge(b []byte, v *packet.View, proto uint8) action {
	switch proto {
	case packet.ProtoTCP:
		return s.tcp(b, v)
	case packet.ProtoUDP:
		return s.stream(s.cfg.Timeouts.UDP, s.cfg.Timeouts.UDPStream, streamAge)
	case packet.ProtoICMP:
		return s.renew(s.cfg.Timeouts.ICMP)
	case packet.ProtoICMPv6:
		return s.renew(s.cfg.Timeouts.ICMPv6)
	case packet.ProtoSCTP:
		return s.sctp(b, v)
	case protoGRE:
		return s.stream(s.cfg.Timeouts.GRE, s.cfg.Timeouts.GREStream, 0)
	}
	return s.renew(s.cfg.Timeouts.Generic)
}

const (
	protoGRE  = 47
	streamAge = 2 // seconds that UDP is answered before it is more than a question and an answer
)

// renew accepts a packet that keeps the connection for timeout.
func (s *subject) renew(timeout uint32) action {
	return action{verdict: accept, refresh: true, timeout: timeout}
}

// stream is for protocols without a state of their own: once answered, and older
// than age, a connection is assured and lives longer.
func (s *subject) stream(once, streaming, age uint32) action {
	if s.status&SeenReply == 0 || age > 0 && s.age <= age {
		return s.renew(once)
	}
	a := s.renew(streaming)
	a.assured = s.status&NATClash == 0
	return a
}

// closing reports whether a connection of the state is about to be over anyway,
// so that it may give way although it is assured.
func closing(proto uint8, state uint32) bool {
	switch proto {
	case packet.ProtoTCP:
		return tcpClosing(state)
	case packet.ProtoSCTP:
		return state >= sctpShutdownSent && state <= sctpShutdownAckSent
	}
	return false
}

// restTimeout is the timeout of a connection whose packet shows no L4 header:
// what its state has.
func (s *subject) restTimeout(proto uint8) uint32 {
	t := &s.cfg.Timeouts
	switch proto {
	case packet.ProtoTCP:
		if s.status&SeenReply == 0 {
			return min(t.TCP[s.state%numTCPStates], t.TCPUnack)
		}
		return t.TCP[s.state%numTCPStates]
	case packet.ProtoSCTP:
		return t.SCTP[s.state%numSCTPStates]
	}
	return s.judge(nil, nil, proto).timeout
}
