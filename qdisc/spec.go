// SPDX-License-Identifier: Apache-2.0

package qdisc

import "fmt"

// Handle names a discipline (major:0) or a class (major:minor), as tc writes it.
type Handle uint32

// Root and Ingress are the parents of what has no parent.
const (
	Root    Handle = 0xffffffff
	Ingress Handle = 0xfffffff1
)

// MakeHandle is major:minor.
func MakeHandle(major, minor uint16) Handle { return Handle(major)<<16 | Handle(minor) }

// Major is the discipline's number.
func (h Handle) Major() uint16 { return uint16(h >> 16) }

// Minor is the class's number; 0 is the discipline itself.
func (h Handle) Minor() uint16 { return uint16(h) }

// Qdisc is the handle of the class's discipline.
func (h Handle) Qdisc() Handle { return h &^ 0xffff }

// String is the handle in tc's words: hexadecimal, without leading zeros.
func (h Handle) String() string {
	switch {
	case h == Root:
		return "root"
	case h == Ingress:
		return "ingress"
	case h.Major() == 0 && h.Minor() == 0:
		return "none"
	case h.Major() == 0:
		return fmt.Sprintf(":%x", h.Minor())
	case h.Minor() == 0:
		return fmt.Sprintf("%x:", h.Major())
	}
	return fmt.Sprintf("%x:%x", h.Major(), h.Minor())
}

// Spec is the disciplines, classes and filters of one direction of a port: all of
// them, in any order. Zero is none. It is data: it can be compared and stored.
type Spec struct {
	Qdiscs  []Qdisc  `json:"qdiscs,omitempty"`
	Classes []Class  `json:"classes,omitempty"`
	Filters []Filter `json:"filters,omitempty"`
	// Memory bounds the bytes of buffers of the packets that wait; 0 is
	// DefaultMemory.
	Memory int64 `json:"memory,omitempty"`
}

// DefaultMemory is the bound of Spec.Memory: that of fq_codel in the kernel.
const DefaultMemory = 32 << 20

// Qdisc is one discipline. The member of its kind holds the parameters; nil is
// the defaults, where the kind has them for all.
type Qdisc struct {
	Kind   string `json:"kind"`
	Handle Handle `json:"handle"`
	Parent Handle `json:"parent"` // Root, Ingress, or a class

	FIFO    *FIFO    `json:"fifo,omitempty"`
	Prio    *Prio    `json:"prio,omitempty"`
	TBF     *TBF     `json:"tbf,omitempty"`
	HTB     *HTB     `json:"htb,omitempty"`
	Codel   *Codel   `json:"codel,omitempty"`
	FQCodel *FQCodel `json:"fq_codel,omitempty"`
	FQ      *FQ      `json:"fq,omitempty"`
	SFQ     *SFQ     `json:"sfq,omitempty"`
	Netem   *Netem   `json:"netem,omitempty"`
}

// FIFO is the parameters of pfifo (frames) and bfifo (bytes).
type FIFO struct {
	Limit int64 `json:"limit"`
}

// Prio is the parameters of prio.
type Prio struct {
	Bands int     `json:"bands"`
	Map   []uint8 `json:"map,omitempty"`
}

// TBF is the parameters of tbf: a bucket of Burst bytes, filled at Rate, and with
// Peak a second one of MTU bytes. Limit is the bytes that may wait.
type TBF struct {
	Rate    Rate   `json:"rate"`
	Burst   uint64 `json:"burst"`
	Peak    Rate   `json:"peak,omitzero"`
	MTU     uint64 `json:"mtu,omitempty"`
	Limit   int64  `json:"limit"`
	Latency int64  `json:"latency,omitempty"` // ns, of which Limit was made; 0 if it was given
}

// HTB is the parameters of htb.
type HTB struct {
	Default      uint32 `json:"default,omitempty"` // minor number of the class of what has none
	R2Q          uint32 `json:"r2q,omitempty"`     // quantum = rate / r2q; 0 is 10
	DirectFrames int    `json:"direct_qlen,omitempty"`
}

// Class is a class of htb or drr.
type Class struct {
	Kind   string `json:"kind"`
	Handle Handle `json:"handle"`
	Parent Handle `json:"parent"` // the discipline's handle, or a class; Root for htb's top ones

	HTB *HTBClass `json:"htb,omitempty"`
	DRR *DRRClass `json:"drr,omitempty"`
}

// HTBClass is the parameters of a class of htb. Burst and CBurst are bytes.
type HTBClass struct {
	Rate    Rate   `json:"rate"`
	Ceil    Rate   `json:"ceil,omitzero"` // zero: the rate
	Burst   uint64 `json:"burst"`
	CBurst  uint64 `json:"cburst"`
	Prio    uint32 `json:"prio,omitempty"`    // 0 to 7, lower first
	Quantum uint32 `json:"quantum,omitempty"` // 0: rate / r2q, 1,000 to 200,000
}

// DRRClass is the parameters of a class of drr.
type DRRClass struct {
	Quantum uint32 `json:"quantum,omitempty"` // bytes; 0: 1514
}

// Codel is the parameters of codel, RFC 8289. Times are ns; 0 is the default.
type Codel struct {
	Limit       int   `json:"limit,omitempty"`    // frames, 1000
	Target      int64 `json:"target,omitempty"`   // 5 ms
	Interval    int64 `json:"interval,omitempty"` // 100 ms
	ECN         bool  `json:"ecn,omitempty"`
	CEThreshold int64 `json:"ce_threshold,omitempty"` // 0: off
}

