// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Version is the version of nft that this package writes as.
const Version = "1.0.6"

// object is a JSON object whose members have an order.
type object []member

// member is one of an object's.
type member struct {
	name  string
	value any
}

// one is an object of one member.
func one(name string, value any) object { return object{{name, value}} }

// add appends a member.
func (o *object) add(name string, value any) { *o = append(*o, member{name, value}) }

// list is a JSON array.
type list []any

// writeJSON writes a value with a blank behind commas and colons, as nft does.
func writeJSON(b *strings.Builder, v any) {
	switch v := v.(type) {
	case object:
		b.WriteString("{")
		for i, m := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			writeJSON(b, m.name)
			b.WriteString(": ")
			writeJSON(b, m.value)
		}
		b.WriteString("}")
	case list:
		b.WriteString("[")
		for i, x := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			writeJSON(b, x)
		}
		b.WriteString("]")
	case uint64:
		b.WriteString(strconv.FormatUint(v, 10))
	case json.Number:
		b.WriteString(v.String())
	case nil:
		b.WriteString("null")
	case string:
		writeString(b, v)
	default:
		fmt.Fprint(b, v) // integers and booleans
	}
}

// writeString writes a string; only what JSON demands is escaped.
func writeString(b *strings.Builder, s string) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err == nil {
		b.Write(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
	}
}

// unwrapped is one value if there is but one, otherwise all.
func unwrapped(l list) any {
	if len(l) == 1 {
		return l[0]
	}
	return l
}

func stringList(names []string) list {
	var l list
	for _, n := range names {
		l = append(l, n)
	}
	return l
}

// ListJSON writes all tables as "nft -j list ruleset".
func (r *Ruleset) ListJSON(o *ListOptions) []byte {
	p := newPrinter(o)
	out := list{one("metainfo", object{{"version", Version}, {"release_name", "Lester Gooch #5"}, {"json_schema_version", 1}})}
	for _, t := range r.Tables {
		p.table = t
		out = append(out, p.tableJSON(t)...)
	}
	var b strings.Builder
	writeJSON(&b, one("nftables", out))
	b.WriteString("\n")
	return []byte(b.String())
}

// tableJSON are the objects of a table.
func (p *printer) tableJSON(t *Table) list {
	o := object{{"family", t.Family.String()}, {"name", t.Name}, {"handle", t.Handle}}
	if flags := tableFlags(t); flags != nil {
		o.add("flags", unwrapped(stringList(flags)))
	}
	if t.Comment != "" {
		o.add("comment", t.Comment)
	}
	out := list{one("table", o)}
	for _, x := range t.Objects {
		out = append(out, p.objectJSON(t, x))
	}
	for _, s := range t.Sets {
		out = append(out, p.setJSON(t, s))
	}
	var rules list
	for _, c := range t.Chains {
		out = append(out, p.chainJSON(t, c))
		for _, r := range c.Rules {
			rules = append(rules, p.ruleJSON(t, c, r))
		}
	}
	return append(out, rules...)
}

func (p *printer) chainJSON(t *Table, c *Chain) any {
	o := object{{"family", t.Family.String()}, {"table", t.Name}, {"name", c.Name}, {"handle", c.Handle}}
	if c.Comment != "" {
		o.add("comment", c.Comment)
	}
	if c.Base {
		policy := "accept"
		if c.Drop {
			policy = "drop"
		}
		o = append(o, object{{"type", c.Type.String()}, {"hook", c.Hook.String()}, {"prio", int(c.Prio)}}...)
		if len(c.Devices) > 0 {
			o.add("dev", unwrapped(stringList(c.Devices)))
		}
		o.add("policy", policy)
	}
	return one("chain", o)
}

func (p *printer) ruleJSON(t *Table, c *Chain, r *Rule) any {
	o := object{{"family", t.Family.String()}, {"table", t.Name}, {"chain", c.Name}, {"handle", r.Handle}}
	if r.Comment != "" {
		o.add("comment", r.Comment)
	}
	o.add("expr", p.stmtsJSON(r.Stmts))
	return one("rule", o)
}

// stmtsJSON are the statements of a rule, without those that are implied.
func (p *printer) stmtsJSON(stmts []Stmt) list {
	out := list{}
	for _, s := range stmts {
		if m, ok := s.(*Match); ok && m.Implied {
			continue
		}
		out = append(out, s.toJSON(p))
	}
	return out
}

func (p *printer) objectJSON(t *Table, x *Object) any {
	o := object{{"family", t.Family.String()}, {"name", x.Name}, {"table", t.Name}, {"handle", x.Handle}}
	if x.Comment != "" {
		o.add("comment", x.Comment)
	}
	switch s := x.Stmt.(type) {
	case *Counter:
		packets, bytes := p.counts(s)
		o = append(o, object{{"packets", packets}, {"bytes", bytes}}...)
	case *Quota:
		o = append(o, object{{"bytes", s.Bytes}, {"used", p.quotaUsed(s)}, {"inv", s.Over}}...)
	case *Limit:
		o = append(o, limitObjectJSON(s)...)
	}
	return one(x.Kind.String(), o)
}

