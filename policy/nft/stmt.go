// SPDX-License-Identifier: Apache-2.0

package nft

// Stmt is one step of a rule. The verdict of a rule is a statement too
// (*Verdict), always the last.
type Stmt interface {
	stmt()
	print(p *printer)
	toJSON(p *printer) any
}

// Op compares.
type Op uint8

// The comparisons. With a set on the right only Eq and Ne occur: is, is not in it.
const (
	Eq     Op = iota
	Ne        // not
	Lt        // numbers
	Gt        //
	Le        //
	Ge        //
	AnyBit    // some bit of the right is set in the left: "ct state new,established"
	NoBit     // none is: "tcp flags ! syn"
)

// Match ends the rule unless Left Op Right.
type Match struct {
	Op   Op
	Left Expr
	// Right is *Value, *Range, *Prefix, *SetRef, or *Concat of the first three.
	Right Expr
	// Implied says that no one wrote it (or that listing leaves it out): it is
	// needed for another one to make sense, as "meta l4proto tcp" for "tcp dport".
	Implied bool
}

// VMap is a verdict map: what Of has for Key becomes of the packet; if it has
// nothing the rule ends.
type VMap struct {
	Key Expr
	Of  *SetRef
}

// Counter counts packets. The numbers are those that it starts with.
type Counter struct{ Packets, Bytes uint64 }

// Quota matches until (or Over: after) Bytes bytes; Used is what it starts with.
type Quota struct {
	Bytes, Used uint64
	Over        bool
	// Unit is how it is listed: 1, 1024 or 1048576 bytes.
	Unit uint64
}

// Limit matches up to (or Over: above) Rate in Per seconds.
type Limit struct {
	Rate  uint64 // packets, or with Bytes bytes
	Per   uint64 // seconds: 1, 60, 3600, 86400, 604800
	Burst uint64 // packets, or with Bytes bytes
	Bytes bool
	Over  bool
	// RateUnit and BurstUnit are how bytes are listed: 1, 1024 or 1048576.
	RateUnit, BurstUnit uint64
}

// Last remembers when it was last reached; Used is how long ago it was when it
// was loaded, Set whether ever.
type Last struct {
	Used duration
	Set  bool
}

// CTCount matches while its set has up to (or Over: more than) Count connections.
type CTCount struct {
	Count uint32
	Over  bool
}

// ObjectRef applies the named object that Name (a *Ref) or a map says.
type ObjectRef struct {
	Kind ObjectKind
	Name string
	Map  *Map // instead of Name
}

// Log writes a line.
type Log struct {
	Prefix string
	Level  string // emerg, alert, crit, err, warn, notice, info, debug, audit; "" is warn
	// Group, SnapLen and QueueThreshold are only given with HasGroup.
	HasGroup          bool
	HasSnapLen        bool
	HasQueueThreshold bool
	Group             uint16
	SnapLen           uint32
	QueueThreshold    uint16
	// Flags are the kernel's NF_LOG_*: 1 tcp sequence, 2 tcp options,
	// 4 ip options, 8 skuid, 32 ether; 31 all.
	Flags uint32
}

// RejectKind is how a packet is refused.
type RejectKind uint8

// The kinds.
const (
	RejectICMP   RejectKind = iota // in ip
	RejectICMPv6                   // in ip6
	RejectICMPX                    // by the packet's family, with abstract codes
	RejectTCP                      // with tcp reset
)

// Reject drops, and says so. Code is that of ICMP or ICMPv6; of ICMPX
// 0 no-route, 1 port-unreachable, 2 host-unreachable, 3 admin-prohibited.
type Reject struct {
	Kind RejectKind
	Code uint8
}

// NATKind is what a NAT statement does.
type NATKind uint8

// The kinds.
const (
	SNAT NATKind = iota
	DNAT
	Masquerade
	Redirect
)

// NAT translates. What is not said is nil.
type NAT struct {
	Kind   NATKind
	Family Family // IP or IP6: that of Addr; none for Masquerade and Redirect
	// Named says that the family was written (as it must be in inet).
	Named bool
	// Addr is *Value, *Range, *Prefix, *Map or another expression. With AddrPort
	// it has address and port side by side: *Map of such data or *Concat.
	Addr Expr
	Port Expr // *Value, *Range, *Map
	// AddrPort: "dnat ip to ip saddr map { a : b . 80 }".
	AddrPort bool
	// Interval: the data of the map are ranges (first and last address).
	Interval bool
	// Netmap: "prefix": the bits beyond the prefix are kept.
	Netmap                          bool
	Random, FullyRandom, Persistent bool
}

// Notrack keeps a packet out of conntrack.
type Notrack struct{}

// Mangle sets Key to Value: *Payload, *Meta, *CT, *ExtHdr or *TCPOption.
type Mangle struct{ Key, Value Expr }

// SetOp is what a packet does to a set.
type SetOp uint8

// The operations.
const (
	SetAdd SetOp = iota
	SetUpdate
	SetDelete
)

// SetStmt adds, updates or deletes the element Key of Set. Of a map Data is its
// value. Stmts are kept with the element, and run for it.
type SetStmt struct {
	Op      SetOp
	Set     string
	Key     Expr
	Data    Expr // *Verdict of a verdict map
	Timeout duration
	Expires duration
	Stmts   []Stmt // Counter, Limit, Quota, Last, CTCount
	Comment string
}

func (*Match) stmt()     {}
func (*VMap) stmt()      {}
func (*Verdict) stmt()   {}
func (*Counter) stmt()   {}
func (*Quota) stmt()     {}
func (*Limit) stmt()     {}
func (*Last) stmt()      {}
func (*CTCount) stmt()   {}
func (*ObjectRef) stmt() {}
func (*Log) stmt()       {}
func (*Reject) stmt()    {}
func (*NAT) stmt()       {}
func (*Notrack) stmt()   {}
func (*Mangle) stmt()    {}
func (*SetStmt) stmt()   {}