// FQCodel is the parameters of fq_codel, RFC 8290. Zero is the default.
type FQCodel struct {
	Limit       int    `json:"limit,omitempty"`        // frames, 10240
	Flows       int    `json:"flows,omitempty"`        // 1024
	Quantum     uint32 `json:"quantum,omitempty"`      // bytes, 1514
	Target      int64  `json:"target,omitempty"`       // ns, 5 ms
	Interval    int64  `json:"interval,omitempty"`     // ns, 100 ms
	MemoryLimit int64  `json:"memory_limit,omitempty"` // bytes of buffers, 32 MB
	DropBatch   int    `json:"drop_batch,omitempty"`   // frames, 64
	NoECN       bool   `json:"no_ecn,omitempty"`
	CEThreshold int64  `json:"ce_threshold,omitempty"` // ns; 0: off
	// CESelector and CEMask restrict the threshold to packets whose DS field has
	// the selector under the mask.
	CESelector uint8 `json:"ce_selector,omitempty"`
	CEMask     uint8 `json:"ce_mask,omitempty"`
}

// FQ is the parameters of fq. Zero is the default.
type FQ struct {
	Limit          int    `json:"limit,omitempty"`           // frames, 10000
	FlowLimit      int    `json:"flow_limit,omitempty"`      // frames, 100
	Buckets        int    `json:"buckets,omitempty"`         // a power of two, 1024
	Quantum        uint32 `json:"quantum,omitempty"`         // bytes, 3028
	InitialQuantum uint32 `json:"initial_quantum,omitempty"` // bytes, 15140
	MaxRate        uint64 `json:"maxrate,omitempty"`         // bytes/s of each flow; 0: any
	LowRate        uint64 `json:"low_rate_threshold,omitempty"`
	RefillDelay    int64  `json:"refill_delay,omitempty"` // ns, 40 ms
	Horizon        int64  `json:"horizon,omitempty"`      // ns, 10 s
	HorizonCap     bool   `json:"horizon_cap,omitempty"`  // else what is beyond is dropped
	NoPacing       bool   `json:"nopacing,omitempty"`
	TimerSlack     int64  `json:"timer_slack,omitempty"`
	OrphanMask     uint32 `json:"orphan_mask,omitempty"`
	CEThreshold    int64  `json:"ce_threshold,omitempty"` // ns; 0: off
}

// SFQ is the parameters of sfq. Zero is the default.
type SFQ struct {
	Limit   int    `json:"limit,omitempty"`   // frames, 127
	Depth   int    `json:"depth,omitempty"`   // frames of a flow, 127
	Divisor int    `json:"divisor,omitempty"` // buckets, 1024
	Quantum uint32 `json:"quantum,omitempty"` // bytes, 1514
	Perturb int    `json:"perturb,omitempty"` // s between new hashes; 0: never
	// HeadDrop: a full queue loses its first packet, not its last or the one that comes.
	HeadDrop bool `json:"head_drop,omitempty"`
}

// Percent is a probability, as a share of 2^32-1: how the kernel has it.
type Percent uint32

// Netem is the parameters of netem. Times are ns.
type Netem struct {
	Limit    int     `json:"limit,omitempty"` // frames, 1000
	Delay    int64   `json:"delay,omitempty"`
	Jitter   int64   `json:"jitter,omitempty"`
	DelayCor Percent `json:"delay_correlation,omitempty"`
	// Distribution is empty for uniform, the name of a table (normal, pareto,
	// paretonormal), or "table" with Table.
	Distribution string  `json:"distribution,omitempty"`
	Table        []int16 `json:"table,omitempty"` // of sigma / 8192

	Loss      Percent  `json:"loss,omitempty"`
	LossCor   Percent  `json:"loss_correlation,omitempty"`
	State     *State4  `json:"state,omitempty"`
	Gemodel   *Gemodel `json:"gemodel,omitempty"`
	ECN       bool     `json:"ecn,omitempty"` // mark what would be lost, if it takes part
	Duplicate Percent  `json:"duplicate,omitempty"`
	DupCor    Percent  `json:"duplicate_correlation,omitempty"`
	Corrupt   Percent  `json:"corrupt,omitempty"`
	CorrCor   Percent  `json:"corrupt_correlation,omitempty"`
	Reorder   Percent  `json:"reorder,omitempty"`
	ReorCor   Percent  `json:"reorder_correlation,omitempty"`
	Gap       uint32   `json:"gap,omitempty"`

	Rate         uint64 `json:"rate,omitempty"` // bytes/s
	Overhead     int32  `json:"overhead,omitempty"`
	CellSize     uint32 `json:"cell_size,omitempty"`
	CellOverhead int32  `json:"cell_overhead,omitempty"`

	Slot *Slot  `json:"slot,omitempty"`
	Seed uint64 `json:"seed,omitempty"` // 0: another each time
}

// State4 is the four-state Markov model of loss.
type State4 struct {
	P13 Percent `json:"p13"`
	P31 Percent `json:"p31"`
	P32 Percent `json:"p32"`
	P23 Percent `json:"p23"`
	P14 Percent `json:"p14"`
}

// Gemodel is the Gilbert-Elliot model of loss: from good to bad with P, back with
// R; a packet is lost with 1-H in bad times and 1-K in good ones.
type Gemodel struct {
	P  Percent `json:"p"`
	R  Percent `json:"r"`
	H  Percent `json:"h"`
	K1 Percent `json:"1-k"`
}

// Slot is when netem lets packets go: in bursts, between Min and Max ns apart, or
// as the distribution says.
type Slot struct {
	Min          int64   `json:"min,omitempty"`
	Max          int64   `json:"max,omitempty"`
	Distribution string  `json:"distribution,omitempty"`
	Delay        int64   `json:"delay,omitempty"`
	Jitter       int64   `json:"jitter,omitempty"`
	Packets      int     `json:"packets,omitempty"`
	Bytes        int     `json:"bytes,omitempty"`
	Table        []int16 `json:"table,omitempty"`
}
