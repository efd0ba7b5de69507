// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"math/bits"

	"sluice/packet"
)

// Options and extension headers are walked within what the parse found to be there,
// a bounded number of them.

// option says where a field is: the header or option begins at at.
func (e *Evaluator) option(in *inst, at, size int, there bool) (value, bool) {
	if in.flag&flagOnly != 0 {
		return value{0, bit(there)}, true
	}
	if !there || int(in.off)+int(in.n) > size {
		return value{}, false
	}
	return number(e.p.Frame.Bytes()[at+int(in.off):][:in.n]).shr(uint(in.shift)), true
}

// extHdr reads a field of the first extension header of one kind.
func (e *Evaluator) extHdr(in *inst) (value, bool) {
	e.rec.Volatile |= ByPayload
	v := &e.p.Frame.View
	if !v.Is(packet.ViewIPv6) {
		return value{}, false
	}
	at, size, there := findExtHdr(e.p.Frame.Bytes()[:v.End], v.L3, in.aux)
	return e.option(in, at, size, there)
}

// maxHeaders bounds how many extension headers are looked at, as the parse does.
const maxHeaders = 8

// findExtHdr finds an extension header in the IPv6 packet that begins at l3.
func findExtHdr(b []byte, l3 int, want uint8) (at, size int, there bool) {
	next, at := b[l3+6], l3+packet.IPv6Len
	for range maxHeaders + 1 {
		size := 8
		switch next {
		case packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestOpts, protoMobility:
			if at+2 > len(b) {
				return 0, 0, false
			}
			size = 8 * (int(b[at+1]) + 1)
		case packet.ProtoAH:
			if at+2 > len(b) {
				return 0, 0, false
			}
			size = 4 * (int(b[at+1]) + 2)
		case packet.ProtoFragment:
		default:
			return 0, 0, false
		}
		if at+size > len(b) {
			return 0, 0, false
		}
		if next == want {
			return at, size, true
		}
		if next == packet.ProtoFragment && binary.BigEndian.Uint16(b[at+2:])&^7 != 0 {
			return 0, 0, false
		}
		next, at = b[at], at+size
	}
	return 0, 0, false
}

const protoMobility = 135

// findOption finds an option among those of TCP or IPv4, whose layouts are the same.
func findOption(opts []byte, want uint8) (at, size int, there bool) {
	for i := 0; i < len(opts); {
		switch {
		case opts[i] == 0:
			return i, 1, want == 0
		case opts[i] == 1:
			if want == 1 {
				return i, 1, true
			}
			i++
			continue
		case i+1 >= len(opts) || opts[i+1] < 2 || i+int(opts[i+1]) > len(opts):
			return 0, 0, false
		}
		if opts[i] == want {
			return i, int(opts[i+1]), true
		}
		i += int(opts[i+1])
	}
	return 0, 0, false
}

// tcpOptions are the place and the end of the options of a TCP segment.
func (e *Evaluator) tcpOptions() (from, to int, ok bool) {
	v := &e.p.Frame.View
	if v.Proto != packet.ProtoTCP || !v.Is(packet.ViewHasL4) {
		return 0, 0, false
	}
	h := e.p.Frame.Bytes()[v.L4:]
	return v.L4 + packet.TCPMinLen, v.L4 + 4*int(h[12]>>4), true
}

func (e *Evaluator) tcpOption(in *inst) (value, bool) {
	e.rec.Volatile |= ByPayload
	from, to, ok := e.tcpOptions()
	if !ok {
		return value{}, false
	}
	at, size, there := findOption(e.p.Frame.Bytes()[from:to], in.aux)
	return e.option(in, from+at, size, there)
}

func (e *Evaluator) ipOption(in *inst) (value, bool) {
	v := &e.p.Frame.View
	if !v.Is(packet.ViewIPv4) {
		return value{}, false
	}
	e.rec.Volatile |= ByPayload
	from := v.L3 + packet.IPv4MinLen
	at, size, there := findOption(e.p.Frame.Bytes()[from:v.L4], in.aux)
	return e.option(in, from+at, size, there)
}

// jhash is Bob Jenkins' hash as the kernel has it (include/linux/jhash.h).
func jhash(b []byte, seed uint32) uint32 {
	const golden = 0xdeadbeef
	x := uint32(golden) + uint32(len(b)) + seed
	y, z := x, x
	le := binary.LittleEndian
	for len(b) > 12 {
		x += le.Uint32(b)
		y += le.Uint32(b[4:])
		z += le.Uint32(b[8:])
		x, y, z = jhashMix(x, y, z)
		b = b[12:]
	}
	if len(b) == 0 {
		return z
	}
	var last [12]byte
	copy(last[:], b)
	x += le.Uint32(last[:])
	y += le.Uint32(last[4:])
	z += le.Uint32(last[8:])
	return jhashFinal(x, y, z)
}

func jhashMix(a, b, c uint32) (uint32, uint32, uint32) {
	rol := bits.RotateLeft32
	a = (a - c) ^ rol(c, 4)
	c += b
	b = (b - a) ^ rol(a, 6)
	a += c
	c = (c - b) ^ rol(b, 8)
	b += a
	a = (a - c) ^ rol(c, 16)
	c += b
	b = (b - a) ^ rol(a, 19)
	a += c
	c = (c - b) ^ rol(b, 4)
	b += a
	return a, b, c
}

func jhashFinal(a, b, c uint32) uint32 {
	rol := bits.RotateLeft32
	c = (c ^ b) - rol(b, 14)
	a = (a ^ c) - rol(c, 11)
	b = (b ^ a) - rol(a, 25)
	c = (c ^ b) - rol(b, 16)
	a = (a ^ c) - rol(c, 4)
	b = (b ^ a) - rol(a, 14)
	return (c ^ b) - rol(b, 24)
}
