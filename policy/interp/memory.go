// SPDX-License-Identifier: Apache-2.0

package interp

import (
	"fmt"
	"math/big"

	"sluice/policy"
	"sluice/policy/nft"
)

// memory is what a statement remembers.
type memory struct {
	stmt           nft.Stmt
	packets, bytes uint64
	tokens         *big.Int // of a limit: nanoseconds in its bucket; nil: full
	last           int64
	conns          map[string]bool
}

func newMemory(s nft.Stmt) *memory {
	m := &memory{stmt: s}
	switch s := s.(type) {
	case *nft.Counter:
		m.packets, m.bytes = s.Packets, s.Bytes
	case *nft.Quota:
		m.bytes = s.Used
	}
	return m
}

// pass lets a packet of n bytes through.
func (m *memory) pass(n int, p *policy.Packet) bool {
	switch s := m.stmt.(type) {
	case *nft.Counter:
		m.packets++
		m.bytes += uint64(n)
		return true
	case *nft.Quota:
		m.bytes += uint64(n)
		return (m.bytes > s.Bytes) == s.Over
	case *nft.Last:
		m.last = p.Now
		return true
	case *nft.Limit:
		return m.limit(s, n, p.Now) != s.Over
	case *nft.CTCount:
		return (m.count(p) > int(s.Count)) == s.Over
	}
	panic(fmt.Sprintf("no such statement: %T", m.stmt))
}

// limit is a bucket of time: it fills as time passes, and a packet takes from it
// what it may take at the rate.
func (m *memory) limit(s *nft.Limit, n int, now int64) bool {
	per := new(big.Int).SetUint64(s.Per * 1_000_000_000)
	rate := new(big.Int).SetUint64(s.Rate)
	burst := s.Burst
	cost, full := new(big.Int), new(big.Int)
	if s.Bytes {
		cost.Div(new(big.Int).Mul(per, big.NewInt(int64(n))), rate)
		full.Div(new(big.Int).Mul(per, new(big.Int).SetUint64(s.Rate+burst)), rate)
	} else {
		if burst == 0 {
			burst = 5
		}
		cost.Div(per, rate)
		full.Mul(cost, new(big.Int).SetUint64(burst))
	}
	if m.tokens == nil {
		m.tokens = full
	} else {
		m.tokens = new(big.Int).Add(m.tokens, big.NewInt(now-m.last))
	}
	m.last = now
	if m.tokens.Cmp(full) > 0 {
		m.tokens = full
	}
	if m.tokens.Cmp(cost) < 0 {
		return false
	}
	m.tokens = new(big.Int).Sub(m.tokens, cost)
	return true
}

// count is how many connections came by, as if none of them ever ended.
func (m *memory) count(p *policy.Packet) int {
	if m.conns == nil {
		m.conns = map[string]bool{}
	}
	if t, ok := original(p); ok {
		m.conns[t.String()] = true
	}
	return len(m.conns)
}
