// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"bytes"
	"encoding/json"
	"fmt"

	"sluice/qdisc"
)

// View is how much of a state is shown, and as what.
type View struct {
	Stats, Details, JSON, Pretty bool
	// Dev is put before each object, as tc does when it lists more than one device.
	Dev string
}

// View is the command's.
func (c *Command) View() View {
	return View{Stats: c.Stats, Details: c.Details, JSON: c.JSON, Pretty: c.Pretty}
}

// refs is what tc shows as the references of a root on a device with one queue.
const refs = 2

// Qdiscs prints disciplines as tc qdisc show does.
func Qdiscs(all []qdisc.Report, v View) string {
	p := &printer{asJSON: v.JSON}
	p.open("", '[')
	for i := range all {
		p.qdisc(&all[i], v)
	}
	p.close(']')
	return p.finish(v)
}

// finish is the text; JSON has a line's end, and with -p indents.
func (p *printer) finish(v View) string {
	if !v.JSON {
		return p.b.String()
	}
	text := []byte(p.b.String())
	if v.Pretty {
		var out bytes.Buffer
		if json.Indent(&out, text, "", "    ") == nil {
			text = out.Bytes()
		}
	}
	return string(text) + "\n"
}

func (p *printer) qdisc(r *qdisc.Report, v View) {
	p.open("", '{')
	q := &r.Spec
	p.num("kind", "qdisc %s", q.Kind)
	p.num("handle", " %s ", q.Handle.String())
	p.dev(v)
	switch q.Parent {
	case qdisc.Root:
		p.json("root", true)
		p.text("root ")
		p.num("refcnt", "refcnt %d ", refs)
	case qdisc.Ingress:
		p.num("parent", "parent %s ", "ffff:fff1")
	default:
		p.num("parent", "parent %s ", q.Parent.String())
	}
	p.open("options", '{')
	p.options(r, v)
	p.close('}')
	p.text("\n")
	if v.Stats {
		p.stats(&r.Stats)
		p.xstats(r)
	}
	p.close('}')
}

func (p *printer) dev(v View) {
	if v.Dev != "" {
		p.num("dev", "dev %s ", v.Dev)
	}
}

func (p *printer) stats(s *qdisc.Stats) {
	p.text(" ")
	p.num("bytes", "Sent %d bytes", s.Bytes)
	p.num("packets", " %d pkt", s.Packets)
	p.num("drops", " (dropped %d", s.Drops)
	p.num("overlimits", ", overlimits %d", s.Overlimits)
	p.num("requeues", " requeues %d) ", s.Requeues)
	p.field("backlog", s.Backlog, "\n backlog %s", sizeText(uint64(max(s.Backlog, 0))))
	p.num("qlen", " %dp", s.Qlen)
	p.text(" requeues %d\n", s.Requeues)
}

// options prints what follows a discipline's place.
func (p *printer) options(r *qdisc.Report, v View) {
	q := &r.Spec
	switch q.Kind {
	case "pfifo", "bfifo":
		p.fifo(q)
	case "pfifo_fast":
		p.prio(&qdisc.Prio{Bands: 3})
	case "prio":
		p.prio(q.Prio)
	case "tbf":
		p.tbf(q.TBF, v)
	case "htb":
		p.htb(r.HTB, v)
	case "codel":
		p.codel(q.Codel)
	case "fq_codel":
		p.fqCodel(q.FQCodel)
	case "fq":
		p.fq(q.FQ)
	case "sfq":
		p.sfq(q.SFQ, v)
	case "netem":
		p.netem(q.Netem)
	case "ingress":
		p.text("---------------- ")
	}
}

func (p *printer) fifo(q *qdisc.Qdisc) {
	limit := int64(0)
	if q.FIFO != nil {
		limit = q.FIFO.Limit
	}
	if q.Kind == "pfifo" {
		p.num("limit", "limit %dp", or(limit, 1000))
		return
	}
	limit = or(limit, 1_514_000)
	p.field("limit", limit, "limit %s", sizeText(uint64(limit)))
}

