// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"net/netip"
	"strconv"
	"strings"
)

// What is printed is what ip(8) shows, without the space at the end of its lines,
// and can be parsed again: `add` and a line make the same route or rule. Where
// ip(8) leaves out a word without which that would fail, it is printed.

// String is the route as `ip route show table all` shows it, tables by number.
func (r *Route) String() string { return (*Names)(nil).Route(r) }

// String is the rule as `ip rule` shows it, tables by number.
func (r *Rule) String() string { return (*Names)(nil).Rule(r) }

// line collects words.
type line struct{ strings.Builder }

func (l *line) add(words ...string) {
	for _, w := range words {
		if l.Len() > 0 {
			l.WriteByte(' ')
		}
		l.WriteString(w)
	}
}

// number adds a word and a number, unless that is zero.
func (l *line) number(word string, n uint32) {
	if n != 0 {
		l.add(word, utoa(n))
	}
}

// Hex is C's %#x, which writes zero without 0x.
func Hex(n uint32) string {
	if n == 0 {
		return "0"
	}
	return "0x" + strconv.FormatUint(uint64(n), 16)
}

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// Route is the route as `ip route show table all` shows it; several next hops
// take a line each.
func (n *Names) Route(r *Route) string {
	var l line
	if r.Type != Unicast && r.Type != TypeNone {
		l.add(r.Type.String())
	}
	l.add(prefixText(r.Prefix, "default"))
	single := len(r.NextHops) == 1
	if single {
		l.via(&r.NextHops[0], r.is6())
	}
	if len(r.NextHops) == 0 && r.is6() && r.Type.refuses() {
		l.add("dev", loopback)
	}
	n.routeKey(&l, r)
	if single {
		l.flags(&r.NextHops[0])
	}
	l.sizes(r)
	if r.is6() {
		l.add("pref", "medium")
	}
	if !single {
		l.hops(r)
	}
	return l.String()
}

// routeKey adds the table, the origin, the scope, the source and the metric.
func (n *Names) routeKey(l *line, r *Route) {
	if r.Table != 0 && (r.Table != TableMain || r.Type.home() != TableMain) {
		l.add("table", n.TableName(r.Table))
	}
	if r.Proto != ProtoBoot && r.Proto != 0 {
		l.add("proto", r.Proto.String())
	}
	if r.Scope != ScopeNone && (r.Scope != ScopeGlobal || r.defaultScope() != ScopeGlobal) {
		l.add("scope", r.Scope.String())
	}
	if r.Src.IsValid() {
		l.add("src", r.Src.String())
	}
	if r.is6() {
		l.add("metric", utoa(r.Metric))
	} else {
		l.number("metric", r.Metric)
	}
}

func (l *line) sizes(r *Route) {
	if r.MTULock {
		l.add("mtu", "lock", utoa(r.MTU))
	} else {
		l.number("mtu", r.MTU)
	}
	l.number("advmss", r.AdvMSS)
}

// hops adds each next hop on a line of its own.
func (l *line) hops(r *Route) {
	for i := range r.NextHops {
		h := &r.NextHops[i]
		l.WriteString("\n\tnexthop")
		l.via(h, r.is6())
		l.add("weight", utoa(uint32(max(h.Weight, 1))))
		l.flags(h)
	}
}

func (l *line) via(h *NextHop, v6 bool) {
	switch {
	case !h.Via.IsValid():
	case h.Via.Is6() != v6:
		l.add("via", "inet6", h.Via.String())
	default:
		l.add("via", h.Via.String())
	}
	if h.Dev != "" {
		l.add("dev", h.Dev)
	}
}

func (l *line) flags(h *NextHop) {
	if h.Dead {
		l.add("dead")
	}
	if h.Onlink {
		l.add("onlink")
	}
}

