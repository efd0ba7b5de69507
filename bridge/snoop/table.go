// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// Theory of operation.
//
// Groups are in a hash table of chains. A reader walks a chain by atomic loads
// and takes the slice of members that a group shows; the slice is never changed,
// a change shows another one. A writer holds Table.mu, puts a new group at the
// head of its chain and takes an old one out by letting its predecessor point
// past it; a reader that stands on it goes on from there. The garbage collector
// is what makes this safe without counting readers.
//
// A host that joins and leaves makes garbage, a few hundred bytes each time; a
// report that only refreshes makes none.

// RouterMode says whether a multicast router is behind a port: mcast_router of
// bridge(8). Zero is RouterAuto.
type RouterMode uint8

// The modes.
const (
	RouterAuto   RouterMode = iota // if one is heard
	RouterNever                    // and its queries are not believed
	RouterAlways                   // all groups are sent to it
)

// Port is a port of the bridge as a Table must know it.
type Port struct {
	Index     uint16
	FastLeave bool // one host only is behind it: a leave needs no query
	Router    RouterMode
}

// portState is a Port and what it holds. All is guarded by Table.mu.
type portState struct {
	Port
	groups int
}

// member is a port in a group, or a router port, and when it ends to be.
type member struct {
	port      uint16
	permanent bool // a Static one, which doesn't end
	expires   uint32
}

// group is one group in one VLAN. The fields from members on are guarded by
// Table.mu; readers use ports and next.
type group struct {
	addr netip.Addr
	vlan uint16

	next    atomic.Pointer[group]
	ports   atomic.Pointer[[]uint16] // never nil
	members []member
}

// vlan is what is known of one VLAN; made when it is first needed.
type vlan struct{ v4, v6 family }

func (v *vlan) family(v6 bool) *family {
	if v6 {
		return &v.v6
	}
	return &v.v4
}

// Table is what one bridge has snooped. All methods may be called from any
// goroutine. Lock order: mu is the only one, and nothing is called with it held.
type Table struct {
	config   Config // never changed
	seed     maphash.Seed
	buckets  []atomic.Pointer[group]
	vlans    [4096]atomic.Pointer[vlan]
	overflow atomic.Uint32 // until when unknown groups are flooded; 0: never was full

	mu sync.Mutex
	// +checklocks:mu
	ports map[uint16]*portState
	// +checklocks:mu
	own []uint16 // VLANs to query in, ascending
	// +checklocks:mu
	fresh []uint16 // ports that no query was sent to yet
	// +checklocks:mu
	left []departure
	// +checklocks:mu
	static map[Static]struct{}
	// +checklocks:mu
	stats Stats
}

// Stats is what a Table holds and did.
type Stats struct {
	Groups       int    `json:"groups"`        // now
	MaxGroups    int    `json:"max_groups"`    // their bound
	RefusedFull  uint64 `json:"refused_full"`  // joins refused, table full
	RefusedQuota uint64 `json:"refused_quota"` // joins refused, port at its bound
	Queries      uint64 `json:"queries"`       // sent
}

// New makes a Table without ports and groups.
func New(c Config) *Table {
	t := &Table{config: c.withDefaults(), seed: maphash.MakeSeed(), ports: map[uint16]*portState{}}
	n := 16
	for n < t.config.MaxGroups {
		n *= 2
	}
	t.buckets = make([]atomic.Pointer[group], n)
	return t
}

// Stats reads the counters.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.MaxGroups = t.config.MaxGroups
	return s
}

// bucket is the head of the chain that a group is in.
func (t *Table) bucket(addr netip.Addr, vlan uint16) *atomic.Pointer[group] {
	var b [18]byte
	*(*[16]byte)(b[:]) = addr.As16()
	binary.NativeEndian.PutUint16(b[16:], vlan)
	h := maphash.Bytes(t.seed, b[:])
	return &t.buckets[h&uint64(len(t.buckets)-1)]
}