func (p *printer) prio(o *qdisc.Prio) {
	chart := [16]uint8{1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1}
	n := 3
	if o != nil && o.Bands > 0 {
		n = o.Bands
	}
	if o != nil {
		copy(chart[:], o.Map)
	}
	p.num("bands", "bands %d ", n)
	p.open("priomap", '[')
	p.text("priomap")
	for _, b := range chart {
		if p.asJSON {
			p.comma()
			fmt.Fprint(&p.b, b)
		}
		p.text(" %d", b)
	}
	p.close(']')
	p.json("multiqueue", false)
}

// cell is the size of a rate table's cell, which has been 1 since tables went.
const cell = 1

func (p *printer) tbf(o *qdisc.TBF, v View) {
	p.field("rate", o.Rate.Bytes, "rate %s ", rateText(o.Rate.Bytes))
	us, size := bucketTime(o.Rate, o.Burst), bucketBytes(o.Rate, o.Burst)
	p.cells("burst", "burst", size, o.Rate.MPU, v)
	latency := 1e6*float64(o.Limit)/float64(o.Rate.Bytes) - float64(us)
	if o.Peak.Bytes != 0 {
		p.text("peakrate %s ", rateText(o.Peak.Bytes))
		p.cells("mtu", "minburst", bucketBytes(o.Peak, o.MTU), o.Rate.MPU, v)
		peak := bucketTime(o.Peak, o.MTU)
		latency = max(latency, 1e6*float64(o.Limit)/float64(o.Peak.Bytes)-float64(peak))
	}
	if latency >= 0 {
		p.field("lat", uint64(latency), "lat %s ", usText(int64(latency)*1000))
	} else {
		p.field("limit", o.Limit, "limit %s ", sizeText(uint64(o.Limit)))
	}
	if o.Rate.Overhead != 0 {
		p.num("overhead", "overhead %d ", o.Rate.Overhead)
	}
	p.linkLayer(o.Rate.ATM, v)
}

// cells prints the size of a bucket, with -d as a number of cells.
func (p *printer) cells(long, short string, size uint64, mpu uint32, v View) {
	if !v.Details {
		p.field(short, size, "%s %s ", short, sizeText(size))
		return
	}
	p.field(long, fmt.Sprintf("%s/%d", sizeText(size), cell), "%s %s/%d ", long, sizeText(size), cell)
	p.field("mpu", mpu, "mpu %s ", sizeText(uint64(mpu)))
}

func (p *printer) linkLayer(atm bool, v View) {
	switch {
	case atm:
		p.num("linklayer", "linklayer %s ", "atm")
	case v.Details:
		p.num("linklayer", "linklayer %s ", "ethernet")
	}
}

func (p *printer) htb(o *qdisc.HTBReport, v View) {
	p.num("r2q", "r2q %d", o.R2Q)
	def := "0"
	if o.Default != 0 {
		def = fmt.Sprintf("%#x", o.Default)
	}
	p.num("default", " default %s", def)
	p.num("direct_packets_stat", " direct_packets_stat %d", o.Direct)
	if v.Details {
		p.num("ver", " ver %s", "3.17")
	}
	p.num("direct_qlen", " direct_qlen %d", o.DirectFrames)
}

// us is a time of ns in JSON, which counts it in us.
func us(ns int64) int64 { return ns / 1000 }

// time prints a time that the kernel counts in us.
func (p *printer) time(key string, ns int64) {
	p.field(key, us(ns), "%s %s ", key, usText(ns))
}

func (p *printer) codel(o *qdisc.Codel) {
	if o == nil {
		o = &qdisc.Codel{}
	}
	p.num("limit", "limit %dp ", or(o.Limit, 1000))
	p.time("target", or(o.Target, 5_000_000))
	if o.CEThreshold > 0 {
		p.time("ce_threshold", o.CEThreshold)
	}
	p.time("interval", or(o.Interval, 100_000_000))
	if o.ECN {
		p.field("ecn", true, "ecn ")
	}
}

