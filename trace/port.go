// SPDX-License-Identifier: Apache-2.0

package trace

import "sync/atomic"

// Word is the place of one counter in a port's slot. The numbers are part of
// the file's layout: what a worker writes while it receives, while it sends and
// while it decides are three cache lines, so that two workers that share a port
// disturb each other little.
type Word uint8

// The counters of a port. Packets and bytes are those on the wire: an offload
// frame counts as the frames that it stands for.
const (
	RxPackets Word = 0 // frames received from the port
	RxBytes   Word = 1 // their bytes, Ethernet header included
	RxTurns   Word = 2 // receive batches that were not empty
	RxGSO     Word = 3 // offload frames among the received

	TxPackets Word = 8  // frames sent to the port
	TxBytes   Word = 9  // their bytes, Ethernet header included
	TxCalls   Word = 10 // sendmmsg calls
	TxGSO     Word = 11 // offload frames among the sent

	FlowHits   Word = 16 // frames received that the flow cache decided
	FlowMisses Word = 17 // frames received that took the slow path
	Flooded    Word = 18 // frames received that were flooded
	Learned    Word = 19 // stations learned on the port, or moved to it

	dropBase Word = 24 // drops[None] (always 0), drops[MalformedEthernet], …
)

// slotWords is the number of words in a slot: 16 cache lines, one page holds
// four ports.
const slotWords = 128

// A slot must have room for every reason; this does not compile otherwise.
const _ = uint(slotWords - int(dropBase) - NumReasons)

// PortCounters is the slot of one port in Counters. Its words are atomic: any
// number of goroutines and both processes may use it. The data path adds once a
// batch, not once a packet. It lives in the mapping of its Counters and must
// not be used after Counters.Close.
type PortCounters struct {
	words [slotWords]atomic.Uint64
}

// AddRx counts received frames and their bytes.
func (p *PortCounters) AddRx(packets, bytes uint64) {
	p.words[RxPackets].Add(packets)
	p.words[RxBytes].Add(bytes)
}

// AddTx counts sent frames and their bytes.
func (p *PortCounters) AddTx(packets, bytes uint64) {
	p.words[TxPackets].Add(packets)
	p.words[TxBytes].Add(bytes)
}

// Add adds n to one counter. Zero touches no memory.
func (p *PortCounters) Add(w Word, n uint64) {
	if n != 0 && w < dropBase {
		p.words[w].Add(n)
	}
}

// Drop counts n frames dropped for the reason. None is not counted.
func (p *PortCounters) Drop(r Reason, n uint64) {
	if n != 0 && r != None && int(r) < NumReasons {
		p.words[int(dropBase)+int(r)].Add(n)
	}
}

// Reset sets every counter to zero: for a slot that is given to a new port.
// What another goroutine adds meanwhile may be lost or kept.
func (p *PortCounters) Reset() {
	for i := range p.words {
		p.words[i].Store(0)
	}
}

// PortStats is a port's counters at one moment. Each counter is exact, but they
// are read one after the other while the data path goes on.
type PortStats struct {
	RxPackets  uint64            `json:"rx_packets"`
	RxBytes    uint64            `json:"rx_bytes"`
	RxTurns    uint64            `json:"rx_turns"`
	RxGSO      uint64            `json:"rx_gso"`
	TxPackets  uint64            `json:"tx_packets"`
	TxBytes    uint64            `json:"tx_bytes"`
	TxCalls    uint64            `json:"tx_calls"`
	TxGSO      uint64            `json:"tx_gso"`
	FlowHits   uint64            `json:"flow_hits"`
	FlowMisses uint64            `json:"flow_misses"`
	Flooded    uint64            `json:"flooded"`
	Learned    uint64            `json:"learned"`
	Drops      map[string]uint64 `json:"drops,omitempty"` // by Reason word; only what is not zero
}

// Snapshot reads the counters. It is for the control path: it allocates.
func (p *PortCounters) Snapshot() PortStats {
	return PortStats{
		RxPackets:  p.words[RxPackets].Load(),
		RxBytes:    p.words[RxBytes].Load(),
		RxTurns:    p.words[RxTurns].Load(),
		RxGSO:      p.words[RxGSO].Load(),
		TxPackets:  p.words[TxPackets].Load(),
		TxBytes:    p.words[TxBytes].Load(),
		TxCalls:    p.words[TxCalls].Load(),
		TxGSO:      p.words[TxGSO].Load(),
		FlowHits:   p.words[FlowHits].Load(),
		FlowMisses: p.words[FlowMisses].Load(),
		Flooded:    p.words[Flooded].Load(),
		Learned:    p.words[Learned].Load(),
		Drops:      p.drops(),
	}
}

// drops reads the drop counters that are not zero; nil if all are.
func (p *PortCounters) drops() map[string]uint64 {
	var m map[string]uint64
	for _, r := range Reasons() {
		n := p.words[int(dropBase)+int(r)].Load()
		if n == 0 {
			continue
		}
		if m == nil {
			m = make(map[string]uint64)
		}
		m[r.String()] = n
	}
	return m
}

// Dropped is the number of frames dropped for any reason.
func (s PortStats) Dropped() uint64 {
	var sum uint64
	for _, n := range s.Drops {
		sum += n
	}
	return sum
}
