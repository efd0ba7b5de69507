// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"sync/atomic"

	"sluice/policy/nft"
)

// op is what an instruction does.
type op uint8

const (
	opLoad     op = iota // reg[dst] = source, under mask if there is one
	opLoadBig            // reg[dst], reg[dst+1] = source
	opMatch              // goes on if source, under mask, is as cmp says of imm: of up to 64 bits
	opMatchBig           // the same of 128 bits; arg: consts of the mask, or the range's end, and of imm
	opLookup             // reg[dst:] is in set arg; not: inverted
	opMap                // reg[aux] = what set arg has for reg[dst:]
	opBits               // reg[dst] = reg[dst] flag reg[aux], of n registers
	opState              // state arg lets the packet pass, or not
	opObject             // the object that set arg has for reg[dst:] does
	opDynamic            // dyns[arg]
	opLog
	opSetMeta // aux: which; reg[dst]
	opSetCT
	opWrite // bytes of a header; reg[dst]
	opSetOption
	opNotrack
	opVerdict // from here on they say where evaluation goes on
	opVMap    // the verdict that set arg has for reg[dst:]
	opReject
	opNAT
	opIndex   // the next rule that may be met: imm of index arg, or one after it
	opRuleEnd // of a rule without a verdict
	opEnd     // of the chain
)

// source is where a value comes from.
type source uint8

const (
	srcReg source = iota
	srcImm
	srcLink // payload
	srcNetwork
	srcTransport
	srcExtHdr
	srcTCPOption
	srcIPOption
	srcMeta
	srcCT
	srcFIB
	srcRT
	srcNumgen
	srcHash
	srcSymhash
)

// comparison is how opMatch compares.
type comparison uint8

const (
	cmpEq comparison = iota
	cmpNe
	cmpLt
	cmpGt
	cmpLe
	cmpGe
	cmpAny
	cmpNone
	cmpIn // between imm and the mask, which is no mask then
	cmpOut
)

// inst is one instruction: 32 bytes. What it means depends on op and src.
type inst struct {
	op    op
	src   source
	cmp   comparison
	dst   uint8 // register
	n     uint8 // bytes of a payload; registers of a value
	shift uint8 // that the source is shifted by, to the right
	aux   uint8 // another register; a key of meta and ct
	flag  uint8
	off   uint16 // byte in a header
	rest  uint16 // instructions from here to where the next rule begins
	arg   uint32 // index into what the code holds
	mask  uint64
	imm   uint64
}

// Bits of inst.flag.
const (
	flagInvert = 1 << iota
	flagWide   // two registers
	flagOnly   // the header has to be there, no more: exists
)

// Bits of inst.flag where payload is read, see header.
const (
	flagKeyedLink = 1 << iota
	flagKeyed4
	flagKeyed6
	flagKeyedPorts
	flagKeyedICMP
)

// code is a chain's program. It is immutable.
type code struct {
	gen   uint64
	epoch uint64               // with which it was published; the engine's lock guards it
	prev  atomic.Pointer[code] // of before gen; nil when nobody needs it

	chain   *nft.Chain
	table   *nft.Table
	insts   []inst
	consts  []value
	rules   []ruleCode
	indexes []index
	states  []*state
	sets    []*set
	chains  []*chain // that it jumps to
	dyns    []dynamic
	nats    []natCode
	hashes  []hashCode
	counts  []*atomic.Uint32 // of numgen inc
	fibs    []*nft.FIB
	rts     []*nft.RT
	logs    []*nft.Log
}

// ruleCode is where a rule begins.
type ruleCode struct {
	rule  *nft.Rule
	start uint32
}

// dynamic is a statement that changes a set.
type dynamic struct {
	op      nft.SetOp
	set     *set
	key     uint8 // register
	data    uint8
	timeout int64
	lasts   int64
	specs   []StateSpec
	stmts   []nft.Stmt // that specs say
	verdict verdict
}

// natCode is a NAT statement: what is fixed of it, and the registers of the rest.
type natCode struct {
	fixed      NATRequest
	addr, last uint8 // register; 0: none
	port       uint8
	lastPort   uint8
	v6         bool
	only       nft.Family // which packets it is for; none: all
}

type hashCode struct {
	from   uint8 // register; the bytes from there on are hashed
	fields []field
	seed   uint32
}

// verdict is a verdict in a program.
type verdict struct {
	kind nft.VerdictKind
	to   *chain
}

// chain is a chain while it is in use, under all its versions.
type chain struct {
	handle uint64
	name   string
	code   atomic.Pointer[code]
}

// at is the chain's code for who has pinned gen; nil if there was none.
func (c *chain) at(gen uint64) *code {
	k := c.code.Load()
	for k != nil && k.gen > gen {
		k = k.prev.Load()
	}
	return k
}

// ruleAt is the rule that the instruction is of.
func (c *code) ruleAt(pc uint32) *nft.Rule {
	lo, hi := 0, len(c.rules)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if c.rules[mid].start <= pc {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return nil
	}
	return c.rules[lo-1].rule
}