// find returns a group; nil if nobody has joined it.
func (t *Table) find(addr netip.Addr, vlan uint16) *group {
	for g := t.bucket(addr, vlan).Load(); g != nil; g = g.next.Load() {
		if g.vlan == vlan && g.addr == addr {
			return g
		}
	}
	return nil
}

// at returns what is known of a VLAN, and makes it if need be.
//
// +checklocks:t.mu
func (t *Table) at(vid uint16) *vlan {
	p := &t.vlans[vid&0xfff]
	if v := p.Load(); v != nil {
		return v
	}
	v := new(vlan)
	t.publish(&v.v4)
	t.publish(&v.v6)
	p.Store(v)
	return v
}

// SetPorts replaces the membership and the VLANs in which the table queries,
// ascending. Groups and routers of a port that leaves are forgotten; a port that
// is new is asked what it wants by the next Poll.
func (t *Table) SetPorts(ports []Port, vlans []uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.ports
	t.ports = make(map[uint16]*portState, len(ports))
	for _, p := range ports {
		s := old[p.Index]
		if s == nil {
			s = new(portState)
			t.fresh = append(t.fresh, p.Index)
		}
		s.Port = p
		t.ports[p.Index] = s
	}
	t.own = slices.Clone(vlans)
	now := t.ports
	gone := func(m member) bool { return now[m.port] == nil }
	t.forget(gone)
	t.forgetRouters(gone)
}

// forget takes the members chosen out of their groups. The counts of their ports
// are given back.
//
// +checklocks:t.mu
func (t *Table) forget(chosen func(member) bool) {
	for i := range t.buckets {
		for link := &t.buckets[i]; link.Load() != nil; {
			g := link.Load()
			t.shrink(g, chosen)
			if len(g.members) == 0 {
				link.Store(g.next.Load())
				t.stats.Groups--
				continue
			}
			link = &g.next
		}
	}
}

// shrink takes the members chosen out of one group.
//
// +checklocks:t.mu
func (t *Table) shrink(g *group, chosen func(member) bool) {
	before, ports := len(g.members), t.ports
	g.members = slices.DeleteFunc(g.members, func(m member) bool {
		if !chosen(m) {
			return false
		}
		if s := ports[m.port]; s != nil && !m.permanent {
			s.groups--
		}
		return true
	})
	if len(g.members) != before {
		g.publish()
	}
}

// publish shows readers who is in the group.
func (g *group) publish() {
	ports := make([]uint16, len(g.members))
	for i, m := range g.members {
		ports[i] = m.port
	}
	g.ports.Store(&ports)
}

// Entry is a port in a group, as `bridge mdb` shows it, or a router port, whose
// Group is not valid.
type Entry struct {
	Group     netip.Addr `json:"group,omitzero"`
	VLAN      uint16     `json:"vlan,omitempty"`
	Port      uint16     `json:"port"`
	Permanent bool       `json:"permanent,omitempty"` // Static, or RouterAlways, which is one in all VLANs
	V6        bool       `json:"v6,omitempty"`        // a router of MLD's, not of IGMP's
	Left      uint32     `json:"left,omitempty"`      // seconds until it ends; 0 if permanent
}

// Groups appends a snapshot of all groups to dst, in no order.
func (t *Table) Groups(dst []Entry, now uint32) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.buckets {
		for g := t.buckets[i].Load(); g != nil; g = g.next.Load() {
			for _, m := range g.members {
				dst = append(dst, m.entry(g.addr, g.vlan, now))
			}
		}
	}
	return dst
}

// entry is a member as it is shown.
func (m *member) entry(group netip.Addr, vlan uint16, now uint32) Entry {
	e := Entry{Group: group, VLAN: vlan, Port: m.port, Permanent: m.permanent}
	if !m.permanent {
		e.Left = remaining(m.expires, now)
	}
	return e
}

// due reports whether a time has come, and remaining how long it is until then.
// Times are modulo 2^32.
func due(at, now uint32) bool { return int32(now-at) >= 0 }

func remaining(at, now uint32) uint32 { return uint32(max(int32(at-now), 0)) }
