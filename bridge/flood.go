// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"slices"

	"sluice/trace"
)

// Output is one port that a frame leaves by.
type Output struct {
	Port   uint16
	Mirror uint16 // port that gets a copy of what leaves; 0: none
	Tag    Tag    // what is done to the frame first
}

// Cursor is a place in the outputs of a Verdict. Zero is the beginning.
type Cursor struct {
	next    int
	refused trace.Reason // why the first of the ports passed over gets nothing
}

// Next returns the outputs of a Flood, one after the other, the local port among
// them; false at the end. It takes no lock and does not change v: each worker,
// and each replay, may go through them with a cursor of its own.
func (v *Verdict) Next(c *Cursor) (o Output, ok bool) {
	first, then := v.candidates()
	for c.next < len(first)+len(then) {
		i := c.next
		c.next++
		var index uint16
		if i < len(first) {
			index = first[i]
		} else if index = then[i-len(first)]; slices.Contains(first, index) {
			continue
		}
		o, r := v.output(index)
		if r == trace.None {
			return o, true
		}
		if c.refused == trace.None && index != v.from.Index {
			c.refused = r
		}
	}
	return Output{}, false
}

// candidates are the ports that may get the frame of a Flood, in two lists.
func (v *Verdict) candidates() (first, then []uint16) {
	if v.limited {
		return v.members, v.routers
	}
	if v.kind == floodUnknown {
		return v.ps.flood, nil
	}
	return v.ps.flood, v.ps.locals
}

// output decides about one port.
func (v *Verdict) output(index uint16) (Output, trace.Reason) {
	if !v.ps.special {
		if index == v.from.Index {
			return Output{}, trace.SamePort
		}
		if v.limited && !v.ps.has(index) { // it left, and the group doesn't know it yet
			return Output{}, trace.PortRemoved
		}
		return Output{Port: index}, trace.None
	}
	to := v.ps.byIndex[index]
	if to == nil {
		return Output{}, trace.PortRemoved
	}
	if !v.limited && v.off(to) {
		return Output{}, trace.FloodOff
	}
	return v.leave(to)
}

// off reports whether a port takes no floods of the frame's kind. As on Linux
// only unknown unicast of the host stack is meant too.
func (v *Verdict) off(to *port) bool {
	switch v.kind {
	case floodUnknown:
		return to.has(NoUnicastFlood)
	case floodMulticast:
		return to.has(NoMulticastFlood) && !v.from.Local
	case floodBroadcast:
		return to.has(NoBroadcastFlood) && !v.from.Local
	}
	return false
}

// leave decides whether the frame may leave by a port, and how: should_deliver
// of Linux.
func (v *Verdict) leave(to *port) (Output, trace.Reason) {
	switch {
	case to.Index == v.from.Index && !to.has(Hairpin):
		return Output{}, trace.SamePort
	case to.has(Isolated) && v.from.has(Isolated):
		return Output{}, trace.Isolated
	}
	tag, ok := v.tags.at(to)
	if !ok {
		return Output{}, trace.VLANEgress
	}
	return Output{Port: to.Index, Mirror: to.MirrorOut, Tag: tag}, trace.None
}

// may reports whether the frame could leave by a port.
func (v *Verdict) may(to *port) bool {
	_, r := v.leave(to)
	return r == trace.None
}

// flood turns v into a verdict for a group, or for a station that nobody knows.
// Unknown unicast is not for the local port: its MAC is always known.
func (v *Verdict) flood() {
	if !v.limited && !v.ps.special {
		v.floodPlain()
		return
	}
	var c Cursor
	if _, ok := v.Next(&c); !ok {
		v.Reason = v.unreached(c.refused)
		return
	}
	v.Action = Flood
	v.Local = v.ps.local != 0 && v.reachesLocal()
}

// floodPlain is for the bridge in which no port has a say.
func (v *Verdict) floodPlain() {
	group := v.kind != floodUnknown
	if !v.ps.reaches(v.from.Index, group) {
		v.Reason = trace.NoPort
		return
	}
	v.Action = Flood
	v.Local = group && v.ps.local != 0 && v.ps.local != v.from.Index
}

// unreached is why a flood reaches nobody.
func (v *Verdict) unreached(refused trace.Reason) trace.Reason {
	switch {
	case refused != trace.None:
		return refused
	case v.limited:
		return trace.NoMember
	}
	return trace.NoPort
}

// reachesLocal reports whether the local port is among the outputs.
func (v *Verdict) reachesLocal() bool {
	local := v.ps.local
	first, then := v.candidates()
	if !slices.Contains(first, local) && !slices.Contains(then, local) {
		return false
	}
	_, r := v.output(local)
	return r == trace.None
}
