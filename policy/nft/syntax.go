// SPDX-License-Identifier: Apache-2.0

package nft

// What a text is before it is checked: the nodes of the checked tree, and these
// where a name must be looked up first.

// symbol is a word or a number whose meaning depends on what it stands beside.
type symbol struct {
	text   string
	quoted bool
	pos    Pos
}

// listLit is "a, b".
type listLit struct{ items []Expr }

// rangeLit is "a-b".
type rangeLit struct{ from, to Expr }

// prefixLit is "a/n".
type prefixLit struct {
	addr Expr
	len  int
}

// setLit is "{ … }".
type setLit struct {
	elems []*elemLit
	pos   Pos
}

// elemLit is an element of one.
type elemLit struct {
	key              Expr
	data             Expr // nil in a set
	timeout, expires duration
	hasTimeout       bool
	comment          string
	stmts            []Stmt
	pos              Pos
}

// starLit is the catch-all "*".
type starLit struct{ pos Pos }

// setName is "@name".
type setName struct {
	name string
	pos  Pos
}

// mapLit is "key map of".
type mapLit struct {
	key, of Expr
	pos     Pos
}

// matchLit is a comparison; implicit has no operator.
type matchLit struct {
	op          Op
	implicit    bool
	left, right Expr
	// mask is that of "tcp flags syn / syn,ack".
	mask Expr
	pos  Pos
}

// vmapLit is "key vmap of".
type vmapLit struct {
	key, of Expr
	pos     Pos
}

// verdictLit is a verdict.
type verdictLit struct {
	kind  VerdictKind
	chain string
	body  []*ruleLit
	pos   Pos
}

// objectLit is "counter name x", where x may be a map.
type objectLit struct {
	kind ObjectKind
	name Expr
	pos  Pos
}

// rejectLit is a reject; with is its kind of answer, "" for the default.
type rejectLit struct {
	with string // icmp, icmpv6, icmpx, tcp reset
	code Expr
	pos  Pos
}

// natLit is a NAT statement.
type natLit struct {
	NAT
	pos Pos
	// concat: "addr . port".
	addrPort bool
}

// mangleLit is "key set value".
type mangleLit struct {
	key, value Expr
	pos        Pos
}

// setStmtLit is "add @set { … }".
type setStmtLit struct {
	op   SetOp
	set  *setName
	elem *elemLit
	// outer are statements behind the braces.
	pos Pos
}

// simpleLit is a statement that needs no check of its parts.
type simpleLit struct {
	Stmt
	pos Pos
}

func (*symbol) expr()     {}
func (*listLit) expr()    {}
func (*rangeLit) expr()   {}
func (*prefixLit) expr()  {}
func (*setLit) expr()     {}
func (*starLit) expr()    {}
func (*setName) expr()    {}
func (*mapLit) expr()     {}
func (*verdictLit) expr() {}

func (*matchLit) stmt()   {}
func (*vmapLit) stmt()    {}
func (*verdictLit) stmt() {}
func (*objectLit) stmt()  {}
func (*rejectLit) stmt()  {}
func (*natLit) stmt()     {}
func (*mangleLit) stmt()  {}
func (*setStmtLit) stmt() {}

// ruleLit is a rule that is not checked.
type ruleLit struct {
	stmts   []Stmt
	comment string
	pos     Pos
	spans   spans
}

// spans is where expressions stand that have no place of their own.
type spans map[Expr]Pos

// place is where x stands.
func (s spans) place(x Expr) Pos {
	switch x := x.(type) {
	case *symbol:
		return x.pos
	case *setLit:
		return x.pos
	case *starLit:
		return x.pos
	case *setName:
		return x.pos
	case *mapLit:
		return x.pos
	case *verdictLit:
		return x.pos
	default:
		return s[x]
	}
}

// Command is one command of a text or of a JSON document.
type Command struct {
	Op     CmdOp
	Kind   Kind
	Object ObjectKind
	Pos    Pos
	// Family and Table say which table, Name which chain, set or object in it.
	Family      Family
	Table, Name string
	// Handle, Index and Position choose a rule (0, -1, 0 if not given); Handle
	// alone may choose anything.
	Handle, Position uint64
	Index            int
	// NewName is that of a rename.
	NewName string

	table  *tableLit
	chain  *chainLit
	set    *setSpec
	elems  *setLit
	object *objectSpec
	rule   *ruleLit
	spans  spans
	text   string // for the lines of errors
}

// CmdOp is what a command does.
type CmdOp uint8

// The commands.
const (
	OpAdd CmdOp = iota
	OpCreate
	OpInsert
	OpReplace
	OpDelete
	OpDestroy
	OpFlush
	OpRename
	OpReset
	OpList
	OpGet
	OpMonitor
	OpDescribe
)

// Kind is a kind of thing that a command is about.
type Kind uint8

// The kinds.
const (
	KindRuleset Kind = iota
	KindTable
	KindChain
	KindRule
	KindSet
	KindMap
	KindElement
	KindObject // Command.Object says which
	KindTables
	KindChains
	KindRules
	KindSets
	KindMaps
	KindObjects
)

// tableLit is what a table is declared with.
type tableLit struct {
	flags   []*symbol
	comment string
}

// chainLit is what a chain is declared with.
type chainLit struct {
	base    bool
	typ     *symbol
	hook    *symbol
	prio    Expr // *symbol
	offset  int64
	devices []*symbol
	policy  *symbol
	comment string
	// set says that there was a block at all.
	given bool
}

// setSpec is what a set or a map is declared with.
type setSpec struct {
	isMap        bool
	key          []Expr // *symbol of a type, or with typeof expressions
	data         []Expr
	objKind      ObjectKind
	typeof       bool
	typeofData   bool
	hasKey       bool
	dataInterval bool
	flags        []*symbol
	timeout, gc  duration
	size         uint64
	policy       *symbol
	autoMerge    bool
	stmts        []Stmt
	comment      string
	elems        *setLit
	pos          Pos
}

// objectSpec is a named object.
type objectSpec struct {
	kind    ObjectKind
	stmt    Stmt
	comment string
}
