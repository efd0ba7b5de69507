// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"encoding/binary"

	"sluice/packet"
)

// Theory of operation.
//
// A container's kernel acknowledges each frame of 64 KB that it is given, so that those
// of one sendmmsg(2) come back in one batch. Acknowledgements are cumulative: of several in a
// row the last says it all (RFC 9293 §3.8.6), and the uplink stack is spared the others.
// Kernels do the same, if TCP does not do it itself (sch_cake's ack-filter).

// outdone reports whether the frame behind f makes f superfluous: both are bare
// acknowledgements of one connection, and the later one is of more. One that says twice
// the same, or has news in its options, is not bare.
func outdone(f, later *packet.Frame) bool {
	a, b := bareACK(f), bareACK(later)
	if a == nil || b == nil || len(a) != len(b) || !sameConnection(f, later) {
		return false
	}
	const sequence, ack = 4, 8
	return binary.BigEndian.Uint32(a[sequence:]) == binary.BigEndian.Uint32(b[sequence:]) &&
		int32(binary.BigEndian.Uint32(b[ack:])-binary.BigEndian.Uint32(a[ack:])) > 0
}

// timestamps is how kernels write their one option of established connections
// (RFC 7323 Appendix A).
const timestamps = 0x0101080a

// bareACK is the TCP header of a segment that does nothing but acknowledge; nil: it is
// none.
func bareACK(f *packet.Frame) []byte {
	v := &f.View
	if v.Proto != packet.ProtoTCP || !v.Is(packet.ViewHasL4) || v.Is(packet.ViewFrag|packet.ViewRouted) {
		return nil
	}
	const offset, flags, ack = 12, 13, 1 << 4
	h := f.Bytes()[v.L4:v.End]
	if len(h) < packet.TCPMinLen || len(h) != int(h[offset]>>4)*4 || h[offset]&0xf != 0 || h[flags] != ack {
		return nil
	}
	switch options := h[packet.TCPMinLen:]; len(options) {
	case 0:
		return h
	case 12:
		if binary.BigEndian.Uint32(options) == timestamps {
			return h
		}
	}
	return nil
}

// sameConnection compares addresses and ports.
// Preconditions: both are TCP, and have their L4 header.
func sameConnection(f, g *packet.Frame) bool {
	v, w := &f.View, &g.View
	return v.SrcPort == w.SrcPort && v.DstPort == w.DstPort && v.Is(packet.ViewIPv4) == w.Is(packet.ViewIPv4) &&
		bytes.Equal(addresses(f), addresses(g))
}

// addresses are both addresses of an IP packet, as they stand there.
func addresses(f *packet.Frame) []byte {
	b := f.Bytes()[f.View.L3:]
	if f.View.Is(packet.ViewIPv4) {
		return b[12:20]
	}
	return b[8:40]
}
