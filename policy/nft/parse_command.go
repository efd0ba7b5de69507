// SPDX-License-Identifier: Apache-2.0

package nft

var cmdOpNames = [...]string{
	OpAdd: "add", OpCreate: "create", OpInsert: "insert", OpReplace: "replace", OpDelete: "delete", OpDestroy: "destroy",
	OpFlush: "flush", OpRename: "rename", OpReset: "reset", OpList: "list", OpGet: "get", OpMonitor: "monitor", OpDescribe: "describe",
}

// String is the word of a command.
func (o CmdOp) String() string { return cmdOpNames[o] }

// command reads one line of a file: a command or a block.
func (p *parser) command() []*Command {
	if p.common() {
		return nil
	}
	p.spans = spans{}
	c := &Command{Index: -1, Pos: p.peek(0).pos, spans: p.spans}
	t := p.peek(0)
	op, ok := cmdOp(t.text)
	switch {
	case t.kind != tokWord:
		p.unexpected("a command")
	case !ok: // "table inet t { … }" is short for add
		op = OpAdd
	default:
		p.next()
	}
	c.Op = op
	cmds := p.about(c)
	p.endOfLine()
	for _, c := range cmds {
		c.text = p.texts[c.Pos.File]
	}
	return cmds
}

func cmdOp(word string) (CmdOp, bool) {
	for op, name := range cmdOpNames {
		if name == word {
			return CmdOp(op), true
		}
	}
	return 0, false
}

// about reads what a command is about.
func (p *parser) about(c *Command) []*Command {
	switch c.Op {
	case OpList, OpReset, OpFlush:
		return p.listCommand(c)
	case OpMonitor:
		return p.monitor(c)
	case OpDescribe:
		fail(c.Pos, "describe is not supported")
	default:
	}
	t := p.word("table, chain, rule, set, map, element, counter, quota or limit")
	switch t.text {
	case "table":
		return p.tableCommand(c)
	case "chain":
		return p.chainCommand(c)
	case "rule":
		return p.ruleCommand(c)
	case "set", "map":
		return p.setCommand(c, t.text == "map")
	case "element":
		return p.elementCommand(c)
	case "counter", "quota", "limit":
		return p.objectCommand(c, objectKind(t.text))
	case "flowtable", "synproxy", "secmark", "ct":
		fail(t.pos, "%s objects are not supported", t.text)
	}
	fail(t.pos, "syntax error, unexpected '%s', expecting table, chain, rule, set, map, element, counter, quota or limit", t.text)
	return nil
}

// family reads the family, ip if there is none.
func (p *parser) family(c *Command) {
	c.Family = FamilyIP
	if f, ok := familyTable[p.peek(0).text]; ok && p.peek(0).kind == tokWord && p.peek(1).kind != tokNewline && p.peek(1).kind != tokEOF && !p.peekIs(1, "{") {
		p.next()
		c.Family = f
	}
}

// path reads "inet t", and with a name "inet t c".
func (p *parser) path(c *Command, what string) {
	p.family(c)
	n := p.name("name of a table")
	c.Table, c.Pos = n.text, n.pos
	if what != "" {
		n := p.name("name of a " + what)
		c.Name, c.Pos = n.text, n.pos
	}
}

// byHandle reads "handle 5" in the place of a name.
func (p *parser) byHandle(c *Command) bool {
	if p.is("handle") && p.peek(1).kind == tokNumber {
		at := p.next().pos
		c.Handle = p.number(64)
		c.Pos = at.join(p.last.pos)
		return true
	}
	return false
}

func (p *parser) tableCommand(c *Command) []*Command {
	c.Kind = KindTable
	if c.Op == OpDelete || c.Op == OpDestroy {
		p.family(c)
		if !p.byHandle(c) {
			n := p.name("name of a table")
			c.Table, c.Pos = n.text, n.pos
		}
		return []*Command{c}
	}
	p.path(c, "")
	return p.tableBlock(c)
}

func (p *parser) chainCommand(c *Command) []*Command {
	c.Kind = KindChain
	if c.Op == OpDelete || c.Op == OpDestroy {
		p.path(c, "")
		if !p.byHandle(c) {
			n := p.name("name of a chain")
			c.Name, c.Pos = n.text, n.pos
		}
		return []*Command{c}
	}
	p.path(c, "chain")
	if c.Op == OpRename {
		c.NewName = p.name("new name of the chain").text
		return []*Command{c}
	}
	rules := p.chainBlock(c)
	return append([]*Command{c}, rules...)
}

func (p *parser) ruleCommand(c *Command) []*Command {
	c.Kind = KindRule
	p.path(c, "chain")
	for {
		switch {
		case p.is("handle") && p.peek(1).kind == tokNumber:
			p.next()
			c.Handle = p.number(64)
		case p.is("position"):
			p.next()
			c.Handle = p.number(64)
		case p.is("index"):
			p.next()
			c.Index = int(p.number(31))
		default:
			if c.Op == OpDelete || c.Op == OpDestroy {
				if c.Handle == 0 {
					p.unexpected("handle")
				}
				return []*Command{c}
			}
			if c.Op == OpReplace && c.Handle == 0 {
				p.unexpected("handle")
			}
			c.rule = p.rule()
			return []*Command{c}
		}
	}
}

