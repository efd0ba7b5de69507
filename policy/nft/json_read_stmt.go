// SPDX-License-Identifier: Apache-2.0

package nft

import "slices"

// stmt reads a statement.
func (r *reader) stmt(v any) Stmt {
	defer r.enter()()
	f, ok := v.(map[string]any)
	if !ok {
		r.fail("expecting a statement")
	}
	name, x := r.only(f, "a statement")
	if _, ok := verdictKind(name); ok {
		return r.verdict(name, x)
	}
	read := r.stmts[name]
	if read == nil {
		r.fail("%s statements are not supported", name)
	}
	return read(r, x)
}

// stmtReaders are the statements by name, besides verdicts.
func stmtReaders() map[string]func(*reader, any) Stmt {
	m := map[string]func(*reader, any) Stmt{
		"match": (*reader).match, "vmap": (*reader).vmap, "mangle": (*reader).mangle,
		"counter": (*reader).counterStmt, "quota": (*reader).quotaStmt, "limit": (*reader).limitStmt,
		"last": (*reader).lastStmt, "ct count": (*reader).ctCount, "log": (*reader).log, "reject": (*reader).reject,
		"notrack": (*reader).notrack, "set": (*reader).setStmt, "map": (*reader).setStmt,
	}
	for kind, name := range natNames {
		m[name] = func(r *reader, v any) Stmt { return r.nat(NATKind(kind), r.object(v, name)) }
	}
	return m
}

func (r *reader) simple(s Stmt) Stmt { return &simpleLit{s, r.pos} }

func (r *reader) match(v any) Stmt {
	f := r.object(v, "match")
	m := &matchLit{left: r.expr(f["left"]), right: r.expr(f["right"]), pos: r.pos}
	op := r.needText(f, "op")
	if op == "in" {
		m.implicit = true
		return m
	}
	var ok bool
	if m.op, ok = relationOps(op); !ok {
		r.fail("unknown operator '%s'", op)
	}
	return m
}

func (r *reader) vmap(v any) Stmt {
	f := r.object(v, "vmap")
	return &vmapLit{key: r.expr(f["key"]), of: r.expr(f["data"]), pos: r.pos}
}

func (r *reader) mangle(v any) Stmt {
	f := r.object(v, "mangle")
	return &mangleLit{key: r.expr(f["key"]), value: r.expr(f["value"]), pos: r.pos}
}

// named reads "counter": "name" or a map of names, nil if it is neither.
func (r *reader) reference(kind ObjectKind, v any) Stmt {
	switch x := v.(type) {
	case string:
		return &objectLit{kind: kind, name: r.symbol(x), pos: r.pos}
	case map[string]any:
		if _, ok := x["map"]; ok {
			return &objectLit{kind: kind, name: r.expr(v), pos: r.pos}
		}
	}
	return nil
}

func (r *reader) counterStmt(v any) Stmt {
	if s := r.reference(ObjCounter, v); s != nil {
		return s
	}
	f := r.object(v, "counter")
	return r.simple(&Counter{Packets: r.uint(f, "packets", 64), Bytes: r.uint(f, "bytes", 64)})
}

// amount reads a number with its unit.
func (r *reader) amount(f fields, name, unitName string) (n, unit uint64) {
	unit = 1
	if s := r.text(f, unitName); s != "" {
		if unit = byteUnit(s); unit == 0 {
			r.fail("%s: unknown unit '%s', expecting bytes, kbytes or mbytes", unitName, s)
		}
	}
	n = r.uint(f, name, 64)
	if n*unit/unit != n {
		r.fail("%s: too many bytes", name)
	}
	return n * unit, unit
}

func (r *reader) quotaStmt(v any) Stmt {
	if s := r.reference(ObjQuota, v); s != nil {
		return s
	}
	f := r.object(v, "quota")
	q := &Quota{Over: r.bool(f, "inv")}
	q.Bytes, q.Unit = r.amount(f, "val", "val_unit")
	q.Used, _ = r.amount(f, "used", "used_unit")
	return r.simple(q)
}

func (r *reader) limitStmt(v any) Stmt {
	if s := r.reference(ObjLimit, v); s != nil {
		return s
	}
	return r.simple(r.limit(r.object(v, "limit")))
}

// limit reads a limit.
func (r *reader) limit(f fields) *Limit {
	l := &Limit{Over: r.bool(f, "inv"), Per: 1, RateUnit: 1, BurstUnit: 1}
	if s := r.text(f, "per"); s != "" {
		if l.Per = perSeconds(s); l.Per == 0 {
			r.fail("per: unknown unit of time '%s'", s)
		}
	}
	if unit := r.text(f, "rate_unit"); unit != "" && unit != "packets" {
		l.Bytes = true
		l.Rate, l.RateUnit = r.amount(f, "rate", "rate_unit")
		l.Burst, l.BurstUnit = r.amount(f, "burst", "burst_unit")
	} else {
		l.Rate, l.Burst = r.uint(f, "rate", 64), r.uint(f, "burst", 32)
		if l.Burst == 0 {
			l.Burst = 5
		}
	}
	if l.Rate == 0 {
		r.fail("limit rate must be a value greater than 0")
	}
	return l
}

