// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/bits"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/policy/nft"
)

// load is the value of a source; false, and the rule ends, if the packet has none.
func (e *Evaluator) load(c *code, in *inst) (value, bool) {
	switch in.src {
	case srcNetwork:
		return e.payload(in, e.p.Frame.View.L3)
	case srcTransport:
		if v := &e.p.Frame.View; v.Is(packet.ViewIP) && !v.Is(packet.ViewFragLater) {
			return e.payload(in, v.L4)
		}
		return value{}, false
	case srcMeta:
		return e.meta(in)
	case srcReg:
		return valueOf(e.reg[in.aux:], int(in.n)).shr(uint(in.shift)), true
	case srcLink:
		return e.payload(in, 0)
	case srcCT:
		return e.ct(in)
	}
	return e.loadRare(c, in)
}

func (e *Evaluator) loadRare(c *code, in *inst) (value, bool) {
	switch in.src {
	case srcImm:
		return c.consts[in.arg], true
	case srcExtHdr:
		return e.extHdr(in)
	case srcTCPOption:
		return e.tcpOption(in)
	case srcIPOption:
		return e.ipOption(in)
	case srcFIB:
		return e.fib(c.fibs[in.arg])
	case srcRT:
		return e.route(c.rts[in.arg])
	case srcNumgen:
		return e.number(c, in)
	case srcHash:
		return e.hash(&c.hashes[in.arg], in), true
	case srcSymhash:
		return value{0, uint64(reciprocal(e.symhash(), uint32(in.imm))) + in.imm>>32}, true
	}
	return value{}, false
}

// payload reads bytes of a header that begins at base.
func (e *Evaluator) payload(in *inst, base int) (value, bool) {
	from := base + int(in.off)
	to := from + int(in.n)
	if to > e.end {
		return value{}, false
	}
	if e.rec.Volatile == 0 && !e.keyed(in) {
		e.rec.Volatile |= ByPayload
	}
	v := number(e.p.Frame.Bytes()[from:to])
	if in.shift != 0 {
		v = v.shr(uint(in.shift))
	}
	return v, true
}

// What of the headers the flow's key has, a bit for each byte: of those packets
// that a flow cache takes, which have no options, extension headers or fragments.
const (
	keyed4   = 1<<0 | 1<<9 | 0xff<<12    // version and header length, protocol, addresses
	keyed6   = 1<<6 | (1<<40-1)&^0xff    // next header, addresses
	keyedL4  = 0xf                       // ports
	keyedMsg = 1<<0 | 1<<1 | 1<<4 | 1<<5 // of ICMP: type, code, identifier
)

// keyed reports whether packets of one flow have the same in the field.
func (e *Evaluator) keyed(in *inst) bool {
	v := &e.p.Frame.View
	if in.src == srcLink {
		return int(in.off)+int(in.n) <= v.L3
	}
	if int(in.off)+int(in.n) > 64 {
		return false
	}
	span := (uint64(1)<<in.n - 1) << in.off
	switch {
	case in.src == srcTransport && v.Proto != packet.ProtoICMP && v.Proto != packet.ProtoICMPv6:
		return span&^keyedL4 == 0 && v.Is(packet.ViewHasL4)
	case in.src == srcTransport:
		return span&^keyedMsg == 0
	case v.Is(packet.ViewIPv4):
		if in.off == 6 && in.n == 2 && in.op == opMatch && in.mask<<in.shift&^0x3fff == 0 {
			return true // none of them is a fragment
		}
		return span&^keyed4 == 0
	case v.Is(packet.ViewIPv6):
		return span&^keyed6 == 0 || in.off == 0 && in.n == 1 && in.shift >= 4
	}
	return false
}

// reciprocal is the kernel's reciprocal_scale.
func reciprocal(x, n uint32) uint32 { return uint32(uint64(x) * uint64(n) >> 32) }

// number is numgen.
func (e *Evaluator) number(c *code, in *inst) (value, bool) {
	e.rec.Volatile |= ByRandom
	mod := uint32(in.imm)
	if in.flag&flagInvert != 0 { // random
		return value{0, uint64(reciprocal(uint32(e.draw()>>32), mod)) + in.imm>>32}, true
	}
	n := c.counts[in.arg].Add(1) - 1
	return value{0, uint64(n%mod) + in.imm>>32}, true
}

// draw is a number that nobody can foresee who doesn't see all of them: wyrand.
func (e *Evaluator) draw() uint64 {
	e.random += 0xa0761d6478bd642f
	hi, lo := bits.Mul64(e.random, e.random^0xe7037ed1a0b428db)
	return hi ^ lo
}

