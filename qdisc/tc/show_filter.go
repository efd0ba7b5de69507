// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"fmt"

	"sluice/qdisc"
)

// Filters prints filters as tc filter show does: for each preference a line of its own,
// and one for the hash table of u32.
func Filters(all []qdisc.FilterReport, v View) string {
	p := &printer{asJSON: v.JSON}
	p.open("", '[')
	tables := uint32(0x7ff)
	for i := range all {
		f := &all[i].Filter
		if i == 0 || all[i-1].Filter.Prio != f.Prio || all[i-1].Filter.Parent != f.Parent {
			p.filterHead(f, v)
			p.text("\n")
			p.close('}')
			if f.Kind == "u32" {
				tables++
				p.filterHead(f, v)
				p.open("options", '{')
				p.field("fh", fmt.Sprintf("%x:", tables), "fh %x: ", tables)
				p.num("ht_divisor", "ht divisor %d \n", 1)
				p.close('}')
				p.close('}')
			}
		}
		p.filter(&all[i], tables, v)
	}
	p.close(']')
	return p.finish(v)
}

func (p *printer) filterHead(f *qdisc.Filter, v View) {
	p.open("", '{')
	p.text("filter ")
	p.dev(v)
	p.num("parent", "parent %s ", f.Parent.String())
	p.num("protocol", "protocol %s ", protocolName(f.Protocol))
	p.num("pref", "pref %d ", f.Prio)
	p.num("kind", "%s ", f.Kind)
	p.num("chain", "chain %d ", 0)
}

func (p *printer) filter(r *qdisc.FilterReport, table uint32, v View) {
	f := &r.Filter
	p.filterHead(f, v)
	p.open("options", '{')
	switch f.Kind {
	case "u32":
		p.u32(f, table)
	case "flower":
		p.flower(f)
	case "fw":
		p.fw(f)
	default:
		p.field("handle", f.Handle, "handle %#x ", f.Handle)
		p.flowid("flowid", f)
		p.json("not_in_hw", true)
		p.text("\n  not_in_hw")
		if v.Stats {
			p.num("rule_hit", " (rule hit %d)", r.Hits)
		}
		p.text("\n")
	}
	p.actions(r, v)
	p.close('}')
	p.close('}')
}

func protocolName(typ uint16) string {
	for _, x := range protocolTable {
		if x.typ == typ {
			return x.name
		}
	}
	return fmt.Sprintf("[%d]", typ)
}

func (p *printer) flowid(word string, f *qdisc.Filter) {
	if f.Class != 0 {
		p.num(word, word+" %s ", f.Class.String())
	}
}

func (p *printer) fw(f *qdisc.Filter) {
	if f.HasMask {
		p.field("mark", fmt.Sprintf("%#x", f.Mark), "handle %#x", f.Mark)
		p.field("mask", fmt.Sprintf("%#x", f.Mask), "/%#x ", f.Mask)
	} else if f.Mark != 0 {
		p.field("mark", fmt.Sprintf("%#x", f.Mark), "handle %#x ", f.Mark)
	}
	p.flowid("classid", f)
	p.text("\n")
}

func (p *printer) u32(f *qdisc.Filter, table uint32) {
	fh := fmt.Sprintf("%x::%x", table, f.Handle)
	p.field("fh", fh, "fh %s ", fh)
	p.num("order", "order %d ", f.Handle)
	p.field("key_ht", fmt.Sprintf("%x", table), "key ht %x ", table)
	p.num("bkt", "bkt %s ", "0")
	if f.Class != 0 {
		p.num("flowid", "*flowid %s ", f.Class.String())
	} else {
		p.text("terminal flowid ")
	}
	p.json("not_in_hw", true)
	p.text("not_in_hw\n")
	for _, k := range f.Keys {
		at := fmt.Sprint(k.Off)
		if k.AtNext {
			at = fmt.Sprintf("nexthdr+%d", k.Off)
		}
		p.text("  match %08x/%08x at %s\n", k.Value, k.Mask, at)
		p.open("match", '{')
		p.json("value", fmt.Sprintf("%x", k.Value))
		p.json("mask", fmt.Sprintf("%x", k.Mask))
		p.json("offmask", map[bool]string{true: "nexthdr+"}[k.AtNext])
		p.json("off", k.Off)
		p.close('}')
	}
}

func (p *printer) flower(f *qdisc.Filter) {
	k := f.Flower
	p.num("handle", "handle %#x ", f.Handle)
	p.flowid("classid", f)
	p.open("keys", '{')
	line := func(shown bool, key string, v any) {
		if shown {
			p.field(key, v, "\n  %s %v", key, v)
		}
	}
	line(k.HasVLAN, "vlan_id", k.VLAN)
	line(k.DstMask != [6]byte{}, "dst_mac", k.DstMAC.String())
	line(k.SrcMask != [6]byte{}, "src_mac", k.SrcMAC.String())
	line(f.Protocol != 0, "eth_type", flowerProtocol(f.Protocol))
	line(k.Proto != 0, "ip_proto", upperName(k.Proto))
	line(k.DstIP.IsValid(), "dst_ip", prefixText(k.DstIP))
	line(k.SrcIP.IsValid(), "src_ip", prefixText(k.SrcIP))
	line(k.DstPort[1] != 0, "dst_port", portsOrOne(k.DstPort))
	line(k.SrcPort[1] != 0, "src_port", portsOrOne(k.SrcPort))
	line(k.TOSMask != 0, "ip_tos", fmt.Sprintf("%#x/%x", k.TOS, k.TOSMask))
	line(k.HasICMP, "icmp_type", k.ICMPType)
	p.close('}')
	p.json("not_in_hw", true)
	p.text("\n  not_in_hw\n")
}

