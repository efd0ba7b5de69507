// SPDX-License-Identifier: Apache-2.0

package nft

func (x *Value) print(p *printer) { p.value(x) }

// A range has numbers, so that no name is taken for one with a dash in it.
func (x *Range) print(p *printer) {
	was := p.ListOptions
	p.NumericSymbols, p.NumericProto, p.Services = true, true, false
	p.NumericTime = x.From.Type == TypeTime
	x.From.print(p)
	p.WriteString("-")
	x.To.print(p)
	p.ListOptions = was
}

func (x *Prefix) print(p *printer) {
	x.Addr.print(p)
	p.printf("/%d", x.Len)
}

func (x *Payload) print(p *printer) {
	if x.Proto == "" {
		p.printf("@%s,%d,%d", baseNames[x.Base], x.Offset, x.Bits)
		return
	}
	p.WriteString(x.Proto + " " + x.Field)
}

var baseNames = [...]string{BaseLink: "ll", BaseNetwork: "nh", BaseTransport: "th"}

func (x *ExtHdr) print(p *printer) {
	if x.Field == "" {
		p.WriteString("exthdr " + x.Header)
		return
	}
	p.WriteString(x.Header + " " + x.Field)
}

func (x *TCPOption) print(p *printer) { p.optionText("tcp option "+x.Option, x.Field) }
func (x *IPOption) print(p *printer)  { p.optionText("ip option "+x.Option, x.Field) }

func (p *printer) optionText(option, field string) {
	p.WriteString(option)
	if field != "" {
		p.WriteString(" " + field)
	}
}

func (x *Meta) print(p *printer) {
	if !metaTable[x.Key].bare {
		p.WriteString("meta ")
	}
	if x.Key == "secpath" {
		p.WriteString("ipsec")
		return
	}
	p.WriteString(x.Key)
}

var dirNames = [...]string{DirNone: "", DirOriginal: "original ", DirReply: "reply "}

func (x *CT) print(p *printer) {
	p.WriteString("ct " + dirNames[x.Dir])
	if x.Family != FamilyNone {
		p.WriteString(x.Family.String() + " ")
	}
	p.WriteString(x.Key)
}

func (x *FIB) print(p *printer) {
	p.WriteString("fib ")
	between := ""
	for _, f := range x.flags() {
		p.WriteString(between + f)
		between = " . "
	}
	p.WriteString(" " + x.Result)
}

// flags are the names of what a fib expression asks with.
func (x *FIB) flags() []string {
	var list []string
	for _, f := range []struct {
		on   bool
		name string
	}{{x.SAddr, "saddr"}, {x.DAddr, "daddr"}, {x.Mark, "mark"}, {x.IIF, "iif"}, {x.OIF, "oif"}} {
		if f.on {
			list = append(list, f.name)
		}
	}
	return list
}

func (x *RT) print(p *printer) {
	p.WriteString("rt ")
	if x.Key == "nexthop" {
		p.WriteString(x.Family.String() + " ")
	}
	p.WriteString(x.Key)
}

func (x *Numgen) print(p *printer) {
	mode := "inc"
	if x.Random {
		mode = "random"
	}
	p.printf("numgen %s mod %d", mode, x.Mod)
	p.offsetText(x.Offset)
}

func (p *printer) offsetText(n uint32) {
	if n != 0 {
		p.printf(" offset %d", n)
	}
}

func (x *Hash) print(p *printer) {
	if x.Of == nil {
		p.printf("symhash mod %d", x.Mod)
	} else {
		p.WriteString("jhash ")
		x.Of.print(p)
		p.printf(" mod %d", x.Mod)
		if x.Seeded {
			p.printf(" seed 0x%x", x.Seed)
		}
	}
	p.offsetText(x.Offset)
}

var binOpNames = [...]string{BinAnd: "&", BinOr: "|", BinXor: "^", BinShl: "<<", BinShr: ">>"}

func (x *Binary) print(p *printer) {
	p.binarySide(x, x.Left)
	p.WriteString(" " + binOpNames[x.Op] + " ")
	if v, ok := x.Right.(*Value); ok && v.Type.info().flag && v.Type != TypeCTLabel && manyBits(v) {
		p.WriteString("(")
		v.print(p)
		p.WriteString(")")
		return
	}
	if v, ok := x.Right.(*Value); ok && rawLoad(x.Left) {
		hex := *v
		hex.Type = TypeBitmask
		p.WriteString(numberText(&hex))
		return
	}
	p.binarySide(x, x.Right)
}

func manyBits(v *Value) bool {
	n := v.Uint()
	return n&(n-1) != 0
}

// binarySide writes one side, in parentheses if it binds less.
func (p *printer) binarySide(x *Binary, side Expr) {
	b, ok := side.(*Binary)
	if !ok || binds(b.Op) >= binds(x.Op) {
		side.print(p)
		return
	}
	p.WriteString("(")
	side.print(p)
	p.WriteString(")")
}

// binds is how tight an operator binds.
func binds(op BinOp) int {
	return [...]int{BinAnd: 3, BinOr: 1, BinXor: 2, BinShl: 4, BinShr: 4}[op]
}

func (x *Concat) print(p *printer) {
	for i, part := range x.Parts {
		if i > 0 {
			p.WriteString(" . ")
		}
		part.print(p)
	}
}

func (x *SetRef) print(p *printer) {
	if x.Set == nil {
		p.WriteString("@" + x.Name)
		return
	}
	p.anonymous(x.Set)
}

func (x *Map) print(p *printer) {
	x.Key.print(p)
	p.WriteString(" map ")
	x.Of.print(p)
}

func (x *Ref) print(p *printer) { p.printf("\"%s\"", x.Name) }
