// SPDX-License-Identifier: Apache-2.0

package qdisc

// Report is what tc -s shows of one discipline. The members for the figures of
// other kinds than its own are nil.
type Report struct {
	Spec  Qdisc `json:"spec"`
	Stats Stats `json:"stats"`

	Codel   *CodelReport   `json:"codel,omitempty"`
	FQCodel *FQCodelReport `json:"fq_codel,omitempty"`
	FQ      *FQReport      `json:"fq,omitempty"`
	HTB     *HTBReport     `json:"htb,omitempty"`
	Netem   *NetemReport   `json:"netem,omitempty"`

	Classes []ClassReport `json:"classes,omitempty"`
}

// ClassReport is what tc -s class shows.
type ClassReport struct {
	Kind   string          `json:"kind"`
	Handle Handle          `json:"handle"`
	Parent Handle          `json:"parent"`
	Leaf   Handle          `json:"leaf,omitempty"` // its discipline; 0: none that tc shows
	Stats  Stats           `json:"stats"`
	Spec   *Class          `json:"spec,omitempty"`
	HTB    *HTBClassReport `json:"htb,omitempty"`
	// Deficit is a class of drr's: bytes that it may still send in this round.
	Deficit int64 `json:"deficit,omitempty"`
}

// HTBReport is htb's own figures.
type HTBReport struct {
	R2Q          uint32 `json:"r2q"`
	Default      uint32 `json:"default"`
	Direct       uint64 `json:"direct_packets_stat"`
	DirectFrames int    `json:"direct_qlen"`
}

// HTBClassReport is a class's. Tokens are ns.
type HTBClassReport struct {
	Lends   uint64 `json:"lended"`
	Borrows uint64 `json:"borrowed"`
	Tokens  int64  `json:"tokens"`
	CTokens int64  `json:"ctokens"`
	Level   int    `json:"level"`
	Quantum uint32 `json:"quantum"`
}

// CodelReport is codel's own figures. Times are ns.
type CodelReport struct {
	Count         uint32 `json:"count"`
	LastCount     uint32 `json:"lastcount"`
	LDelay        int64  `json:"ldelay"`
	Dropping      bool   `json:"dropping"`
	DropNext      int64  `json:"drop_next"`
	MaxPacket     uint32 `json:"maxpacket"`
	ECNMark       uint64 `json:"ecn_mark"`
	CEMark        uint64 `json:"ce_mark"`
	DropOverlimit uint64 `json:"drop_overlimit"`
	Drops         uint64 `json:"drops"` // by the control law
}

// FQCodelReport is fq_codel's own figures.
type FQCodelReport struct {
	MaxPacket      uint32 `json:"maxpacket"`
	DropOverlimit  uint64 `json:"drop_overlimit"`
	NewFlowCount   uint64 `json:"new_flow_count"`
	ECNMark        uint64 `json:"ecn_mark"`
	CEMark         uint64 `json:"ce_mark"`
	MemoryUsed     int64  `json:"memory_used"`
	DropOvermemory uint64 `json:"drop_overmemory"`
	NewFlows       int    `json:"new_flows_len"`
	OldFlows       int    `json:"old_flows_len"`
}

// FQReport is fq's own figures. Times are ns.
type FQReport struct {
	Flows          int    `json:"flows"`
	InactiveFlows  int    `json:"inactive"`
	ThrottledFlows int    `json:"throttled_flows"`
	NextDelay      int64  `json:"next_packet_delay"`
	Throttled      uint64 `json:"throttled"`
	CEMark         uint64 `json:"ce_mark"`
	FlowsPlimit    uint64 `json:"flows_plimit"`
	HorizonDrops   uint64 `json:"horizon_drops"`
	HorizonCaps    uint64 `json:"horizon_caps"`
}

// NetemReport is netem's own figures.
type NetemReport struct {
	Delayed    uint64 `json:"delayed"`
	Dropped    uint64 `json:"dropped"`
	Corrupted  uint64 `json:"corrupted"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	ECNMarked  uint64 `json:"ecn_marked"`
}

// FilterReport is what tc -s filter shows.
type FilterReport struct {
	Filter  Filter `json:"filter"`
	Hits    uint64 `json:"hits"`
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
	Over    uint64 `json:"overlimits"` // of its policer
}

// Report is the state of all disciplines, parents before what is below them.
func (t *Tree) Report(now int64) []Report {
	all := make([]Report, 0, len(t.nodes))
	for _, d := range t.nodes {
		n := d.base()
		r := Report{Spec: n.spec, Stats: n.report()}
		d.xstats(&r, now)
		all = append(all, r)
	}
	return all
}

// Filters is the state of all filters, in the order of the Spec.
func (t *Tree) Filters() []FilterReport {
	all := make([]FilterReport, 0, len(t.spec.Filters))
	for i := range t.spec.Filters {
		f := &t.spec.Filters[i]
		for _, at := range t.rules {
			for _, r := range at {
				if r.Filter == f {
					all = append(all, r.report())
				}
			}
		}
	}
	return all
}

func (f *rule) report() FilterReport {
	r := FilterReport{Filter: *f.Filter, Hits: f.hits, Bytes: f.bytes, Packets: f.pkt}
	if f.police != nil {
		r.Over = f.police.over
	}
	return r
}
