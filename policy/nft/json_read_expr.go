// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/json"
	"strconv"
	"strings"
)

// expr reads an expression.
func (r *reader) expr(v any) Expr {
	defer r.enter()()
	switch v := v.(type) {
	case string:
		if name, ok := strings.CutPrefix(v, "@"); ok {
			return &setName{name: name, pos: r.pos}
		}
		return r.symbol(v)
	case json.Number:
		return &symbol{text: v.String(), pos: r.pos}
	case bool:
		return r.symbol(map[bool]string{true: "exists", false: "missing"}[v])
	case []any:
		l := &listLit{}
		for _, x := range v {
			l.items = append(l.items, r.expr(x))
		}
		return l
	case map[string]any:
		return r.exprObject(v)
	}
	r.fail("expecting an expression")
	return nil
}

// exprObject reads an expression that is an object.
func (r *reader) exprObject(f fields) Expr {
	name, v := r.only(f, "an expression")
	if op := binOp(name); op >= 0 {
		return r.binary(BinOp(op), items(v))
	}
	switch name {
	case "concat", "range":
		return r.several(name, items(v))
	case "set":
		return r.elems(v)
	case "elem":
		return r.expr(r.object(v, name)["val"])
	}
	read := r.exprs[name]
	if read == nil {
		if _, ok := verdictKind(name); ok {
			return r.verdict(name, v)
		}
		r.fail("%s expressions are not supported", name)
	}
	return read(r, r.object(v, name))
}

func binOp(name string) int {
	for op, s := range binOpNames {
		if s == name {
			return op
		}
	}
	return -1
}

// binary reads an operation on two or more values.
func (r *reader) binary(op BinOp, list []any) Expr {
	if len(list) < 2 || len(list) > maxOps {
		r.fail("%s: expecting two values", binOpNames[op])
	}
	x := r.expr(list[0])
	for _, v := range list[1:] {
		right := r.expr(v)
		if l, ok := right.(*listLit); ok { // flags
			right = joined(l)
		}
		x = &Binary{Op: op, Left: x, Right: right}
	}
	return x
}

// joined is a list of flags as an operation.
func joined(l *listLit) Expr {
	if len(l.items) == 0 {
		return l
	}
	x := l.items[0]
	for _, item := range l.items[1:] {
		x = &Binary{Op: BinOr, Left: x, Right: item}
	}
	return x
}

// several reads a concatenation or a range.
func (r *reader) several(name string, list []any) Expr {
	if len(list) < 2 || name == "range" && len(list) != 2 {
		r.fail("%s: expecting two values", name)
	}
	if name == "range" {
		return &rangeLit{from: r.expr(list[0]), to: r.expr(list[1])}
	}
	c := &Concat{}
	for _, v := range list {
		c.Parts = append(c.Parts, r.expr(v))
	}
	return c
}

// exprReaders are the expressions by name.
func exprReaders() map[string]func(*reader, fields) Expr {
	return map[string]func(*reader, fields) Expr{
		"payload": (*reader).payload, "exthdr": (*reader).exthdr, "tcp option": (*reader).tcpOption, "ip option": (*reader).ipOption,
		"meta": (*reader).meta, "ct": (*reader).ct, "fib": (*reader).fib, "rt": (*reader).rt,
		"numgen": (*reader).numgen, "jhash": (*reader).jhash, "symhash": (*reader).symhash,
		"prefix": (*reader).prefix, "map": (*reader).mapExpr,
	}
}

func (r *reader) payload(f fields) Expr {
	if base := r.text(f, "base"); base != "" {
		for b, name := range baseNames {
			if name == base {
				bits := r.uint(f, "len", 16)
				if bits == 0 || bits > 128 {
					r.fail("raw payload expressions have 1 to 128 bits")
				}
				return &Payload{Spec: Spec{Type: TypeBitmask, Bits: uint16(bits)}, Base: Base(b), Offset: int(r.uint(f, "offset", 16))}
			}
		}
		r.fail("base '%s' is not supported, expecting ll, nh or th", base)
	}
	proto, name := r.needText(f, "protocol"), r.needText(f, "field")
	h := headerTable[proto]
	if h == nil {
		r.fail("payload protocol '%s' is not known or not supported", proto)
	}
	fd, ok := h.find(name)
	if !ok {
		r.fail("%s has no field '%s'", proto, name)
	}
	return h.payload(fd)
}

// optionField finds the field of an extension header or an option.
func (r *reader) optionField(table map[string]*header, f fields) (*header, field) {
	name := r.needText(f, "name")
	h := table[optionName(name)]
	if h == nil {
		r.fail("'%s' is not known or not supported", name)
	}
	want := r.text(f, "field")
	if want == "" {
		return h, field{bits: 1, typ: TypeBoolean}
	}
	fd, ok := h.find(want)
	if !ok {
		r.fail("%s has no field '%s'", name, want)
	}
	return h, fd
}

