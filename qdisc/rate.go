// SPDX-License-Identifier: Apache-2.0

package qdisc

import "math/bits"

// Rate is how fast bytes leave, and what a frame costs beyond its own: tc's
// ratespec. Zero is no limit.
type Rate struct {
	Bytes    uint64 `json:"bytes"`              // in a second
	Overhead int32  `json:"overhead,omitempty"` // bytes that each frame costs more, or less
	MPU      uint32 `json:"mpu,omitempty"`      // bytes that each frame costs at least
	ATM      bool   `json:"atm,omitempty"`      // cells of 53 bytes for each 48
}

// tickShift: a tick, in which tokens are counted, is 1/1024 ns. A frame of 64
// bytes at 3 Gbit/s lasts 170.67 ns: whole ones would let through 0.4 % too much.
const tickShift = 10

const (
	second     = 1_000_000_000
	tickSecond = second << tickShift
)

// pace turns bytes into time. Zero is no limit.
type pace struct{ Rate }

func (p *pace) on() bool { return p.Bytes > 0 }

// Cost is what a frame of n bytes costs in bytes.
func (r *Rate) Cost(n uint32) uint64 {
	c := uint64(max(int64(n)+int64(r.Overhead), 0))
	c = max(c, uint64(r.MPU))
	if r.ATM {
		c = (c + 47) / 48 * 53
	}
	return c
}

// ticks is how long n bytes take, rounded up: nobody gets more than the rate.
func (p *pace) ticks(n uint32) int64 { return span(p.Cost(n), p.Bytes) }

// span is how long n bytes take at a rate, in ticks, rounded up; bounded by a day.
func span(n, rate uint64) int64 {
	const day = 86400 * tickSecond
	hi, lo := bits.Mul64(n, tickSecond)
	lo, carry := bits.Add64(lo, rate-1, 0)
	hi += carry
	if hi >= rate {
		return day
	}
	q, _ := bits.Div64(hi, lo, rate)
	return int64(min(q, day))
}

// volume is how many bytes leave in a time of ticks.
func volume(ticks int64, rate uint64) uint64 {
	hi, lo := bits.Mul64(uint64(max(ticks, 0)), rate)
	if hi >= tickSecond {
		return 1 << 62
	}
	q, _ := bits.Div64(hi, lo, tickSecond)
	return q
}

// ceilNS is ticks in ns, rounded up.
func ceilNS(ticks int64) int64 { return (ticks + 1<<tickShift - 1) >> tickShift }

// elapsed is the time between, in ticks; bounded by a day, negative never.
func elapsed(now, since int64) int64 {
	return max(min(now-since, 86400*second), 0) << tickShift
}
