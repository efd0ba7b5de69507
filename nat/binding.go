// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"sync/atomic"

	"sluice/conntrack"
)

// Theory of operation.
//
// A binding is what a source is translated to: an inside endpoint, an outside
// one, and how many connections rest upon it. The connections are conntrack's;
// a binding is made when the first is being translated, referred to when it is
// confirmed, and forgotten when the last is gone and the zone's linger is over.
// Nothing of it is kept in a file: Attach makes it again of the connections.
//
// In the RFC profile each translated source has one, and its outside endpoint is
// nobody else's; so has each source of NAT64. In the kernel's there may be many of a source, and those are left
// out which would be found without: of a source whose connections have all kept
// their port, behind one address.

// endpoint is one end of connections in a zone, without pointers: there are many.
type endpoint struct {
	addr  [16]byte // IPv4 as 4in6
	zone  uint16
	port  uint16 // or identifier
	proto uint8
}

func endpointOf(zone uint16, proto uint8, addr netip.Addr, port uint16) endpoint {
	return endpoint{addr: addr.As16(), zone: zone, port: port, proto: proto}
}

func (e endpoint) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(e.addr).Unmap(), e.port)
}

// binding is one mapping. In a list of those of its inside endpoint.
type binding struct {
	inside, outside endpoint
	next            uint32 // place in bindings.all; 0: none
	refs            uint32
	idle            uint32 // since when refs is 0
	linger          uint32
	owned           bool // in the index of outside endpoints
}

// bindings are bounded. Not safe for concurrent use.
type bindings struct {
	all     []binding // the first is nobody
	free    []uint32
	inside  map[endpoint]uint32
	outside map[endpoint]uint32   // those that are owned
	ports   map[endpoint]*portSet // of an outside address and protocol, port 0
	hosts   map[endpoint]int      // owned ones of an inside address, port and protocol 0
	remotes map[remote]uint32     // connections of a binding to an address, for filtering by it
	idle    queue[idleBinding]
	max     int
	refused uint64
	made    *atomic.Uint64 // owned ones
}

type remote struct {
	addr    [16]byte
	binding uint32
}

type idleBinding struct{ at, since uint32 }

func newBindings(limit int) bindings {
	return bindings{
		all: make([]binding, 1), max: limit,
		inside: map[endpoint]uint32{}, outside: map[endpoint]uint32{},
		ports: map[endpoint]*portSet{}, hosts: map[endpoint]int{}, remotes: map[remote]uint32{}, made: new(atomic.Uint64),
	}
}

func (b *bindings) len() int { return len(b.all) - 1 - len(b.free) }

// maxBindings bounds those of one source in the kernel's profile: each of its
// connections looks through them.
const maxBindings = 16

// find is the binding of a pair, 0 if there is none, and how many its source has
// before it.
func (b *bindings) find(inside, outside endpoint) (i uint32, before int) {
	i = b.inside[inside]
	for ; i != 0 && b.all[i].outside != outside; before++ {
		i = b.all[i].next
	}
	return i, before
}

// add makes a binding without connections; 0 if there is no room.
func (b *bindings) add(inside, outside endpoint, owned bool, linger, now uint32) uint32 {
	if b.len() >= b.max {
		b.refused++
		return 0
	}
	i := uint32(len(b.all))
	if n := len(b.free); n > 0 {
		i, b.free = b.free[n-1], b.free[:n-1]
	} else {
		b.all = append(b.all, binding{})
	}
	b.all[i] = binding{inside: inside, outside: outside, next: b.inside[inside], linger: linger, owned: owned}
	b.inside[inside] = i
	if owned {
		b.own(i)
	}
	b.rest(i, now)
	return i
}

// own enters the outside endpoint as that of binding i alone.
func (b *bindings) own(i uint32) {
	out := b.all[i].outside
	b.outside[out] = i
	b.made.Add(1)
	s := b.ports[out.host()]
	if s == nil {
		s = &portSet{}
		b.ports[out.host()] = s
	}
	s.add(out.port)
	b.hosts[b.all[i].inside.address()]++
}

// disown is the inverse.
func (b *bindings) disown(i uint32) {
	out := b.all[i].outside
	delete(b.outside, out)
	s := b.ports[out.host()]
	if s.remove(out.port); s.n == 0 {
		delete(b.ports, out.host())
	}
	in := b.all[i].inside.address()
	if b.hosts[in]--; b.hosts[in] == 0 {
		delete(b.hosts, in)
	}
}

// address is the endpoint without its port and protocol.
func (e endpoint) address() endpoint {
	e.port, e.proto = 0, 0
	return e
}

// host is the endpoint without its port.
func (e endpoint) host() endpoint {
	e.port = 0
	return e
}

// rest notes that the binding has no connection from now on.
func (b *bindings) rest(i, now uint32) {
	b.all[i].idle = now
	b.idle.push(idleBinding{i, now})
}

