// SPDX-License-Identifier: Apache-2.0

package nft

func (s *Match) toJSON(p *printer) any {
	return one("match", object{{"op", opNames[s.Op]}, {"left", s.Left.toJSON(p)}, {"right", s.rightJSON(p)}})
}

// rightJSON is the right side; several flags are a list where bits are tested.
func (s *Match) rightJSON(p *printer) any {
	v, ok := s.Right.(*Value)
	if !ok || !v.Type.info().flag || v.Type == TypeCTLabel {
		return s.Right.toJSON(p)
	}
	tests := s.masks() || s.Op == AnyBit || s.Op == NoBit
	switch {
	case !manyBits(v):
		return p.flagsJSON(v)
	case tests:
		return p.flagNamesOf(v)
	case v.Type == TypeTCPFlag:
		return v.Uint()
	default:
		return p.flagsJSON(v)
	}
}

// masks says whether the left side is "flags & mask".
func (s *Match) masks() bool {
	_, ok := s.Left.(*Binary)
	return ok
}

func (s *VMap) toJSON(p *printer) any {
	return one("vmap", object{{"key", s.Key.toJSON(p)}, {"data", s.Of.toJSON(p)}})
}

// An anonymous chain has no form in libnftables-json; here its rules stand in
// the place of the target.
func (s *Verdict) toJSON(p *printer) any {
	name := verdictNames[s.Kind]
	if s.Body != nil {
		var rules list
		for _, r := range s.Body {
			o := one("expr", p.stmtsJSON(r.Stmts))
			if r.Comment != "" {
				o.add("comment", r.Comment)
			}
			rules = append(rules, o)
		}
		return one(name, one("chain", rules))
	}
	if s.Chain != "" {
		return one(name, one("target", s.Chain))
	}
	return one(name, nil)
}

func (s *Counter) toJSON(p *printer) any {
	if p.Stateless {
		return one("counter", nil)
	}
	packets, bytes := p.counts(s)
	return one("counter", object{{"packets", packets}, {"bytes", bytes}})
}

func (s *Quota) toJSON(p *printer) any {
	n, unit := unitOf(s.Bytes)
	o := object{{"val", n}, {"val_unit", unit}}
	if used := p.quotaUsed(s); used > 0 && !p.Stateless {
		n, unit := unitOf(used)
		o = append(o, object{{"used", n}, {"used_unit", unit}}...)
	}
	if s.Over {
		o.add("inv", true)
	}
	return one("quota", o)
}

func (s *Limit) toJSON(*printer) any {
	rate, rateUnit, burst, burstUnit := s.units()
	o := object{{"rate", rate}, {"burst", burst}, {"per", perNames[s.Per]}}
	if s.Over {
		o.add("inv", true)
	}
	if s.Bytes {
		o = append(o, object{{"rate_unit", rateUnit}, {"burst_unit", burstUnit}}...)
	}
	return one("limit", o)
}

func (s *Last) toJSON(p *printer) any {
	ago, set := s.Used, s.Set
	if p.State != nil {
		ago, set = p.State.Last(s)
	}
	if !set || p.Stateless {
		return one("last", nil)
	}
	return one("last", one("used", uint64(ago.Milliseconds())))
}

func (s *CTCount) toJSON(*printer) any {
	o := one("val", uint64(s.Count))
	if s.Over {
		o.add("inv", true)
	}
	return one("ct count", o)
}

func (s *ObjectRef) toJSON(p *printer) any {
	if s.Map != nil {
		return one(s.Kind.String(), s.Map.toJSON(p))
	}
	return one(s.Kind.String(), s.Name)
}

func (s *Log) toJSON(*printer) any {
	var o object
	if s.Prefix != "" {
		o.add("prefix", s.Prefix)
	}
	if s.HasGroup {
		o.add("group", int(s.Group))
	}
	if s.HasSnapLen {
		o.add("snaplen", uint64(s.SnapLen))
	}
	if s.HasQueueThreshold {
		o.add("queue-threshold", int(s.QueueThreshold))
	}
	if s.Level != "" && s.Level != "warn" {
		o.add("level", s.Level)
	}
	if flags := s.flagList(); flags != nil {
		o.add("flags", unwrapped(flags))
	}
	if o == nil {
		return one("log", nil)
	}
	return one("log", o)
}

// flagList are the flags as JSON has them.
func (s *Log) flagList() list {
	if s.Flags == logFlagsAll {
		return list{"all"}
	}
	var out list
	for _, f := range []struct {
		bit  uint32
		name string
	}{{1, "tcp sequence"}, {2, "tcp options"}, {4, "ip options"}, {8, "skuid"}, {32, "ether"}} {
		if s.Flags&f.bit != 0 {
			out = append(out, f.name)
		}
	}
	return out
}

func (s *Reject) toJSON(p *printer) any {
	if s.Kind == RejectTCP {
		return one("reject", one("type", "tcp reset"))
	}
	name, t := s.kind()
	code := smallValue(uint64(s.Code), Spec{Type: t, Bits: 8}).toJSON(p)
	return one("reject", object{{"type", name}, {"expr", code}})
}

func (s *NAT) toJSON(p *printer) any {
	var o object
	if (s.Named || s.AddrPort || s.Interval || s.Netmap) && s.Addr != nil {
		o.add("family", s.Family.String())
	}
	if s.Addr != nil {
		o.add("addr", s.addrJSON(p))
	}
	if s.Port != nil {
		o.add("port", s.Port.toJSON(p))
	}
	flags := stringList(s.flagNames())
	if s.Netmap {
		flags = append(flags, "netmap")
	}
	if len(flags) > 0 {
		o.add("flags", unwrapped(flags))
	}
	if s.Netmap {
		o.add("type_flags", "prefix")
	}
	if o == nil {
		return one(natNames[s.Kind], nil)
	}
	return one(natNames[s.Kind], o)
}

func (s *NAT) addrJSON(p *printer) any {
	if r, ok := s.Addr.(*Range); ok && s.Port == nil {
		return rangeOrPrefix(r.From.Spec, r.From.Data, r.To.Data).toJSON(p)
	}
	return s.Addr.toJSON(p)
}

func (s *Notrack) toJSON(*printer) any { return one("notrack", nil) }

func (s *Mangle) toJSON(p *printer) any {
	value := s.Value.toJSON(p)
	if v, ok := s.Value.(*Value); ok && v.Type.info().flag && v.Type != TypeCTLabel && manyBits(v) {
		if value = p.flagsJSON(v); isCT(s.Key) {
			value = p.flagNamesOf(v)
		}
	}
	return one("mangle", object{{"key", s.Key.toJSON(p)}, {"value", value}})
}

func (s *SetStmt) toJSON(p *printer) any {
	elem := s.Key.toJSON(p)
	e := one("val", elem)
	if s.Timeout > 0 {
		e.add("timeout", seconds(s.Timeout))
	}
	if s.Expires > 0 {
		e.add("expires", seconds(s.Expires))
	}
	if s.Comment != "" {
		e.add("comment", s.Comment)
	}
	if len(e) > 1 {
		elem = one("elem", e)
	}
	word, set := "set", "set"
	if s.Data != nil {
		word, set = "map", "map"
	}
	o := object{{"op", setOpNames[s.Op]}, {"elem", elem}}
	if s.Data != nil {
		o.add("data", s.Data.toJSON(p))
	}
	o.add(set, "@"+s.Set)
	var stmts list
	for _, st := range s.Stmts {
		stmts = append(stmts, p.templateJSON(st))
	}
	if stmts != nil {
		o.add("stmt", stmts)
	}
	return one(word, o)
}
