// SPDX-License-Identifier: Apache-2.0

package nft

import "strings"

// rule reads the statements of a rule, and its comment.
func (p *parser) rule() *ruleLit {
	defer p.enter()()
	r := &ruleLit{pos: p.peek(0).pos, spans: spans{}}
	outer := p.spans
	p.spans = r.spans
	for t := p.peek(0); t.kind != tokNewline && t.kind != tokEOF && !p.is("}"); t = p.peek(0) {
		if p.is("comment") {
			p.comment(p.next(), &r.comment)
			if !p.endsRule() {
				p.unexpected("newline or semicolon")
			}
			break
		}
		r.stmts = append(r.stmts, p.statement())
	}
	r.pos = r.pos.join(p.last.pos)
	p.spans = outer
	if len(r.stmts) == 0 {
		p.unexpected("a statement")
	}
	return r
}

func (p *parser) endsRule() bool {
	t := p.peek(0)
	return t.kind == tokNewline || t.kind == tokEOF || p.is("}")
}

// statement reads one.
func (p *parser) statement() Stmt {
	t := p.peek(0)
	if t.kind == tokWord {
		if read := p.stmts[t.text]; read != nil {
			if s := read(p, t); s != nil {
				return s
			}
		}
	}
	return p.relation()
}

// stmtParsers are the words that begin a statement.
func stmtParsers() map[string]func(*parser, token) Stmt {
	m := map[string]func(*parser, token) Stmt{
		"accept": (*parser).verdictStmt, "drop": (*parser).verdictStmt, "continue": (*parser).verdictStmt,
		"return": (*parser).verdictStmt, "jump": (*parser).verdictStmt, "goto": (*parser).verdictStmt,
		"counter": (*parser).counterStmt,
		"quota":   (*parser).quotaStmt,
		"limit":   (*parser).limitStmt,
		"last":    (*parser).lastStmt,
		"log":     (*parser).log,
		"reject":  (*parser).reject,
		"snat":    (*parser).natStmt, "dnat": (*parser).natStmt,
		"masquerade": (*parser).natStmt, "redirect": (*parser).natStmt,
		"notrack": (*parser).notrack,
		"add":     (*parser).setStmt, "update": (*parser).setStmt, "delete": (*parser).setStmt,
		"set":   (*parser).oldSetStmt,
		"ct":    (*parser).ctStmt,
		"reset": (*parser).resetOption,
	}
	for _, word := range []string{"queue", "dup", "fwd", "synproxy", "tproxy", "flow", "meter", "xt", "secmark"} {
		m[word] = (*parser).refusedStmt
	}
	return m
}

// refusedStmt takes a statement that is known and not supported; what follows
// belongs to it, so that this is the error.
func (p *parser) refusedStmt(t token) Stmt {
	return p.giveUp(t.pos, t.text+" statements are not supported")
}

func (p *parser) giveUp(pos Pos, msg string) Stmt {
	fail(pos, "%s", msg)
	return nil
}

func (p *parser) resetOption(t token) Stmt {
	return p.giveUp(t.pos, "reset tcp option statements are not supported")
}

func (p *parser) notrack(t token) Stmt {
	p.next()
	return &simpleLit{&Notrack{}, t.pos}
}

// verdictKind is the verdict that a word says.
func verdictKind(word string) (VerdictKind, bool) {
	for k, name := range verdictNames {
		if name == word {
			return VerdictKind(k), true
		}
	}
	return 0, false
}

var verdictNames = [...]string{Accept: "accept", Drop: "drop", Continue: "continue", Return: "return", Jump: "jump", Goto: "goto"}

func (p *parser) verdictStmt(token) Stmt { return p.verdict() }

// verdict reads "accept" or "jump chain" or "jump { … }".
func (p *parser) verdict() *verdictLit {
	t := p.next()
	kind, ok := verdictKind(t.text)
	if !ok {
		fail(t.pos, "syntax error, unexpected %s, expecting a verdict", t.describe())
	}
	v := &verdictLit{kind: kind, pos: t.pos}
	if kind != Jump && kind != Goto {
		return v
	}
	if p.is("{") {
		p.block(func() { v.body = append(v.body, p.rule()) })
		return v
	}
	n := p.name("name of a chain")
	v.chain, v.pos = n.text, t.pos.join(n.pos)
	return v
}

