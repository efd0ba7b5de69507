// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"
)

// set writes a set or a map.
func (p *printer) set(s *Set) {
	p.printf("\t%s %s {%s\n", s.word(), s.Name, p.handleText(s.Handle))
	p.setType(s)
	if s.Memory {
		p.WriteString("\t\tpolicy memory\n")
	}
	if s.Size > 0 {
		p.printf("\t\tsize %d\n", s.Size)
	}
	if flags := s.flagNames(); flags != nil && (s.Timeout == 0 || len(flags) > 1) {
		p.printf("\t\tflags %s\n", strings.Join(flags, ","))
	}
	p.setStmts(s)
	if s.AutoMerge {
		p.WriteString("\t\tauto-merge\n")
	}
	if s.Timeout > 0 {
		p.printf("\t\ttimeout %s\n", p.time(s.Timeout))
	}
	if s.GCInterval > 0 {
		p.printf("\t\tgc-interval %s\n", p.time(s.GCInterval))
	}
	if s.Comment != "" {
		p.printf("\t\tcomment \"%s\"\n", s.Comment)
	}
	p.elements(s)
	p.WriteString("\t}\n")
}

// setStmts writes the statements that each element gets.
func (p *printer) setStmts(s *Set) {
	between := "\t\t"
	for _, st := range s.Stmts {
		p.WriteString(between)
		p.template(st)
		between = " "
	}
	if len(s.Stmts) > 0 {
		p.WriteString("\n")
	}
}

// template writes a statement without what it counted.
func (p *printer) template(st Stmt) {
	stateless := p.Stateless
	p.Stateless = true
	st.print(p)
	p.Stateless = stateless
}

// flagNames are the flags that are listed.
func (s *Set) flagNames() []string {
	var list []string
	for _, f := range []struct {
		on   bool
		name string
	}{{s.Constant, "constant"}, {s.Dynamic, "dynamic"}, {s.Interval, "interval"}, {s.HasTimeout, "timeout"}} {
		if f.on {
			list = append(list, f.name)
		}
	}
	return list
}

// setType writes the line with the types.
func (p *printer) setType(s *Set) {
	if s.KeyExpr != nil {
		p.WriteString("\t\ttypeof ")
		s.KeyExpr.print(p)
	} else {
		p.WriteString("\t\ttype " + typeNames(s.Key))
	}
	if s.IsMap {
		p.WriteString(" : ")
		if s.DataInterval {
			p.WriteString("interval ")
		}
		switch {
		case s.ObjKind != ObjNone:
			p.WriteString(s.ObjKind.String())
		case s.DataExpr != nil:
			s.DataExpr.print(p)
		default:
			p.WriteString(typeNames(s.Data))
		}
	}
	p.WriteString("\n")
}

func typeNames(list []Spec) string {
	var names []string
	for _, spec := range list {
		names = append(names, spec.Type.String())
	}
	return strings.Join(names, " . ")
}

// elements writes the elements of a named set, some to a line.
func (p *printer) elements(s *Set) {
	if p.Terse {
		return
	}
	list := p.sorted(s)
	if len(list) == 0 {
		return
	}
	p.WriteString("\t\telements = { ")
	n, each := 0, perLine(s)
	for i, e := range list {
		if i > 0 {
			n++
			if n < each {
				p.WriteString(", ")
			} else {
				p.WriteString(",\n\t\t\t     ")
				n = 0
			}
		}
		p.element(s, e)
	}
	p.WriteString(" }\n")
}

// perLine is how many elements of a type are listed on a line.
func perLine(s *Set) int {
	if len(s.Key) > 1 {
		return 1
	}
	switch s.Key[0].Type {
	case TypeNFProto, TypeInteger, TypeARPOp, TypeUID, TypeGID, TypeIfIndex, TypeClassID, TypeCTDir, TypeInetProto,
		TypeInetService, TypeTCPFlag, TypeDCCPPktType, TypeMark:
		return 5
	case TypePktType, TypeCTState, TypeCTStatus, TypeIPv4Addr:
		return 2
	default:
		return 1
	}
}

// anonymous writes a set within a rule.
func (p *printer) anonymous(s *Set) {
	p.WriteString("{ ")
	for i, e := range p.sorted(s) {
		if i > 0 {
			p.WriteString(", ")
		}
		p.element(s, e)
	}
	p.WriteString(" }")
}

