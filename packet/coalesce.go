// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// maxCoalesced bounds the datagrams in one frame: UDP_MAX_SEGMENTS was 64 before
// Linux 6.9, and a kernel refuses what is over its own.
const maxCoalesced = 64

// Absorb appends the datagram of g to f, which becomes a GSOUDPL4 frame that
// stands for both: generic receive offload (GRO) for UDP, as a device with
// rx-udp-gro-forwarding does it. Segmenting f again gives back the very bytes of
// every datagram. False, and nothing is changed, if g doesn't continue f:
//
//   - both are UDP without IP options, extension headers, fragments or padding,
//     and leave their checksum to offload. A complete sum would have to be
//     verified before it may be replaced by a trusted one;
//   - all datagrams are as long as the first, but for the last, which may be
//     shorter. An empty one is not absorbed;
//   - the buffer of f has room for it;
//   - the headers are the same but for lengths and checksums, and the IPv4
//     identification counts up;
//   - rules said the same of both.
//
// The buffer of f is written behind the frame; g is only read.
// Preconditions: both were parsed without fault, pass CheckVnet and have buffers
// of their own.
func (f *Frame) Absorb(g *Frame) bool {
	if g.View.Proto != ProtoUDP || f.View.Proto != ProtoUDP {
		return false // the answer for most frames
	}
	if g.Vnet.IsGSO() || g.Label != f.Label || !g.coalescible() || !f.coalescible() || !f.continuedBy(g) {
		return false
	}
	if !f.Vnet.IsGSO() {
		f.Vnet.GSOType, f.Vnet.GSOSize = GSOUDPL4, uint16(f.udpPayload())
		f.Vnet.HdrLen = uint16(f.View.L4 + UDPLen)
	}
	f.extend(g.Bytes()[g.View.L4+UDPLen:])
	return true
}

// udpPayload is the length of the payload. Preconditions: UDP with ViewHasL4.
func (f *Frame) udpPayload() int { return f.View.End - f.View.L4 - UDPLen }

// coalescible reports whether the frame is UDP, plain and with a partial sum.
func (f *Frame) coalescible() bool {
	v := &f.View
	if v.Flags != ViewIPv4|ViewHasL4 && v.Flags != ViewIPv6|ViewHasL4 {
		return false
	}
	// CsumStart beyond L4 is that of a tunnel's inner packet.
	if !f.Vnet.NeedsCsum() || int(f.Vnet.CsumStart) != v.L4 {
		return false
	}
	return int(binary.BigEndian.Uint16(f.Bytes()[v.L4+4:])) == v.End-v.L4
}

// continuedBy reports whether the datagram g may follow those in f.
func (f *Frame) continuedBy(g *Frame) bool {
	had, more, size := f.udpPayload(), g.udpPayload(), f.udpPayload()
	if f.Vnet.IsGSO() {
		size = int(f.Vnet.GSOSize)
	}
	switch {
	case more == 0 || more > size || had%size != 0:
		return false
	case had/size >= maxCoalesced || f.View.End-f.View.L3+more > 0xffff || f.end+more > len(f.buf):
		return false // too many, too long, or no room: what waited in a queue has a buffer of its own length
	case f.View.Flags != g.View.Flags || f.View.L3 != g.View.L3:
		return false
	}
	return f.sameHeaders(g, uint16(had/size))
}

// sameHeaders compares all that the segments of one frame have in common. n is
// the number of datagrams in f.
func (f *Frame) sameHeaders(g *Frame, n uint16) bool {
	a, b, l3 := f.Bytes(), g.Bytes(), f.View.L3
	if !bytes.Equal(a[:l3+2], b[:l3+2]) || !bytes.Equal(a[f.View.L4:f.View.L4+4], b[f.View.L4:f.View.L4+4]) {
		return false // addresses, tags, version, traffic class; ports
	}
	if f.View.Is(ViewIPv6) {
		return bytes.Equal(a[l3+2:l3+4], b[l3+2:l3+4]) && bytes.Equal(a[l3+6:l3+IPv6Len], b[l3+6:l3+IPv6Len])
	}
	id := binary.BigEndian.Uint16(a[l3+4:])
	return binary.BigEndian.Uint16(b[l3+4:]) == id+n &&
		bytes.Equal(a[l3+6:l3+10], b[l3+6:l3+10]) && bytes.Equal(a[l3+12:l3+IPv4MinLen], b[l3+12:l3+IPv4MinLen])
}

// extend appends payload and gives the headers their new lengths and sums.
func (f *Frame) extend(payload []byte) {
	v := &f.View
	copy(f.buf[f.end:], payload)
	f.end += len(payload)
	v.End = f.end - f.start
	b := f.Bytes()
	if v.Is(ViewIPv6) {
		binary.BigEndian.PutUint16(b[v.L3+4:], uint16(v.End-v.L4))
	} else {
		h := b[v.L3:v.L4]
		before := binary.BigEndian.Uint16(h[2:])
		after := uint16(v.End - v.L3)
		binary.BigEndian.PutUint16(h[2:], after)
		// RFC 1624, equation 3: a wrong sum stays wrong.
		sum := checksum.Combine(^binary.BigEndian.Uint16(h[10:]), checksum.Combine(^before, after))
		binary.BigEndian.PutUint16(h[10:], ^sum)
	}
	n := v.End - v.L4
	binary.BigEndian.PutUint16(b[v.L4+4:], uint16(n))
	binary.BigEndian.PutUint16(b[v.L4+udpCsumOffset:], PseudoHeader(b, v, n))
}
