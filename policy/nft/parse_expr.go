// SPDX-License-Identifier: Apache-2.0

package nft

import "strconv"

// operand reads what may stand left: selectors, joined by dots, and a map.
func (p *parser) operand() Expr {
	x := p.concat(true)
	if p.is("map") {
		at := p.next().pos
		m := &mapLit{key: x, of: p.setOperand(), pos: p.spans.place(x).join(at)}
		return m
	}
	return x
}

// setOperand reads "{ … }", "@name" or a variable with one of them.
func (p *parser) setOperand() Expr {
	switch {
	case p.is("{"):
		return p.setLiteral()
	case p.is("@"):
		return p.setName()
	case p.is("$"):
		return p.variable()
	}
	p.unexpected("'{' or '@'")
	return nil
}

func (p *parser) setName() *setName {
	at := p.expect("@").pos
	n := p.name("name of a set")
	return &setName{name: n.text, pos: at.join(n.pos)}
}

// rhs reads constants: a list of ranges, prefixes, words, or a set.
func (p *parser) rhs() Expr {
	if p.is("{") || p.is("@") {
		return p.setOperand()
	}
	x := p.concat(false)
	if !p.is(",") {
		return x
	}
	list := &listLit{items: []Expr{x}}
	pos := p.spans.place(x)
	for p.accept(",") {
		p.skipNewlines()
		x := p.concat(false)
		list.items = append(list.items, x)
		pos = pos.join(p.spans.place(x))
	}
	p.spans[list] = pos
	return list
}

// concat reads "a . b". With selectors it may be of the packet.
func (p *parser) concat(selectors bool) Expr {
	x := p.span(selectors)
	if !p.is(".") {
		return x
	}
	c := &Concat{Parts: []Expr{x}}
	pos := p.spans.place(x)
	for p.accept(".") {
		p.skipNewlines()
		x := p.span(selectors)
		c.Parts = append(c.Parts, x)
		pos = pos.join(p.spans.place(x))
	}
	p.spans[c] = pos
	return c
}

// span reads "a-b", "a/n" or "a".
func (p *parser) span(selectors bool) Expr {
	x := p.or(selectors)
	at := p.spans.place(x)
	switch {
	case p.is("-"):
		p.next()
		r := &rangeLit{from: x, to: p.or(selectors)}
		p.spans[r] = at.join(p.last.pos)
		return r
	case p.is("/") && p.peek(1).kind == tokNumber:
		p.next()
		n, _ := strconv.Atoi(p.next().text)
		l := &prefixLit{addr: x, len: n}
		p.spans[l] = at.join(p.last.pos)
		return l
	}
	return x
}

// or, xor, and and shift read operations on bits, the loosest first.
func (p *parser) or(selectors bool) Expr {
	return p.binary(p.xor, selectors, [2]string{"|", "or"}, BinOr)
}

func (p *parser) xor(selectors bool) Expr {
	return p.binary(p.and, selectors, [2]string{"^", "xor"}, BinXor)
}

func (p *parser) and(selectors bool) Expr {
	return p.binary(p.shift, selectors, [2]string{"&", "and"}, BinAnd)
}

func (p *parser) shift(selectors bool) Expr {
	x := p.primary(selectors)
	for n := 0; ; n++ {
		if n == maxOps {
			fail(p.peek(0).pos, "too many operations, at most %d in a row", maxOps)
		}
		switch {
		case p.is("<<") || p.is("lshift"):
			x = p.join(BinShl, x, func() Expr { return p.primary(selectors) })
		case p.is(">>") || p.is("rshift"):
			x = p.join(BinShr, x, func() Expr { return p.primary(selectors) })
		default:
			return x
		}
	}
}

func (p *parser) binary(inner func(bool) Expr, selectors bool, words [2]string, op BinOp) Expr {
	x := inner(selectors)
	for n := 0; p.is(words[0]) || p.is(words[1]); n++ {
		if n == maxOps {
			fail(p.peek(0).pos, "too many operations, at most %d in a row", maxOps)
		}
		x = p.join(op, x, func() Expr { return inner(selectors) })
	}
	return x
}

// join takes an operator and its right side.
func (p *parser) join(op BinOp, left Expr, right func() Expr) Expr {
	defer p.enter()()
	p.next()
	b := &Binary{Op: op, Left: left, Right: right()}
	p.spans[b] = p.spans.place(left).join(p.last.pos)
	return b
}