func (r *reader) exthdr(f fields) Expr {
	if name, rest, ok := strings.Cut(r.text(f, "field"), "["); ok && r.text(f, "name") == "srh" && name == "sid" {
		n, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
		if err != nil || n < 1 || n > 63 {
			r.fail("srh has no field '%s'", r.text(f, "field"))
		}
		return &ExtHdr{Spec: Spec{Type: TypeIPv6Addr, Bits: 128}, Header: "srh", Number: 43, Field: r.text(f, "field"), Offset: 64 + (n-1)*128}
	}
	h, fd := r.optionField(extensionTable, f)
	return &ExtHdr{Spec: Spec{Type: fd.typ, Bits: fd.bits}, Header: h.name, Number: h.number, Field: fd.name, Offset: fd.offset}
}

func (r *reader) tcpOption(f fields) Expr {
	if _, ok := f["base"]; ok {
		if r.uint(f, "offset", 16) != 0 || r.uint(f, "len", 16) != 8 {
			r.fail("raw tcp options are not supported")
		}
		n := r.uint(f, "base", 8)
		return &TCPOption{Spec: Spec{Type: TypeBoolean, Bits: 1}, Option: strconv.FormatUint(n, 10), Kind: uint8(n)}
	}
	h, fd := r.optionField(tcpOptionTable, f)
	return &TCPOption{Spec: Spec{Type: fd.typ, Bits: fd.bits}, Option: h.name, Kind: h.number, Field: fd.name, Offset: fd.offset}
}

func (r *reader) ipOption(f fields) Expr {
	h, fd := r.optionField(ipOptionTable, f)
	return &IPOption{Spec: Spec{Type: fd.typ, Bits: fd.bits}, Option: h.name, Kind: h.number, Field: fd.name, Offset: fd.offset}
}

func (r *reader) meta(f fields) Expr {
	key := r.needText(f, "key")
	x := metaOf(key)
	if x == nil {
		r.fail("meta key '%s' is not known or not supported", key)
	}
	return x
}

func (r *reader) ct(f fields) Expr {
	x := &CT{}
	key := r.needText(f, "key")
	if family, rest, ok := strings.Cut(key, " "); ok {
		x.Family, key = familyTable[family], rest
	}
	if s := r.text(f, "family"); s != "" {
		x.Family = familyTable[s]
	}
	k, ok := ctTable[key]
	if !ok {
		r.fail("ct key '%s' is not known or not supported", key)
	}
	x.Key, x.Spec = key, k.spec
	switch dir := r.text(f, "dir"); dir {
	case "":
	case "original":
		x.Dir = DirOriginal
	case "reply":
		x.Dir = DirReply
	default:
		r.fail("unknown direction '%s'", dir)
	}
	return x
}

func (r *reader) fib(f fields) Expr {
	x := &FIB{Result: r.needText(f, "result")}
	flags := map[string]*bool{"saddr": &x.SAddr, "daddr": &x.DAddr, "mark": &x.Mark, "iif": &x.IIF, "oif": &x.OIF}
	for _, s := range r.symbols(f["flags"], "flags") {
		if flags[s.text] == nil {
			r.fail("unknown fib flag '%s'", s.text)
		}
		*flags[s.text] = true
	}
	spec, ok := fibSpec(x.Result)
	if !ok || x.SAddr == x.DAddr || x.IIF && x.OIF {
		r.fail("fib: this combination of flags and result does not exist")
	}
	x.Spec = spec
	return x
}

func (r *reader) rt(f fields) Expr {
	x := &RT{Key: r.needText(f, "key"), Family: familyTable[r.text(f, "family")]}
	spec, ok := rtSpec(x.Key, x.Family)
	if !ok {
		r.fail("rt key '%s' is not known", x.Key)
	}
	x.Spec = spec
	return x
}

// modulus reads mod and offset.
func (r *reader) modulus(f fields) (mod, offset uint32) {
	mod = uint32(r.uint(f, "mod", 32))
	if mod == 0 {
		r.fail("the modulus can't be 0")
	}
	return mod, uint32(r.uint(f, "offset", 32))
}

// numberSpec is the type of what counts or hashes.
func numberSpec() Spec { return Spec{Type: TypeInteger, Bits: 32, Host: true} }

func (r *reader) numgen(f fields) Expr {
	x := &Numgen{Spec: numberSpec()}
	switch mode := r.needText(f, "mode"); mode {
	case "random":
		x.Random = true
	case "inc":
	default:
		r.fail("unknown mode '%s', expecting inc or random", mode)
	}
	x.Mod, x.Offset = r.modulus(f)
	return x
}

func (r *reader) jhash(f fields) Expr {
	x := &Hash{Spec: numberSpec(), Of: r.expr(f["expr"])}
	x.Mod, x.Offset = r.modulus(f)
	_, x.Seeded = f["seed"]
	x.Seed = uint32(r.uint(f, "seed", 32))
	return x
}

func (r *reader) symhash(f fields) Expr {
	x := &Hash{Spec: numberSpec()}
	x.Mod, x.Offset = r.modulus(f)
	return x
}

func (r *reader) prefix(f fields) Expr {
	return &prefixLit{addr: r.expr(f["addr"]), len: int(r.uint(f, "len", 16))}
}

func (r *reader) mapExpr(f fields) Expr {
	return &mapLit{key: r.expr(f["key"]), of: r.expr(f["data"]), pos: r.pos}
}