func (p *parser) setCommand(c *Command, isMap bool) []*Command {
	c.Kind = KindSet
	if isMap {
		c.Kind = KindMap
	}
	if c.Op == OpDelete || c.Op == OpDestroy {
		p.path(c, "")
		if !p.byHandle(c) {
			n := p.name("name of a set")
			c.Name, c.Pos = n.text, n.pos
		}
		return []*Command{c}
	}
	p.path(c, "set")
	c.set = p.setBlock(isMap)
	c.set.pos = c.Pos
	if c.set.elems == nil {
		return []*Command{c}
	}
	e := *c
	e.Op, e.Kind, e.set, e.elems = OpAdd, KindElement, nil, c.set.elems
	c.set.elems = nil
	return []*Command{c, &e}
}

func (p *parser) elementCommand(c *Command) []*Command {
	c.Kind = KindElement
	p.path(c, "set")
	if p.is("$") {
		s, ok := p.variable().(*setLit)
		if !ok {
			fail(p.last.pos, "the variable is not a set")
		}
		c.elems = s
	} else {
		c.elems = p.setLiteral()
	}
	return []*Command{c}
}

func (p *parser) objectCommand(c *Command, kind ObjectKind) []*Command {
	c.Kind, c.Object = KindObject, kind
	if c.Op == OpDelete || c.Op == OpDestroy {
		p.path(c, "")
		if !p.byHandle(c) {
			n := p.name("name")
			c.Name, c.Pos = n.text, n.pos
		}
		return []*Command{c}
	}
	p.path(c, kind.String())
	if p.endsRule() && kind == ObjCounter {
		c.object = &objectSpec{kind: kind, stmt: &Counter{}}
	} else {
		c.object = p.objectBlock(kind)
	}
	return []*Command{c}
}

// monitor reads "monitor new rules json", which the caller answers.
func (p *parser) monitor(c *Command) []*Command {
	for p.peek(0).kind == tokWord {
		c.Name += p.next().text + " "
	}
	return []*Command{c}
}

// listTable are the things that list, reset and flush are about.
var listTable = map[string]struct {
	kind   Kind
	object ObjectKind
	// named: it has a name in a table; all: a table or a family may limit it.
	named, all bool
}{
	"ruleset": {kind: KindRuleset}, "tables": {kind: KindTables}, "table": {kind: KindTable},
	"chains": {kind: KindChains, all: true}, "chain": {kind: KindChain, named: true},
	"rules": {kind: KindRules, all: true}, "rule": {kind: KindRule, named: true},
	"sets": {kind: KindSets, all: true}, "set": {kind: KindSet, named: true},
	"maps": {kind: KindMaps, all: true}, "map": {kind: KindMap, named: true},
	"element":  {kind: KindElement, named: true},
	"counters": {kind: KindObjects, object: ObjCounter, all: true}, "counter": {kind: KindObject, object: ObjCounter, named: true},
	"quotas": {kind: KindObjects, object: ObjQuota, all: true}, "quota": {kind: KindObject, object: ObjQuota, named: true},
	"limits": {kind: KindObjects, object: ObjLimit, all: true}, "limit": {kind: KindObject, object: ObjLimit, named: true},
}

// listCommand reads "list chain inet t c".
func (p *parser) listCommand(c *Command) []*Command {
	t := p.word("what to " + c.Op.String())
	what, ok := listTable[t.text]
	if !ok {
		fail(t.pos, "syntax error, unexpected '%s', expecting ruleset, tables, table, chains, chain, rules, sets, set, maps, map, counters, counter, quotas, quota, limits or limit", t.text)
	}
	c.Kind, c.Object = what.kind, what.object
	switch {
	case c.Kind == KindRuleset || c.Kind == KindTables:
		p.onlyFamily(c)
	case c.Kind == KindTable:
		p.path(c, "")
	case what.all:
		p.listAll(c)
	default:
		p.path(c, t.text)
	}
	if c.Kind == KindRule {
		p.byHandle(c)
	}
	if c.Kind == KindElement || c.Op == OpReset && (c.Kind == KindSet || c.Kind == KindMap) && p.is("{") {
		c.elems = p.setLiteral()
	}
	return []*Command{c}
}

// onlyFamily reads the family that a list is limited to.
func (p *parser) onlyFamily(c *Command) {
	if f, ok := familyTable[p.peek(0).text]; ok && p.peek(0).kind == tokWord {
		p.next()
		c.Family = f
	}
}

// listAll reads "[family]", "[table [family] name]" or "[family] name".
func (p *parser) listAll(c *Command) {
	if p.accept("table") {
		p.path(c, "")
		return
	}
	p.onlyFamily(c)
	if p.peek(0).kind == tokWord {
		if c.Family == FamilyNone {
			c.Family = FamilyIP
		}
		c.Table = p.next().text
		if c.Kind == KindRules && p.peek(0).kind == tokWord {
			c.Kind, c.Name = KindRule, p.next().text
		}
	}
}
