// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"slices"
	"sync/atomic"
)

// PortConfig is one member of the bridge.
type PortConfig struct {
	Index uint16 // 1 to 65535; unique in the bridge
	MTU   int    // largest IP packet that may be sent to it, in bytes
	Local bool   // the port of the namespace's own host stack; at most one
}

// port is a member and what it has learned. It lives as long as the membership,
// across sets, so that a change elsewhere does not forget its count.
type port struct {
	PortConfig
	learned *atomic.Int64 // dynamic entries; changed under Bridge.mu
}

// portSet is an immutable membership, swapped as a whole.
type portSet struct {
	byIndex map[uint16]port
	flood   []uint16 // all but the local port, ascending
	local   uint16   // 0: none
}

// newPortSet makes the set of the members given; those that were in the old set
// keep their count. A later duplicate of an index replaces the earlier.
func newPortSet(members []PortConfig, old *portSet) *portSet {
	ps := &portSet{byIndex: make(map[uint16]port, len(members))}
	for _, c := range members {
		p, kept := old.byIndex[c.Index]
		if !kept {
			p.learned = new(atomic.Int64)
		}
		p.PortConfig = c
		ps.byIndex[c.Index] = p
	}
	for i, p := range ps.byIndex {
		if p.Local {
			ps.local = i
		} else {
			ps.flood = append(ps.flood, i)
		}
	}
	slices.Sort(ps.flood)
	return ps
}

// reaches reports whether a frame flooded from port in would reach anybody.
func (ps *portSet) reaches(in uint16, local bool) bool {
	if local && ps.local != 0 && ps.local != in {
		return true
	}
	switch len(ps.flood) {
	case 0:
		return false
	case 1:
		return ps.flood[0] != in
	}
	return true
}

// SetPorts replaces the membership. Every entry of a port that leaves, learned
// or static, is forgotten, and the Refs to it are false when SetPorts returns; a
// frame that is just being decided cannot bring it back.
func (b *Bridge) SetPorts(members []PortConfig) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ps := newPortSet(members, b.ports.Load())
	b.install(b.change(ps, b.static.Load().without(b.ports.Load(), ps)))
}

// has reports whether a port is a member.
func (ps *portSet) has(index uint16) bool {
	_, member := ps.byIndex[index]
	return member
}

// FloodPorts is every member but the local port, in ascending order. The slice
// is shared and must not be changed. The caller skips the input port.
func (b *Bridge) FloodPorts() []uint16 { return b.ports.Load().flood }

// Local is the local port; 0 if there is none.
func (b *Bridge) Local() uint16 { return b.ports.Load().local }

// Port is the configuration of a member; false if it is none.
func (b *Bridge) Port(index uint16) (PortConfig, bool) {
	p, ok := b.ports.Load().byIndex[index]
	return p.PortConfig, ok
}
