// SPDX-License-Identifier: Apache-2.0

package router

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
	"sluice/routing"
)

// As is what a packet leaves as, if that is one of the other family (RFC 7915). It
// is what it was until then: whatever its sender is told is of the sender's family,
// and the limits of the way are turned into those of the sender's. Zero: it stays in
// its family.
type As struct {
	Src, Dst netip.Addr
	// Len is how long the largest packet that the frame stands for will be.
	Len int
}

// Turns reports whether the packet changes its family.
func (a *As) Turns() bool { return a.Dst.IsValid() }

// familyGrowth is by how much a packet is longer in IPv6, without options,
// extension headers, and not a fragment.
const familyGrowth = packet.IPv6Len - packet.IPv4MinLen

// as6 reports whether what leaves is IPv6.
func (w *passage) as6() bool { return w.v6 != w.As.Turns() }

// length is that of the largest packet that leaves.
func (w *passage) length() int {
	if w.As.Turns() {
		return w.As.Len
	}
	return w.Frame.L3Len()
}

// growth is by how much packets of the flow are longer when they leave.
func (w *passage) growth() int {
	switch {
	case !w.As.Turns():
		return 0
	case w.v6:
		return -familyGrowth
	}
	return familyGrowth
}

// original is the query of the packet as it came.
func (w *passage) original() routing.Query {
	q := w.query
	if w.As.Turns() {
		q.Src, q.Dst, q.Proto = w.src, w.dst, w.Frame.View.Proto
	}
	return q
}

// protocol is that of the packet that leaves.
func (w *passage) protocol() uint8 {
	p := w.Frame.View.Proto
	switch {
	case !w.As.Turns():
	case p == packet.ProtoICMPv6:
		return packet.ProtoICMP
	case p == packet.ProtoICMP:
		return packet.ProtoICMPv6
	}
	return p
}

// mustCut reports whether the packet is fragmented although it fits: who sends IPv4
// without DF learns nothing of the path in IPv6, which carries what every link does
// (RFC 7915 §4). An offload frame is as large as a packet that it stands for.
func (w *passage) mustCut(n int) bool {
	return w.As.Turns() && !w.v6 && n > minMTU6 && !dontFragment(w.Frame)
}

// mayCut reports whether the packet may be fragmented by the router. What IPv6 turns
// into is, while it is so short that its sender can't send less.
func (w *passage) mayCut() bool {
	switch {
	case !w.v6:
		return !dontFragment(w.Frame)
	case w.As.Turns():
		return w.As.Len <= minMTU6-familyGrowth
	}
	return false
}

// fragmentID is that of IPv6 fragments of what was IPv4.
func (w *passage) fragmentID() uint32 {
	h := w.Frame.Bytes()[w.Frame.View.L3:]
	return uint32(binary.BigEndian.Uint16(h[4:]))
}