// live are the elements of a set as they are now.
func (p *printer) live(s *Set) iter.Seq[*Elem] {
	if p.State != nil && s.Name != "" {
		if seq := p.State.Elems(p.table, s); seq != nil {
			return seq
		}
	}
	return s.Elems.All()
}

// sorted are the elements in the order in which they are listed.
func (p *printer) sorted(s *Set) []*Elem {
	list := slices.Collect(p.live(s))
	if order := s.order(); order != nil {
		slices.SortStableFunc(list, order)
	}
	if s.Default != nil {
		list = append(list, s.Default)
	}
	return list
}

// order is how elements are sorted, nil if by their keys: nft takes a
// concatenation, and a name, for one number of the machine, whose last byte
// weighs most; flags are sorted by the lowest bit.
func (s *Set) order() func(a, b *Elem) int {
	switch first := s.Key[0]; {
	case len(s.Key) > 1 && s.Interval:
		return func(a, b *Elem) int { return cmp.Compare(a.Order, b.Order) }
	case len(s.Key) > 1:
		return func(a, b *Elem) int { return cmp.Compare(s.weight(a.Key), s.weight(b.Key)) }
	case first.Type.stringy() && !s.Interval:
		return func(a, b *Elem) int { return cmp.Compare(reversed(a.Key), reversed(b.Key)) }
	case first.Type.info().flag && first.Bits <= 64:
		return func(a, b *Elem) int {
			return cmp.Or(cmp.Compare(lowestBit(a.Key), lowestBit(b.Key)), cmp.Compare(b.Key, a.Key))
		}
	}
	return nil
}

// weight is a concatenation with what weighs most in front.
func (s *Set) weight(key string) string {
	var b strings.Builder
	at := len(key)
	for _, spec := range slices.Backward(s.Key) {
		part := key[at-spec.Bytes() : at]
		at -= spec.Bytes()
		if spec.Host && !spec.Type.stringy() {
			b.WriteString(part)
		} else {
			b.WriteString(reversed(part))
		}
	}
	return b.String()
}

func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

func lowestBit(data string) uint64 {
	n := uintOf(data)
	return n & -n
}

// element writes an element.
func (p *printer) element(s *Set, e *Elem) {
	if e.Key == "" {
		p.WriteString("*")
	} else {
		p.parts(s.Key, e.Key, e.End)
	}
	for _, st := range e.Stmts {
		p.WriteString(" ")
		st.print(p)
	}
	if e.Timeout > 0 {
		p.WriteString(" timeout " + p.time(e.Timeout))
	}
	if e.Expires > 0 && !p.Stateless {
		p.WriteString(" expires " + p.time(e.Expires.Truncate(time.Millisecond)))
	}
	if e.Comment != "" {
		p.printf(" comment \"%s\"", e.Comment)
	}
	switch {
	case e.Verdict != nil:
		p.WriteString(" : ")
		e.Verdict.print(p)
	case e.Object != "":
		p.printf(" : \"%s\"", e.Object)
	case s.IsMap:
		p.WriteString(" : ")
		p.parts(s.Data, e.Data, e.DataEnd)
	}
}

// parts writes the values of a concatenation.
func (p *printer) parts(specs []Spec, from, to string) {
	at := 0
	for i, spec := range specs {
		n := spec.Bytes()
		if i > 0 {
			p.WriteString(" . ")
		}
		rangeOrPrefix(spec, from[at:at+n], to[at:at+n]).print(p)
		at += n
	}
}

// rangeOrPrefix is the shortest way to write an interval.
func rangeOrPrefix(spec Spec, from, to string) Expr {
	v := &Value{Spec: spec, Data: from}
	if from == to {
		return v
	}
	if spec.Type.stringy() {
		name := strings.TrimRight(from, "\x00")
		if to == name+strings.Repeat("\xff", len(from)-len(name)) {
			v.Wildcard = true
			return v
		}
	}
	mask := &Value{Spec: spec, Data: xorBits(xorBits(from, to), allOnes(spec))}
	n := prefixLen(mask)
	if wholePrefix := n > 0 || isZero(mask.Data); wholePrefix && isPrefixType(spec.Type) && isZero(andBits(from, xorBits(mask.Data, allOnes(spec)))) {
		return &Prefix{Addr: v, Len: n}
	}
	return &Range{From: v, To: &Value{Spec: spec, Data: to}}
}

// isPrefixType says whether intervals of a type are written as prefixes.
func isPrefixType(t Type) bool {
	return t == TypeIPv4Addr || t == TypeIPv6Addr
}
