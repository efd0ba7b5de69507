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
	Flood                 // to FloodPorts but the input port, and see Verdict.Local
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
	}
	return "unknown"
}

// Verdict is the decision for one frame. Zero drops it for no reason, and is
// not a verdict that Input gives.
//
// A Drop by same_port and a Forward depend on nothing but the entries of source
// and destination: while both Refs are Valid, Input would decide the same for
// the next frame of the same addresses, VLAN and input port. No other verdict
// may be remembered; one of its Refs is zero.
type Verdict struct {
	Src, Dst Ref          // entries that were used; zero: there is none
	Port     uint16       // Forward: where to; may be the local port
	Action   Action       // what to do
	Reason   trace.Reason // Drop: why; else None
	Local    bool         // Flood: the local port gets the frame too, unless it came from there
	Learned  bool         // the source was learned, or moved to the input port
}

// Input decides about the frame f from port in. It learns the source, unless
// the frame is dropped for it, and looks up the destination; it does not change
// f. It takes no lock while the source is known and stays where it is, and never
// allocates.
//
// The steps stand below in their order, which is that of br_handle_frame and
// br_handle_frame_finish.
//
// Preconditions: f.View is parsed.
func (b *Bridge) Input(in uint16, f *packet.Frame, now Tick) Verdict {
	if f.Len() < packet.EthernetLen {
		return Verdict{Reason: trace.MalformedEthernet}
	}
	ps := b.ports.Load()
	from, member := ps.byIndex[in]
	if !member {
		return Verdict{Reason: trace.PortRemoved}
	}
	src, dst := f.SrcMAC(), f.DstMAC()
	if r := guard(src, dst); r != trace.None {
		return Verdict{Reason: r}
	}
	vlan := f.View.VID()
	v := b.source(from, key(src, vlan), now)
	if v.Reason != trace.None {
		return v
	}
	if dst.IsMulticast() {
		return v.flood(ps, in, true)
	}
	return b.destination(v, ps, in, key(dst, vlan))
}

// guard refuses addresses that no bridged frame may have.
func guard(src, dst packet.MAC) trace.Reason {
	switch {
	case src.IsMulticast() || src.IsZero():
		return trace.SourceMulticast
	case dst.IsReserved():
		return trace.ReservedMulticast
	}
	return trace.None
}

// source learns or refreshes the station that a frame came from.
func (b *Bridge) source(from port, k uint64, now Tick) (v Verdict) {
	static := b.static.Load()
	if s, state := static.find(k); s != nil {
		return staticSource(from, s, state)
	}
	if s, state := static.guardian(k); s != nil && portOf(state) != from.Index {
		return taggedImpostor(state)
	}
	s, state := b.table.find(k)
	if s == nil || portOf(state) != from.Index {
		v.Src, v.Learned = b.learn(from, k, now)
		return v
	}
	s.touch(now)
	v.Src = Ref{s, state}
	return v
}

// staticSource is for a source that has an entry which learning may not change.
// The frame of a container's static MAC from elsewhere is forwarded and moves
// nothing, as on Linux; nobody but the host stack speaks for the bridge.
func staticSource(from port, s *slot, state uint64) (v Verdict) {
	v.Src = Ref{s, state}
	if kindOf(state) == Own && portOf(state) != from.Index {
		v.Src, v.Reason = Ref{}, trace.SourceOwnMAC
	}
	return v
}

// taggedImpostor is for a source whose MAC is that of a static entry of another
// port, in a VLAN: as without a tag, the bridge's own is refused, and a
// container's is neither learned nor moved. The verdict is not to be remembered:
// an entry in the VLAN itself may be set any time.
func taggedImpostor(state uint64) (v Verdict) {
	if kindOf(state) == Own {
		v.Reason = trace.SourceOwnMAC
	}
	return v
}

// destination looks up where the frame is to go.
func (b *Bridge) destination(v Verdict, ps *portSet, in uint16, k uint64) Verdict {
	s, state := b.lookup(k)
	if s == nil {
		return v.flood(ps, in, false)
	}
	port := portOf(state)
	switch {
	case port == in:
		v.Dst, v.Reason = Ref{s, state}, trace.SamePort
	case !ps.has(port): // a static entry that is ahead of SetPorts, or behind it
		v.Reason = trace.PortRemoved
	default:
		v.Dst, v.Port, v.Action = Ref{s, state}, port, Forward
	}
	return v
}

// lookup returns the entry of a station; nil if there is none.
func (b *Bridge) lookup(k uint64) (*slot, uint64) {
	if s, state := b.static.Load().find(k); s != nil {
		return s, state
	}
	return b.table.find(k)
}

// flood turns v into a verdict for a group, or for a station that nobody knows.
// Unknown unicast is not for the local port: its MAC is always known.
func (v Verdict) flood(ps *portSet, in uint16, group bool) Verdict {
	if !ps.reaches(in, group) {
		v.Reason = trace.NoPort
		return v
	}
	v.Action = Flood
	v.Local = group && ps.local != 0 && ps.local != in
	return v
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