// object reads "name x" behind a statement's word, nil if it is not there.
func (p *parser) object(kind ObjectKind, t token) Stmt {
	if !p.accept("name") {
		return nil
	}
	x := p.concat(true)
	if p.is("map") {
		p.next()
		x = &mapLit{key: x, of: p.setOperand(), pos: t.pos.join(p.last.pos)}
	}
	return &objectLit{kind: kind, name: x, pos: t.pos.join(p.last.pos)}
}

func (p *parser) counterStmt(t token) Stmt {
	p.next()
	if s := p.object(ObjCounter, t); s != nil {
		return s
	}
	return &simpleLit{p.counter(), t.pos}
}

// counter reads what follows "counter".
func (p *parser) counter() *Counter {
	c := &Counter{}
	switch {
	case p.accept("packets"):
		c.Packets = p.number(64)
		p.expect("bytes")
		c.Bytes = p.number(64)
	case p.accept("bytes"):
		c.Bytes = p.number(64)
		p.expect("packets")
		c.Packets = p.number(64)
	}
	return c
}

func (p *parser) quotaStmt(t token) Stmt {
	p.next()
	if s := p.object(ObjQuota, t); s != nil {
		return s
	}
	return &simpleLit{p.quota(), t.pos}
}

// quota reads "over 10 mbytes used 1 kbytes".
func (p *parser) quota() *Quota {
	q := &Quota{}
	if p.accept("over") {
		q.Over = true
	} else {
		p.accept("until")
	}
	n, unit := p.bytesUnit()
	q.Bytes, q.Unit = n*unit, unit
	if p.accept("used") {
		n, unit := p.bytesUnit()
		q.Used = n * unit
	}
	return q
}

// bytesUnit reads "10 mbytes".
func (p *parser) bytesUnit() (n, unit uint64) {
	n = p.number(64)
	t := p.word("bytes, kbytes or mbytes")
	unit = byteUnit(t.text)
	if unit == 0 {
		fail(t.pos, "syntax error, unexpected '%s', expecting bytes, kbytes or mbytes", t.text)
	}
	if n*unit/unit != n {
		fail(t.pos, "too many bytes")
	}
	return n, unit
}

func byteUnit(s string) uint64 {
	switch s {
	case "bytes":
		return 1
	case "kbytes":
		return 1 << 10
	case "mbytes":
		return 1 << 20
	default:
		return 0
	}
}

func (p *parser) limitStmt(t token) Stmt {
	p.next()
	if s := p.object(ObjLimit, t); s != nil {
		return s
	}
	return &simpleLit{p.limit(), t.pos}
}

// limit reads "rate over 10/second burst 5 packets".
func (p *parser) limit() *Limit {
	p.expect("rate")
	l := &Limit{RateUnit: 1, BurstUnit: 1}
	if p.accept("over") {
		l.Over = true
	} else {
		p.accept("until")
	}
	at := p.peek(0).pos
	l.Rate = p.number(64)
	switch t := p.peek(0); t.kind {
	case tokWord:
		p.rateUnit(l)
	default:
		p.expect("/")
		p.per(l, p.word("second, minute, hour, day or week"))
	}
	if l.Rate == 0 {
		fail(at, "limit rate must be a value greater than 0")
	}
	p.burst(l)
	return l
}

// rateUnit reads "kbytes/second", which is one word.
func (p *parser) rateUnit(l *Limit) {
	t := p.next()
	unit, per, ok := strings.Cut(t.text, "/")
	l.RateUnit = byteUnit(unit)
	if l.RateUnit == 0 {
		fail(t.pos, "syntax error, unexpected '%s', expecting bytes, kbytes or mbytes", t.text)
	}
	l.Bytes = true
	l.Rate *= l.RateUnit
	if !ok {
		p.expect("/")
		p.per(l, p.word("second, minute, hour, day or week"))
		return
	}
	t.text = per
	p.per(l, t)
}

func (p *parser) per(l *Limit, t token) {
	l.Per = perSeconds(t.text)
	if l.Per == 0 {
		fail(t.pos, "syntax error, unexpected '%s', expecting second, minute, hour, day or week", t.text)
	}
}

func perSeconds(s string) uint64 {
	switch s {
	case "second":
		return 1
	case "minute":
		return 60
	case "hour":
		return 3600
	case "day":
		return 86400
	case "week":
		return 604800
	default:
		return 0
	}
}