// limitObjectJSON is a named limit, which has another order than one in a rule.
func limitObjectJSON(s *Limit) object {
	rate, rateUnit, burst, burstUnit := s.units()
	o := object{{"rate", rate}, {"per", perNames[s.Per]}, {"burst", burst}}
	if s.Bytes {
		o = append(o, object{{"rate_unit", rateUnit}, {"burst_unit", burstUnit}}...)
	}
	if s.Over {
		o.add("inv", true)
	}
	return o
}

// units are rate and burst in their biggest units.
func (s *Limit) units() (rate uint64, rateUnit string, burst uint64, burstUnit string) {
	if !s.Bytes {
		return s.Rate, "packets", s.Burst, "packets"
	}
	rate, rateUnit = unitOf(s.Rate)
	burst, burstUnit = unitOf(s.Burst)
	return rate, rateUnit, burst, burstUnit
}

func typeJSON(specs []Spec) any { return unwrapped(stringList(typeNamesOf(specs))) }

// keyTypeJSON is the type of a key, or the expression that stands for it.
func (p *printer) keyTypeJSON(s *Set) any {
	if s.KeyExpr != nil {
		return one("typeof", s.KeyExpr.toJSON(p))
	}
	return typeJSON(s.Key)
}

func (p *printer) dataTypeJSON(s *Set) any {
	if s.DataExpr != nil {
		return one("typeof", s.DataExpr.toJSON(p))
	}
	return typeJSON(s.Data)
}

func typeNamesOf(specs []Spec) []string { return strings.Split(typeNames(specs), " . ") }

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// setJSON is a set or a map.
func (p *printer) setJSON(t *Table, s *Set) any {
	o := object{{"family", t.Family.String()}, {"name", s.Name}, {"table", t.Name}, {"type", p.keyTypeJSON(s)}, {"handle", s.Handle}}
	word := "set"
	if s.Comment != "" {
		o.add("comment", s.Comment)
	}
	if s.IsMap {
		word = "map"
		if s.ObjKind != ObjNone {
			o.add("map", s.ObjKind.String())
		} else {
			o.add("map", p.dataTypeJSON(s))
		}
	}
	if s.Memory {
		o.add("policy", "memory")
	}
	if s.Size > 0 {
		o.add("size", uint64(s.Size))
	}
	p.setOptionsJSON(s, &o)
	if elems := p.sorted(s); len(elems) > 0 && !p.Terse {
		o.add("elem", p.elemsJSON(s, elems))
	}
	var stmts list
	for _, st := range s.Stmts {
		stmts = append(stmts, p.templateJSON(st))
	}
	if stmts != nil {
		o.add("stmt", stmts)
	}
	return one(word, o)
}

func (p *printer) setOptionsJSON(s *Set, o *object) {
	if flags := s.flagNames(); flags != nil {
		o.add("flags", stringList(flags))
	}
	if s.AutoMerge {
		o.add("auto-merge", true)
	}
	if s.Timeout > 0 {
		o.add("timeout", seconds(s.Timeout))
	}
	if s.GCInterval > 0 {
		o.add("gc-interval", seconds(s.GCInterval))
	}
}

// templateJSON is a statement without what it counted.
func (p *printer) templateJSON(st Stmt) any {
	if _, ok := st.(*Counter); ok {
		return one("counter", nil)
	}
	return st.toJSON(p)
}

func (p *printer) elemsJSON(s *Set, elems []*Elem) list {
	out := list{}
	for _, e := range elems {
		out = append(out, p.elemJSON(s, e))
	}
	return out
}

// elemJSON is an element, of a map a pair.
func (p *printer) elemJSON(s *Set, e *Elem) any {
	key := p.elemKeyJSON(s, e)
	switch {
	case e.Verdict != nil:
		return list{key, e.Verdict.toJSON(p)}
	case e.Object != "":
		return list{key, e.Object}
	case s.IsMap:
		return list{key, p.partsJSON(s.Data, e.Data, e.DataEnd)}
	}
	return key
}

func (p *printer) elemKeyJSON(s *Set, e *Elem) any {
	var key any = "*"
	if e.Key != "" {
		key = p.partsJSON(s.Key, e.Key, e.End)
	}
	o := object{{"val", key}}
	if e.Timeout > 0 {
		o.add("timeout", seconds(e.Timeout))
	}
	if e.Expires > 0 {
		o.add("expires", seconds(e.Expires))
	}
	if e.Comment != "" {
		o.add("comment", e.Comment)
	}
	for _, st := range e.Stmts {
		if x, ok := st.toJSON(p).(object); ok {
			o = append(o, x...)
		}
	}
	if len(o) == 1 {
		return key
	}
	return one("elem", o)
}

// partsJSON are the values of a concatenation.
func (p *printer) partsJSON(specs []Spec, from, to string) any {
	var parts list
	at := 0
	for _, spec := range specs {
		n := spec.Bytes()
		parts = append(parts, rangeOrPrefix(spec, from[at:at+n], to[at:at+n]).toJSON(p))
		at += n
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return one("concat", parts)
}
