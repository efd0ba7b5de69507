// SPDX-License-Identifier: Apache-2.0

package nft

// setLiteral reads "{ a, b : c }".
func (p *parser) setLiteral() *setLit {
	defer p.enter()()
	s := &setLit{pos: p.expect("{").pos}
	for p.skipNewlines(); !p.is("}"); p.skipNewlines() {
		s.elems = append(s.elems, p.elements()...)
		p.skipNewlines()
		if !p.accept(",") {
			break
		}
	}
	p.skipNewlines()
	if !p.is("}") {
		p.unexpected("',' or '}'")
	}
	s.pos = s.pos.join(p.next().pos)
	return s
}

// elements reads an element; a variable may have several.
func (p *parser) elements() []*elemLit {
	if p.is("{") {
		return p.setLiteral().elems
	}
	if p.is("$") {
		if t := p.peek(2); p.peekIs(2, ",") || p.peekIs(2, "}") || t.kind == tokNewline {
			x := p.variable()
			if s, ok := x.(*setLit); ok {
				return s.elems
			}
			return []*elemLit{{key: x, pos: p.last.pos}}
		}
	}
	return []*elemLit{p.element(false)}
}

// element reads "key timeout 5s : data". From a packet's path its parts are
// expressions.
func (p *parser) element(packet bool) *elemLit {
	e := &elemLit{pos: p.peek(0).pos}
	if p.is("*") {
		e.key = &starLit{pos: p.next().pos}
	} else {
		e.key = p.concat(packet)
	}
	p.elementOptions(e)
	if p.accept(":") {
		p.skipNewlines()
		e.data = p.elementData(packet)
		p.elementOptions(e)
	}
	e.pos = e.pos.join(p.last.pos)
	return e
}

// elementData reads the value of a map's element.
func (p *parser) elementData(packet bool) Expr {
	t := p.peek(0)
	if _, ok := verdictKind(t.text); ok && t.kind == tokWord {
		return p.verdict()
	}
	return p.concat(packet)
}

// elementOptions reads what is kept with an element.
func (p *parser) elementOptions(e *elemLit) {
	for {
		switch {
		case p.accept("timeout"):
			e.timeout, e.hasTimeout = p.time(), true
		case p.accept("expires"):
			e.expires = p.time()
		case p.is("comment"):
			p.comment(p.next(), &e.comment)
		case p.is("counter") || p.is("quota") || p.is("limit") || p.is("last") || p.is("ct") && p.peekIs(1, "count"):
			e.stmts = append(e.stmts, p.elementStmt())
		default:
			return
		}
		p.skipNewlines()
	}
}

// elementStmt reads a statement that an element can have.
func (p *parser) elementStmt() Stmt { return p.stateful(p.next()) }

// stateful reads what follows the word t of such a statement.
func (p *parser) stateful(t token) Stmt {
	switch t.text {
	case "counter":
		return p.counter()
	case "quota":
		return p.quota()
	case "limit":
		return p.limit()
	case "last":
		return p.lastUsed()
	default:
		p.expect("count")
		return p.ctCount()
	}
}

// setBlock reads the block of a set or a map.
func (p *parser) setBlock(isMap bool) *setSpec {
	s := &setSpec{isMap: isMap, pos: p.peek(0).pos}
	p.block(func() { p.setLine(s) })
	return s
}

// setLine reads one line of it. Of several of a kind the last one counts.
func (p *parser) setLine(s *setSpec) {
	t := p.word("a line of a set")
	switch t.text {
	case "type":
		s.hasKey, s.typeof = true, false
		s.key = p.typeList()
		p.dataType(s, p.typeList)
	case "typeof":
		s.hasKey, s.typeof = true, true
		s.key = p.typeofList()
		p.dataType(s, p.typeofList)
	case "flags":
		s.flags = p.wordList()
	case "timeout":
		s.timeout = p.time()
	case "gc-interval":
		s.gc = p.time()
	case "size":
		s.size = p.number(32)
	case "policy":
		s.policy = p.name("performance or memory")
	case "auto-merge":
		s.autoMerge = true
	case "comment":
		p.comment(t, &s.comment)
	case "elements":
		p.setElements(s)
	default:
		p.setStmtLine(s, t)
	}
}

// setStmtLine reads statements that each element gets.
func (p *parser) setStmtLine(s *setSpec, t token) {
	if !isState(t.text) {
		fail(t.pos, "syntax error, unexpected '%s', expecting a line of a set: type, typeof, flags, timeout, gc-interval, size, policy, auto-merge, elements, comment or a stateful statement", t.text)
	}
	s.stmts = append(s.stmts, p.stateful(t))
	for isState(p.peek(0).text) {
		s.stmts = append(s.stmts, p.elementStmt())
	}
}

func isState(word string) bool {
	switch word {
	case "counter", "quota", "limit", "last", "ct":
		return true
	}
	return false
}

func (p *parser) setElements(s *setSpec) {
	p.expect("=")
	if p.is("$") {
		l, ok := p.variable().(*setLit)
		if !ok {
			fail(p.last.pos, "the variable is not a set")
		}
		s.elems = l
		return
	}
	s.elems = p.setLiteral()
}

// wordList reads "a, b".
func (p *parser) wordList() []*symbol {
	list := []*symbol{p.name("word")}
	for p.accept(",") {
		p.skipNewlines()
		list = append(list, p.name("word"))
	}
	return list
}

// typeList reads "ipv4_addr . inet_service".
func (p *parser) typeList() []Expr {
	list := []Expr{p.name("name of a type")}
	for p.accept(".") {
		list = append(list, p.name("name of a type"))
	}
	return list
}

// typeofList reads "ip saddr . tcp dport".
func (p *parser) typeofList() []Expr {
	x := p.operand()
	if c, ok := x.(*Concat); ok {
		return c.Parts
	}
	return []Expr{x}
}

// dataType reads ": type" of a map.
func (p *parser) dataType(s *setSpec, list func() []Expr) {
	if !s.isMap {
		if p.is(":") {
			p.unexpected("newline or semicolon: a set has no values, a map has")
		}
		return
	}
	p.expect(":")
	if p.is("interval") {
		p.next()
		s.dataInterval = true
	}
	if kind := objectKind(p.peek(0).text); kind != ObjNone && p.endsAfter() {
		p.next()
		s.objKind = kind
		return
	}
	if p.is("verdict") {
		t := p.next()
		s.data = []Expr{&symbol{text: "verdict", pos: t.pos}}
		return
	}
	s.typeofData = s.typeof
	s.data = list()
}

// endsAfter says that the line ends after the next token.
func (p *parser) endsAfter() bool {
	t := p.peek(1)
	return t.kind == tokNewline || t.kind == tokEOF || p.peekIs(1, "}")
}

func objectKind(word string) ObjectKind {
	switch word {
	case "counter":
		return ObjCounter
	case "quota":
		return ObjQuota
	case "limit":
		return ObjLimit
	case "synproxy":
		return ObjSynproxy
	case "secmark":
		return ObjSecmark
	default:
		return ObjNone
	}
}

// String is the word for a kind.
func (k ObjectKind) String() string {
	return [...]string{"", "counter", "quota", "limit", "synproxy", "ct helper", "ct timeout", "ct expectation", "secmark", "tunnel"}[k]
}
