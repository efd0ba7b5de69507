// SPDX-License-Identifier: Apache-2.0

package nft

import "strings"

func (s *Match) print(p *printer) {
	if s.flagMask(p) {
		return
	}
	s.Left.print(p)
	p.WriteString(" ")
	if op := s.operator(); op != "" {
		p.WriteString(op + " ")
	}
	p.right(s)
}

// operator is the sign that is listed, "" if it goes without saying.
func (s *Match) operator() string {
	v, isValue := s.Right.(*Value)
	switch s.Op {
	case AnyBit:
		return ""
	case Eq:
		_, binary := s.Left.(*Binary)
		if _, isRange := s.Right.(*Range); isRange {
			return ""
		}
		flag := isValue && v.Type.info().flag
		if !binary && !flag {
			return ""
		}
	default:
	}
	return opNames[s.Op]
}

// right writes the right side; what flags look like depends on the operator.
func (p *printer) right(s *Match) {
	v, ok := s.Right.(*Value)
	switch {
	case !ok || !v.Type.info().flag || v.Type == TypeCTLabel:
		p.constantOf(s)
	case s.Op == AnyBit || s.Op == NoBit:
		p.flagValue(v, ",")
	case isZero(v.Data) || v.Type == TypeTCPFlag && manyBits(v):
		p.WriteString(numberText(v))
	default:
		p.flagValue(v, " | ")
	}
}

// constantOf writes a constant; raw bytes are in hexadecimal.
func (p *printer) constantOf(s *Match) {
	if v, ok := s.Right.(*Value); ok && rawLoad(s.Left) {
		hex := *v
		hex.Type = TypeBitmask
		p.WriteString(numberText(&hex))
		return
	}
	s.Right.print(p)
}

// rawLoad says whether an expression is of bytes that have no name.
func rawLoad(x Expr) bool {
	switch x := x.(type) {
	case *Payload:
		return x.Proto == ""
	case *Binary:
		return rawLoad(x.Left)
	}
	return false
}

// flagMask writes "tcp flags syn / syn,ack".
func (s *Match) flagMask(p *printer) bool {
	b, ok := s.Left.(*Binary)
	if !ok || b.Op != BinAnd || s.Op != Eq && s.Op != Ne || !b.Type.info().flag || b.Type == TypeCTLabel {
		return false
	}
	mask := b.Right.(*Value)
	v, ok := s.Right.(*Value)
	if !ok || !manyBits(mask) {
		return false
	}
	b.Left.print(p)
	p.WriteString(" ")
	if s.Op == Ne {
		p.WriteString("!= ")
	}
	p.flagValue(v, ",")
	p.WriteString(" / ")
	p.flagValue(mask, ",")
	return true
}

func (s *VMap) print(p *printer) {
	s.Key.print(p)
	p.WriteString(" vmap ")
	s.Of.print(p)
}

func (s *Verdict) print(p *printer) {
	p.WriteString(verdictNames[s.Kind])
	switch {
	case s.Body != nil:
		p.body(s)
	case s.Chain != "":
		p.WriteString(" " + s.Chain)
	}
}

// body writes the rules of an anonymous chain.
func (p *printer) body(s *Verdict) {
	p.WriteString(" {\n")
	p.indent++
	for _, r := range s.Body {
		p.WriteString(strings.Repeat("\t", p.indent))
		p.rule(r)
		p.WriteString("\n")
	}
	p.indent--
	p.WriteString(strings.Repeat("\t", p.indent) + "}")
}

// counts are the numbers of a counter as they are now.
func (p *printer) counts(c *Counter) (packets, bytes uint64) {
	if p.State != nil {
		return p.State.Counter(c)
	}
	return c.Packets, c.Bytes
}

func (s *Counter) print(p *printer) {
	p.WriteString("counter")
	if !p.Stateless {
		packets, bytes := p.counts(s)
		p.printf(" packets %d bytes %d", packets, bytes)
	}
}

