// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

// Neighbour is an address that the control path knows to be at a station.
type Neighbour struct {
	Addr   netip.Addr
	VLAN   uint16 // 0: none
	MAC    packet.MAC
	Router bool // says so in a neighbour advertisement
}

// neighbourKey names a Neighbour.
type neighbourKey struct {
	addr netip.Addr
	vlan uint16
}

type neighbourSet map[neighbourKey]*Neighbour

// SetNeighbours replaces the addresses that the bridge answers for on ports with
// Suppress. A later duplicate replaces the earlier.
func (b *Bridge) SetNeighbours(all []Neighbour) {
	set := newNeighbourSet(all)
	b.neighbours.Store(&set)
}

func newNeighbourSet(all []Neighbour) neighbourSet {
	set := make(neighbourSet, len(all))
	for _, n := range all {
		set[neighbourKey{n.Addr.Unmap(), n.VLAN}] = &n
	}
	return set
}

// AppendAnswer appends to dst the frame that answers f, for which v is an Answer:
// it is to be sent to the port that f came from, as it is.
func (v *Verdict) AppendAnswer(dst []byte, f *packet.Frame) []byte {
	if v.known == nil {
		return dst
	}
	if f.View.Is(packet.ViewARP) {
		return packet.ARPReply(dst, f, v.known.MAC)
	}
	return packet.NeighbourAdvert(dst, f, v.known.MAC, v.known.Router)
}

// answerable finds the neighbour that the frame of v asks for, if its station
// could be reached on another port; nil if it is no question, or one that only
// the neighbour may answer: probes for duplicate addresses, which speak for
// nobody, announcements, and questions to one station, which test whether it is
// still there.
func (b *Bridge) answerable(v *Verdict, f *packet.Frame) *Neighbour {
	set := b.neighbours.Load()
	target, ok := question(f)
	if set == nil || !ok {
		return nil
	}
	n := (*set)[neighbourKey{target, v.tags.vid}]
	if n == nil {
		return nil
	}
	s, state := b.lookup(key(n.MAC, v.tags.vid))
	if s == nil || portOf(state) == v.from.Index {
		return nil
	}
	to := v.ps.byIndex[portOf(state)]
	if to == nil || !v.may(to) {
		return nil
	}
	return n
}

// question is the address that a frame to a group asks for.
func question(f *packet.Frame) (target netip.Addr, ok bool) {
	const arpRequest = 1
	b, v := f.Bytes(), &f.View
	src := v.SrcAddr(b)
	if !src.IsValid() || src.IsUnspecified() {
		return target, false
	}
	if v.Is(packet.ViewARP) {
		target = v.DstAddr(b)
		return target, target != src && binary.BigEndian.Uint16(b[v.L3+6:]) == arpRequest
	}
	m, ok := v.ND(b)
	return m.Target, ok && m.Type == packet.NDNeighbourSol && !v.Is(packet.ViewFrag) && hopLimit(b, v) == 255
}

// hopLimit is that of an IPv6 packet.
func hopLimit(b []byte, v *packet.View) uint8 { return b[v.L3+7] }