// flowerProtocol is flower's name of an EtherType.
func flowerProtocol(typ uint16) string {
	if name := protocolName(typ); name != "ip" {
		return name
	}
	return "ipv4"
}

func upperName(proto uint8) string {
	for _, x := range upperTable {
		if x.proto == proto {
			return x.name
		}
	}
	return fmt.Sprintf("%02x", proto)
}

func prefixText(x interface {
	IsValid() bool
	String() string
	Bits() int
	IsSingleIP() bool
},
) string {
	if !x.IsValid() {
		return ""
	}
	text := x.String()
	if x.IsSingleIP() {
		for i := range text {
			if text[i] == '/' {
				return text[:i]
			}
		}
	}
	return text
}

// portsOrOne is a number, or a range as text.
func portsOrOne(r [2]uint16) any {
	if r[0] == r[1] {
		return r[0]
	}
	return fmt.Sprintf("%d-%d", r[0], r[1])
}

// actionWords are the control words as tc prints them.
var actionWords = [...]string{"ok", "pass", "drop", "continue", "pipe", "reclassify"}

// actions prints a filter's actions, in the order in which they are done.
func (p *printer) actions(r *qdisc.FilterReport, v View) {
	f := &r.Filter
	edits := f.SetPriority != nil || f.SetMark != nil
	if !edits && f.Police == nil && f.Action == qdisc.ActDefault {
		return
	}
	p.open("actions", '[')
	order := 1
	if edits {
		p.action(order, "skbedit")
		p.skbedit(f)
		p.hits(r, v)
		order++
	}
	if q := f.Police; q != nil {
		p.action(order, "police")
		p.police(q, v)
		p.hits(r, v)
	} else if !edits {
		p.action(order, "gact")
		p.text("action ")
		p.control(f.Action)
		p.text("\n\t random type none pass val 0\n\t ")
		p.open("prob", '{')
		p.json("random_type", "none")
		p.open("control_action", '{')
		p.json("type", "pass")
		p.close('}')
		p.json("val", 0)
		p.close('}')
		p.bound()
		p.hits(r, v)
	}
	p.close(']')
	p.text("\n")
}

// action begins one, which hits ends.
func (p *printer) action(order int, kind string) {
	p.open("", '{')
	p.num("order", "\taction order %d: ", order)
	if kind == "police" {
		p.text(" ")
	}
	p.field("kind", kind, "%s", kind)
	if kind != "police" {
		p.text(" ")
	}
}

func (p *printer) skbedit(f *qdisc.Filter) {
	if f.SetPriority != nil {
		p.field("priority", qdisc.Handle(*f.SetPriority).String(), " priority %s", qdisc.Handle(*f.SetPriority))
	}
	if f.SetMark != nil {
		p.num("mark", " mark %d", *f.SetMark)
	}
	p.text(" ")
	p.control(orAction(f.Action, qdisc.ActPipe))
	p.text("\n\t ")
	p.bound()
}

func (p *printer) control(a qdisc.Action) {
	p.open("control_action", '{')
	p.field("type", actionWords[a], "%s", actionWords[a])
	p.close('}')
}

// bound is where an action is used: by its filter alone.
func (p *printer) bound() {
	p.num("index", "index %d ", 1)
	p.num("ref", "ref %d ", 1)
	p.num("bind", "bind %d\n", 1)
}

func orAction(a, def qdisc.Action) qdisc.Action {
	if a == qdisc.ActDefault {
		return def
	}
	return a
}

func (p *printer) police(q *qdisc.Police, v View) {
	p.num("index", " 0x%x ", 1)
	if q.Rate.Bytes != 0 {
		p.text("rate %s ", rateText(q.Rate.Bytes))
		p.text("burst %s ", sizeText(bucketBytes(q.Rate, q.Burst)))
	}
	p.text("mtu %s ", sizeText(or(q.MTU, 2047)))
	if q.Peak.Bytes != 0 {
		p.text("peakrate %s ", rateText(q.Peak.Bytes))
	}
	p.text("action ")
	p.control(orAction(q.Exceed, qdisc.ActDrop))
	if q.Conform != qdisc.ActDefault {
		p.text("/")
		p.control(q.Conform)
	}
	p.field("overhead", q.Rate.Overhead, " overhead %db ", q.Rate.Overhead)
	p.linkLayer(q.Rate.ATM, v)
	p.text("\n\t")
	p.num("ref", "ref %d ", 1)
	p.num("bind", "bind %d\n", 1)
}

// hits ends an action.
func (p *printer) hits(r *qdisc.FilterReport, v View) {
	if v.Stats {
		p.text("\tAction statistics:\n\t")
		p.open("stats", '{')
		p.num("bytes", "Sent %d bytes", r.Bytes)
		p.num("packets", " %d pkt", r.Packets)
		p.num("drops", " (dropped %d", 0)
		p.num("overlimits", ", overlimits %d", r.Over)
		p.num("requeues", " requeues %d) \n\t", 0)
		p.num("backlog", "backlog %db", 0)
		p.num("qlen", " %dp", 0)
		p.text(" requeues 0\n")
		p.close('}')
	}
	p.close('}')
}
