// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/binary"

	"sluice/packet"
	"sluice/policy/nft"
)

// Registers and the bound of nested jumps. The kernel has 64 bytes of registers and
// sixteen nested chains (NFT_JUMP_STACK_SIZE).
const (
	numRegs  = 64
	maxDepth = 16
	maxJumps = 4096 // of one packet in one base chain: a ring of gotos doesn't come to be loaded
)

// Evaluator evaluates packets, one after the other: the state of one goroutine. It
// allocates nothing, and takes no lock but that of a set that a packet changes.
type Evaluator struct {
	eng  *Engine
	read *reader
	snap *snapshot // nil while nothing is pinned
	rec  *Record
	none Record

	p       *Packet
	family  nft.Family // that of the hook
	lead    int        // of the packet's length: what is before the network header
	reg     [numRegs]uint64
	depth   int
	jumps   int
	stack   [maxDepth]frame
	random  uint64
	new     arrival
	verd    Verdict
	end     int       // of the packet's bytes that rules may see
	headers [3]header // by srcLink, srcNetwork, srcTransport
	l3      int       // where the network header is
	opaque  bool      // nothing is known of what is in it
	l4      int       // where the transport header is
	proto   uint8
	indexed *index // for which row was computed, for the packet as it is
	row     row
	ports   [4]byte // what is known of the header of a later fragment
	traces  *Tracer
	logs    [maxLogs]LogEntry
	nlogs   int
	paths   paths
}

// frame is where evaluation goes on when a chain returns.
type frame struct {
	c  *code
	pc uint32
}

// Pin takes the present ruleset for all packets up to Unpin: a packet is judged by
// one ruleset on all its hooks. A worker does it once a round.
func (e *Evaluator) Pin() {
	e.read.pinned.Store(e.eng.epochs.now.Load())
	e.snap = e.eng.current.Load()
}

// Unpin ends that. What it leaves open keeps memory from being used again.
func (e *Evaluator) Unpin() {
	e.snap = nil
	e.read.pinned.Store(0)
}

// Generation is that of the ruleset that is pinned: a decision of another one is not
// to be replayed.
func (e *Evaluator) Generation() uint64 { return e.snap.gen }

// Has reports whether some base chain sees packets there, with a priority from lo up
// to but not hi. Without one the hook needs no call.
func (e *Evaluator) Has(family nft.Family, hook nft.Hook, lo, hi int) bool {
	for _, b := range e.snap.chains(family, hook) {
		if lo <= b.prio && b.prio < hi {
			return true
		}
	}
	return false
}

// Translates reports whether there are chains of type nat for packets of a family.
func (e *Evaluator) Translates(family nft.Family) bool {
	for _, at := range [...]nft.Hook{nft.HookPrerouting, nft.HookInput, nft.HookOutput, nft.HookPostrouting} {
		for _, b := range e.snap.chains(family, at) {
			if b.nat {
				return true
			}
		}
	}
	return false
}

// Begin lets what follows be recorded in r, for all hooks of one packet; nil: nowhere.
func (e *Evaluator) Begin(r *Record) {
	if r == nil {
		r = &e.none
	}
	r.Reset()
	e.rec = r
	e.nlogs = 0
}

// Continue is Begin for a packet of which the record has a part already.
func (e *Evaluator) Continue(r *Record) { e.rec = r }

// Hook shows the packet to the base chains at a hook whose priority is from lo up to
// but not hi, and which are not of type nat. family is IP, IP6, ARP, Bridge or
// Netdev; of the first two, chains of family inet are asked, too.
func (e *Evaluator) Hook(p *Packet, family nft.Family, hook nft.Hook, lo, hi int) *Verdict {
	e.set(p, family, hook)
	for _, b := range e.snap.chains(family, hook) {
		if b.prio < lo || b.prio >= hi || b.nat || !b.sees(p, hook) {
			continue
		}
		was := p.Mark
		if e.base(b); e.verd.Code != Accept {
			break
		}
		if b.route && p.Mark != was {
			p.RouteMark = p.Mark
		}
	}
	e.depart()
	return &e.verd
}

// NAT shows the first packet of a connection to the chains of type nat at a hook.
// Translate is the verdict if one of them wants it; who comes first decides. What they do
// is for this packet alone, and no other's of the flow.
func (e *Evaluator) NAT(p *Packet, family nft.Family, hook nft.Hook) *Verdict {
	e.set(p, family, hook)
	first := e.rec.Mark()
	for _, b := range e.snap.chains(family, hook) {
		if !b.nat {
			continue
		}
		if e.base(b); e.verd.Code != Accept {
			break
		}
	}
	e.rec.once(first)
	e.depart()
	return &e.verd
}

// set prepares for a packet.
func (e *Evaluator) set(p *Packet, family nft.Family, hook nft.Hook) {
	e.p, e.family, e.depth, e.lead = p, family, 0, 0
	if hook == nft.HookEgress { // where the kernel has put the Ethernet header on again
		e.lead = packet.EthernetLen
	}
	e.verd = Verdict{}
	if e.rec == nil {
		e.rec = &e.none
		e.rec.Reset()
	}
	e.end = p.Frame.View.End
	if family == nft.FamilyBridge || family == nft.FamilyNetdev {
		e.end = p.Frame.Len()
	}
	e.look()
	e.traces.at(hook)
}

