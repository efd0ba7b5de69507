// SPDX-License-Identifier: Apache-2.0

package tc

import (
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