func (r *reader) lastStmt(v any) Stmt {
	f := r.object(v, "last")
	l := &Last{}
	if _, ok := f["used"]; ok {
		l.Used, l.Set = duration(r.uint(f, "used", 48))*1e6, true
	}
	return r.simple(l)
}

func (r *reader) ctCount(v any) Stmt {
	f := r.object(v, "ct count")
	return r.simple(&CTCount{Count: uint32(r.uint(f, "val", 32)), Over: r.bool(f, "inv")})
}

func (r *reader) notrack(any) Stmt { return r.simple(&Notrack{}) }

func (r *reader) log(v any) Stmt {
	f := r.object(v, "log")
	l := &Log{Prefix: r.text(f, "prefix"), Level: r.text(f, "level")}
	_, l.HasGroup = f["group"]
	_, l.HasSnapLen = f["snaplen"]
	_, l.HasQueueThreshold = f["queue-threshold"]
	l.Group, l.SnapLen = uint16(r.uint(f, "group", 16)), uint32(r.uint(f, "snaplen", 32))
	l.QueueThreshold = uint16(r.uint(f, "queue-threshold", 16))
	if len(l.Prefix) > 127 {
		r.fail("log prefix is too long, 127 characters maximum allowed")
	}
	if l.Level != "" && !knownLevel(l.Level) {
		r.fail("invalid log level '%s'", l.Level)
	}
	for _, s := range r.symbols(f["flags"], "flags") {
		bit := logFlag(s.text)
		if bit == 0 {
			r.fail("unknown log flag '%s'", s.text)
		}
		l.Flags |= bit
	}
	if msg := l.conflict(); msg != "" {
		r.fail("%s", msg)
	}
	return r.simple(l)
}

func knownLevel(level string) bool {
	return slices.Contains(logLevelNames, level)
}

func logFlag(name string) uint32 {
	return map[string]uint32{"tcp sequence": 1, "tcp options": 2, "ip options": 4, "skuid": 8, "ether": 32, "all": logFlagsAll}[name]
}

func (r *reader) reject(v any) Stmt {
	f := r.object(v, "reject")
	l := &rejectLit{with: r.text(f, "type"), pos: r.pos}
	switch l.with {
	case "", "tcp reset":
		return l
	case "icmp", "icmpv6", "icmpx":
	default:
		r.fail("unknown reject type '%s'", l.with)
	}
	if f["expr"] == nil {
		r.fail("reject: expr is missing")
	}
	l.code = r.expr(f["expr"])
	return l
}

// nat reads a NAT statement.
func (r *reader) nat(kind NATKind, f fields) Stmt {
	n := &natLit{NAT: NAT{Kind: kind}, pos: r.pos}
	if s := r.text(f, "family"); s != "" {
		n.Family, n.Named = familyTable[s], true
		if n.Family != FamilyIP && n.Family != FamilyIP6 {
			r.fail("family: expecting ip or ip6")
		}
	}
	if f["addr"] != nil {
		n.Addr = r.expr(f["addr"])
	}
	if f["port"] != nil {
		n.Port = r.expr(f["port"])
	}
	n.Netmap = r.text(f, "type_flags") == "prefix"
	for _, s := range r.symbols(f["flags"], "flags") {
		switch s.text {
		case "random":
			n.Random = true
		case "fully-random":
			n.FullyRandom = true
		case "persistent":
			n.Persistent = true
		case "netmap":
			n.Netmap = true
		default:
			r.fail("unknown NAT flag '%s'", s.text)
		}
	}
	return n
}

// setStmt reads what a packet does to a set or a map.
func (r *reader) setStmt(v any) Stmt {
	f := r.object(v, "set")
	s := &setStmtLit{elem: r.elem(f["elem"]), pos: r.pos}
	switch op := r.needText(f, "op"); op {
	case "add", "update", "delete":
		s.op = setOpOf(op)
	default:
		r.fail("op: unknown operation '%s'", op)
	}
	name := r.text(f, "set")
	if name == "" {
		name = r.needText(f, "map")
	}
	if name == "" || name[0] != '@' {
		r.fail("set: expecting a name behind an @")
	}
	s.set = &setName{name: name[1:], pos: r.pos}
	if f["data"] != nil {
		s.elem.data = r.data(f["data"])
	}
	for _, x := range items(f["stmt"]) {
		s.elem.stmts = append(s.elem.stmts, r.state(x))
	}
	return s
}