// depart forgets the packet.
func (e *Evaluator) depart() {
	e.p = nil
	if e.rec == &e.none {
		e.rec.Reset()
	}
}

// length is what the packet counts for: from the network header on, or at egress from
// the link's.
func (e *Evaluator) length() int { return max(0, e.end-e.l3) + e.lead }

// base shows the packet to one base chain.
func (e *Evaluator) base(b *baseChain) {
	c := b.chain.at(e.snap.gen)
	if c == nil {
		return
	}
	e.depth, e.jumps = 0, 0
	e.traces.begin()
	if !b.ip {
		e.run(c)
		return
	}
	switch v := &e.p.Frame.View; {
	case e.opaque || !v.Is(packet.ViewIP):
		return // which is accepted
	case v.Is(packet.ViewIPv4):
		e.family = nft.FamilyIP
	default:
		e.family = nft.FamilyIP6
	}
	e.run(c)
	e.family = nft.FamilyNetdev
}

// run evaluates a base chain: in verd there is what becomes of the packet.
func (e *Evaluator) run(base *code) {
	c, pc := base, uint32(0)
	for c != nil {
		in := &c.insts[pc]
		goesOn := false
		switch {
		case in.op == opMatch:
			goesOn = e.match(c, in)
		case in.op >= opVerdict:
			c, pc = e.control(base, c, pc)
			continue
		default:
			goesOn = e.step(c, in)
		}
		if goesOn {
			pc++
		} else {
			pc += uint32(in.rest)
		}
	}
}

// control does an instruction that says where evaluation goes on: nowhere, if the
// next code is nil.
func (e *Evaluator) control(base, c *code, pc uint32) (next *code, nextPC uint32) {
	in := &c.insts[pc]
	switch in.op {
	case opVerdict:
		v := verdict{kind: nft.VerdictKind(in.aux)}
		if in.flag&flagOnly != 0 {
			v.to = c.chains[in.arg]
		}
		return e.obey(c, pc, v)
	case opVMap:
		if el := e.lookup(c.sets[in.arg], in); el != nil {
			return e.obey(c, pc, el.verdict)
		}
		return c, pc + uint32(in.rest)
	case opIndex:
		return c, e.skip(c, in)
	case opRuleEnd:
		if e.p.Trace {
			e.traceRule(c, pc, verdict{kind: nft.Continue})
		}
		return c, pc + 1
	case opReject, opNAT:
		if in.op == opNAT && c.nats[in.arg].notFor(e.family) {
			return c, pc + 1
		}
		e.terminal(c, pc, in)
	default: // opEnd
		if e.depth > 0 {
			e.depth--
			return e.stack[e.depth].c, e.stack[e.depth].pc
		}
		e.policy(base)
	}
	return nil, 0
}

// obey does what a verdict says.
func (e *Evaluator) obey(c *code, pc uint32, v verdict) (next *code, nextPC uint32) {
	if e.p.Trace && v.kind != nft.Continue { // which the rule's end tells
		e.traceRule(c, pc, v)
	}
	switch v.kind {
	case nft.Continue:
		return c, pc + 1
	case nft.Return:
		return c, uint32(len(c.insts) - 1) // its opEnd
	case nft.Jump, nft.Goto:
		return e.jump(c, pc, v)
	case nft.Accept, nft.Drop, nft.QueueVerdict:
	}
	e.verd.Code = Accept
	if v.kind != nft.Accept {
		e.verd.Code = Drop
	}
	e.verd.Why = Evidence{c.table, c.chain, c.ruleAt(pc)}
	return nil, 0
}

// jump goes to another chain. Of one that isn't there, or too deep, nothing comes
// to be loaded; a packet that meets one nevertheless is dropped.
func (e *Evaluator) jump(c *code, pc uint32, v verdict) (next *code, nextPC uint32) {
	to := v.to.at(e.snap.gen)
	if e.jumps++; to == nil || e.jumps > maxJumps || v.kind == nft.Jump && e.depth == maxDepth {
		e.verd.Code = Drop
		e.verd.Why = Evidence{c.table, c.chain, c.ruleAt(pc)}
		return nil, 0
	}
	if v.kind == nft.Jump {
		e.stack[e.depth] = frame{c, pc + uint32(c.insts[pc].rest)}
		e.depth++
	}
	return to, 0
}

// policy is what becomes of a packet that came to the end of the base chain.
func (e *Evaluator) policy(c *code) {
	e.verd.Code = Accept
	if c.chain.Drop {
		e.verd.Code = Drop
	}
	e.verd.Why = Evidence{Table: c.table, Chain: c.chain}
	if e.p.Trace {
		e.tracePolicy(c)
	}
}

