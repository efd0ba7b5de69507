// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sluice/bridge"
	"sluice/trace"
)

// mirror sends a copy of frame i to a port that watches another one: the same
// buffer, on one more list. What the watcher can't take is its own loss, and
// counted there.
//
// A frame that is on a list must not be changed: who means to do so calls alone
// first.
func (t *turn) mirror(to uint16, tag bridge.Tag, i int) {
	if to == 0 {
		return
	}
	out, f := t.view.port(to), &t.frames[i]
	if out == nil {
		return // it has left with this view
	}
	if ipLen(f) > out.mtu {
		drop(out, trace.TooBig, 1)
		return
	}
	if !t.affords(out, work(f, out)) {
		return
	}
	if t.out.full() {
		t.flush()
	}
	t.out.addAs(out.index, i, tag)
	t.watched = true
}

// alone makes sure that the frames of the turn may be changed: that no copy of
// one waits to be sent.
func (t *turn) alone() {
	if t.watched {
		t.flush()
	}
}

// answer sends back what the bridge says for a neighbour that it knows. The frame
// that asked ends here.
//
// Preconditions: the send list is empty, and so the buffers for segments are free.
func (t *turn) answer(in *port, v *bridge.Verdict, i int) {
	drop(in, v.Reason, 1)
	if in.sock == nil {
		return // no flag of the local port asks for it
	}
	s := &t.out.cut.Frames[0]
	fillWith(s, v.AppendAnswer(free(s), &t.frames[i]))
	t.out.lone(in, s, bridge.Tag{})
	t.tally.work++
}
