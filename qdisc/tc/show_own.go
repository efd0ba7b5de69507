// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"fmt"
	"math"

	"sluice/qdisc"
)

// share prints a probability; in JSON it is one of 1.
func (p *printer) share(key, words string, x qdisc.Percent) {
	p.field(key, float64(x)/math.MaxUint32, "%s %s", words, percentText(x))
}

// correlation prints one if there is any.
func (p *printer) correlation(shown bool, x qdisc.Percent) {
	p.json("correlation", float64(x)/math.MaxUint32)
	if shown {
		p.text(" %s", percentText(x))
	}
}

func (p *printer) netem(o *qdisc.Netem) {
	if o == nil {
		o = &qdisc.Netem{}
	}
	p.num("limit", "limit %d", or(o.Limit, 1000))
	if o.Delay != 0 {
		p.open("delay", '{')
		p.json("delay", float64(o.Delay)/1e9)
		p.json("jitter", float64(o.Jitter)/1e9)
		p.text(" delay %s", nsText(o.Delay))
		if o.Jitter != 0 {
			p.text("  %s", nsText(o.Jitter))
		}
		p.correlation(o.Jitter != 0 && o.DelayCor != 0, o.DelayCor)
		p.close('}')
	}
	p.netemLoss(o)
	p.chance("duplicate", o.Duplicate, o.DupCor)
	p.chance("reorder", o.Reorder, o.ReorCor)
	p.chance("corrupt", o.Corrupt, o.CorrCor)
	p.netemRate(o)
	p.netemSlot(o.Slot)
	if o.Seed != 0 {
		p.num("seed", " seed %d", o.Seed)
	}
	p.json("ecn", o.ECN)
	if o.ECN {
		p.text(" ecn ")
	}
	p.json("gap", o.Gap)
	if o.Gap != 0 {
		p.text(" gap %d", o.Gap)
	}
}

func (p *printer) chance(word string, x, correlation qdisc.Percent) {
	if x == 0 {
		return
	}
	p.open(word, '{')
	p.share(word, " "+word, x)
	p.correlation(correlation != 0, correlation)
	p.close('}')
}

func (p *printer) netemLoss(o *qdisc.Netem) {
	if o.Loss != 0 {
		p.open("loss-random", '{')
		p.share("loss", " loss", o.Loss)
		p.correlation(o.LossCor != 0, o.LossCor)
		p.close('}')
	}
	if s := o.State; s != nil {
		p.open("loss-state", '{')
		p.share("p13", " loss state p13", s.P13)
		p.share("p31", " p31", s.P31)
		p.share("p32", " p32", s.P32)
		p.share("p23", " p23", s.P23)
		p.share("p14", " p14", s.P14)
		p.close('}')
	}
	if g := o.Gemodel; g != nil {
		p.open("loss-gemodel", '{')
		p.share("p", " loss gemodel p", g.P)
		p.share("r", " r", g.R)
		p.share("1-h", " 1-h", math.MaxUint32-g.H)
		p.share("1-k", " 1-k", g.K1)
		p.close('}')
	}
}

func (p *printer) netemRate(o *qdisc.Netem) {
	if o.Rate == 0 {
		return
	}
	p.open("rate", '{')
	p.field("rate", o.Rate, " rate %s", rateText(o.Rate))
	p.opt("packetoverhead", int64(o.Overhead))
	p.json("cellsize", o.CellSize)
	if o.CellSize != 0 {
		p.text(" cellsize %d", o.CellSize)
	}
	p.opt("celloverhead", int64(o.CellOverhead))
	p.close('}')
}

// opt prints a number that text leaves out if it is zero.
func (p *printer) opt(word string, x int64) {
	p.json(word, x)
	if x != 0 {
		p.text(" %s %d", word, x)
	}
}

func (p *printer) netemSlot(s *qdisc.Slot) {
	if s == nil {
		return
	}
	p.open("slot", '{')
	if s.Jitter > 0 {
		p.field("distribution", float64(s.Delay)/1e9, " slot distribution %s", nsText(s.Delay))
		p.field("jitter", float64(s.Jitter)/1e9, " %s", nsText(s.Jitter))
	} else {
		p.field("min-delay", float64(s.Min)/1e9, " slot %s", nsText(s.Min))
		p.field("max-delay", float64(s.Max)/1e9, " %s", nsText(s.Max))
	}
	p.opt("packets", int64(s.Packets))
	p.opt("bytes", int64(s.Bytes))
	p.close('}')
}