// step does one instruction that has no say in where evaluation goes on but whether
// the rule does.
func (e *Evaluator) step(c *code, in *inst) bool {
	switch in.op {
	case opLoad, opLoadBig:
		return e.fetch(c, in)
	case opMatchBig:
		return e.matchBig(c, in)
	case opLookup:
		return e.member(c.sets[in.arg], in)
	case opMap:
		return e.mapped(c, in)
	case opState:
		return e.state(c.states[in.arg], nil)
	case opObject:
		el := e.lookup(c.sets[in.arg], in)
		return el != nil && el.object != nil && e.state(el.object, nil)
	case opDynamic:
		return e.dynamic(&c.dyns[in.arg])
	default:
		return e.effect(c, in)
	}
}

// fetch loads a register.
func (e *Evaluator) fetch(c *code, in *inst) bool {
	v, ok := e.load(c, in)
	switch {
	case !ok:
		return false
	case in.op == opLoadBig:
		e.reg[in.dst], e.reg[in.dst+1] = v.hi, v.lo
	case in.mask != 0:
		e.reg[in.dst] = v.lo & in.mask
	default:
		e.reg[in.dst] = v.lo
	}
	return true
}

// effect does an instruction that changes the packet, or a register.
func (e *Evaluator) effect(c *code, in *inst) bool {
	switch in.op {
	case opBits:
		e.bits(in)
	case opLog:
		e.log(c, in)
	case opSetMeta:
		e.setMeta(in)
	case opSetCT:
		return e.setCT(in)
	case opWrite:
		return e.write(in)
	case opSetOption:
		return e.setOption(in)
	case opNotrack:
		if !connected(e.p) { // not yet, or it is invalid
			e.p.NoTrack = true
		}
	default:
	}
	return true
}

// match is opMatch. What most rules ask first is read here, without a call.
func (e *Evaluator) match(c *code, in *inst) bool {
	if h := in.src - srcLink; h <= srcTransport-srcLink && in.n <= 4 && in.n != 3 {
		h := &e.headers[h]
		from := int(in.off)
		if from+int(in.n) > len(h.bytes) {
			return false
		}
		if in.flag&h.keyed == 0 && from+int(in.n) > h.known {
			e.rec.Volatile |= ByPayload
		}
		var x uint64
		switch b := h.bytes[from:]; in.n {
		case 4:
			x = uint64(binary.BigEndian.Uint32(b))
		case 2:
			x = uint64(binary.BigEndian.Uint16(b))
		default:
			x = uint64(b[0])
		}
		x >>= in.shift
		if in.cmp == cmpEq {
			return x&in.mask == in.imm
		}
		return in.test(x)
	}
	v, ok := e.load(c, in)
	return ok && in.test(v.lo)
}

// test compares.
func (in *inst) test(x uint64) bool {
	switch in.cmp {
	case cmpIn:
		return in.imm <= x && x <= in.mask
	case cmpOut:
		return x < in.imm || in.mask < x
	case cmpAny:
		return x&in.mask&in.imm != 0
	case cmpNone:
		return x&in.mask&in.imm == 0
	case cmpEq:
		return x&in.mask == in.imm
	case cmpNe:
		return x&in.mask != in.imm
	default:
		return in.cmp.says(cmp.Compare(x&in.mask, in.imm))
	}
}

// says is what the comparison makes of what cmp.Compare says.
func (c comparison) says(order int) bool {
	switch c {
	case cmpEq:
		return order == 0
	case cmpNe:
		return order != 0
	case cmpLt:
		return order < 0
	case cmpGt:
		return order > 0
	case cmpLe:
		return order <= 0
	default: // cmpGe
		return order >= 0
	}
}

// matchBig is opMatch for more than 64 bits.
func (e *Evaluator) matchBig(c *code, in *inst) bool {
	x, ok := e.load(c, in)
	if !ok {
		return false
	}
	mask, imm := c.consts[in.arg], c.consts[in.arg+1]
	switch in.cmp {
	case cmpIn, cmpOut:
		within := !x.less(imm) && !mask.less(x)
		return within == (in.cmp == cmpIn)
	case cmpAny, cmpNone:
		return x.and(mask).and(imm).zero() == (in.cmp == cmpNone)
	default:
		return in.cmp.says(x.and(mask).compare(imm))
	}
}

// bits is an operation on bits of two registers.
func (e *Evaluator) bits(in *inst) {
	n := int(in.n)
	x, y := valueOf(e.reg[in.dst:], n), valueOf(e.reg[in.aux:], n)
	switch nft.BinOp(in.flag) {
	case nft.BinAnd:
		x = x.and(y)
	case nft.BinOr:
		x = x.or(y)
	case nft.BinXor:
		x = x.xor(y)
	case nft.BinShl:
		x = x.shl(uint(min(y.lo, 128)))
		if n == 1 && in.mask != 0 {
			x.lo &= in.mask
		}
	case nft.BinShr:
		x = x.shr(uint(min(y.lo, 128)))
	}
	x.wide(n, e.reg[in.dst:])
}