// or is x, or the default if it is zero.
func or[T int | int64 | uint32 | uint64](x, def T) T {
	if x == 0 {
		return def
	}
	return x
}

func (p *printer) fqCodel(o *qdisc.FQCodel) {
	if o == nil {
		o = &qdisc.FQCodel{}
	}
	p.num("limit", "limit %dp ", or(o.Limit, 10240))
	p.num("flows", "flows %d ", or(o.Flows, 1024))
	p.num("quantum", "quantum %d ", or(o.Quantum, 1514))
	p.time("target", or(o.Target, 5_000_000))
	if o.CEThreshold > 0 {
		p.time("ce_threshold", o.CEThreshold)
	}
	if o.CEMask != 0 || o.CESelector != 0 {
		p.num("ce_threshold_selector", "ce_threshold_selector %#x", o.CESelector)
		p.num("ce_threshold_mask", "/%#x ", o.CEMask)
	}
	p.time("interval", or(o.Interval, 100_000_000))
	memory := or(o.MemoryLimit, 32<<20)
	p.field("memory_limit", memory, "memory_limit %s ", sizeText(uint64(memory)))
	if !o.NoECN {
		p.field("ecn", true, "ecn ")
	}
	p.num("drop_batch", "drop_batch %d ", or(o.DropBatch, 64))
}

func (p *printer) fq(o *qdisc.FQ) {
	if o == nil {
		o = &qdisc.FQ{}
	}
	p.num("limit", "limit %dp ", or(o.Limit, 10000))
	p.num("flow_limit", "flow_limit %dp ", or(o.FlowLimit, 100))
	p.num("buckets", "buckets %d ", or(o.Buckets, 1024))
	p.num("orphan_mask", "orphan_mask %d ", or(o.OrphanMask, 1023))
	if o.NoPacing {
		p.field("pacing", false, "nopacing ")
	}
	quantum, initial := or(o.Quantum, 3028), or(o.InitialQuantum, 15140)
	p.field("quantum", quantum, "quantum %s ", sizeText(uint64(quantum)))
	p.field("initial_quantum", initial, "initial_quantum %s ", sizeText(uint64(initial)))
	if o.MaxRate != 0 {
		p.field("maxrate", o.MaxRate, "maxrate %s ", rateText(o.MaxRate))
	}
	low := or(o.LowRate, 68750)
	p.field("low_rate_threshold", low, "low_rate_threshold %s ", rateText(low))
	p.time("refill_delay", or(o.RefillDelay, 40_000_000))
	if o.CEThreshold > 0 {
		p.time("ce_threshold", o.CEThreshold)
	}
	slack := or(o.TimerSlack, 10_000)
	p.field("timer_slack", slack, "timer_slack %s ", nsText(slack))
	p.time("horizon", or(o.Horizon, 10_000_000_000))
	if o.HorizonCap {
		p.field("horizon_cap", nil, "horizon_cap ")
	} else {
		p.field("horizon_drop", nil, "horizon_drop ")
	}
}

func (p *printer) sfq(o *qdisc.SFQ, v View) {
	if o == nil {
		o = &qdisc.SFQ{}
	}
	p.num("limit", "limit %dp ", or(o.Limit, 127))
	quantum := or(o.Quantum, 1514)
	p.field("quantum", quantum, "quantum %s ", sizeText(uint64(quantum)))
	p.num("depth", "depth %d ", or(o.Depth, 127))
	if o.HeadDrop {
		p.field("headdrop", true, "headdrop ")
	}
	if v.Details {
		p.num("flows", "flows %d ", 128)
	}
	p.num("divisor", "divisor %d ", or(o.Divisor, 1024))
	if o.Perturb != 0 {
		p.num("perturb", "perturb %dsec ", o.Perturb)
	}
}