// xstats prints a discipline's own figures.
func (p *printer) xstats(r *qdisc.Report) {
	switch {
	case r.FQCodel != nil:
		p.fqCodelStats(r.FQCodel)
	case r.Codel != nil:
		p.codelStats(r.Codel)
	case r.FQ != nil:
		p.fqStats(r.FQ)
	}
}

func (p *printer) fqCodelStats(s *qdisc.FQCodelReport) {
	p.num("maxpacket", "  maxpacket %d", s.MaxPacket)
	p.num("drop_overlimit", " drop_overlimit %d", s.DropOverlimit)
	p.num("new_flow_count", " new_flow_count %d", s.NewFlowCount)
	p.num("ecn_mark", " ecn_mark %d", s.ECNMark)
	if s.CEMark != 0 {
		p.num("ce_mark", " ce_mark %d", s.CEMark)
	}
	if s.MemoryUsed != 0 {
		p.num("memory_used", " memory_used %d", s.MemoryUsed)
	}
	if s.DropOvermemory != 0 {
		p.num("drop_overmemory", " drop_overmemory %d", s.DropOvermemory)
	}
	p.num("new_flows_len", "\n  new_flows_len %d", s.NewFlows)
	p.num("old_flows_len", " old_flows_len %d\n", s.OldFlows)
}

func (p *printer) codelStats(s *qdisc.CodelReport) {
	p.num("count", "  count %d", s.Count)
	p.num("lastcount", " lastcount %d", s.LastCount)
	p.field("ldelay", us(s.LDelay), " ldelay %s", usText(s.LDelay))
	if s.Dropping {
		p.field("dropping", true, " dropping")
	}
	next, sign := s.DropNext, ""
	if next < 0 {
		next, sign = -next, "-"
	}
	p.field("drop_next", us(s.DropNext), " drop_next %s%s", sign, usText(next))
	p.num("maxpacket", "\n  maxpacket %d", s.MaxPacket)
	p.num("ecn_mark", " ecn_mark %d", s.ECNMark)
	p.num("drop_overlimit", " drop_overlimit %d", s.DropOverlimit)
	if s.CEMark != 0 {
		p.num("ce_mark", " ce_mark %d", s.CEMark)
	}
	p.text("\n")
}

func (p *printer) fqStats(s *qdisc.FQReport) {
	p.num("flows", "  flows %d", s.Flows)
	p.num("inactive", " (inactive %d", s.InactiveFlows)
	p.num("throttled", " throttled %d)", s.ThrottledFlows)
	if s.NextDelay > 0 {
		p.field("next_packet_delay", s.NextDelay, " next_packet_delay %s", nsText(s.NextDelay))
	}
	p.text("\n")
	p.num("gc", "  gc %d", 0)
	p.num("highprio", " highprio %d", 0)
	p.num("throttled", " throttled %d", s.Throttled)
	if s.CEMark != 0 {
		p.num("ce_mark", " ce_mark %d", s.CEMark)
	}
	if s.FlowsPlimit != 0 {
		p.num("flows_plimit", " flows_plimit %d", s.FlowsPlimit)
	}
	if s.HorizonDrops|s.HorizonCaps != 0 {
		p.text("\n")
	}
	if s.HorizonDrops != 0 {
		p.num("horizon_drops", " horizon_drops %d", s.HorizonDrops)
	}
	if s.HorizonCaps != 0 {
		p.num("horizon_caps", "  horizon_caps %d", s.HorizonCaps)
	}
	p.text("\n")
}

// Filters prints filters as tc filter show does.
func Filters(all []qdisc.FilterReport, v View) string {
	p := &printer{asJSON: v.JSON}
	p.open("", '[')
	for i := range all {
		p.filter(&all[i], v)
	}
	p.close(']')
	return p.finish(v)
}