// unitOf is the biggest unit that divides n.
func unitOf(n uint64) (uint64, string) {
	switch {
	case n != 0 && n%(1<<20) == 0:
		return n >> 20, "mbytes"
	case n != 0 && n%(1<<10) == 0:
		return n >> 10, "kbytes"
	default:
		return n, "bytes"
	}
}

func (s *Quota) print(p *printer) {
	p.WriteString("quota ")
	p.quotaText(s)
}

func (p *printer) quotaText(s *Quota) {
	if s.Over {
		p.WriteString("over ")
	}
	n, unit := unitOf(s.Bytes)
	p.printf("%d %s", n, unit)
	used := p.quotaUsed(s)
	if used > 0 && !p.Stateless {
		n, unit := unitOf(used)
		p.printf(" used %d %s", n, unit)
	}
}

func (p *printer) quotaUsed(s *Quota) uint64 {
	if p.State != nil {
		return p.State.Quota(s)
	}
	return s.Used
}

var perNames = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}

func (s *Limit) print(p *printer) {
	p.WriteString("limit ")
	p.limitText(s)
}

func (p *printer) limitText(s *Limit) {
	p.WriteString("rate ")
	if s.Over {
		p.WriteString("over ")
	}
	if !s.Bytes {
		p.printf("%d/%s", s.Rate, perNames[s.Per])
		if s.Burst != 5 {
			p.printf(" burst %d packets", s.Burst)
		}
		return
	}
	n, unit := unitOf(s.Rate)
	p.printf("%d %s/%s", n, unit, perNames[s.Per])
	if s.Burst > 0 {
		n, unit := unitOf(s.Burst)
		p.printf(" burst %d %s", n, unit)
	}
}

func (s *Last) print(p *printer) {
	p.WriteString("last")
	if p.Stateless {
		return
	}
	ago, set := s.Used, s.Set
	if p.State != nil {
		ago, set = p.State.Last(s)
	}
	if set {
		p.WriteString(" used " + p.time(ago))
	} else {
		p.WriteString(" used never")
	}
}

func (s *CTCount) print(p *printer) {
	p.WriteString("ct count ")
	if s.Over {
		p.WriteString("over ")
	}
	p.printf("%d", s.Count)
}

func (s *ObjectRef) print(p *printer) {
	p.WriteString(s.Kind.String() + " name ")
	if s.Map != nil {
		s.Map.print(p)
		return
	}
	p.printf("\"%s\"", s.Name)
}

func (s *Log) print(p *printer) {
	p.WriteString("log")
	if s.Prefix != "" {
		p.printf(" prefix \"%s\"", s.Prefix)
	}
	if s.HasGroup {
		p.printf(" group %d", s.Group)
	}
	if s.HasSnapLen {
		p.printf(" snaplen %d", s.SnapLen)
	}
	if s.HasQueueThreshold {
		p.printf(" queue-threshold %d", s.QueueThreshold)
	}
	if s.Level != "" && s.Level != "warn" {
		p.WriteString(" level " + s.Level)
	}
	s.flagsText(p)
}

// logFlagsAll are all flags that a log can have.
const logFlagsAll = 47

func (s *Log) flagsText(p *printer) {
	if s.Flags == logFlagsAll {
		p.WriteString(" flags all")
		return
	}
	switch s.Flags & 3 {
	case 1:
		p.WriteString(" flags tcp sequence")
	case 2:
		p.WriteString(" flags tcp options")
	case 3:
		p.WriteString(" flags tcp sequence,options")
	}
	for _, f := range []struct {
		bit  uint32
		name string
	}{{4, "ip options"}, {8, "skuid"}, {32, "ether"}} {
		if s.Flags&f.bit != 0 {
			p.WriteString(" flags " + f.name)
		}
	}
}

func (s *Reject) print(p *printer) {
	p.WriteString("reject")
	f := p.table.Family
	switch {
	case s.Kind == RejectTCP:
		p.WriteString(" with tcp reset")
	case s.Kind == RejectICMPX && s.Code == 1,
		s.Kind == RejectICMP && s.Code == 3 && f == FamilyIP,
		s.Kind == RejectICMPv6 && s.Code == 4 && f == FamilyIP6:
	default:
		name, t := s.kind()
		p.WriteString(" with " + name + " ")
		smallValue(uint64(s.Code), Spec{Type: t, Bits: 8}).print(p)
	}
}