// primary reads one value.
func (p *parser) primary(selectors bool) Expr {
	t := p.peek(0)
	switch t.kind {
	case tokWord, tokNumber, tokTime, tokAddr:
		if selectors && t.kind == tokWord {
			if x := p.selector(t); x != nil {
				return x
			}
		}
		p.next()
		return &symbol{text: t.text, pos: t.pos}
	case tokQuoted:
		p.next()
		return &symbol{text: t.text, quoted: true, pos: t.pos}
	default:
	}
	switch {
	case p.is("$"):
		return p.variable()
	case p.is("("):
		return p.parenthesised(selectors)
	case p.is("@") && selectors:
		return p.rawPayload()
	}
	p.unexpected("an expression")
	return nil
}

func (p *parser) parenthesised(selectors bool) Expr {
	defer p.enter()()
	at := p.next().pos
	p.skipNewlines()
	x := p.concat(selectors)
	if p.is(",") {
		list := &listLit{items: []Expr{x}}
		for p.accept(",") {
			list.items = append(list.items, p.concat(selectors))
		}
		x = list
	}
	p.skipNewlines()
	end := p.expect(")").pos
	if _, ok := x.(*symbol); !ok {
		p.spans[x] = at.join(end)
	}
	return x
}

// selector reads an expression of the packet that begins with the word t, nil
// if there is none.
func (p *parser) selector(t token) Expr {
	read := p.selectors[t.text]
	if read == nil {
		if headerTable[t.text] == nil && extensionTable[t.text] == nil {
			return nil
		}
		read = (*parser).headerField
	}
	x := read(p, t)
	if x != nil {
		if _, ok := x.(*symbol); !ok {
			p.spans[x] = t.pos.join(p.last.pos)
		}
	}
	return x
}

// selectorParsers are the words that begin an expression of the packet, besides
// headers.
func selectorParsers() map[string]func(*parser, token) Expr {
	m := map[string]func(*parser, token) Expr{
		"meta":    (*parser).meta,
		"ct":      (*parser).ct,
		"fib":     (*parser).fib,
		"rt":      (*parser).rt,
		"numgen":  (*parser).numgen,
		"jhash":   (*parser).jhash,
		"symhash": (*parser).symhash,
		"exthdr":  (*parser).exthdr,
	}
	for _, word := range []string{"socket", "osf", "ipsec", "tunnel", "xfrm", "tproxy"} {
		m[word] = (*parser).refusedSelector
	}
	for _, key := range unqualifiedMetaNames {
		m[key] = (*parser).bareMeta
	}
	return m
}

// refusedSelector names what is known and not supported.
func (p *parser) refusedSelector(t token) Expr {
	if n := p.peek(1); n.kind != tokWord || p.peekIs(1, "counter") {
		return nil
	}
	fail(t.pos, "%s expressions are not supported", t.text)
	return nil
}

// headerField reads "tcp dport".
func (p *parser) headerField(t token) Expr {
	f := p.peek(1)
	switch ext := extensionTable[t.text]; {
	case f.kind != tokWord:
		return nil
	case f.text == "option" && (t.text == "tcp" || t.text == "ip"):
		return p.option(t)
	case f.text == "chunk" && t.text == "sctp":
		fail(t.pos.join(f.pos), "sctp chunk expressions are not supported")
	case ext != nil:
		return p.extension(t, ext)
	}
	name, words := f.text, 2
	if t.text == "arp" && (f.text == "saddr" || f.text == "daddr") {
		name += " " + p.peek(2).text
		words = 3
	}
	h := headerTable[t.text]
	fd, ok := h.find(name)
	if !ok {
		return nil
	}
	for range words {
		p.next()
	}
	return h.payload(fd)
}

// payload is the expression for a field.
func (h *header) payload(f field) *Payload {
	return &Payload{Spec: Spec{Type: f.typ, Bits: f.bits}, Base: h.base, Offset: f.offset, Proto: h.name, Field: f.name}
}