// burst reads "burst 5 packets".
func (p *parser) burst(l *Limit) {
	if !p.accept("burst") {
		if !l.Bytes {
			l.Burst = 5
		}
		return
	}
	at := p.peek(0).pos
	l.Burst = p.number(32)
	t := p.word("packets, bytes, kbytes or mbytes")
	switch {
	case t.text == "packets" && !l.Bytes:
		if l.Burst == 0 {
			l.Burst = 5
		}
	case byteUnit(t.text) > 0 && l.Bytes:
		l.BurstUnit = byteUnit(t.text)
		l.Burst *= l.BurstUnit
	default:
		fail(at.join(t.pos), "burst must be in the unit of the rate")
	}
}

func (p *parser) lastStmt(t token) Stmt {
	p.next()
	return &simpleLit{p.lastUsed(), t.pos}
}

func (p *parser) lastUsed() *Last {
	l := &Last{}
	if p.accept("used") {
		if p.accept("never") {
			return l
		}
		l.Used, l.Set = p.time(), true
	}
	return l
}

// log reads "log prefix "x" level warn flags all".
func (p *parser) log(t token) Stmt {
	p.next()
	l := &Log{}
	for {
		switch {
		case p.accept("prefix"):
			l.Prefix = p.quoted()
			if len(l.Prefix) > 127 {
				fail(p.last.pos, "log prefix is too long, 127 characters maximum allowed")
			}
		case p.accept("level"):
			p.logLevel(l)
		case p.accept("group"):
			l.Group, l.HasGroup = uint16(p.number(16)), true
		case p.accept("snaplen"):
			l.SnapLen, l.HasSnapLen = uint32(p.number(32)), true
		case p.accept("queue-threshold"):
			l.QueueThreshold, l.HasQueueThreshold = uint16(p.number(16)), true
		case p.accept("flags"):
			p.logFlags(l)
		default:
			p.checkLog(l, t.pos)
			return &simpleLit{l, t.pos}
		}
	}
}

func (p *parser) checkLog(l *Log, pos Pos) {
	if msg := l.conflict(); msg != "" {
		fail(pos, "%s", msg)
	}
}

// conflict says what of a log does not go together.
func (l *Log) conflict() string {
	if l.HasSnapLen || l.HasQueueThreshold {
		l.HasGroup = true
	}
	switch {
	case l.Level == "audit" && (l.Prefix != "" || l.Flags != 0 || l.HasGroup):
		return "log level audit doesn't support any further options"
	case l.HasGroup && (l.Level != "" || l.Flags != 0):
		return "level and group are mutually exclusive"
	}
	return ""
}

var logLevelNames = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"}

func (p *parser) logLevel(l *Log) {
	t := p.word("level")
	word := t.text
	for _, name := range logLevelNames {
		if name == word {
			l.Level = name
			return
		}
	}
	if word == "panic" || word == "error" || word == "warning" {
		l.Level = map[string]string{"panic": "emerg", "error": "err", "warning": "warn"}[word]
		return
	}
	fail(t.pos, "invalid log level '%s', expecting one of %s", word, strings.Join(logLevelNames, ", "))
}

// logFlags reads "tcp sequence,options" and its like.
func (p *parser) logFlags(l *Log) {
	t := p.word("tcp, ip, skuid, ether or all")
	switch t.text {
	case "tcp":
		l.Flags |= p.tcpLogFlag()
		for p.accept(",") {
			l.Flags |= p.tcpLogFlag()
		}
	case "ip":
		p.expect("options")
		l.Flags |= 4
	case "skuid":
		l.Flags |= 8
	case "ether":
		l.Flags |= 32
	case "all":
		l.Flags |= 47
	default:
		fail(t.pos, "syntax error, unexpected '%s', expecting tcp, ip, skuid, ether or all", t.text)
	}
}

func (p *parser) tcpLogFlag() uint32 {
	switch t := p.word("sequence or options"); t.text {
	case "sequence":
		return 1
	case "options":
		return 2
	default:
		fail(t.pos, "syntax error, unexpected '%s', expecting sequence or options", t.text)
		return 0
	}
}

