// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"sluice/packet"
	"sluice/trace"
)

// Action is what becomes of a frame. Zero is Drop.
type Action uint8

// The actions.
const (
	Drop    Action = iota // Verdict.Reason says why
	Forward               // to Verdict.Port
	Flood                 // to the ports of Verdict.Next
	Answer                // back goes Verdict.AppendAnswer; the frame ends here, Verdict.Reason says so
)

// String is the action in one word.
func (a Action) String() string {
	switch a {
	case Drop:
		return "drop"
	case Forward:
		return "forward"
	case Flood:
		return "flood"
	case Answer:
		return "answer"
	}
	return "unknown"
}

// Verdict is the decision for one frame. Zero drops it for no reason, and is
// not a verdict that Input gives.
//
// A Drop by same_port, isolated or vlan_egress, and a Forward, depend on nothing
// but the entries of source and destination, and on what the control path set:
// while both Refs are Valid and nothing was set, Input would decide the same for
// the next frame of the same addresses, tags, protocol, ports and input port. It
// is replayed by Port, Tag, Mirror and MirrorIn. No other verdict may be
// remembered; one of its Refs is zero. Nor may any about ARP and ICMPv6 other
// than echo, the bodies of which are looked at.
type Verdict struct {
	Src, Dst Ref          // entries that were used; zero: there is none
	Port     uint16       // Forward: where to; may be the local port
	Mirror   uint16       // Forward: port that gets a copy of what leaves; 0: none
	MirrorIn uint16       // port that gets a copy of the frame as it came, whatever the Action; 0: none
	Tag      Tag          // Forward: what is done to the frame first
	Action   Action       // what to do
	Reason   trace.Reason // Drop and Answer: why; else None
	Local    bool         // Flood: the local port is among the outputs
	Learned  bool         // the source was learned, or moved to the input port
	Due      bool         // Poll has a query that shouldn't wait for the next second

	// What Next and AppendAnswer go by.
	kind    floodKind
	limited bool // to members and routers, by snooping
	tags    tagging
	ps      *portSet
	from    *port
	known   *Neighbour
	members []uint16
	routers []uint16
}

// Input is InputAt at the beginning of a second. Storm limits are then coarse.
func (b *Bridge) Input(in uint16, f *packet.Frame, now Tick) Verdict {
	return b.InputAt(in, f, now, int64(now)*1e9)
}

// InputAt decides about the frame f from port in. It learns the source, unless
// the frame is dropped for it, and looks up the destination; it does not change
// f. It takes no lock while the source is known and stays where it is, and never
// allocates, but for a group that snooping learns of. Nanos is the time that
// storm limits go by, in nanoseconds, from the same beginning as now.
//
// The steps stand below in their order, which is that of br_handle_frame and
// br_handle_frame_finish.
//
// Preconditions: f.View is parsed.
func (b *Bridge) InputAt(in uint16, f *packet.Frame, now Tick, nanos int64) (v Verdict) {
	if f.Len() < packet.EthernetLen {
		v.Reason = trace.MalformedEthernet
		return v
	}
	v.ps = b.ports.Load()
	v.from = v.ps.byIndex[in]
	if v.from == nil {
		v.Reason = trace.PortRemoved
		return v
	}
	v.MirrorIn = v.from.MirrorIn
	src, dst := f.SrcMAC(), f.DstMAC()
	if v.Reason = v.admit(f, src, dst, nanos); v.Reason != trace.None {
		return v
	}
	b.source(&v, key(src, v.tags.vid), now)
	switch {
	case v.Reason != trace.None:
	case dst.IsMulticast():
		b.group(&v, f, now)
	default:
		b.destination(&v, f, key(dst, v.tags.vid), nanos)
	}
	return v
}

// admit refuses what the port must not send.
func (v *Verdict) admit(f *packet.Frame, src, dst packet.MAC, nanos int64) (r trace.Reason) {
	if r = addresses(v.from, src, dst); r != trace.None {
		return r
	}
	v.tags.vid = f.View.VID()
	if v.ps.special {
		if v.tags, r = classify(v.from, &f.View); r != trace.None {
			return r
		}
	}
	if dst.IsMulticast() {
		v.kind = groupKind(dst)
	}
	if v.from.checked {
		return v.check(f, dst, nanos)
	}
	return trace.None
}

// addresses refuses those that no bridged frame may have.
func addresses(from *port, src, dst packet.MAC) trace.Reason {
	switch {
	case src.IsMulticast() || src.IsZero():
		return trace.SourceMulticast
	case !dst.IsReserved():
		return trace.None
	case from.has(FilterBPDU) && isBPDU(dst):
		return trace.BPDU
	}
	return trace.ReservedMulticast
}

// isBPDU reports whether a group is one of spanning tree's: of bridges and of
// provider bridges (802.1Q-2018 tables 8-1 and 8-2), and Cisco's of each VLAN,
// which is not reserved and would be forwarded.
func isBPDU(dst packet.MAC) bool {
	switch dst.Key() {
	case 0x0180c2000000, 0x0180c2000008, 0x01000ccccccd:
		return true
	}
	return false
}

func groupKind(dst packet.MAC) floodKind {
	if dst.IsBroadcast() {
		return floodBroadcast
	}
	return floodMulticast
}