// expire forgets what has had no connection for its linger; of at most so many, and
// reports whether there may be more. A binding that was just made has a few seconds
// until its connection is confirmed. What lingers longer than what came after it keeps
// those waiting, for as long as a zone's configuration can say.
func (b *bindings) expire(now uint32, most int) (more bool) {
	for range most {
		w, ok := b.idle.first()
		if !ok {
			return false
		}
		e := &b.all[w.at]
		if e.refs == 0 && e.idle == w.since && e.inside != (endpoint{}) {
			if now-w.since <= max(e.linger, unconfirmed) {
				return false
			}
			b.remove(w.at)
		}
		b.idle.pop()
	}
	return true
}

// unconfirmed is how many seconds a connection may take from its translation to
// its confirmation, which happen in one go.
const unconfirmed = 2

// lead makes the binding the first of its source's.
func (b *bindings) lead(i uint32) {
	e := &b.all[i]
	if b.inside[e.inside] == i {
		return
	}
	b.unlink(i)
	e.next = b.inside[e.inside]
	b.inside[e.inside] = i
}

// unlink takes the binding out of the list of its source's.
func (b *bindings) unlink(i uint32) {
	e := &b.all[i]
	first := b.inside[e.inside]
	switch {
	case first != i:
		for b.all[first].next != i {
			first = b.all[first].next
		}
		b.all[first].next = e.next
	case e.next == 0:
		delete(b.inside, e.inside)
	default:
		b.inside[e.inside] = e.next
	}
}

func (b *bindings) remove(i uint32) {
	e := &b.all[i]
	b.unlink(i)
	if e.owned {
		b.disown(i)
	}
	*e = binding{}
	b.free = append(b.free, i)
}

// count adds a connection to an address, or takes it off.
func (b *bindings) count(i uint32, addr netip.Addr, delta int) {
	r := remote{addr.As16(), i}
	if n := int(b.remotes[r]) + delta; n > 0 {
		b.remotes[r] = uint32(n)
	} else {
		delete(b.remotes, r)
	}
}

// ends are both ends of the mapping that a connection rests upon. What NAT64
// translates counts by its IPv4 side.
func ends(e *conntrack.Entry) (inside, outside endpoint) {
	out := e.Reply.DstPort
	if isICMP(e.Reply.Proto) {
		out = e.Reply.SrcPort
	}
	return endpointOf(e.Zone, e.Reply.Proto, e.Original.Src, e.Original.SrcPort),
		endpointOf(e.Zone, e.Reply.Proto, e.Reply.Dst, out)
}

// Heeds is conntrack.Config's Heed: which connections Confirmed and Removed do something
// for.
func Heeds(aux uint64, backend conntrack.Bind) bool { return aux&auxBound != 0 || backend.ID != 0 }

// Confirmed is conntrack.Config's Confirmed.
func (n *NAT) Confirmed(e *conntrack.Entry) {
	if !Heeds(e.Aux, e.Backend) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory.backends.begun(e)
	if e.Aux&auxBound == 0 {
		return
	}
	n.memory.held.forget(e)
	owned, linger := e.Original.Src.Is4() != e.Reply.Src.Is4(), uint32(0) // NAT64
	if z := (*n.zones.Load())[e.Zone]; z != nil && (owned || z.Profile == RFC) {
		owned, linger = true, z.Linger
	}
	b := &n.memory.bindings
	inside, outside := ends(e)
	i, others := b.find(inside, outside)
	if i == 0 {
		if !owned && others >= maxBindings {
			return
		}
		if i = b.add(inside, outside, owned && b.outside[outside] == 0, linger, n.memory.now); i == 0 {
			return
		}
	}
	b.lead(i)
	b.all[i].refs++
	b.count(i, e.Reply.Src, +1)
}

// Removed is conntrack.Config's Removed.
func (n *NAT) Removed(e *conntrack.Entry) {
	if !Heeds(e.Aux, e.Backend) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory.backends.ended(e)
	if e.Aux&auxBound == 0 {
		return
	}
	b := &n.memory.bindings
	i, _ := b.find(ends(e))
	if i == 0 || b.all[i].refs == 0 {
		return
	}
	b.count(i, e.Reply.Src, -1)
	if b.all[i].refs--; b.all[i].refs > 0 {
		return
	}
	if b.all[i].linger == 0 {
		b.remove(i)
	} else {
		b.rest(i, n.memory.now)
	}
}

// Binding is one mapping, for listings.
type Binding struct {
	Zone            uint16
	Proto           uint8
	Inside, Outside netip.AddrPort
	Connections     int
}

// Bindings lists the mappings that are remembered.
func (n *NAT) Bindings() []Binding {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []Binding
	for i := range n.memory.bindings.all[1:] {
		e := &n.memory.bindings.all[i+1]
		if e.inside == (endpoint{}) {
			continue
		}
		all = append(all, Binding{
			Zone: e.inside.zone, Proto: e.inside.proto, Inside: e.inside.addrPort(), Outside: e.outside.addrPort(),
			Connections: int(e.refs),
		})
	}
	return all
}

// queue is first in, first out, and gives back what it doesn't need.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) push(x T) { q.items = append(q.items, x) }

func (q *queue[T]) first() (x T, ok bool) {
	if q.head == len(q.items) {
		return x, false
	}
	return q.items[q.head], true
}

func (q *queue[T]) pop() {
	if q.head++; q.head > len(q.items)/2 {
		q.items = q.items[:copy(q.items, q.items[q.head:])]
		q.head = 0
	}
}
