// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/packet"
	"sluice/trace"
)

// Theory of operation.
//
// A frame makes more work the more ports it goes to, the longer it is, the more
// segments it must be cut into, and the less is remembered of its flow; the sender
// chooses all of these. So work is counted, in units of one small frame of a known flow
// that is sent once, about a microsecond, and bounded thrice:
//
//   - A turn ends early that was dear: one whose frames begin connections brings a
//     slice of them, and then the other ports have theirs.
//   - A turn has maxWork. What goes beyond it is dropped, as output_budget. The
//     most that an intake holds, sent to one port in segments of an MSS of 88, is
//     less: it takes a flood to many ports, or absurd segments.
//   - A port that made more work than its quantum is in debt, and leaves out turns
//     until it has paid: deficit round robin (Shreedhar and Varghese, 1996), by
//     work instead of bytes. Being alone it does so at once, in rounds that cost
//     nothing; among others it gets its share and no more.

const (
	maxWork = slice*packet.MaxSegments + 2*quantum
	quantum = 512
	// dear is the work after which a turn asks for no more frames: more than a budget
	// of frames that are small and known, less than a slice of such as begin connections.
	dear = budget + slice
	// workBytes is how many bytes cost as much as one more frame.
	workBytes = 4 << 10
	// missWork is what it costs beside the sending that nothing is remembered, routeWork
	// to ask a router, and beginWork to begin a connection: to translate it, to enter it
	// into the table, and to end the one that gives way for it.
	missWork  = 1
	routeWork = 2
	beginWork = 2
	// dialWork is what it costs more to begin a connection at a socket uplink: to dial, and
	// to answer.
	dialWork = 24
)

// work is what it costs to send a frame to a port.
func work(f *packet.Frame, out *port) int {
	n := 1 + f.Len()/workBytes
	if f.Vnet.IsGSO() && (!out.offload || f.Vnet.GSOType == packet.GSOUDPL4 && out.link != nil) {
		segments, _ := f.Segments()
		n += segments
	}
	if out.outside != nil && dials(f) {
		n += dialWork
	}
	return n
}

// rests reports whether a port leaves out this turn, to pay its debt.
func (s *socket) rests() bool {
	s.debt = max(0, s.debt-quantum)
	return s.debt > 0
}

// affords takes units of work on the account of the turn, or drops the frame at a port.
func (t *turn) affords(p *port, n int) bool {
	if t.tally.work+n > maxWork {
		drop(p, trace.OutputBudget, 1)
		return false
	}
	t.tally.work += n
	return true
}
