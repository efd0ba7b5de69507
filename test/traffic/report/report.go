// SPDX-License-Identifier: Apache-2.0

// Package report holds what the traffic tool prints and what the lab reads:
// one JSON object a run. Every count starts at zero; durations are in
// microseconds or milliseconds, as the field's name says.
package report

// Stream is the result of one or more hashed TCP streams.
type Stream struct {
	Streams  int     `json:"streams"`
	Sent     uint64  `json:"sent"`       // bytes that this side sent
	Received uint64  `json:"received"`   // bytes that came back (both directions only)
	OK       bool    `json:"ok"`         // every hash of both directions agrees
	SHA256   string  `json:"sha256"`     // of the first stream's sent bytes
	Seconds  float64 `json:"seconds"`    // connect to the last verdict
	MaxGapMS float64 `json:"max_gap_ms"` // longest time that a receiver of either side got nothing
}

// Gbps is the rate of both directions together, in 10^9 bit/s.
func (s Stream) Gbps() float64 {
	if s.Seconds == 0 {
		return 0
	}
	return float64(s.Sent+s.Received) * 8 / s.Seconds / 1e9
}

// Datagrams is the result of hashed, numbered UDP datagrams in one direction.
type Datagrams struct {
	Sent      uint64  `json:"sent"`
	Received  uint64  `json:"received"`
	Lost      uint64  `json:"lost"`
	Bad       uint64  `json:"bad"`       // wrong hash or length
	Reordered uint64  `json:"reordered"` // number not above all earlier ones
	Merged    uint64  `json:"merged"`    // reads in which UDP_GRO gave more than one
	Bytes     uint64  `json:"bytes"`
	Seconds   float64 `json:"seconds"`
}

// RoundTrips is the result of a ping-pong. The percentiles are half round trips.
type RoundTrips struct {
	Count    int     `json:"count"`
	Lost     int     `json:"lost"`
	P50US    float64 `json:"p50_us"`
	P99US    float64 `json:"p99_us"`
	MaxUS    float64 `json:"max_us"`
	MaxGapMS float64 `json:"max_gap_ms"` // longest time between two answers
}

// Rate is what a sink of datagrams or a run of connections counted.
type Rate struct {
	Count     uint64  `json:"count"`
	Errors    uint64  `json:"errors"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
}

// Capture is what a capture on one interface saw. A frame's checksum is
// complete and right, or partial with the right pseudo-header sum, or bad.
type Capture struct {
	Frames    uint64 `json:"frames"`
	Complete  uint64 `json:"complete"`
	Partial   uint64 `json:"partial"`
	GSO       uint64 `json:"gso"`
	Unchecked uint64 `json:"unchecked"` // no checksum of its own: ARP, fragments, other protocols
	Bad       uint64 `json:"bad"`
	BadNote   string `json:"bad_note,omitempty"` // why the first bad frame is bad
	BadHex    string `json:"bad_hex,omitempty"`  // its first bytes
	LargestL3 int    `json:"largest_l3"`         // bytes of the largest IP packet, unsegmented
	Tagged    uint64 `json:"tagged"`             // with a VLAN tag
	Lost      uint64 `json:"lost"`               // the kernel could not queue for us
	Errors    uint64 `json:"errors"`             // reads that failed
}

// Hostile is what a frame fuzzer sent.
type Hostile struct {
	Sent    uint64  `json:"sent"`
	Refused uint64  `json:"refused"` // by the kernel: its own checks on metadata or size
	Retried uint64  `json:"retried"` // send buffer full
	Seconds float64 `json:"seconds"`
	Seed    uint64  `json:"seed"`
}

// Reach is what one namespace of an all-pairs ping found.
type Reach struct {
	Targets int      `json:"targets"`
	Reached int      `json:"reached"`
	Missing []string `json:"missing,omitempty"`
	Sent    int      `json:"sent"`
	Seconds float64  `json:"seconds"`
}

// Frames is how many ready-made frames were sent.
type Frames struct {
	Sent int `json:"sent"`
}

// Recording is the end of a recording, whose frames were printed as they came.
type Recording struct {
	Lost uint64 `json:"lost"` // the kernel could not queue for us
}

// Meter is what was heard of datagrams that come at a steady rate.
type Meter struct {
	Count    uint64    `json:"count"`
	Lost     uint64    `json:"lost"`
	Sources  []string  `json:"sources"` // address:port of whoever sent them
	Silences []Silence `json:"silences,omitempty"`
}

// Silence is a time in which nothing was heard.
type Silence struct {
	From int64   `json:"from"` // of the last datagram before it, in nanoseconds since 1970
	MS   float64 `json:"ms"`
}

// Answers is what a DNS server did.
type Answers struct {
	Questions uint64 `json:"questions"` // that came
}

// Guest is what went through the card of a virtual machine.
type Guest struct {
	Sent     uint64 `json:"sent"`     // frames from the guest
	Received uint64 `json:"received"` // to it
}
