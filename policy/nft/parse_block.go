// SPDX-License-Identifier: Apache-2.0

package nft

// tableBlock reads "table inet t { … }" behind the name, as commands: first all
// that can be referred to, then elements, then rules.
func (p *parser) tableBlock(table *Command) []*Command {
	b := &blockParts{table: table}
	table.table = &tableLit{}
	if p.is("{") {
		p.block(func() { p.tableLine(b) })
	}
	return b.commands()
}

// blockParts are the commands that the block of a table stands for.
type blockParts struct {
	table                                  *Command
	chains, objects, sets, elements, rules []*Command
}

func (b *blockParts) commands() []*Command {
	out := []*Command{b.table}
	for _, part := range [][]*Command{b.chains, b.objects, b.sets, b.elements, b.rules} {
		out = append(out, part...)
	}
	return out
}

// sub is a command about something in the table.
func (b *blockParts) sub(kind Kind, name *symbol) *Command {
	c := *b.table
	c.Kind, c.Name, c.Pos, c.table = kind, name.text, name.pos, nil
	return &c
}

// tableLine reads one line of a table.
func (p *parser) tableLine(b *blockParts) {
	t := p.word("a line of a table")
	switch t.text {
	case "flags":
		b.table.table.flags = append(b.table.table.flags, p.wordList()...)
	case "comment":
		p.comment(t, &b.table.table.comment)
	case "chain":
		c := b.sub(KindChain, p.name("name of a chain"))
		rules := p.chainBlock(c)
		b.chains = append(b.chains, c)
		b.rules = append(b.rules, rules...)
	case "set", "map":
		p.tableSet(b, t)
	case "counter", "quota", "limit":
		c := b.sub(KindObject, p.name("name"))
		c.Object = objectKind(t.text)
		c.object = p.objectBlock(c.Object)
		b.objects = append(b.objects, c)
	case "flowtable", "synproxy", "secmark":
		fail(t.pos, "%s objects are not supported", t.text)
	case "ct":
		fail(t.pos.join(p.peek(0).pos), "ct %s objects are not supported", p.peek(0).text)
	default:
		fail(t.pos, "syntax error, unexpected '%s', expecting chain, set, map, counter, quota, limit, flags or comment", t.text)
	}
}

// tableSet reads a set; its elements come later, as they may name chains.
func (p *parser) tableSet(b *blockParts, t token) {
	kind := KindSet
	if t.text == "map" {
		kind = KindMap
	}
	c := b.sub(kind, p.name("name of a set"))
	c.spans = spans{}
	p.spans = c.spans
	c.set = p.setBlock(t.text == "map")
	c.set.pos = c.Pos
	b.sets = append(b.sets, c)
	if c.set.elems != nil {
		e := *c
		e.Kind, e.set, e.elems = KindElement, nil, c.set.elems
		c.set.elems = nil
		b.elements = append(b.elements, &e)
	}
}

// chainBlock reads the block of a chain into c, and gives its rules.
func (p *parser) chainBlock(c *Command) (rules []*Command) {
	c.chain = &chainLit{}
	if !p.is("{") {
		return nil
	}
	c.chain.given = true
	p.block(func() {
		switch {
		case p.is("type") && p.peek(2).kind == tokWord:
			p.baseChain(c.chain)
		case p.is("policy"):
			p.chainPolicy(c.chain)
		case p.is("comment"):
			p.comment(p.next(), &c.chain.comment)
		case p.is("device") || p.is("devices"):
			c.chain.devices = append(c.chain.devices, p.devices()...)
		default:
			r := *c
			r.Op, r.Kind, r.chain, r.Index = OpAdd, KindRule, nil, -1
			r.rule = p.rule()
			r.Pos = r.rule.pos
			rules = append(rules, &r)
		}
	})
	return rules
}

// chainPolicy reads "policy drop", which a chain has once.
func (p *parser) chainPolicy(c *chainLit) {
	at, twice := p.next().pos, c.policy != nil
	if c.policy = p.name("accept or drop"); twice {
		fail(at.join(p.last.pos), "you cannot set chain policy twice")
	}
}

// baseChain reads "type filter hook input priority 0". Of several the last one counts.
func (p *parser) baseChain(c *chainLit) {
	p.next()
	c.base, c.offset = true, 0
	c.typ = p.name("filter, nat or route")
	p.expect("hook")
	c.hook = p.name("name of a hook")
	if p.is("device") || p.is("devices") {
		c.devices = p.devices()
	}
	p.expect("priority")
	p.priority(c)
}

// priority reads "filter + 10" or "-5".
func (p *parser) priority(c *chainLit) {
	if p.is("-") {
		at := p.next().pos
		c.offset = -int64(p.number(32))
		c.prio = &symbol{text: "0", pos: at.join(p.last.pos)}
		return
	}
	c.prio = p.primary(false)
	switch {
	case p.accept("+"):
		c.offset = int64(p.number(32))
	case p.accept("-"):
		c.offset = -int64(p.number(32))
	}
}

// devices reads "device eth0" or "devices = { eth0, eth1 }".
func (p *parser) devices() []*symbol {
	if p.next().text == "device" {
		return []*symbol{p.device(p.primary(false))}
	}
	p.expect("=")
	x := p.setOperand()
	s, ok := x.(*setLit)
	if !ok {
		fail(p.last.pos, "syntax error, expecting a list of devices")
	}
	var list []*symbol
	for _, e := range s.elems {
		list = append(list, p.device(e.key))
	}
	return list
}

func (p *parser) device(x Expr) *symbol {
	s, ok := x.(*symbol)
	if !ok || s.text == "" || len(s.text) > 15 {
		fail(p.spans.place(x).join(p.last.pos), "expecting the name of a device")
	}
	return s
}

// objectBlock reads the block of a named object, or its statement.
func (p *parser) objectBlock(kind ObjectKind) *objectSpec {
	o := &objectSpec{kind: kind}
	if !p.is("{") {
		o.stmt = p.objectStmt(kind)
		return o
	}
	p.block(func() {
		if p.is("comment") {
			p.comment(p.next(), &o.comment)
			return
		}
		o.stmt = p.objectStmt(kind)
	})
	if o.stmt == nil {
		o.stmt = p.emptyObject(kind)
	}
	return o
}

// emptyObject is that of a block without a line: a counter may be so.
func (p *parser) emptyObject(kind ObjectKind) Stmt {
	if kind != ObjCounter {
		fail(p.last.pos, "the %s is empty", kind)
	}
	return &Counter{}
}

func (p *parser) objectStmt(kind ObjectKind) Stmt {
	switch kind {
	case ObjCounter:
		return p.counter()
	case ObjQuota:
		return p.quota()
	default:
		return p.limit()
	}
}
