// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"

	"sluice/packet"
)

// Which checksums follow bytes that are written.
const (
	sumHeader = 1 << iota // the IPv4 header's
	sumL4                 // the transport header's, in which the bytes are
	sumPseudo             // the same, over whose pseudo-header they are
)

// setMeta is `meta … set`.
func (e *Evaluator) setMeta(in *inst) {
	p, v := e.p, e.reg[in.dst]
	switch metaKey(in.aux) {
	case metaMark:
		p.Mark = uint32(v)
		e.rec.add(Action{kind: actSetMark, v: value{0, v}})
	case metaPriority:
		p.Priority = uint32(v)
		e.rec.add(Action{kind: actSetPriority, v: value{0, v}})
	case metaPktType:
		p.PktType = uint8(v)
		e.rec.add(Action{kind: actSetPktType, v: value{0, v}})
	case metaNFTrace:
		p.Trace = v&1 != 0
		if p.Trace {
			e.rec.Volatile |= ByTrace
		}
	default:
	}
}

// setCT is `ct … set`; what has no connection is left as it is.
func (e *Evaluator) setCT(in *inst) bool {
	p := e.p
	if p.NoTrack || !connected(p) {
		e.once(actState, value{0, uint64(stateBit(p))})
		return true
	}
	switch v := valueOf(e.reg[in.dst:], int(in.n)); ctKey(in.aux) {
	case ctKeyMark:
		setCTMark(p, uint32(v.lo))
		e.rec.add(Action{kind: actSetCTMark, v: v})
	case ctKeyLabel:
		v = v.or(ctLabel(p)) // the kernel sets bits, and clears none
		setCTLabel(p, v)
		e.rec.add(Action{kind: actSetLabel, v: v})
	default:
	}
	return true
}

// write is `… set` of bytes of a header; in.mask has the bits that stay.
func (e *Evaluator) write(in *inst) bool {
	h := e.headers[in.src-srcLink].bytes
	from := int(in.off)
	if from+int(in.n) > len(h) || in.src == srcTransport && e.p.Frame.View.Is(packet.ViewFragLater) {
		return false
	}
	x := valueOf(e.reg[in.dst:], words(8*int(in.n)))
	if in.mask != 0 { // a part of the bytes
		was := number(h[from : from+int(in.n)])
		x = value{0, was.lo&in.mask | x.lo<<in.shift&^in.mask}
		e.rec.Volatile |= ByRewrite
	}
	a := Action{kind: actWrite, width: in.n, base: uint8(in.src), off: int32(in.off), sums: in.flag, v: x}
	switch in.src { // from where the view says that the header is
	case srcNetwork:
		a.off += int32(e.l3 - e.p.Frame.View.L3)
	case srcTransport:
		a.off += int32(e.l4 - e.p.Frame.View.L4)
	default:
	}
	write(e.p, &a)
	e.rec.add(a)
	e.look()
	return true
}

// write puts bytes into a header, and lets the checksums follow as the kernel's
// nft_payload_set does.
func write(p *Packet, a *Action) {
	f := p.Frame
	b, v := f.Bytes(), &f.View
	from := int(a.off)
	switch source(a.base) {
	case srcNetwork:
		from += v.L3
	case srcTransport:
		from += v.L4
	default:
	}
	to := from + int(a.width)
	if to > len(b) {
		return
	}
	var fresh [16]byte
	a.v.put(fresh[:a.width])
	// An odd place sees its bytes the other way round in the sum, RFC 1071 §2 B.
	d := delta(b[from:to], fresh[:a.width], source(a.base) != srcTransport && (from-v.L3)%2 != 0 || source(a.base) == srcTransport && a.off%2 != 0)
	copy(b[from:to], fresh[:a.width])
	if a.sums&sumHeader != 0 && v.Is(packet.ViewIPv4) {
		follow(b[v.L3+10:], d)
	}
	followL4(f, a, d)
	reparse(p)
}

// followL4 lets the transport header's checksum follow.
func followL4(f *packet.Frame, a *Action, d uint16) {
	v := &f.View
	if a.sums&(sumL4|sumPseudo) == 0 || !v.Is(packet.ViewIP) || v.Is(packet.ViewFragLater) {
		return
	}
	h := f.Bytes()[v.L4:v.End]
	pseudo := a.sums&sumPseudo != 0
	at := sumPlace(v.Proto, pseudo)
	if at < 0 || at+2 > len(h) || pseudo && v.Proto == packet.ProtoUDP && h[at]|h[at+1] == 0 { // it has none
		return
	}
	switch partial := f.Vnet.NeedsCsum() && int(f.Vnet.CsumStart) == v.L4; {
	case !partial:
		follow(h[at:], d)
	case pseudo: // the sum of the pseudo-header stands there, not its complement
		x := add(binary.BigEndian.Uint16(h[at:]), d)
		binary.BigEndian.PutUint16(h[at:], x)
	}
}

// sumPlace is where the checksum of a protocol is, -1 if it has none, or none that is
// over a pseudo-header.
func sumPlace(proto uint8, pseudo bool) int {
	switch proto {
	case packet.ProtoTCP:
		return 16
	case packet.ProtoUDP:
		return 6
	case packet.ProtoICMPv6:
		return 2
	case packet.ProtoICMP:
		if !pseudo {
			return 2
		}
	}
	return -1
}

// reparse lets the view say what now is in the frame.
func reparse(p *Packet) {
	if f := p.Frame.View.Parse(p.Frame.Bytes()); f != packet.FaultNone {
		p.Fault = f
	}
}

// delta is what a change adds to the sum of all words.
func delta(was, is []byte, odd bool) uint16 {
	d := add(^fold(was, odd), fold(is, odd))
	return d
}

// fold sums bytes, of which the first is the second of a word if odd.
func fold(b []byte, odd bool) (sum uint16) {
	for i, x := range b {
		w := uint16(x)
		if (i%2 != 0) == odd {
			w <<= 8
		}
		sum = add(sum, w)
	}
	return sum
}

// add is ones' complement addition.
func add(x, y uint16) uint16 {
	s := uint32(x) + uint32(y)
	return uint16(s + s>>16)
}

// follow lets the checksum in b follow: RFC 1624. 0 becomes its equal, as with
// CSUM_MANGLED_0.
func follow(b []byte, d uint16) {
	sum := ^add(^binary.BigEndian.Uint16(b), d)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b, sum)
}

// setOption is `tcp option … set`. As in the kernel, a segment size only becomes
// smaller, and options that aren't there are not added.
func (e *Evaluator) setOption(in *inst) bool {
	from, to, ok := e.tcpOptions()
	if !ok {
		return false
	}
	e.rec.Volatile |= ByPayload
	at, size, there := findOption(e.p.Frame.Bytes()[from:to], in.aux)
	if !there || int(in.off)+int(in.n) > size {
		return true
	}
	off := from + at + int(in.off) - e.p.Frame.View.L4
	x := e.reg[in.dst]
	const mss = 2
	if in.aux == mss && x >= number(e.p.Frame.Bytes()[from+at+int(in.off):][:in.n]).lo {
		return true
	}
	a := Action{kind: actWrite, width: in.n, base: uint8(srcTransport), off: int32(off), sums: sumL4, v: value{0, x}}
	write(e.p, &a)
	e.look()
	return true
}