// extension reads "frag id".
func (p *parser) extension(t token, h *header) Expr {
	f := p.peek(1)
	name, words := f.text, 2
	if p.peekIs(2, "[") && p.peekIs(4, "]") {
		name += "[" + p.peek(3).text + "]"
		words = 5
	}
	fd, ok := h.find(name)
	if words == 5 {
		fd, ok = numbered(t.text+" "+f.text, name, p.peek(3).text)
	}
	if !ok {
		return nil
	}
	for range words {
		p.next()
	}
	return &ExtHdr{Spec: Spec{Type: fd.typ, Bits: fd.bits}, Header: h.name, Number: h.number, Field: fd.name, Offset: fd.offset}
}

// numbered is a field that there are several of, as "srh sid[2]".
func numbered(what, name, number string) (field, bool) {
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > 63 || what != "srh sid" && what != "rt0 addr" {
		return field{}, false
	}
	return field{name: name, offset: 64 + (n-1)*128, bits: 128, typ: TypeIPv6Addr}, true
}

// exthdr reads "exthdr frag".
func (p *parser) exthdr(token) Expr {
	p.next()
	t := p.word("extension header")
	h := extensionTable[t.text]
	if h == nil {
		fail(t.pos, "unknown extension header '%s', expecting hbh, rt, frag, dst or mh", t.text)
	}
	return &ExtHdr{Spec: Spec{Type: TypeBoolean, Bits: 1}, Header: h.name, Number: h.number}
}

// option reads "tcp option maxseg size" or "ip option rr ptr".
func (p *parser) option(t token) Expr {
	p.next()
	p.next()
	table := tcpOptionTable
	if t.text == "ip" {
		table = ipOptionTable
	}
	name := p.next()
	h := table[optionName(name.text)]
	if h == nil && name.kind == tokNumber && t.text == "tcp" {
		return p.numberedOption(name)
	}
	if h == nil {
		fail(name.pos, "unknown %s option '%s'", t.text, name.text)
	}
	var fd field
	if f := p.peek(0); f.kind == tokWord {
		var ok bool
		if fd, ok = h.find(f.text); ok {
			p.next()
		}
	}
	if fd.name == "" {
		fd = field{bits: 1, typ: TypeBoolean}
	}
	spec := Spec{Type: fd.typ, Bits: fd.bits}
	if t.text == "ip" {
		return &IPOption{Spec: spec, Option: h.name, Kind: h.number, Field: fd.name, Offset: fd.offset}
	}
	return &TCPOption{Spec: spec, Option: h.name, Kind: h.number, Field: fd.name, Offset: fd.offset}
}

// numberedOption reads "tcp option 255".
func (p *parser) numberedOption(name token) Expr {
	n, err := strconv.ParseUint(name.text, 0, 8)
	if err != nil {
		fail(name.pos, "value too large")
	}
	x := &TCPOption{Spec: Spec{Type: TypeBoolean, Bits: 1}, Option: strconv.FormatUint(n, 10), Kind: uint8(n)}
	switch {
	case p.accept("kind"):
		x.Field, x.Spec = "kind", Spec{Type: TypeInteger, Bits: 8}
	case p.accept("length"):
		x.Field, x.Spec, x.Offset = "length", Spec{Type: TypeInteger, Bits: 8}, 8
	}
	return x
}

func optionName(s string) string {
	switch s {
	case "mss":
		return "maxseg"
	case "sack-permitted":
		return "sack-perm"
	case "sack0":
		return "sack"
	case "noop":
		return "nop"
	case "eool":
		return "eol"
	default:
		return s
	}
}

// rawPayload reads "@nh,96,32".
func (p *parser) rawPayload() Expr {
	at := p.expect("@").pos
	t := p.word("ll, nh or th")
	bases := map[string]Base{"ll": BaseLink, "nh": BaseNetwork, "th": BaseTransport}
	base, ok := bases[t.text]
	if t.text == "ih" {
		fail(t.pos, "@ih (inner header) expressions are not supported")
	}
	if !ok {
		fail(t.pos, "syntax error, unexpected '%s', expecting ll, nh or th", t.text)
	}
	p.expect(",")
	offset := p.number(16)
	p.expect(",")
	bits := p.number(16)
	if bits == 0 || bits > 128 {
		fail(p.last.pos, "raw payload expressions have 1 to 128 bits")
	}
	x := &Payload{Spec: Spec{Type: TypeBitmask, Bits: uint16(bits)}, Base: base, Offset: int(offset)}
	p.spans[x] = at.join(p.last.pos)
	return x
}