// prefixText is a prefix without the length that an address has anyway.
func prefixText(p netip.Prefix, everything string) string {
	switch {
	case p.Bits() == 0 || !p.IsValid():
		return everything
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// Rule is the rule as `ip rule` shows it.
func (n *Names) Rule(r *Rule) string {
	var l line
	if r.Not {
		l.add("not")
	}
	l.add("from", prefixText(r.From, "all"))
	if r.To.IsValid() {
		l.add("to", prefixText(r.To, "all"))
	}
	l.selectors(r)
	n.action(&l, r)
	if r.Origin != 0 && r.Origin != ProtoKernel {
		l.add("proto", r.Origin.String())
	}
	if !r.PrioritySet {
		return l.String()
	}
	return utoa(r.Priority) + ":\t" + l.String()
}

func (l *line) selectors(r *Rule) {
	if r.TOS != 0 {
		l.add("tos", Hex(uint32(r.TOS)))
	}
	switch r.Mask {
	case 0:
	case ^uint32(0):
		l.add("fwmark", Hex(r.Mark))
	default:
		l.add("fwmark", Hex(r.Mark)+"/"+Hex(r.Mask))
	}
	for _, dev := range [][2]string{{"iif", r.IIF}, {"oif", r.OIF}} {
		if dev[1] != "" {
			l.add(dev[:]...)
		}
	}
	if r.Proto != 0 {
		l.add("ipproto", IPProtoName(r.Proto))
	}
	l.ports("sport", r.Sport)
	l.ports("dport", r.Dport)
}

func (l *line) ports(word string, p Ports) {
	switch {
	case p == Ports{}:
	case p.From == p.To:
		l.add(word, utoa(uint32(p.From)))
	default:
		l.add(word, utoa(uint32(p.From))+"-"+utoa(uint32(p.To)))
	}
}

// IPProtoName is the name of an IP protocol that has ports, or its number.
func IPProtoName(number uint8) string {
	for name, n := range protoNumbersTable {
		if n == number {
			return name
		}
	}
	return utoa(uint32(number))
}

func (n *Names) action(l *line, r *Rule) {
	switch {
	case r.Action == ActionGoto:
		l.add("goto", utoa(r.Goto))
	case r.Action != ActionLookup:
		l.add(r.Action.String())
	case r.L3mdev:
		l.add("lookup", "[l3mdev-table]")
	default:
		l.add("lookup", n.TableName(orElse(r.Table, TableMain)))
	}
	if r.Suppress {
		l.add("suppress_prefixlength", utoa(uint32(r.SuppressLen)))
	}
}

// Decision is the answer to a question in words: where the packet goes, and the
// rule, table and route that say so. src is the source that the namespace would
// take, if it is known; else the route's is shown.
func (n *Names) Decision(q *Question, res *Result, src netip.Addr) string {
	var l line
	if res.Type != Unicast {
		l.add(answerWord(res))
	}
	l.add(q.Dst.String())
	if q.Src.IsValid() {
		l.add("from", q.Src.String())
	}
	if q.From != "" {
		l.add("iif", q.From)
	}
	if res.NextHop != nil {
		l.via(res.NextHop, q.Dst.Is6())
	}
	if r := res.Route; r != nil {
		l.add("table", n.TableName(r.Table))
		// Of what is forwarded the kernel tells IPv6's only (rt_fill_info, rt6_fill_node).
		if src = orElse(src, r.Src); src.IsValid() && (q.From == "" || q.Dst.Is6()) {
			l.add("src", src.String())
		}
		l.sizes(r)
	}
	n.reasons(&l, res)
	return l.String()
}

// reasons adds the rule and the route, a line each.
func (n *Names) reasons(l *line, res *Result) {
	if res.Rule != nil {
		l.WriteString("\n    rule  " + strings.Replace(n.Rule(res.Rule), "\t", " ", 1))
	}
	if res.Route != nil {
		l.WriteString("\n    route " + strings.ReplaceAll(n.Route(res.Route), "\n\t", "\n          "))
	}
}

// answerWord says what becomes of a packet that no next hop takes.
func answerWord(res *Result) string {
	if res.Type == TypeNone {
		return "unreachable"
	}
	return res.Type.String()
}
