// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/conntrack"
	"sluice/packet"
	"sluice/trace"
)

// Theory of operation.
//
// A namespace that tracks connections has netfilter's five hooks. What is done at
// one of them is in the order of nft(8)'s priorities:
//
//	prerouting   conntrack -200, filter -150, dstnat -100, then the router
//	output       the same, of what the host stack sends
//	forward      filter 0, of what the router sends on
//	input        filter 0, srcnat 100, of what the router delivers
//	postrouting  filter 0, srcnat 100, then the connection is confirmed
//
// Before is what the sender wrote, from dstnat on where it goes, from srcnat on where
// it comes from. What the router makes itself of a packet (fragments, what waits for
// a neighbour) passes forward and postrouting; a bridged one, where those are asked
// about, prerouting, forward and postrouting. A packet of no connection passes as well,
// as invalid or untracked.
//
// What a filter says of the first packet of a remembered flow holds for the others:
// they pass no hooks. Who can't say so clears Keep.

// hook is a place on a packet's way, with netfilter's name.
type hook uint8

const (
	hookPrerouting hook = iota
	hookInput
	hookForward
	hookOutput
	hookPostrouting
)

// hooked is what a filter may ask about a packet.
type hooked struct {
	frame   *packet.Frame // as it is at the hook; not to be changed
	in, out uint16        // devices; out is 0 before routing, in for what the host stack sends
	port    uint16        // of the container that sent it; 0: none
	bridged bool          // within one network
	state   conntrack.State
	dir     conntrack.Dir
	conn    conntrack.Conn // zero if it is new, or of none
	keep    bool           // the flow may be remembered
}

// filter says at each hook whether a packet goes on: trace.None, or why not. It is
// asked by all workers.
type filter interface {
	judge(at hook, p *hooked) trace.Reason
}

// ask shows the packet to the namespace's filter, if it has one.
func (p *passing) ask(at hook, f *packet.Frame, out uint16) trace.Reason {
	if p.space.filter == nil {
		return trace.None
	}
	p.seen.frame, p.seen.out = f, out
	p.seen.conn = p.to.conn
	return p.space.filter.judge(at, &p.seen)
}

// first is the hook by which a packet comes.
func (p *passing) first() hook {
	if p.seen.in == 0 {
		return hookOutput
	}
	return hookPrerouting
}