// kind is the language of the answer, and the type of its codes.
func (s *Reject) kind() (string, Type) {
	switch s.Kind {
	case RejectICMP:
		return "icmp", TypeICMPCode
	case RejectICMPv6:
		return "icmpv6", TypeICMPv6Code
	default:
		return "icmpx", TypeICMPXCode
	}
}

func (s *NAT) print(p *printer) {
	p.WriteString(natNames[s.Kind])
	if (s.Named || s.AddrPort || s.Interval || s.Netmap) && s.Addr != nil {
		p.WriteString(" " + s.Family.String())
	}
	if s.Netmap {
		p.WriteString(" prefix")
	}
	if s.Addr != nil || s.Port != nil {
		p.WriteString(" to ")
	}
	if s.Addr != nil {
		s.addrText(p)
	}
	if s.Port != nil {
		p.WriteString(":")
		s.Port.print(p)
	}
	s.natFlags(p)
}

// addrText writes the address; one of IPv6 before a port in brackets.
func (s *NAT) addrText(p *printer) {
	if r, ok := s.Addr.(*Range); ok {
		if x, ok := rangeOrPrefix(r.From.Spec, r.From.Data, r.To.Data).(*Prefix); ok && s.Port == nil {
			x.print(p)
			return
		}
	}
	if s.Family != FamilyIP6 || s.Port == nil {
		s.Addr.print(p)
		return
	}
	switch x := s.Addr.(type) {
	case *Range:
		p.WriteString("[")
		x.From.print(p)
		p.WriteString("]-[")
		x.To.print(p)
		p.WriteString("]")
	case *Value, *Prefix:
		p.WriteString("[")
		x.print(p)
		p.WriteString("]")
	default:
		x.print(p)
	}
}

func (s *NAT) natFlags(p *printer) {
	between := " "
	for _, f := range s.flagNames() {
		p.WriteString(between + f)
		between = ","
	}
}

// flagNames are the flags that are set.
func (s *NAT) flagNames() []string {
	var list []string
	for _, f := range []struct {
		on   bool
		name string
	}{{s.Random, "random"}, {s.FullyRandom, "fully-random"}, {s.Persistent, "persistent"}} {
		if f.on {
			list = append(list, f.name)
		}
	}
	return list
}

func (s *Notrack) print(p *printer) { p.WriteString("notrack") }

func isCT(x Expr) bool {
	_, is := x.(*CT)
	return is
}

func (s *Mangle) print(p *printer) {
	s.Key.print(p)
	p.WriteString(" set ")
	v, ok := s.Value.(*Value)
	switch {
	case ok && v.Type.info().flag && v.Type != TypeCTLabel:
		between := " | "
		if isCT(s.Key) {
			between = ","
		}
		p.flagValue(v, between)
	case ok && rawLoad(s.Key):
		hex := *v
		hex.Type = TypeBitmask
		p.WriteString(numberText(&hex))
	default:
		s.Value.print(p)
	}
}

var setOpNames = [...]string{SetAdd: "add", SetUpdate: "update", SetDelete: "delete"}

func (s *SetStmt) print(p *printer) {
	p.printf("%s @%s { ", setOpNames[s.Op], s.Set)
	s.Key.print(p)
	if s.Timeout > 0 {
		p.WriteString(" timeout " + p.time(s.Timeout))
	}
	if s.Expires > 0 {
		p.WriteString(" expires " + p.time(s.Expires))
	}
	if s.Comment != "" {
		p.printf(" comment \"%s\"", s.Comment)
	}
	for _, st := range s.Stmts {
		p.WriteString(" ")
		p.template(st)
	}
	if s.Data != nil {
		p.WriteString(" : ")
		s.Data.print(p)
	}
	p.WriteString(" }")
}
