// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"sluice/qdisc"
)

// The quantum of a class of a tree across ports, of which none was said: what its
// ceiling lets through in a millisecond, but at least two full frames, and at most what
// holds the longest super-frame.
const (
	leastQuantum = 2 * 1514
	mostQuantum  = 70_000
)

// leastRate is the guarantee of who was promised nothing: one full frame in a second or
// two, so that nobody starves.
const leastRate = 1000

// Shares reads what somebody gets, each line in the words of a class of htb:
//
//	rate 300mbit ceil 1gbit
//	from rate 100mbit
//
// Those with from are of what containers send. An error is a LineError.
func Shares(lines []string) (s qdisc.Shares, err error) {
	for i, text := range lines {
		in, c, err := Share(strings.Fields(text))
		to := &s.Egress
		if in {
			to = &s.Ingress
		}
		if err == nil && *to != nil {
			err = errors.New("there is a line for this direction already")
		}
		if err != nil {
			return s, &LineError{i, text, err}
		}
		*to = c
	}
	return s, nil
}

// Share reads one line of Shares; in says that it began with from.
func Share(line []string) (in bool, _ *qdisc.HTBClass, err error) {
	w := &words{left: line}
	in = w.is("from")
	var c qdisc.Class
	if err := htbClass(&c, w); err != nil {
		return in, nil, err
	}
	if err := c.HTB.Check(); err != nil {
		return in, nil, err
	}
	if c.HTB.Quantum == 0 {
		c.HTB.Quantum = quantumOf(c.HTB.Ceil.Bytes)
	}
	return in, c.HTB, nil
}

func quantumOf(ceil uint64) uint32 {
	return uint32(min(max(ceil/1000, leastQuantum), mostQuantum))
}

// Rest is the class of who was promised nothing of what c has: it may borrow all of it.
func Rest(c *qdisc.HTBClass) *qdisc.HTBClass {
	rate := qdisc.Rate{Bytes: min(leastRate, c.Rate.Bytes)}
	return &qdisc.HTBClass{
		Rate: rate, Ceil: c.Ceil, Burst: orBurst(0, rate.Bytes), CBurst: orBurst(0, c.Ceil.Bytes), Prio: c.Prio, Quantum: quantumOf(c.Ceil.Bytes),
	}
}

// ShareLines is Shares in the words that it reads.
func ShareLines(s qdisc.Shares) (out []string) {
	if s.Egress != nil {
		out = append(out, ShareText(s.Egress))
	}
	if s.Ingress != nil {
		out = append(out, "from "+ShareText(s.Ingress))
	}
	return out
}

// ShareText is a class in the words that Share reads.
func ShareText(c *qdisc.HTBClass) string {
	text := fmt.Sprintf("rate %s ceil %s burst %s cburst %s", rateText(c.Rate.Bytes), rateText(c.Ceil.Bytes), sizeText(c.Burst), sizeText(c.CBurst))
	if c.Prio != 0 {
		text += fmt.Sprintf(" prio %d", c.Prio)
	}
	text += fmt.Sprintf(" quantum %d", c.Quantum)
	if c.Rate.Overhead != 0 {
		text += fmt.Sprintf(" overhead %d", c.Rate.Overhead)
	}
	if c.Rate.MPU != 0 {
		text += fmt.Sprintf(" mpu %d", min(c.Rate.MPU, math.MaxInt32))
	}
	if c.Rate.ATM {
		text += " linklayer atm"
	}
	return text
}
