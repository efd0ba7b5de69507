// SPDX-License-Identifier: Apache-2.0

package router

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"sluice/fragment"
	"sluice/neigh"
	"sluice/routing"
)

// Theory of operation.
//
// All that a decision depends on, but for neighbours, is one immutable state: Set,
// devices, next hops that are dead just now. Input takes it up once, so a packet is
// judged by one version. A change makes another state, publishes it, and only then
// ends the epoch of the old one: a decision of the old state is invalid as soon as
// somebody can find the new one, and one that is just being made with the old
// state gets an epoch that is over already.
//
// Errors, fragments, and packets that wait for a neighbour are the slow path. They
// lock what they need (rate limits, package neigh, package fragment), and make
// their frames in a workspace of a pool.

// Limits bounds what a Router remembers. Zero is the default of each.
type Limits struct {
	Peers    int // addresses whose ICMP rate is remembered; 1024
	PortRate int // ICMP errors in a second that one ingress port may cause; 250
	Neigh    neigh.Limits
	Fragment fragment.Limits
}

const (
	defaultPeers    = 1024
	defaultPortRate = 250
)

// Router is the IP layer of one namespace. It is safe for concurrent use.
type Router struct {
	state     atomic.Pointer[state]
	neigh     *neigh.Table
	fragments *fragment.Table
	rates     rates
	spaces    sync.Pool     // of *workspace
	ident     atomic.Uint32 // of the next IPv4 packet that the router makes

	mu     sync.Mutex // who makes another state; before the locks of neigh
	probed neigh.Tick // when dead next hops were last asked. +checklocks:mu
}

// state is what decisions are made with. It never changes.
type state struct {
	devices
	set   *routing.Set
	seed  uint64
	icmp  ICMPLimits
	epoch *epoch
	hops  map[hop]bool // gateways of the routes that have several
	dead  map[hop]bool // those of them that don't answer
}

// hop is a next hop as a neighbour.
type hop struct {
	dev uint16
	via netip.Addr
}

// New makes a router that has no device and drops everything.
func New(l Limits) *Router {
	r := &Router{neigh: neigh.New(l.Neigh), fragments: fragment.New(l.Fragment)}
	r.rates.init(positive(l.Peers, defaultPeers), positive(l.PortRate, defaultPortRate))
	r.spaces.New = func() any { return newWorkspace() }
	r.state.Store(&state{devices: newDevices(nil), set: routing.New(routing.Limits{}), epoch: new(epoch)})
	return r
}

func positive(n, otherwise int) int {
	if n <= 0 {
		return otherwise
	}
	return n
}

// Neigh is the router's neighbour table, for those who show and flush it.
func (r *Router) Neigh() *neigh.Table { return r.neigh }

// Set is the routing that is in effect.
func (r *Router) Set() *routing.Set { return r.state.Load().set }

// RemovePort forgets what is kept on account of an ingress port, whose index may
// be used again. What it returns is the number of frames that were held, to be
// counted as trace.PortRemoved.
func (r *Router) RemovePort(port uint16) (lost int) {
	r.rates.removePort(port)
	r.neigh.RemovePort(port)
	return r.fragments.RemovePort(port)
}

// epoch is the time in which one state is in effect.
type epoch struct{ over atomic.Bool }

// Epoch is a decision's memory of the state that it was made with. Zero is never
// Valid.
type Epoch struct{ e *epoch }

// Valid reports whether nothing has changed but neighbours. Once it is false it
// stays false. One atomic load.
func (e Epoch) Valid() bool { return e.e != nil && !e.e.over.Load() }

// Epoch is that of what the router says now.
func (r *Router) Epoch() Epoch { return Epoch{r.state.Load().epoch} }

// install publishes a state, and then ends the one before it.
//
// +checklocks:r.mu
func (r *Router) install(s *state) {
	s.epoch = new(epoch)
	old := r.state.Swap(s)
	old.epoch.over.Store(true)
}

// Config is all that a Router is told.
type Config struct {
	Devices []Device
	Set     *routing.Set // complete, as BuildSet makes it; nil has no route
	// Neighbours that are known for certain: containers, static ones.
	Neighbours []neigh.Static
	Seed       uint64 // of flow hashes, see routing.Query.FlowHash
	ICMP       ICMPLimits
}

// Change is a configuration that is ready to be taken. It is good for one Commit.
type Change struct {
	r     *Router
	next  *state
	neigh *neigh.Change
}

// Prepare compiles a configuration and changes nothing. Nobody may call it again
// before the Commit.
func (r *Router) Prepare(c *Config) *Change {
	s := &state{devices: newDevices(c.Devices), set: c.Set, seed: c.Seed, icmp: c.ICMP.complete()}
	if s.set == nil {
		s.set = routing.New(routing.Limits{})
	}
	s.hops = gatewaysOf(s.set)
	n := neigh.Config{Static: c.Neighbours}
	for i := range c.Devices {
		if d := &c.Devices[i]; !d.PointToPoint {
			n.Devices = append(n.Devices, neigh.Device{Index: d.Index, MAC: d.MAC, Addrs: d.Addrs})
		}
	}
	return &Change{r: r, next: s, neigh: r.neigh.Prepare(n)}
}

// Commit puts the configuration into effect. It is short: whoever must see two
// configurations change at once holds up the workers for it.
func (c *Change) Commit() {
	r := c.r
	r.mu.Lock()
	defer r.mu.Unlock()
	c.neigh.Commit()
	c.next.dead = maps.Clone(r.state.Load().dead)
	maps.DeleteFunc(c.next.dead, func(h hop, _ bool) bool { return !c.next.hops[h] })
	r.install(c.next)
}

// gatewaysOf are the gateways of those routes that have several next hops.
func gatewaysOf(s *routing.Set) map[hop]bool {
	if !s.Multipath() {
		return nil
	}
	hops := map[hop]bool{}
	for route := range s.Routes(0) {
		for i := range route.NextHops {
			if h := &route.NextHops[i]; len(route.NextHops) > 1 && h.Via.IsValid() {
				hops[hop{h.Index, h.Via}] = true
			}
		}
	}
	return hops
}