// Classes prints classes as tc class show does.
func Classes(all []qdisc.Report, v View) string {
	p := &printer{asJSON: v.JSON}
	p.open("", '[')
	for i := range all {
		for k := range all[i].Classes {
			p.class(&all[i].Classes[k], v)
		}
	}
	p.close(']')
	return p.finish(v)
}

func (p *printer) class(c *qdisc.ClassReport, v View) {
	p.open("", '{')
	p.num("class", "class %s", c.Kind)
	p.num("handle", " %s ", c.Handle.String())
	p.dev(v)
	if c.Parent == qdisc.Root || c.Parent.Minor() == 0 && (c.Kind == "htb" || c.Kind == "drr") {
		p.field("root", true, "root ")
	} else {
		p.num("parent", "parent %s ", c.Parent.String())
	}
	if c.Leaf != 0 {
		p.num("leaf", "leaf %s ", c.Leaf.String())
	}
	if c.HTB != nil && c.Spec != nil && c.Spec.HTB != nil {
		p.htbClass(c, v)
	}
	if c.Spec != nil && c.Spec.DRR != nil {
		p.text("quantum %s ", sizeText(uint64(or(c.Spec.DRR.Quantum, 1514))))
	}
	p.text("\n")
	if v.Stats {
		p.classStats(c)
	}
	p.close('}')
}

func (p *printer) classStats(c *qdisc.ClassReport) {
	if c.Kind == "tbf" || c.Kind == "netem" {
		p.text("\n") // they have one class, without figures
		return
	}
	p.open("stats", '{')
	p.stats(&c.Stats)
	if h := c.HTB; h != nil {
		p.num("lended", " lended: %d ", h.Lends)
		p.num("borrowed", "borrowed: %d ", h.Borrows)
		p.num("giants", "giants: %d\n", 0)
		p.num("tokens", " tokens: %d ", h.Tokens>>6)
		p.num("ctokens", "ctokens: %d\n", h.CTokens>>6)
	}
	if c.Kind == "drr" {
		p.field("deficit", c.Deficit, " deficit %s ", sizeText(uint64(max(c.Deficit, 0))))
	}
	p.text("\n")
	p.close('}')
}

func (p *printer) htbClass(c *qdisc.ClassReport, v View) {
	o, h := c.Spec.HTB, c.HTB
	ceil := or(o.Ceil.Bytes, o.Rate.Bytes)
	if h.Level == 0 {
		p.num("prio", "prio %d ", o.Prio)
		if v.Details {
			p.num("quantum", "quantum %d ", h.Quantum)
		}
	}
	p.field("rate", o.Rate.Bytes, "rate %s ", rateText(o.Rate.Bytes))
	if o.Rate.Overhead != 0 {
		p.num("overhead", "overhead %d ", o.Rate.Overhead)
	}
	p.field("ceil", ceil, "ceil %s ", rateText(ceil))
	p.linkLayer(o.Rate.ATM, v)
	burst, cburst := burstBytes(o.Rate.Bytes, o.Burst), burstBytes(ceil, o.CBurst)
	if !v.Details {
		p.field("burst", burst, "burst %s ", sizeText(burst))
		p.field("cburst", cburst, "cburst %s ", sizeText(cburst))
		return
	}
	p.field("burst", burst, "burst %s/", sizeText(burst))
	p.num("burst_cell", "%d ", cell)
	p.field("mpu_rate", o.Rate.MPU, "mpu %s ", sizeText(uint64(o.Rate.MPU)))
	p.field("cburst", cburst, "cburst %s/", sizeText(cburst))
	p.num("cburst_cell", "%d ", cell)
	p.field("mpu_ceil", o.Ceil.MPU, "mpu %s ", sizeText(uint64(o.Ceil.MPU)))
	p.num("level", "level %d ", h.Level)
}