// reject reads "reject with icmp type host-unreachable".
func (p *parser) reject(t token) Stmt {
	p.next()
	r := &rejectLit{pos: t.pos}
	if !p.accept("with") {
		return r
	}
	w := p.word("icmp, icmpv6, icmpx or tcp")
	switch w.text {
	case "tcp":
		p.expect("reset")
		r.with = "tcp reset"
	case "icmp", "icmpv6", "icmpx":
		r.with = w.text
		p.accept("type")
		r.code = p.primary(false)
	default:
		fail(w.pos, "syntax error, unexpected '%s', expecting icmp, icmpv6, icmpx or tcp", w.text)
	}
	r.pos = t.pos.join(p.last.pos)
	return r
}

// ctStmt reads "ct count over 5"; other words behind ct are expressions.
func (p *parser) ctStmt(t token) Stmt {
	if !p.peekIs(1, "count") {
		return nil
	}
	p.next()
	p.next()
	return &simpleLit{p.ctCount(), t.pos}
}

func (p *parser) ctCount() *CTCount {
	c := &CTCount{Over: p.accept("over")}
	c.Count = uint32(p.number(32))
	return c
}

// setStmt reads "add @set { … }".
func (p *parser) setStmt(t token) Stmt {
	p.next()
	s := &setStmtLit{op: setOpOf(t.text)}
	s.set = p.setName()
	p.expect("{")
	s.elem = p.element(true)
	p.expect("}")
	s.pos = t.pos.join(p.last.pos)
	return s
}

func setOpOf(word string) SetOp {
	switch word {
	case "update":
		return SetUpdate
	case "delete":
		return SetDelete
	default:
		return SetAdd
	}
}

// oldSetStmt reads "set add ip saddr @set", the way it was once written.
func (p *parser) oldSetStmt(t token) Stmt {
	p.next()
	w := p.word("add, update or delete")
	if w.text != "add" && w.text != "update" && w.text != "delete" {
		fail(w.pos, "syntax error, unexpected '%s', expecting add, update or delete", w.text)
	}
	s := &setStmtLit{op: setOpOf(w.text), elem: p.element(true)}
	s.set = p.setName()
	s.pos = t.pos.join(p.last.pos)
	return s
}

// relation reads a statement that begins with an expression: a comparison, a
// verdict map, a "set".
func (p *parser) relation() Stmt {
	at := p.peek(0).pos
	left := p.operand()
	if s, ok := left.(*symbol); ok {
		p.noStatement(s)
	}
	switch {
	case p.accept("vmap"):
		of := p.setOperand()
		return &vmapLit{key: left, of: of, pos: at.join(p.last.pos)}
	case p.is("set"):
		p.next()
		return &mangleLit{key: left, value: p.mangleValue(), pos: at.join(p.last.pos)}
	}
	m := &matchLit{left: left, implicit: true}
	if op, ok := relationOps(p.peek(0).text); ok && p.peek(0).kind != tokQuoted {
		p.next()
		m.op, m.implicit = op, false
	}
	m.right = p.rhs()
	if p.accept("/") {
		m.mask = p.rhs()
	}
	m.pos = at.join(p.last.pos)
	return m
}

// noStatement fails: the word s begins neither a statement nor an expression.
func (p *parser) noStatement(s *symbol) {
	h := headerTable[s.text]
	if h == nil {
		h = extensionTable[s.text]
	}
	if h == nil {
		fail(s.pos, "syntax error, unexpected '%s', expecting a statement or an expression of a packet", s.text)
	}
	var names []string
	for _, f := range h.fields {
		names = append(names, f.name)
	}
	p.unexpected("a field of " + s.text + ": " + strings.Join(names, ", "))
}

func relationOps(word string) (Op, bool) {
	switch word {
	case "==", "eq":
		return Eq, true
	case "!=", "ne":
		return Ne, true
	case "<", "lt":
		return Lt, true
	case ">", "gt":
		return Gt, true
	case "<=", "le":
		return Le, true
	case ">=", "ge":
		return Ge, true
	case "!":
		return NoBit, true
	default:
		return 0, false
	}
}

// mangleValue reads what a "set" sets: an expression or a list of flags.
func (p *parser) mangleValue() Expr {
	x := p.operand()
	if !p.is(",") {
		return x
	}
	list := &listLit{items: []Expr{x}}
	for p.accept(",") {
		list.items = append(list.items, p.primary(false))
	}
	p.spans[list] = p.spans.place(x).join(p.last.pos)
	return list
}