// symhash is the same for both directions of a flow.
func (e *Evaluator) symhash() uint32 {
	b, v := e.p.Frame.Bytes(), &e.p.Frame.View
	var h uint64
	switch {
	case v.Is(packet.ViewIPv4):
		h = number(b[v.L3+12:v.L3+16]).lo ^ number(b[v.L3+16:v.L3+20]).lo
	case v.Is(packet.ViewIPv6):
		x := number(b[v.L3+8 : v.L3+24]).xor(number(b[v.L3+24 : v.L3+40]))
		h = x.hi ^ bits.RotateLeft64(x.lo, 32)
	}
	if v.Is(packet.ViewHasL4) && v.Proto != packet.ProtoICMP && v.Proto != packet.ProtoICMPv6 {
		h ^= uint64(v.SrcPort^v.DstPort) << 40
	}
	hi, lo := bits.Mul64(h^uint64(v.Proto)<<56^e.eng.seed[0], e.eng.seed[1]|1)
	return uint32((hi ^ lo) >> 32)
}

// hash is jhash over the registers' bytes, each field filled up to four.
func (e *Evaluator) hash(h *hashCode, in *inst) value {
	var b [4 * numRegs]byte
	n := 0
	for _, f := range h.fields {
		size := (f.bytes + 3) &^ 3
		valueOf(e.reg[int(h.from)+f.at:], f.words).put(b[n : n+f.bytes])
		n += size
	}
	return value{0, uint64(reciprocal(jhash(b[:n], h.seed), uint32(in.imm))) + in.imm>>32}
}

// ct reads what is known of the connection.
func (e *Evaluator) ct(in *inst) (value, bool) {
	p := e.p
	key := ctKey(in.aux)
	if key == ctKeyState {
		bit := uint64(stateBit(p))
		e.once(actState, value{0, bit})
		return value{0, bit}, true
	}
	if p.NoTrack || !connected(p) {
		e.once(actState, value{0, uint64(stateBit(p))})
		return value{}, false
	}
	switch key {
	case ctKeyDirection:
		return value{0, uint64(p.Dir)}, true
	case ctKeyMark:
		m := uint64(ctMark(p))
		e.once(actCTMark, value{0, m})
		return value{0, m}, true
	case ctKeyStatus:
		s := uint64(ctStatus(p))
		e.once(actStatus, value{0, s})
		return value{0, s}, true
	case ctKeyLabel:
		l := ctLabel(p)
		e.once(actLabel, l)
		return l, true
	}
	return e.ctTuple(in, key)
}

// once records what has to be the same for the next packet, if it isn't there.
func (e *Evaluator) once(kind actionKind, v value) {
	for i := range e.rec.Actions() {
		if a := &e.rec.actions[i]; a.kind == kind && a.v == v {
			return
		}
	}
	e.rec.add(Action{kind: kind, v: v})
}

// ctTuple reads the keys that have a direction.
func (e *Evaluator) ctTuple(in *inst, key ctKey) (value, bool) {
	p := e.p
	dir := conntrack.Original
	switch {
	case nft.Dir(in.flag) == nft.DirReply:
		dir = conntrack.Reply
	case nft.Dir(in.flag) == nft.DirNone:
		dir = p.Dir
	}
	var t conntrack.Tuple
	switch {
	case pending(p) && dir == conntrack.Original:
		t = p.Pending.Original
	case pending(p):
		t = p.Pending.Reply
	default:
		t = p.Conn.Tuple(dir)
	}
	switch key {
	case ctKeySaddr:
		return addrValue(t.Src, in.n)
	case ctKeyDaddr:
		return addrValue(t.Dst, in.n)
	case ctKeyProtoSrc:
		return value{0, uint64(t.SrcPort)}, true
	case ctKeyProtoDst:
		return value{0, uint64(t.DstPort)}, true
	case ctKeyProtocol:
		return value{0, uint64(t.Proto)}, true
	case ctKeyL3Proto:
		return value{0, uint64(familyOf(t.Src))}, true
	case ctKeyZone:
		if pending(p) {
			return value{0, uint64(p.Pending.Zone)}, true
		}
		return value{0, uint64(p.Conn.Zone())}, true
	}
	return e.ctAccount(in, key)
}

// ctAccount reads what changes with each packet.
func (e *Evaluator) ctAccount(in *inst, key ctKey) (value, bool) {
	e.rec.Volatile |= ByAccounting
	var en conntrack.Entry
	if !pending(e.p) && !e.p.Conn.Entry(&en, uint32(e.p.Now/second)) {
		return value{}, false
	}
	var packets, bytes uint64
	for d := range en.Packets {
		if nft.Dir(in.flag) == nft.DirNone || nft.Dir(in.flag) == nft.DirOriginal+nft.Dir(d) {
			packets += en.Packets[d]
			bytes += en.Bytes[d]
		}
	}
	switch key {
	case ctKeyPackets:
		return value{0, packets}, true
	case ctKeyBytes:
		return value{0, bytes}, true
	case ctKeyAvgPkt:
		return value{0, bytes / max(packets, 1)}, true
	case ctKeyExpiration:
		return value{0, uint64(en.Timeout) * 1000}, true
	case ctKeyID:
		return value{0, uint64(en.ID)}, true
	}
	return value{}, false
}

// second is one second of Packet.Now.
const second = 1_000_000_000