func (p *printer) filter(r *qdisc.FilterReport, v View) {
	f := &r.Filter
	p.open("", '{')
	p.text("filter ")
	p.dev(v)
	p.num("parent", "parent %s ", f.Parent.String())
	p.num("protocol", "protocol %s ", protocolName(f.Protocol))
	p.num("pref", "pref %d ", f.Prio)
	p.num("kind", "%s ", f.Kind)
	p.num("chain", "chain %d ", 0)
	p.open("options", '{')
	switch f.Kind {
	case "u32":
		p.u32(f)
	case "flower":
		p.flower(f)
	case "fw":
		p.fw(f)
	default:
		p.num("handle", "handle %#x ", f.Handle)
		p.flowid("classid", f)
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

func (p *printer) u32(f *qdisc.Filter) {
	p.field("fh", fmt.Sprintf("800::%x", f.Handle), "fh 800::%x ", f.Handle)
	p.num("order", "order %d ", f.Handle)
	p.field("key_ht", "800", "key ht 800 bkt 0 ")
	p.json("bkt", "0")
	p.flowid("flowid", f)
	p.json("not_in_hw", true)
	p.text("not_in_hw\n")
	for _, k := range f.Keys {
		at := fmt.Sprint(k.Off)
		if k.AtNext {
			at = fmt.Sprintf("nexthdr+%d", k.Off)
		}
		p.text("  match %08x/%08x at %s\n", k.Value, k.Mask, at)
		p.json("match", map[string]any{"value": fmt.Sprintf("%x", k.Value), "mask": fmt.Sprintf("%x", k.Mask), "offmask": "", "off": k.Off})
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
	line(k.DstPort[1] != 0, "dst_port", portsText(k.DstPort))
	line(k.SrcPort[1] != 0, "src_port", portsText(k.SrcPort))
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

func portsText(r [2]uint16) string {
	if r[0] == r[1] {
		return fmt.Sprint(r[0])
	}
	return fmt.Sprintf("%d-%d", r[0], r[1])
}

// actionWords are the control words as tc prints them.
var actionWords = [...]string{"ok", "pass", "drop", "continue", "pipe", "reclassify"}

// actions prints a filter's actions, in the order in which they are done.
func (p *printer) actions(r *qdisc.FilterReport, v View) {
	f := &r.Filter
	order := 1
	if f.SetPriority != nil || f.SetMark != nil {
		p.text("\taction order %d:  skbedit", order)
		if f.SetPriority != nil {
			p.field("priority", qdisc.Handle(*f.SetPriority).String(), " priority %s", qdisc.Handle(*f.SetPriority))
		}
		if f.SetMark != nil {
			p.num("mark", " mark %d", *f.SetMark)
		}
		p.text(" %s\n", actionWords[orAction(f.Action, qdisc.ActPipe)])
		order++
	}
	if q := f.Police; q != nil {
		p.police(q, order, r, v)
	} else if order == 1 && f.Action != qdisc.ActDefault {
		p.field("control_action", actionWords[f.Action], "\taction order 1: gact action %s\n", actionWords[f.Action])
		p.hits(r, v)
	}
}

func orAction(a, def qdisc.Action) qdisc.Action {
	if a == qdisc.ActDefault {
		return def
	}
	return a
}

func (p *printer) police(q *qdisc.Police, order int, r *qdisc.FilterReport, v View) {
	p.text("\taction order %d:  police 0x%x ", order, r.Filter.Handle)
	if q.Rate.Bytes != 0 {
		p.field("rate", q.Rate.Bytes, "rate %s ", rateText(q.Rate.Bytes))
		size := bucketBytes(q.Rate, q.Burst)
		p.field("burst", size, "burst %s ", sizeText(size))
	}
	mtu := or(q.MTU, 2047)
	p.field("mtu", mtu, "mtu %s ", sizeText(mtu))
	if q.Peak.Bytes != 0 {
		p.field("peakrate", q.Peak.Bytes, "peakrate %s ", rateText(q.Peak.Bytes))
	}
	exceed := actionWords[orAction(q.Exceed, qdisc.ActDrop)]
	p.field("control_action", exceed, "action %s", exceed)
	if q.Conform != qdisc.ActDefault {
		p.text("/%s", actionWords[q.Conform])
	}
	p.field("overhead", q.Rate.Overhead, " overhead %db ", q.Rate.Overhead)
	p.linkLayer(q.Rate.ATM, v)
	p.text("\n")
	p.hits(r, v)
}

func (p *printer) hits(r *qdisc.FilterReport, v View) {
	if !v.Stats {
		return
	}
	p.text("\tAction statistics:\n\t")
	s := qdisc.Stats{Bytes: r.Bytes, Packets: r.Packets, Overlimits: r.Over}
	p.stats(&s)
}
