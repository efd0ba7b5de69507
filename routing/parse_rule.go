// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"net/netip"
	"strconv"
	"strings"
)

// refusedRuleWords are words of ip-rule(8) that this package has no use for.
var refusedRuleWords = []string{
	"uidrange", "tun_id", "realms", "nat", "map-to", "suppress_ifgroup", "sup_group", "flowlabel",
}

// ruleLine is a rule while it is read.
type ruleLine struct {
	rule   *Rule
	table  bool // the table was said
	action bool // another action was said
}

func (w *words) rule() (Change, error) {
	word := w.take()
	op, ok := map[string]Op{"add": OpAdd, "delete": OpDelete}[command(word, "add", "delete")]
	switch {
	case !ok:
		return Change{}, w.wrong("want add or del")
	case op == OpDelete && !w.more():
		return Change{}, w.wrong("needs arguments")
	}
	l := ruleLine{rule: &Rule{}}
	if err := each(w, &l, ruleWordsTable, plainRuleWord); err != nil {
		return Change{}, err
	}
	l.rule.Family = w.family
	return Change{Op: op, Rule: l.rule}, nil
}

// ruleWordsTable are the keywords of a rule.
var ruleWordsTable = map[string]keyword[ruleLine]{
	"not":        func(_ *words, l *ruleLine) error { l.rule.Not = true; return nil },
	"from":       func(w *words, l *ruleLine) error { return w.selector(&l.rule.From) },
	"to":         func(w *words, l *ruleLine) error { return w.selector(&l.rule.To) },
	"preference": (*words).rulePriority,
	"order":      (*words).rulePriority,
	"priority":   (*words).rulePriority,
	"pref":       (*words).rulePriority,
	"tos":        func(w *words, l *ruleLine) error { return w.tos(l.rule) },
	"dsfield":    func(w *words, l *ruleLine) error { return w.tos(l.rule) },
	"fwmark":     func(w *words, l *ruleLine) error { return w.fwmark(l.rule) },
	"dev":        func(w *words, l *ruleLine) error { return w.device(&l.rule.IIF) },
	"iif":        func(w *words, l *ruleLine) error { return w.device(&l.rule.IIF) },
	"oif":        func(w *words, l *ruleLine) error { return w.device(&l.rule.OIF) },
	"ipproto":    func(w *words, l *ruleLine) error { return w.ipproto(&l.rule.Proto) },
	"sport":      func(w *words, l *ruleLine) error { return w.ports(&l.rule.Sport) },
	"dport":      func(w *words, l *ruleLine) error { return w.ports(&l.rule.Dport) },
	"protocol":   func(w *words, l *ruleLine) error { return w.text(&l.rule.Origin) },
	"proto":      func(w *words, l *ruleLine) error { return w.text(&l.rule.Origin) },
	"l3mdev":     func(_ *words, l *ruleLine) error { l.rule.L3mdev = true; return nil },

	"table":                 (*words).ruleTable,
	"lookup":                (*words).ruleTable,
	"suppress_prefixlength": func(w *words, l *ruleLine) error { return w.suppress(l.rule) },
	"sup_pl":                func(w *words, l *ruleLine) error { return w.suppress(l.rule) },
	"goto":                  (*words).ruleGoto,
	"type":                  func(w *words, l *ruleLine) error { w.take(); return plainAction(w, l) },

	// What the kernel adds of itself when it shows a rule.
	"[detached]":   func(*words, *ruleLine) error { return nil },
	"[unresolved]": func(*words, *ruleLine) error { return nil },
}

// plainRuleWord reads a word without keyword: an action, or the priority as ip(8)
// shows it, "100:".
func plainRuleWord(w *words, l *ruleLine) error {
	if p, ok := strings.CutSuffix(w.word, ":"); ok && !l.rule.PrioritySet {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return w.wrong("not a priority")
		}
		l.rule.Priority, l.rule.PrioritySet = uint32(n), true
		return nil
	}
	return plainAction(w, l)
}

// plainAction reads an action of one word.
func plainAction(w *words, l *ruleLine) error {
	n, ok := indexOf(actionNames[:], w.word)
	if a := Action(n); !ok || a < ActionNop {
		return w.unknown(refusedRuleWords)
	}
	return l.act(w, Action(n))
}

// act notes the action, of which there can be only one.
func (l *ruleLine) act(w *words, a Action) error {
	if l.table || l.action {
		return w.wrong("second action")
	}
	l.rule.Action = a
	l.action, l.table = a != ActionLookup, a == ActionLookup
	return nil
}

// selector reads from or to. Everything is the same as nothing stated, but it may
// tell the family.
func (w *words) selector(to *netip.Prefix) error {
	if err := w.prefix(to); err != nil {
		return err
	}
	if *to = to.Masked(); to.Bits() == 0 {
		*to = netip.Prefix{}
	}
	return nil
}

func (w *words) rulePriority(l *ruleLine) error {
	l.rule.PrioritySet = true
	return w.uint32(&l.rule.Priority)
}

func (w *words) tos(r *Rule) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(arg, "0x"), 16, 8) // ip(8) reads hexadecimal
	if err != nil || n&3 != 0 {
		return w.wrong("want a hexadecimal byte whose ECN bits are 0")
	}
	r.TOS = uint8(n)
	return nil
}

// fwmark reads MARK or MARK/MASK.
func (w *words) fwmark(r *Rule) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	mark, mask, masked := strings.Cut(arg, "/")
	if !masked {
		mask = "0xffffffff"
	}
	m, err := strconv.ParseUint(mark, 0, 32)
	if err != nil {
		return w.wrong("not a mark")
	}
	k, err := strconv.ParseUint(mask, 0, 32)
	if err != nil {
		return w.wrong("not a mask")
	}
	r.Mark, r.Mask = uint32(m&k), uint32(k)
	return nil
}

// protoNumbersTable are the protocols that have ports, and ICMP.
var protoNumbersTable = map[string]uint8{
	"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "ipv6-icmp": 58, "sctp": 132, "udplite": 136,
}

// ipproto reads an IP protocol by its name in protocols(5) or its number.
func (w *words) ipproto(to *uint8) error {
	if n, ok := protoNumbersTable[w.peek()]; ok {
		w.take()
		*to = n
		return nil
	}
	n, err := w.number(8)
	*to = uint8(n)
	return err
}

// ports reads PORT or FROM-TO.
func (w *words) ports(to *Ports) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	low, high, ranged := strings.Cut(arg, "-")
	if !ranged {
		high = low
	}
	from, errFrom := strconv.ParseUint(low, 10, 16)
	upto, errTo := strconv.ParseUint(high, 10, 16)
	if errFrom != nil || errTo != nil || from > upto || from == 0 {
		return w.wrong("not a port or a range of ports")
	}
	*to = Ports{From: uint16(from), To: uint16(upto)}
	return nil
}

// ruleTable reads a table, or what stands for that of the VRF.
func (w *words) ruleTable(l *ruleLine) error {
	if w.skip("[l3mdev-table]") {
		l.rule.L3mdev = true
		return l.act(w, ActionLookup)
	}
	if err := w.table(&l.rule.Table); err != nil {
		return err
	}
	return l.act(w, ActionLookup)
}

func (w *words) ruleGoto(l *ruleLine) error {
	if err := l.act(w, ActionGoto); err != nil {
		return err
	}
	return w.uint32(&l.rule.Goto)
}

func (w *words) suppress(r *Rule) error {
	n, err := w.number(8)
	if err == nil && n > 128 {
		err = w.wrong("not a prefix length")
	}
	r.Suppress, r.SuppressLen = true, uint8(n)
	return err
}
