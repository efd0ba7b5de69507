// SPDX-License-Identifier: Apache-2.0

package nft

// Ruleset is all tables. It is a value: Apply returns the next one and leaves
// this one as it is; what did not change is shared by both. The zero Ruleset is
// empty.
type Ruleset struct {
	// Tables in the order in which they were added.
	Tables []*Table
	// Handles is the highest handle that a table got.
	Handles uint64
	// Registrations is the highest Chain.Registered given.
	Registrations uint64
}

// Table is a table. Chains, Sets and Objects are in the order of their making.
type Table struct {
	Family  Family
	Name    string
	Handle  uint64
	Dormant bool
	Owner   bool
	Persist bool
	Comment string
	// Handles is the highest handle that something in the table got.
	Handles uint64
	Chains  []*Chain
	Sets    []*Set
	Objects []*Object
	Pos     Pos

	// index finds by name; only while a transaction works on its copy.
	index *tableIndex
}

// Chain is a chain of rules. Without Base it is only jumped to.
type Chain struct {
	Name    string
	Handle  uint64
	Base    bool
	Type    ChainType
	Hook    Hook
	Prio    int32
	Devices []string // of ingress and egress
	Drop    bool     // the policy
	Comment string
	Rules   []*Rule
	// Anonymous chains belong to one rule's "jump { … }"; they are not listed.
	Anonymous bool
	Pos       Pos
	// flow is where its rules lead; known when the transaction is over.
	flow *flow
	// Registered orders base chains of one hook and one priority: the higher
	// one runs first.
	Registered uint64
}

// Rule is a rule. It is immutable, and stays at its address until it is
// replaced or deleted.
type Rule struct {
	Handle  uint64
	Stmts   []Stmt
	Comment string
	Pos     Pos
}

// Set is a set, or with Data (or ObjKind) a map. One element more makes another
// Set with the same Handle.
type Set struct {
	Name   string // "" of an anonymous one
	Handle uint64
	Key    []Spec // more than one: concatenation
	// Data are the parts of the values of a map. One of type TypeVerdict makes a
	// verdict map.
	Data    []Spec
	ObjKind ObjectKind // the values are names of objects
	IsMap   bool
	// KeyExpr and DataExpr are what was given with typeof.
	KeyExpr, DataExpr Expr

	Constant, Interval, HasTimeout, Dynamic bool
	AutoMerge                               bool
	// DataInterval: values may be ranges (of addresses, for NAT).
	DataInterval bool
	Timeout      duration
	GCInterval   duration
	Size         uint32 // 0: no limit
	Memory       bool   // policy memory
	// Stmts are made for each new element.
	Stmts   []Stmt
	Comment string
	Elems   Elems
	// Orders is the last Elem.Order given.
	Orders uint64
	// Default is the catch-all element "*", or nil.
	Default *Elem
	Pos     Pos
}

// Elem is an element of a set or a map; immutable.
type Elem struct {
	// Key has Spec.Bytes() bytes of each part of the set's key, side by side. End
	// is the last key of an interval, of each part for itself; equal to Key if it
	// is but one.
	Key, End string
	// Data is the value of a map, parts side by side; DataEnd the last of a range.
	Data, DataEnd string
	Verdict       *Verdict
	Object        string
	// Timeout 0: that of the set. NoTimeout: "timeout 0s", never expires.
	Timeout, Expires duration
	Stmts            []Stmt // counter, quota, …: as loaded
	Comment          string
	// Order counts the elements of a set of concatenated ranges: those may
	// overlap, and the one with the lowest is found.
	Order uint64
}

// ObjectKind is a kind of named object.
type ObjectKind uint8

// The kinds.
const (
	ObjNone ObjectKind = iota
	ObjCounter
	ObjQuota
	ObjLimit
	ObjSynproxy // known, refused
	ObjCTHelper // known, refused
	ObjCTTimeout
	ObjCTExpectation
	ObjSecmark
	ObjTunnel
)

// Object is a named counter, quota or limit; Stmt says which and with what
// numbers. It stays at its address until it is reset or replaced.
type Object struct {
	Kind    ObjectKind
	Name    string
	Handle  uint64
	Stmt    Stmt // *Counter, *Quota, *Limit
	Comment string
	Pos     Pos
}
