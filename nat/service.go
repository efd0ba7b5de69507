// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"sluice/conntrack"
	"sluice/trace"
)

// BackendState says what a backend takes.
type BackendState uint8

// The states. A backend that is not in its service at all is gone: its connections
// end at their next packet, by conntrack.Table.SetBackend.
const (
	Ready    BackendState = iota
	Draining              // the connections that it has, and new ones only if no other is ready
)

// Backend is one that a service's connections go to.
type Backend struct {
	Bind   conntrack.Bind // number and generation; its connections die with it
	Addr   netip.Addr
	Port   uint16 // 0: the port stays
	Weight uint16 // share of new connections; 0 is 1
	State  BackendState
}

// Service is what spreads new connections over backends by consistent hashing:
// one that comes or goes moves few of the others' flows.
type Service struct {
	ID       uint16 // not 0
	Backends []Backend
	Affinity uint32 // seconds for which a client comes to the same backend; 0: each connection by itself
	Table    int    // size of the look-up table, a prime of MaglevSizes; 0: by the number of backends
}

// service is a Service with its tables, immutable.
type service struct {
	spec  Service
	ready maglev // of spec.Backends; those that drain, if none is ready
}

// SetService says what a service is from now on.
func (n *NAT) SetService(s Service) error {
	made, err := newService(s)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	next := maps.Clone(*n.services.Load())
	n.memory.backends.follow(next[s.ID], made)
	next[s.ID] = made
	n.services.Store(&next)
	return nil
}

// RemoveService takes a service away.
func (n *NAT) RemoveService(id uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := maps.Clone(*n.services.Load())
	n.memory.backends.follow(next[id], nil)
	delete(next, id)
	n.services.Store(&next)
}

func newService(s Service) (*service, error) {
	if s.ID == 0 {
		return nil, fmt.Errorf("service without a number")
	}
	s.Backends = slices.Clone(s.Backends)
	// The order is part of what the table looks like, so it must not depend on
	// the caller's.
	slices.SortFunc(s.Backends, func(a, b Backend) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	for i, b := range s.Backends {
		if !b.Addr.IsValid() || b.Addr.Zone() != "" || b.Addr.Is4In6() {
			return nil, fmt.Errorf("service %d: backend %v has no address", s.ID, b.Addr)
		}
		if i > 0 && s.Backends[i-1].Addr == b.Addr && s.Backends[i-1].Port == b.Port {
			return nil, fmt.Errorf("service %d: backend %v:%d twice", s.ID, b.Addr, b.Port)
		}
	}
	size, err := maglevSize(s.Table, len(s.Backends))
	if err != nil {
		return nil, fmt.Errorf("service %d: %w", s.ID, err)
	}
	m := &service{spec: s}
	for _, state := range []BackendState{Ready, Draining} {
		if m.ready = newMaglev(s.Backends, state, size); m.ready != nil {
			break
		}
	}
	return m, nil
}

// usable is the backend with this number and generation, if a client may come back
// to it.
func (s *service) usable(b conntrack.Bind) *Backend {
	for i := range s.spec.Backends {
		e := &s.spec.Backends[i]
		if e.Bind == b && (e.State == Ready || s.ready != nil && s.spec.Backends[s.ready[0]].State == Draining) {
			return e
		}
	}
	return nil
}

// balance gives the connection a backend.
func (c *choice) balance() Verdict {
	s := (*c.n.services.Load())[c.to.Service]
	if s == nil || s.ready == nil {
		return Verdict{Reason: trace.NATBackend, Reject: PortUnreachable}
	}
	b := c.backend(s)
	if b.Addr.Is4() != c.cur.Dst.Is4() {
		return Verdict{Reason: trace.NATBackend, Reject: PortUnreachable}
	}
	c.to = Target{Addrs: One(b.Addr)}
	if b.Port != 0 && transport(c.cur.Proto) {
		c.to.Ports = PortRange{b.Port, b.Port}
	}
	c.f.Pending.Backend = b.Bind
	v := c.set()
	if s.spec.Affinity != 0 {
		v.Lasting = Once
	}
	return v
}

// backend is the one of the client, or the one that the flow's hash says.
func (c *choice) backend(s *service) *Backend {
	t := &c.cur
	h := hash(c.n.seed^uint64(s.spec.ID), t.Src)
	if s.spec.Affinity == 0 {
		h = mix(hash(h, t.Dst) ^ uint64(t.SrcPort)<<32 ^ uint64(t.DstPort)<<16 ^ uint64(t.Proto))
		return &s.spec.Backends[s.ready.lookup(h)]
	}
	k := client{addr: t.Src.As16(), zone: c.f.Pending.Zone, service: s.spec.ID}
	if bind, ok := c.m.clients.find(k, c.f.Now); ok {
		if b := s.usable(bind); b != nil {
			c.m.clients.keep(k, bind, c.f.Now, s.spec.Affinity)
			return b
		}
	}
	b := &s.spec.Backends[s.ready.lookup(h)]
	c.m.clients.keep(k, b.Bind, c.f.Now, s.spec.Affinity)
	return b
}

// client is one of a service's.
type client struct {
	addr          [16]byte
	zone, service uint16
}

// clients remembers which backend a client of a service with affinity has.
// Bounded: when it is full, who came first goes. Not safe for concurrent use.
type clients struct {
	at    map[client]sticky
	order queue[turn]
	max   int
}

type sticky struct {
	bind  conntrack.Bind
	until uint32
}

// turn is a client's place in the order of ends. A client that came again has
// another one behind it.
type turn struct {
	who   client
	until uint32
}

func newClients(limit int) clients { return clients{at: map[client]sticky{}, max: limit} }

func (c *clients) len() int { return len(c.at) }

func (c *clients) find(k client, now uint32) (conntrack.Bind, bool) {
	s, ok := c.at[k]
	return s.bind, ok && int32(s.until-now) > 0
}

// keep remembers a client for some seconds from now. Its place in the order moves
// once a second at most.
func (c *clients) keep(k client, b conntrack.Bind, now, seconds uint32) {
	until := now + seconds
	old, known := c.at[k]
	if known && old == (sticky{b, until}) {
		return
	}
	if !known && len(c.at) >= c.max {
		c.drop()
	}
	c.at[k] = sticky{b, until}
	if !known || old.until != until {
		c.order.push(turn{k, until})
	}
}

// drop forgets the first of the order that is still there.
func (c *clients) drop() {
	for {
		t, ok := c.order.first()
		if !ok {
			return
		}
		c.order.pop()
		if s, known := c.at[t.who]; known && s.until == t.until {
			delete(c.at, t.who)
			return
		}
	}
}

// expire forgets whose time is over, of at most so many, and reports whether there may
// be more.
func (c *clients) expire(now uint32, most int) (more bool) {
	for range most {
		t, ok := c.order.first()
		if !ok || int32(t.until-now) > 0 {
			return false
		}
		c.order.pop()
		if s, known := c.at[t.who]; known && s.until == t.until {
			delete(c.at, t.who)
		}
	}
	return true
}
