// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strings"
)

// natStmt reads snat, dnat, masquerade and redirect.
func (p *parser) natStmt(t token) Stmt {
	p.next()
	n := &natLit{pos: t.pos}
	n.Kind = map[string]NATKind{"snat": SNAT, "dnat": DNAT, "masquerade": Masquerade, "redirect": Redirect}[t.text]
	p.natFamily(n)
	switch {
	case p.accept("to"):
		p.natTarget(n)
	case n.Kind != SNAT && n.Kind != DNAT:
	case n.Named || n.Netmap || n.Interval || n.addrPort || p.peek(0).kind == tokNewline:
		p.unexpected("'to'")
	default: // old rulesets leave the word out
		p.natTarget(n)
	}
	p.natFlags(n)
	n.pos = t.pos.join(p.last.pos)
	return n
}

// natFamily reads "ip", "prefix", "interval", "addr . port" before "to".
func (p *parser) natFamily(n *natLit) {
	if n.Kind == Masquerade || n.Kind == Redirect {
		return
	}
	if (p.is("ip") || p.is("ip6")) && slices.Contains([]string{"to", "prefix", "interval", "addr"}, p.peek(1).text) {
		n.Family, n.Named = familyTable[p.next().text], true
	}
	for {
		switch {
		case p.accept("prefix"):
			n.Netmap = true
		case p.accept("interval"):
			n.Interval = true
		case p.accept("addr"):
			p.expect(".")
			p.expect("port")
			n.addrPort = true
		default:
			return
		}
	}
}

// natTarget reads "addr", ":port", "addr:port".
func (p *parser) natTarget(n *natLit) {
	if p.accept(":") {
		n.Port = p.natPort()
		return
	}
	if n.Kind == Redirect || n.Kind == Masquerade {
		n.Port = p.natPort()
		return
	}
	n.Addr = p.natAddr()
	if p.accept(":") {
		n.Port = p.natPort()
	}
}

// natAddr reads an address, a range of them, a prefix, or an expression with a map.
func (p *parser) natAddr() Expr {
	if !p.is("[") {
		return p.operand()
	}
	x := p.bracketed()
	if p.is("/") && p.peek(1).kind == tokNumber {
		p.next()
		l := &prefixLit{addr: x, len: int(p.number(8))}
		p.spans[l] = p.spans.place(x).join(p.last.pos)
		return l
	}
	if p.accept("-") {
		at := p.spans.place(x)
		r := &rangeLit{from: x, to: p.bracketed()}
		p.spans[r] = at.join(p.last.pos)
		return r
	}
	return x
}

func (p *parser) bracketed() Expr {
	p.expect("[")
	x := p.span(false)
	p.expect("]")
	return x
}

func (p *parser) natPort() Expr {
	x := p.operand()
	return x
}

// natFlags reads "random,persistent".
func (p *parser) natFlags(n *natLit) {
	for {
		t := p.peek(0)
		if t.kind != tokWord {
			return
		}
		switch strings.TrimSpace(t.text) {
		case "random":
			n.Random = true
		case "fully-random":
			n.FullyRandom = true
		case "persistent":
			n.Persistent = true
		default:
			return
		}
		p.next()
		if !p.accept(",") {
			return
		}
	}
}
