// SPDX-License-Identifier: Apache-2.0

package nft

import "time"

// Family is the address family of a table.
type Family uint8

// The families, with the kernel's numbers.
const (
	FamilyNone   Family = 0
	FamilyInet   Family = 1
	FamilyIP     Family = 2
	FamilyARP    Family = 3
	FamilyNetdev Family = 5
	FamilyBridge Family = 7
	FamilyIP6    Family = 10
)

// Hook is where a base chain sees packets.
type Hook uint8

// The hooks. HookNone is that of a chain that is only jumped to.
const (
	HookNone Hook = iota
	HookPrerouting
	HookInput
	HookForward
	HookOutput
	HookPostrouting
	HookIngress
	HookEgress
)

// ChainType is what a base chain is for.
type ChainType uint8

// The chain types.
const (
	ChainFilter ChainType = iota
	ChainNAT
	ChainRoute
)

// Pos is a place in a text: what an error points at, and where a rule was read.
type Pos struct {
	File      string
	Line, Col int // from 1; 0 if it comes from no text
	End       int // the last column, on the same line
}

// Spec is the type of an expression and how wide it is.
type Spec struct {
	Type Type
	Bits uint16
	// Host says that the kernel keeps it in the byte order of the machine. It
	// matters to how concatenations are sorted, never to what is compared: all
	// numbers of this package are compared as numbers.
	Host bool
}

// Bytes is how many bytes of a set's key a value of it takes.
func (s Spec) Bytes() int { return (int(s.Bits) + 7) / 8 }

// Expr is what has a value when a packet passes, or is one.
type Expr interface {
	expr()
	print(p *printer)
	toJSON(p *printer) any
}

// Value is a constant.
type Value struct {
	Spec
	// Data is the number in Spec.Bytes() bytes, the most significant first; of a
	// string its bytes, filled up with NUL.
	Data string
	// Wildcard says that a name was followed by an asterisk: only the bytes
	// before the first NUL count.
	Wildcard bool
}

// Range is From to To, both included.
type Range struct{ From, To *Value }

// Prefix is all that begins with the first Len bits of Addr (the others are 0).
type Prefix struct {
	Addr *Value
	Len  int
}

// Base is the header that the offset of a Payload counts from.
type Base uint8

// The bases. In a table of family arp the network header is the ARP header.
const (
	BaseLink Base = iota
	BaseNetwork
	BaseTransport
)

// Payload is a field of a header.
type Payload struct {
	Spec
	Base         Base
	Offset       int    // in bits
	Proto, Field string // as in "tcp dport"; both "" for "@nh,96,32"
}

// ExtHdr is a field of an IPv6 extension header.
type ExtHdr struct {
	Spec
	Header string // hbh, rt, rt0, rt2, srh, frag, dst, mh
	Number uint8  // of the header
	Field  string // "" asks only whether it exists
	Offset int    // in bits
}

// TCPOption is a field of a TCP option.
type TCPOption struct {
	Spec
	Option string
	Kind   uint8
	Field  string // "" asks only whether it exists
	Offset int    // in bits
}

// IPOption is a field of an IPv4 option.
type IPOption struct {
	Spec
	Option string
	Kind   uint8
	Field  string
	Offset int
}

// Meta is what is known of a packet besides its bytes.
type Meta struct {
	Spec
	Key string // as nft writes it: "mark", "iifname", "l4proto"
}

// Dir is a direction of a connection.
type Dir uint8

// The directions; DirNone if the key has none.
const (
	DirNone Dir = iota
	DirOriginal
	DirReply
)

// CT is what is known of a packet's connection.
type CT struct {
	Spec
	Key    string // "state", "mark", "saddr", "proto-dst", "packets", …
	Dir    Dir
	Family Family // IP or IP6 of saddr and daddr, otherwise none
}

// FIB asks the routes.
type FIB struct {
	Spec
	SAddr, DAddr, Mark, IIF, OIF bool
	Result                       string // oif, oifname, type
	Exists                       bool   // "fib … oif exists": the value is 0 or 1
}

// RT is what is known of a packet's route.
type RT struct {
	Spec
	Key    string // classid, nexthop, mtu, ipsec
	Family Family // of nexthop
}

// Numgen counts or draws a number: Offset to Offset+Mod-1.
type Numgen struct {
	Spec
	Random      bool
	Mod, Offset uint32
}

// Hash is jhash, or with Of nil symhash.
type Hash struct {
	Spec
	Of          Expr
	Mod, Offset uint32
	Seed        uint32
	Seeded      bool // otherwise the kernel draws a seed
}

// BinOp is an operation on bits.
type BinOp uint8

// The operations.
const (
	BinAnd BinOp = iota
	BinOr
	BinXor
	BinShl
	BinShr
)

// Binary is Left op Right.
type Binary struct {
	Spec
	Op          BinOp
	Left, Right Expr
}

// Concat is several values side by side.
type Concat struct{ Parts []Expr }

// SetRef is a set: an anonymous one by Set, otherwise the one of that name in
// the table of the rule.
type SetRef struct {
	Name string
	Set  *Set
}

// Map is what Of has for Key; if it has none the rule ends.
type Map struct {
	Spec // of the value
	Key  Expr
	Of   *SetRef
}

// Ref is an object of that name, in a statement or as a value of a map.
type Ref struct {
	Kind ObjectKind
	Name string
}

func (*Value) expr()     {}
func (*Range) expr()     {}
func (*Prefix) expr()    {}
func (*Payload) expr()   {}
func (*ExtHdr) expr()    {}
func (*TCPOption) expr() {}
func (*IPOption) expr()  {}
func (*Meta) expr()      {}
func (*CT) expr()        {}
func (*FIB) expr()       {}
func (*RT) expr()        {}
func (*Numgen) expr()    {}
func (*Hash) expr()      {}
func (*Binary) expr()    {}
func (*Concat) expr()    {}
func (*SetRef) expr()    {}
func (*Map) expr()       {}
func (*Ref) expr()       {}
func (*Verdict) expr()   {}

// VerdictKind is what becomes of a packet.
type VerdictKind uint8

// The verdicts.
const (
	Accept VerdictKind = iota
	Drop
	Continue
	Return
	Jump
	Goto
	QueueVerdict // only of "queue", never written here
)

// Verdict is a verdict; Chain is where Jump and Goto go.
type Verdict struct {
	Kind  VerdictKind
	Chain string
	// Body has the rules of an anonymous chain, "jump { … }"; Chain is its name.
	Body []*Rule
}

// duration is how long a time in the language is: milliseconds matter.
type duration = time.Duration
