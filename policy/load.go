// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"math/bits"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/policy/nft"
)

// load is the value of a source; false, and the rule ends, if the packet has none.
func (e *Evaluator) load(c *code, in *inst) (value, bool) {
	switch in.src {
	case srcLink, srcNetwork, srcTransport:
		return e.payload(in)
	case srcMeta:
		return e.meta(in)
	case srcReg:
		return valueOf(e.reg[in.aux:], int(in.n)).shr(uint(in.shift)), true
	case srcCT:
		return e.ct(in)
	default:
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
	default:
	}
	return value{}, false
}

// header is a header of the packet, for the instructions that read it.
type header struct {
	bytes []byte // from it to the end of the packet; none: there is none
	keyed uint8  // the bit of inst.flag that says that the flow's key has the field
	known int    // so many bytes of it the key has in any case
}

// look finds the headers, of the packet as it now is. Of two VLAN tags the kernel takes
// off one, and its rules don't see through the other.
func (e *Evaluator) look() {
	e.indexed = nil
	v, b := &e.p.Frame.View, e.p.Frame.Bytes()[:e.end]
	e.l3, e.l4, e.proto = v.L3, v.L4, v.Proto
	if e.opaque = v.Tags > 1 && (e.family == nft.FamilyBridge || e.family == nft.FamilyNetdev); e.opaque {
		e.l3 -= packet.VLANLen
	}
	e.headers = [3]header{{b, flagKeyedLink, v.L3}, {bytes: b[min(e.l3, e.end):]}, {}} // of the link: with tags
	switch {
	case e.opaque || !v.Is(packet.ViewIP):
		return
	case v.Is(packet.ViewIPv4):
		e.headers[1].keyed = flagKeyed4
	default:
		e.headers[1].keyed = flagKeyed6
		if ah, _, there := findExtHdr(b[:min(v.End, e.end)], v.L3, packet.ProtoAH); there && v.Is(packet.ViewExtHdrs) {
			e.proto, e.l4 = packet.ProtoAH, ah // for the kernel this is a transport header
		}
	}
	e.lookL4(v, b)
}

// lookL4 finds the transport header.
func (e *Evaluator) lookL4(v *packet.View, b []byte) {
	h := &e.headers[2]
	switch {
	case !v.Is(packet.ViewFragLater):
		h.bytes = b[min(e.l4, e.end):]
	case e.p.Ported:
		h.bytes = e.flowPorts()
	}
	switch e.proto {
	case packet.ProtoICMP, packet.ProtoICMPv6:
		h.keyed = flagKeyedICMP
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		h.keyed = flagKeyedPorts
	}
}

// flowPorts is as much of the transport header as is known of a later fragment.
func (e *Evaluator) flowPorts() []byte {
	b := e.ports[:]
	binary.BigEndian.PutUint16(b, e.p.SrcPort)
	if e.proto == packet.ProtoICMP || e.proto == packet.ProtoICMPv6 {
		return b[:2] // type and code
	}
	binary.BigEndian.PutUint16(b[2:], e.p.DstPort)
	return b[:4]
}

// payload reads bytes of a header.
func (e *Evaluator) payload(in *inst) (value, bool) {
	h := &e.headers[in.src-srcLink]
	from := int(in.off)
	to := from + int(in.n)
	if to > len(h.bytes) {
		return value{}, false
	}
	if in.flag&h.keyed == 0 && to > h.known {
		e.rec.Volatile |= ByPayload
	}
	v := number(h.bytes[from:to])
	if in.shift != 0 {
		v = v.shr(uint(in.shift))
	}
	return v, true
}

// What of the headers the flow's key has, a bit for each byte: of those packets
// that a flow cache takes, which have no options, extension headers or fragments.
const (
	keyed4     = 1<<0 | 1<<9 | 0xff<<12    // version and header length, protocol, addresses
	keyed6     = 1<<6 | (1<<40-1)&^0xff    // next header, addresses
	keyedPorts = 0xf                       // of TCP, UDP and SCTP
	keyedICMP  = 1<<0 | 1<<1 | 1<<4 | 1<<5 // type, code, identifier
	keyedLink  = 1<<packet.EthernetLen - 1 // addresses, and the type or tag
)

// keyedFlags says of a field which kinds of packets have it in the flow's key.
func (in *inst) keyedFlags() uint8 {
	if int(in.off)+int(in.n) > 64 {
		return 0
	}
	span := (uint64(1)<<in.n - 1) << in.off
	within := func(key uint64, flag uint8) uint8 {
		if span&^key == 0 {
			return flag
		}
		return 0
	}
	switch in.src {
	case srcLink:
		return within(keyedLink, flagKeyedLink)
	case srcTransport:
		return within(keyedPorts, flagKeyedPorts) | within(keyedICMP, flagKeyedICMP)
	default:
		return within(keyed4, flagKeyed4) | within(keyed6, flagKeyed6) | in.constant()
	}
}

// constant says of a field of the network header whether all packets that a flow cache
// takes have the same in it: the fragment's offset of IPv4, and the version.
func (in *inst) constant() (flags uint8) {
	if in.off == 6 && in.n == 2 && in.op == opMatch && in.cmp < cmpIn && in.mask<<in.shift&^0x3fff == 0 {
		flags |= flagKeyed4
	}
	if in.off == 0 && in.n == 1 && in.shift >= 4 {
		flags |= flagKeyed6
	}
	return flags
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
	default:
	}
	return e.ctTuple(in, key)
}

// once records what has to be the same for the next packet, if it isn't what was
// recorded last of its kind.
func (e *Evaluator) once(kind actionKind, v value) {
	r, i := e.rec, kind-actState
	if r.asked>>i&1 != 0 && r.answers[i] == v {
		return
	}
	r.asked |= 1 << i
	r.answers[i] = v
	r.add(Action{kind: kind, v: v})
}

// tupleOf is the tuple of one direction of the connection, by default the packet's.
func (p *Packet) tupleOf(want nft.Dir) conntrack.Tuple {
	dir := p.Dir
	switch want {
	case nft.DirOriginal:
		dir = conntrack.Original
	case nft.DirReply:
		dir = conntrack.Reply
	case nft.DirNone:
	}
	switch {
	case !pending(p):
		return p.Conn.Tuple(dir)
	case dir == conntrack.Original:
		return p.Pending.Original
	}
	return p.Pending.Reply
}

// ctTuple reads the keys that have a direction.
func (e *Evaluator) ctTuple(in *inst, key ctKey) (value, bool) {
	p := e.p
	t := p.tupleOf(nft.Dir(in.flag))
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
	default:
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
	default:
	}
	return value{}, false
}

// second is one second of Packet.Now.
const second = 1_000_000_000
