// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"sluice/bridge/snoop"
	"sluice/packet"
)

// SetSnooping turns IGMP and MLD snooping on, or off with nil. What was learned
// about groups is forgotten.
func (b *Bridge) SetSnooping(c *snoop.Config) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c == nil {
		b.snoop.Store(nil)
		return
	}
	t := snoop.New(*c)
	t.SetPorts(b.ports.Load().snooped())
	b.snoop.Store(t)
}

// snooping is the table for a configuration; that which is there if it is the same.
func (b *Bridge) snooping(c *snoop.Config) *snoop.Table {
	if c == nil {
		return nil
	}
	if t := b.snoop.Load(); t != nil && t.ConfiguredAs(*c) {
		return t
	}
	return snoop.New(*c)
}

// Snooping is what was learned about groups, to be read; nil if it is off.
func (b *Bridge) Snooping() *snoop.Table { return b.snoop.Load() }

// snooped is the ports and VLANs as a snoop.Table wants them. It queries where
// there are two members at least: to one alone no group is forwarded.
func (ps *portSet) snooped() ([]snoop.Port, []uint16) {
	var ports []snoop.Port
	var one, two vidSet
	unaware := 0
	for i, p := range ps.byIndex {
		mode := p.Router
		if p.Local && mode == snoop.RouterAuto {
			mode = snoop.RouterAlways
		}
		ports = append(ports, snoop.Port{Index: i, FastLeave: p.has(FastLeave), Router: mode})
		if p.vlans == nil {
			unaware++
			continue
		}
		for w, set := range p.vlans.member {
			two[w] |= one[w] & set
			one[w] |= set
		}
	}
	if unaware > 0 {
		two = one
	}
	return ports, two.list(unaware > 1)
}

// list is the VLANs of a set, ascending, with 0 if zero is set.
func (s *vidSet) list(zero bool) (vids []uint16) {
	if zero {
		vids = append(vids, 0)
	}
	for w, set := range s {
		for ; set != 0; set &= set - 1 {
			vids = append(vids, uint16(w*64+bits.TrailingZeros64(set)))
		}
	}
	return vids
}

// Poll lets what was snooped expire and calls send for each query that is due,
// as it is to leave by the port, with its tag. A control goroutine calls it each
// second, and may sooner when Verdict.Due says so. The frame is send's until it
// returns.
func (b *Bridge) Poll(now Tick, send func(port uint16, frame []byte)) {
	t := b.snoop.Load()
	if t == nil {
		return
	}
	ps := b.ports.Load()
	t.Poll(uint32(now), func(q snoop.Query) {
		to := ps.flood
		if q.Port != 0 {
			to = []uint16{q.Port}
		}
		tagged := slices.Insert(slices.Clone(q.Frame), 12, 0, 0, 0, 0)
		for _, index := range to {
			ps.query(&q, tagged, index, send)
		}
	})
}

// query sends one query to one port, if that is in its VLAN, with tag or without.
func (ps *portSet) query(q *snoop.Query, tagged []byte, index uint16, send func(uint16, []byte)) {
	p := ps.byIndex[index]
	if p == nil || p.Local {
		return
	}
	tags := tagging{vid: q.VLAN, tci: q.VLAN}
	tag, member := tags.at(p)
	switch {
	case !member:
	case tag.Op == TagPush:
		binary.BigEndian.PutUint16(tagged[packet.EthernetLen-2:], tag.TPID)
		binary.BigEndian.PutUint16(tagged[packet.EthernetLen:], tag.TCI)
		send(index, tagged)
	default:
		send(index, q.Frame)
	}
}
