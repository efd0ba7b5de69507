// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
)

func (x *Value) toJSON(p *printer) any {
	switch t := x.Type; {
	case t.stringy():
		return x.text()
	case t.info().flag && t != TypeCTLabel:
		return p.flagsJSON(x)
	case t == TypeBoolean:
		return x.Uint() != 0
	}
	return p.constantJSON(x)
}

// constantJSON is a name or a number.
func (p *printer) constantJSON(x *Value) any {
	switch x.Type {
	case TypeIPv4Addr, TypeIPv6Addr, TypeEtherAddr, TypeClassID, TypeTimeDate, TypeTimeHour:
		return unquoted(p.constant(x))
	case TypeIfIndex:
		return strings.Trim(p.constant(x), "\"")
	case TypeTime:
		return x.Uint() / 1000
	case TypeCTLabel:
		if s := labelText(p, x); !strings.HasPrefix(s, "0x") {
			return json.Number(s)
		}
	default:
		if name, ok := p.symbolOf(x); ok {
			return name
		}
	}
	if n := big.NewInt(0).SetBytes([]byte(x.Data)); n.IsUint64() {
		return json.Number(n.String())
	}
	return "0x" + strings.TrimLeft(hex.EncodeToString([]byte(x.Data)), "0")
}

// symbolOf is the name of a number.
func (p *printer) symbolOf(x *Value) (string, bool) {
	numeric := p.NumericSymbols
	switch {
	case len(x.Data) > 8:
		return "", false
	case x.Type == TypeInetProto:
		numeric = p.NumericProto
	case x.Type == TypeDevGroup && x.Uint() == 0:
		return "default", true
	}
	name, ok := nameOf(symbolTable[x.Type], x.Uint())
	return name, ok && !numeric
}

// unquoted is a text without its quotes; digits are a number.
func unquoted(s string) any {
	if t, ok := strings.CutPrefix(s, "\""); ok {
		return strings.TrimSuffix(t, "\"")
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n
	}
	return s
}

// flagNamesOf are the names of the bits of a value.
func (p *printer) flagNamesOf(x *Value) list {
	var out list
	n := x.Uint()
	for bit := uint64(1); bit != 0 && bit <= n; bit <<= 1 {
		if n&bit == 0 {
			continue
		}
		if name, ok := nameOf(symbolTable[x.Type], bit); ok && !p.NumericSymbols {
			out = append(out, name)
		} else {
			out = append(out, bit)
		}
	}
	return out
}

// flagsJSON is a value of flags: a name, or the names joined by "|".
func (p *printer) flagsJSON(x *Value) any {
	names := p.flagNamesOf(x)
	switch len(names) {
	case 0:
		return uint64(0)
	case 1:
		return names[0]
	}
	return one("|", names)
}

func (x *Range) toJSON(p *printer) any {
	was := p.NumericProto
	p.NumericProto = true
	defer func() { p.NumericProto = was }()
	return one("range", list{x.From.toJSON(p), x.To.toJSON(p)})
}

func (x *Prefix) toJSON(p *printer) any {
	return one("prefix", object{{"addr", x.Addr.toJSON(p)}, {"len", x.Len}})
}

func (x *Payload) toJSON(*printer) any {
	if x.Proto == "" {
		return one("payload", object{{"base", baseNames[x.Base]}, {"offset", x.Offset}, {"len", int(x.Bits)}})
	}
	return one("payload", object{{"protocol", x.Proto}, {"field", x.Field}})
}

// fieldJSON is an object with a name and maybe a field.
func fieldJSON(word, name, field string) any {
	o := object{{"name", name}}
	if field != "" {
		o.add("field", field)
	}
	return one(word, o)
}

func (x *ExtHdr) toJSON(*printer) any {
	name, field := x.Header, x.Field
	return fieldJSON("exthdr", name, field)
}

func (x *TCPOption) toJSON(*printer) any {
	if n, err := strconv.Atoi(x.Option); err == nil && (x.Field == "kind" || x.Field == "") {
		return one("tcp option", object{{"base", n}, {"offset", 0}, {"len", 8}})
	}
	return fieldJSON("tcp option", x.Option, x.Field)
}

func (x *IPOption) toJSON(*printer) any { return fieldJSON("ip option", x.Option, x.Field) }

func (x *Meta) toJSON(*printer) any {
	key := x.Key
	if key == "secpath" {
		key = "ipsec"
	}
	return one("meta", one("key", key))
}

func (x *CT) toJSON(p *printer) any {
	key := x.Key
	if f := p.table.Family; x.Family != FamilyNone && f != FamilyIP && f != FamilyIP6 {
		key = x.Family.String() + " " + key
	}
	o := one("key", key)
	if x.Dir != DirNone {
		o.add("dir", strings.TrimSpace(dirNames[x.Dir]))
	}
	return one("ct", o)
}

func (x *FIB) toJSON(*printer) any {
	return one("fib", object{{"result", x.Result}, {"flags", stringList(x.flags())}})
}

func (x *RT) toJSON(*printer) any {
	o := one("key", x.Key)
	if x.Family != FamilyNone {
		o.add("family", x.Family.String())
	}
	return one("rt", o)
}

func (x *Numgen) toJSON(*printer) any {
	mode := "inc"
	if x.Random {
		mode = "random"
	}
	return one("numgen", object{{"mode", mode}, {"mod", uint64(x.Mod)}, {"offset", uint64(x.Offset)}})
}

func (x *Hash) toJSON(p *printer) any {
	o := one("mod", uint64(x.Mod))
	if x.Seeded {
		o.add("seed", uint64(x.Seed))
	}
	if x.Offset != 0 {
		o.add("offset", uint64(x.Offset))
	}
	if x.Of == nil {
		return one("symhash", o)
	}
	o.add("expr", x.Of.toJSON(p))
	return one("jhash", o)
}

func (x *Binary) toJSON(p *printer) any {
	right := x.Right.toJSON(p)
	if v, ok := x.Right.(*Value); ok && v.Type.info().flag && v.Type != TypeCTLabel && manyBits(v) {
		right = p.flagNamesOf(v)
	}
	return one(binOpNames[x.Op], list{x.Left.toJSON(p), right})
}

func (x *Concat) toJSON(p *printer) any {
	var parts list
	for _, part := range x.Parts {
		parts = append(parts, part.toJSON(p))
	}
	return one("concat", parts)
}

func (x *SetRef) toJSON(p *printer) any {
	if x.Set == nil {
		return "@" + x.Name
	}
	return one("set", p.elemsJSON(x.Set, p.sorted(x.Set)))
}

func (x *Map) toJSON(p *printer) any {
	return one("map", object{{"key", x.Key.toJSON(p)}, {"data", x.Of.toJSON(p)}})
}

func (x *Ref) toJSON(*printer) any { return x.Name }