// check is what ports with guards or limits have besides.
func (v *Verdict) check(f *packet.Frame, dst packet.MAC, nanos int64) trace.Reason {
	if v.from.has(FilterBPDU) && isBPDU(dst) {
		return trace.BPDU
	}
	if r := v.from.guard.Check(f); r != trace.None {
		return r
	}
	if v.kind != floodUnknown && !v.within(f, nanos) {
		return trace.Storm
	}
	return trace.None
}

// within reports whether a frame to be flooded is within the port's limit.
func (v *Verdict) within(f *packet.Frame, nanos int64) bool {
	rate := v.from.rates[v.kind]
	if rate.PPS == 0 {
		return true
	}
	n, _ := f.Segments()
	return v.from.meters[v.kind].allow(rate, n, nanos)
}

// source learns or refreshes the station that a frame came from.
func (b *Bridge) source(v *Verdict, k uint64, now Tick) {
	from, static := v.from, *b.static.Load()
	if s, state := static.find(k); s != nil {
		v.staticSource(s, state)
		return
	}
	if s, state := static.guardian(k); s != nil && portOf(state) != from.Index {
		v.taggedImpostor(state)
		return
	}
	s, state := b.table.find(k)
	if s != nil && portOf(state) == from.Index {
		b.known(v, s, state, now)
		return
	}
	switch {
	case from.has(Locked):
		v.Reason = trace.Locked
	case from.has(NoLearning):
		v.Src = v.ps.epochRef()
	default:
		v.Src, v.Learned = b.learn(from, k, now)
	}
}

// known is for a station that is where it was. Without learning it isn't
// refreshed, neither now nor by a touch of the Ref, unless the port is locked and
// the frame passes by its entry only.
func (b *Bridge) known(v *Verdict, s *slot, state uint64, now Tick) {
	if v.from.Flags&(NoLearning|Locked) == NoLearning {
		v.Src = v.ps.epochRef()
		return
	}
	s.touch(now)
	v.Src = Ref{s, state}
}

// staticSource is for a source that has an entry which learning may not change.
// The frame of a container's static MAC from elsewhere is forwarded and moves
// nothing, as on Linux; nobody but the host stack speaks for the bridge.
func (v *Verdict) staticSource(s *slot, state uint64) {
	elsewhere := portOf(state) != v.from.Index
	switch {
	case elsewhere && kindOf(state) == Own:
		v.Reason = trace.SourceOwnMAC
	case elsewhere && v.from.has(Locked):
		v.Reason = trace.Locked
	default:
		v.Src = Ref{s, state}
	}
}

// group is for a frame to a group address: who asks is answered, who wants it
// gets it.
func (b *Bridge) group(v *Verdict, f *packet.Frame, now Tick) {
	if v.from.has(Suppress) {
		if v.known = b.answerable(v, f); v.known != nil {
			v.Action, v.Reason = Answer, trace.Suppressed
			return
		}
	}
	if t := b.snoop.Load(); t != nil && v.kind == floodMulticast {
		to, ok := t.Input(v.from.Index, v.tags.vid, f, uint32(now))
		if !ok {
			v.Reason = trace.MalformedGroup
			return
		}
		v.members, v.routers, v.limited, v.Due = to.Members, to.Routers, to.Limited, to.Due
	}
	v.flood()
}

// taggedImpostor is for a source whose MAC is that of a static entry of another
// port, in a VLAN: as without a tag, the bridge's own is refused, and a
// container's is neither learned nor moved. The verdict is not to be remembered:
// an entry in the VLAN itself may be set any time.
func (v *Verdict) taggedImpostor(state uint64) {
	switch {
	case kindOf(state) == Own:
		v.Reason = trace.SourceOwnMAC
	case v.from.has(Locked):
		v.Reason = trace.Locked
	}
}

// destination looks up where the frame is to go.
func (b *Bridge) destination(v *Verdict, f *packet.Frame, k uint64, nanos int64) {
	s, state := b.lookup(k)
	if s == nil {
		if v.from.checked && !v.within(f, nanos) {
			v.Reason = trace.Storm
			return
		}
		v.flood()
		return
	}
	index := portOf(state)
	if !v.ps.special && index == v.from.Index {
		v.Dst, v.Reason = Ref{s, state}, trace.SamePort
		return
	}
	to := v.ps.byIndex[index]
	if to == nil { // a static entry that is ahead of SetPorts, or behind it
		v.Reason = trace.PortRemoved
		return
	}
	v.Dst = Ref{s, state}
	v.forward(to, f)
}

// forward sends the frame to one port, if both ports let it.
func (v *Verdict) forward(to *port, f *packet.Frame) {
	const protoIGMP = 2
	if v.ps.special {
		o, r := v.leave(to)
		if r != trace.None {
			v.Reason = r
			return
		}
		v.Tag, v.Mirror = o.Tag, o.Mirror
	}
	v.Action, v.Port = Forward, to.Index
	if v.from.guard != nil && f.View.Proto == protoIGMP {
		v.Src = Ref{} // the guard has read its body: not to be remembered
	}
}

// lookup returns the entry of a station; nil if there is none.
func (b *Bridge) lookup(k uint64) (*slot, uint64) {
	if s, state := b.static.Load().find(k); s != nil {
		return s, state
	}
	return b.table.find(k)
}

// Lookup returns the port of a station and the Ref of its entry, without
// learning anything; false if it is unknown.
func (b *Bridge) Lookup(mac packet.MAC, vlan uint16) (port uint16, r Ref, ok bool) {
	s, state := b.lookup(key(mac, vlan))
	if s == nil {
		return 0, Ref{}, false
	}
	return portOf(state), Ref{s, state}, true
}
