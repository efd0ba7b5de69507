// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// reader reads libnftables-json into what a text is parsed into.
type reader struct {
	pos   Pos // names the command within the document
	depth int
	// listed: all are objects as from a listing, none is a command.
	listed bool
	exprs  map[string]func(*reader, fields) Expr
	stmts  map[string]func(*reader, any) Stmt
}

// fields are the members of a JSON object.
type fields map[string]any

// ParseJSON reads a document of libnftables-json(5): commands, or what "nft -j
// list" wrote, which is read as if each object were to be added.
func ParseJSON(data []byte) (cmds []*Command, err error) {
	if len(data) > maxText {
		return nil, &Error{Msg: fmt.Sprintf("the document is too long, at most %d bytes", maxText)}
	}
	var doc struct {
		Nftables []fields `json:"nftables"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, &Error{Msg: "json: " + err.Error()}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &Error{Msg: "json: something follows the document"}
	}
	if doc.Nftables == nil {
		return nil, &Error{Msg: "json: expecting an object with the member nftables"}
	}
	r := &reader{exprs: exprReaders(), stmts: stmtReaders(), listed: true}
	defer caught(&err, nil)
	for i, item := range doc.Nftables {
		r.pos = Pos{File: fmt.Sprintf("nftables[%d]", i)}
		cmds = append(cmds, r.item(item)...)
	}
	if r.listed {
		slices.SortStableFunc(cmds, func(a, b *Command) int { return cmp.Compare(rank(a), rank(b)) })
	}
	return cmds, nil
}

// rank orders what a listing has, so that what is referred to comes first.
func rank(c *Command) int {
	switch c.Kind {
	case KindTable:
		return 0
	case KindChain:
		return 1
	case KindObject:
		return 2
	case KindSet, KindMap:
		return 3
	case KindElement:
		return 4
	default:
		return 5
	}
}

func (r *reader) fail(format string, args ...any) { fail(r.pos, "json: "+format, args...) }

// enter bounds how deep things nest.
func (r *reader) enter() func() {
	r.depth++
	if r.depth > maxDepth {
		r.fail("nested too deep: at most %d levels", maxDepth)
	}
	return func() { r.depth-- }
}

// only is the one member of an object.
func (r *reader) only(f fields, what string) (string, any) {
	if len(f) != 1 {
		r.fail("expecting %s: an object with one member", what)
	}
	for k, v := range f {
		return k, v
	}
	return "", nil
}

// object is a value that must be an object; nothing is an empty one.
func (r *reader) object(v any, what string) fields {
	switch v := v.(type) {
	case map[string]any:
		return v
	case nil:
		return fields{}
	default:
		r.fail("%s: expecting an object", what)
		return nil
	}
}

// items are the values of a list, or one value that is none.
func items(v any) []any {
	switch v := v.(type) {
	case []any:
		return v
	case nil:
		return nil
	default:
		return []any{v}
	}
}

// text is a string member, "" if it is not there.
func (r *reader) text(f fields, name string) string {
	switch v := f[name].(type) {
	case string:
		return r.plain(v)
	case nil:
		return ""
	case json.Number:
		return v.String()
	default:
		r.fail("%s: expecting a string", name)
		return ""
	}
}

// plain refuses what can't be written between quotes.
func (r *reader) plain(s string) string {
	if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == '"' || c == 0x7f || c == utf8.RuneError }) {
		r.fail("%q: neither quotes nor control characters can be in a string", s)
	}
	return s
}

// needText is a string member that must be there.
func (r *reader) needText(f fields, name string) string {
	s := r.text(f, name)
	if s == "" {
		r.fail("%s is missing", name)
	}
	return s
}

// uint is a number member of up to bits bits, 0 if it is not there.
func (r *reader) uint(f fields, name string, bits int) uint64 {
	v, there := f[name]
	if !there {
		return 0
	}
	n, ok := v.(json.Number)
	if ok {
		if x, ok := parseNumber(n.String()); ok && x.BitLen() <= bits {
			return x.Uint64()
		}
	}
	r.fail("%s: expecting a number of up to %d bits", name, bits)
	return 0
}

func (r *reader) bool(f fields, name string) bool {
	b, _ := f[name].(bool)
	return b
}

func (r *reader) seconds(f fields, name string) duration {
	return time.Duration(r.uint(f, name, 32)) * time.Second
}

// symbol is a word.
func (r *reader) symbol(s string) *symbol {
	return &symbol{text: r.plain(s), quoted: true, pos: r.pos}
}

func (r *reader) symbols(v any, what string) []*symbol {
	var out []*symbol
	for _, x := range items(v) {
		s, ok := x.(string)
		if !ok {
			r.fail("%s: expecting strings", what)
		}
		out = append(out, r.symbol(s))
	}
	return out
}

// item is a command, or an object to add.
func (r *reader) item(f fields) []*Command {
	name, v := r.only(f, "a command")
	if name == "metainfo" {
		return nil
	}
	c := &Command{Pos: r.pos, Index: -1, spans: spans{}}
	op, ok := cmdOp(name)
	if !ok {
		return r.subject(c, name, r.object(v, name), true)
	}
	r.listed = false
	c.Op = op
	kind, x := r.only(r.object(v, name), "what to "+name)
	return r.subject(c, kind, r.object(x, kind), false)
}

// subject reads what a command is about; listed objects have handles that are
// not asked for again.
func (r *reader) subject(c *Command, kind string, f fields, listed bool) []*Command {
	what, ok := listTable[kind]
	if !ok {
		r.fail("%s is not known or not supported", kind)
	}
	c.Kind, c.Object = what.kind, what.object
	r.family(c, f)
	c.Table, c.Name = r.text(f, "table"), r.text(f, "name")
	if c.Kind == KindTable {
		c.Table, c.Name = c.Name, ""
	}
	if !listed {
		c.Handle = r.uint(f, "handle", 64)
	}
	if asks := c.Op == OpList || c.Op == OpReset || c.Op == OpFlush; asks || c.Op == OpGet && c.Kind != KindElement {
		if c.Kind == KindRule || c.Kind == KindRules {
			c.Name = r.text(f, "chain")
		}
		return []*Command{c}
	}
	return r.body(c, f)
}

// family reads the family; what is in a table is in one of ip by default.
func (r *reader) family(c *Command, f fields) {
	s := r.text(f, "family")
	if s == "" {
		if c.Kind < KindTables && c.Kind != KindRuleset {
			c.Family = FamilyIP
		}
		return
	}
	if c.Family = familyTable[s]; c.Family == FamilyNone {
		r.fail("unknown family '%s'", s)
	}
}

// body reads what is added, or deleted.
func (r *reader) body(c *Command, f fields) []*Command {
	gone := c.Op == OpDelete || c.Op == OpDestroy
	if gone && c.Kind != KindRule && c.Kind != KindElement {
		r.byName(c)
		return []*Command{c}
	}
	switch c.Kind {
	case KindRule:
		r.rule(c, f, gone)
	case KindElement:
		c.elems = r.elems(f["elem"])
	case KindTable:
		c.table = &tableLit{flags: r.symbols(f["flags"], "flags"), comment: r.text(f, "comment")}
	case KindChain:
		r.chain(c, f)
	case KindSet, KindMap:
		return r.set(c, f)
	case KindObject:
		c.object = r.named(c.Object, f)
	default:
		r.fail("nothing to %s", c.Op)
	}
	return []*Command{c}
}

// byName sees that what is deleted has a name or a handle; the name says more.
func (r *reader) byName(c *Command) {
	if c.Name == "" && c.Handle == 0 && c.Kind != KindTable {
		r.fail("name is missing")
	}
	if c.Name != "" {
		c.Handle = 0
	}
}

// chain reads a chain.
func (r *reader) chain(c *Command, f fields) {
	c.chain = &chainLit{comment: r.text(f, "comment"), given: true}
	c.NewName = r.text(f, "newname")
	if s := r.text(f, "policy"); s != "" {
		c.chain.policy = r.symbol(s)
	}
	c.chain.devices = r.symbols(f["dev"], "dev")
	c.Handle = 0
	if f["type"] == nil && f["hook"] == nil {
		return
	}
	c.chain.base = true
	c.chain.typ, c.chain.hook = r.symbol(r.needText(f, "type")), r.symbol(r.needText(f, "hook"))
	c.chain.prio = r.symbol("0")
	if s := r.text(f, "prio"); s != "" {
		c.chain.prio = r.symbol(s)
	}
}

// rule reads a rule.
func (r *reader) rule(c *Command, f fields, gone bool) {
	c.Name = r.needText(f, "chain")
	if _, ok := f["index"]; ok {
		c.Index = int(r.uint(f, "index", 31))
	}
	if (gone || c.Op == OpReplace) && c.Handle == 0 {
		r.fail("handle is missing")
	}
	if gone {
		return
	}
	c.rule = r.ruleLit(f)
}

// ruleLit reads the statements of a rule.
func (r *reader) ruleLit(f fields) *ruleLit {
	lit := &ruleLit{comment: r.text(f, "comment"), pos: r.pos, spans: spans{}}
	for _, v := range items(f["expr"]) {
		lit.stmts = append(lit.stmts, r.stmt(v))
	}
	if len(lit.stmts) == 0 {
		r.fail("the rule is empty: expr is missing")
	}
	return lit
}

// named reads a named object.
func (r *reader) named(kind ObjectKind, f fields) *objectSpec {
	o := &objectSpec{kind: kind, comment: r.text(f, "comment")}
	switch kind {
	case ObjCounter:
		o.stmt = &Counter{Packets: r.uint(f, "packets", 64), Bytes: r.uint(f, "bytes", 64)}
	case ObjQuota:
		o.stmt = &Quota{Bytes: r.uint(f, "bytes", 64), Used: r.uint(f, "used", 64), Over: r.bool(f, "inv"), Unit: 1}
	default:
		o.stmt = r.limit(f)
	}
	return o
}
