// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"slices"
	"sync/atomic"

	"sluice/bridge/guard"
	"sluice/bridge/snoop"
)

// PortFlags are the switches of a port, in the words of bridge(8). Zero is an
// ordinary port.
type PortFlags uint16

// The flags.
const (
	Isolated         PortFlags = 1 << iota // sends nothing to, and gets nothing from, other isolated ports
	Hairpin                                // gets back what is for itself, and its own floods
	NoLearning                             // learning off: sources are neither learned nor refreshed
	Locked                                 // only sources that have an entry on the port; they don't come from elsewhere
	NoUnicastFlood                         // flood off: gets no unicast to unknown stations
	NoMulticastFlood                       // mcast_flood off: no groups that nobody joined; the host stack's come all the same
	NoBroadcastFlood                       // bcast_flood off: the same for broadcast
	FastLeave                              // mcast_fast_leave on: one host only is behind it
	FilterBPDU                             // drops spanning tree messages that come, with a reason of their own
	Suppress                               // its ARP requests and solicitations for known neighbours are answered by the bridge

	// AllFlags are all of them.
	AllFlags = Suppress<<1 - 1

	// egressFlags have a say in what leaves by a port, or by another one.
	egressFlags = Isolated | Hairpin | NoUnicastFlood | NoMulticastFlood | NoBroadcastFlood
)

// PortConfig is one member of the bridge.
type PortConfig struct {
	Index uint16 // 1 to 65535; unique in the bridge
	MTU   int    // largest IP packet that may be sent to it, in bytes
	Local bool   // the port of the namespace's own host stack; at most one

	Flags  PortFlags
	VLAN   VLAN             // zero: VLAN-unaware
	Storm  Storm            // zero: no limits
	Guard  guard.Config     // zero: no checks
	Router snoop.RouterMode // multicast routers; the local port is taken for one unless it says RouterNever

	// MirrorIn and MirrorOut are ports that get a copy of what comes from this
	// one, as it came, or goes to it, as it goes. 0 or no member: none.
	MirrorIn, MirrorOut uint16
}

// port is a compiled member. It is immutable.
type port struct {
	PortConfig
	*portState
	vlans   *vlans // nil: unaware
	guard   *guard.Profile
	rates   [floodKinds]Rate
	checked bool // what comes has more to pass than every frame
}

// portState lives as long as the membership, across sets, so that a change
// elsewhere doesn't forget it.
type portState struct {
	learned atomic.Int64 // dynamic entries; changed under Bridge.mu
	meters  [floodKinds]meter
}

// has reports whether a flag of fl is set.
func (p *port) has(fl PortFlags) bool { return p.Flags&fl != 0 }

// portSet is an immutable membership, swapped as a whole.
type portSet struct {
	byIndex map[uint16]*port
	flood   []uint16 // all but the local port, ascending
	local   uint16   // 0: none
	locals  []uint16 // it; nil

	// epoch is what a Ref points to that is Valid while ports and static entries
	// stay what they are.
	epoch *slot

	// special: some port has VLANs or another say in what leaves.
	special bool
}

// newPortSet makes the set of the members given; those that were in the old set
// keep their state. A later duplicate of an index replaces the earlier.
func newPortSet(members []PortConfig, old *portSet) *portSet {
	ps := &portSet{byIndex: make(map[uint16]*port, len(members)), epoch: newEpoch()}
	for _, c := range members {
		state := new(portState)
		if p, kept := old.byIndex[c.Index]; kept {
			state = p.portState
		}
		ps.byIndex[c.Index] = compile(c, state)
	}
	for i, p := range ps.byIndex {
		p.MirrorIn, p.MirrorOut = ps.mirror(i, p.MirrorIn), ps.mirror(i, p.MirrorOut)
		ps.special = ps.special || p.vlans != nil || p.has(egressFlags) || p.MirrorOut != 0
		if p.Local {
			ps.local, ps.locals = i, []uint16{i}
		} else {
			ps.flood = append(ps.flood, i)
		}
	}
	slices.Sort(ps.flood)
	return ps
}

func compile(c PortConfig, state *portState) *port {
	p := &port{PortConfig: c, portState: state}
	p.vlans = c.VLAN.compile()
	p.guard = guard.New(c.Guard)
	p.rates = c.Storm.rates()
	p.checked = p.guard != nil || c.Storm != Storm{} || p.has(FilterBPDU)
	return p
}

// mirror is where copies of a port go; 0 for a port that is no member or itself.
func (ps *portSet) mirror(port, to uint16) uint16 {
	if to == port || !ps.has(to) {
		return 0
	}
	return to
}

// reaches reports whether a frame flooded from port in would reach anybody, if
// no port had a say in it.
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
// is shared and must not be changed. Which of them get a frame, Verdict.Next
// says.
func (b *Bridge) FloodPorts() []uint16 { return b.ports.Load().flood }

// Local is the local port; 0 if there is none.
func (b *Bridge) Local() uint16 { return b.ports.Load().local }

// Port is the configuration of a member; false if it is none.
func (b *Bridge) Port(index uint16) (PortConfig, bool) {
	p, ok := b.ports.Load().byIndex[index]
	if !ok {
		return PortConfig{}, false
	}
	return p.PortConfig, true
}
