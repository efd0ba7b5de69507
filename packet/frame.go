// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

const (
	// Headroom is the number of bytes before the Ethernet header of a received
	// frame: room for the vnet header, VLAN tags and later encapsulation.
	Headroom = 64

	// MaxFrame is the length of the longest frame: the largest IP packet, the
	// Ethernet header and two VLAN tags.
	MaxFrame = 65535 + EthernetLen + 2*VLANLen

	// BufLen is the size of one frame buffer, a whole number of cache lines.
	BufLen = (Headroom + MaxFrame + 63) &^ 63
)

// Label is what rules said of a packet: the kernel's skb->mark and skb->priority. Zero
// is nothing.
type Label struct{ Mark, Priority uint32 }

// Frame is one Ethernet frame in a buffer that the caller's batch owns. A Frame
// is not safe for concurrent use, and a copy of it shares the buffer.
// Zero has no buffer and no bytes.
type Frame struct {
	Vnet   Vnet   // offload metadata, as hostile as the bytes
	InPort uint16 // the port that it came from; 0 is nobody
	View   View   // set by View.Parse, kept right by PushVLAN and PopVLAN

	Label

	start, end int // the frame is buf[start:end]; VnetLen <= start <= end
	buf        []byte
}

// SetBuf gives the frame its backing buffer, which stays the caller's, and
// makes the frame empty. Preconditions: len(buf) >= BufLen.
func (f *Frame) SetBuf(buf []byte) {
	*f = Frame{buf: buf, start: Headroom, end: Headroom}
}

// Buf is the backing buffer that SetBuf gave.
func (f *Frame) Buf() []byte { return f.buf }

// Reset makes buf[start:start+n] the frame, with zero Vnet and View.
// Preconditions: VnetLen <= start, start+n <= len(buf).
func (f *Frame) Reset(start, n int) {
	f.start, f.end = start, start+n
	f.Vnet = Vnet{}
	f.View = View{}
	f.Label = Label{}
}

// Received takes up what recvmsg wrote into buf[Headroom-VnetLen:], n bytes of
// vnet header and frame: it decodes Vnet and sets the bounds. An n that can't be
// (less than a vnet header, more than the buffer) leaves an empty frame, which
// View.Parse then refuses. View is zero.
func (f *Frame) Received(n int) {
	if n < VnetLen || n > len(f.buf)-(Headroom-VnetLen) {
		f.Reset(Headroom, 0)
		return
	}
	f.start, f.end = Headroom, Headroom-VnetLen+n
	f.Vnet.Decode(f.buf[Headroom-VnetLen : Headroom])
	f.View = View{}
	f.Label = Label{}
}

// Bytes is the Ethernet frame. The slice shares the buffer.
func (f *Frame) Bytes() []byte { return f.buf[f.start:f.end] }

// Len is the length of the Ethernet frame in bytes.
func (f *Frame) Len() int { return f.end - f.start }

// Wire is what sendmsg takes: Vnet, encoded into the 10 bytes before the frame,
// and the frame. It shares the buffer and is good until the frame changes.
// Preconditions: the frame has a buffer.
func (f *Frame) Wire() []byte {
	b := f.buf[f.start-VnetLen : f.end]
	f.Vnet.Encode(b)
	return b
}

// DstMAC is the destination address; zero if the frame is too short to have one.
func (f *Frame) DstMAC() MAC {
	b := f.Bytes()
	if len(b) < EthernetLen {
		return MAC{}
	}
	return MAC(b[0:6])
}

// SrcMAC is the source address; zero if the frame is too short to have one.
func (f *Frame) SrcMAC() MAC {
	b := f.Bytes()
	if len(b) < EthernetLen {
		return MAC{}
	}
	return MAC(b[6:12])
}

// PushVLAN inserts a tag after the MAC addresses; tci is priority, DEI and VID.
// The MACs move 4 bytes into the headroom; Vnet and a parsed View stay right.
// False, and nothing is changed, if the frame has no Ethernet header, no
// headroom, or already the two tags that View.Parse allows.
func (f *Frame) PushVLAN(tpid, tci uint16) bool {
	start := f.start - VLANLen
	if f.Len() < EthernetLen || start < VnetLen || f.View.Tags >= maxTags {
		return false
	}
	copy(f.buf[start:start+macsLen], f.buf[f.start:f.start+macsLen])
	binary.BigEndian.PutUint16(f.buf[start+macsLen:], tpid)
	binary.BigEndian.PutUint16(f.buf[start+macsLen+2:], tci)
	f.start = start
	f.Vnet.shift(VLANLen)
	f.View.pushTag(tpid, tci)
	return true
}

// PopVLAN removes the outer tag; Vnet and a parsed View stay right. False, and
// nothing is changed, if there is no tag.
func (f *Frame) PopVLAN() bool {
	b := f.Bytes()
	if len(b) < EthernetLen+VLANLen || !isVLAN(binary.BigEndian.Uint16(b[macsLen:])) {
		return false
	}
	copy(b[VLANLen:VLANLen+macsLen], b[:macsLen]) // copy is a memmove: the overlap is safe
	f.start += VLANLen
	f.Vnet.shift(-VLANLen)
	f.View.popTag()
	return true
}

// shift moves the offsets by the n bytes that the frame grew or shrank before
// them. An offset that would leave its range is a lie that CheckVnet finds: it
// is made 0, which is never a valid one.
func (v *Vnet) shift(n int) {
	if v.NeedsCsum() {
		v.CsumStart = shifted(v.CsumStart, n)
	}
	if v.HdrLen != 0 {
		v.HdrLen = shifted(v.HdrLen, n)
	}
}

func shifted(x uint16, n int) uint16 {
	y := int(x) + n
	if y < 0 || y > 0xffff {
		return 0
	}
	return uint16(y)
}

// Headroom is how many bytes the frame may still grow at its beginning.
// Preconditions: the frame has a buffer.
func (f *Frame) Headroom() int { return f.start - VnetLen }

// Regrow makes n bytes of the frame's from-th to before its to-th byte, by moving
// what stands before them, in the headroom; what they hold then is the caller's to
// write. Vnet stays right for what stands behind them, View doesn't: it is to be
// parsed again. False, and nothing is changed, if there is no headroom.
// Preconditions: 0 <= from <= to <= Len(), n >= 0.
func (f *Frame) Regrow(from, to, n int) bool {
	grow := n - (to - from)
	if grow > f.Headroom() {
		return false
	}
	start := f.start - grow
	copy(f.buf[start:], f.buf[f.start:f.start+from]) // copy is a memmove: the overlap is safe
	f.start = start
	f.Vnet.shift(grow)
	return true
}

// Truncate leaves the first n bytes of the frame; Vnet and View are not looked at.
// Preconditions: 0 <= n <= Len().
func (f *Frame) Truncate(n int) { f.end = f.start + n }
