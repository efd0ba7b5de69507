// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/trace"
)

// Profile says whose behaviour a zone has.
type Profile uint8

// The profiles. They contradict each other, see docs/decisions: Linux keeps a
// source's port if it can and gives it to several sources at once; RFC 4787, 5382
// and 5508 want one mapping for each source, used by nobody else.
const (
	Kernel Profile = iota
	RFC
)

// Filtering says what may come in by a mapping of the RFC profile, RFC 4787 §5.
type Filtering uint8

// The kinds of filtering.
const (
	AddressAndPort Filtering = iota // only answers
	Address                         // whoever an answer might come from, from any port
	Endpoint                        // everybody: endpoint-independent
)

// ZoneConfig is what is translated in a zone, and how. It is not changed once set.
type ZoneConfig struct {
	Rules     *Rules // nil: nothing is
	Profile   Profile
	Filtering Filtering // RFC only
	Linger    uint32    // RFC only: seconds for which the port of a mapping without connections stays its source's, RFC 6888 REQ-8
	PerHost   int       // RFC only: mappings that one inside address may have, RFC 6888 REQ-4; 0: as many as there are
}

// Config is what a NAT is made with.
type Config struct {
	Seed     [32]byte // unguessable; the same after a restart, so that sources find their addresses again
	Bindings int      // bound of mappings that are remembered; 0: DefaultBindings
	Clients  int      // bound of clients of services with affinity; 0: DefaultClients
}

// The defaults of Config.
const (
	DefaultBindings = 1 << 18
	DefaultClients  = 1 << 16
)

// NAT decides what new connections are translated to. Its methods may be called
// from any goroutine. Zero is not usable, see New.
type NAT struct {
	table    *conntrack.Table
	seed     uint64
	zones    atomic.Pointer[map[uint16]*ZoneConfig]
	services atomic.Pointer[map[uint16]*service]
	stats    stats
	ids      atomic.Uint32 // of IPv4 headers
	mappings *atomic.Uint64

	mu     sync.Mutex // below it, conntrack's own locks
	memory memory     // +checklocks:mu
}

// memory is what a NAT remembers of connections that it translated.
type memory struct {
	random   *rand.Rand
	bindings bindings
	clients  clients
	backends backendCounts
	held     held
	now      uint32 // the last that was heard of it, in seconds
}

// New makes a NAT without rules. It is of no use before Attach.
func New(c Config) *NAT {
	n := &NAT{seed: binary.LittleEndian.Uint64(c.Seed[:])}
	m := memory{
		random:   rand.New(rand.NewChaCha8(c.Seed)),
		bindings: newBindings(or(c.Bindings, DefaultBindings)),
		clients:  newClients(or(c.Clients, DefaultClients)),
		backends: backendCounts{},
		held:     held{at: map[heldKey]heldSYN{}},
	}
	n.ids.Store(m.random.Uint32())
	n.zones.Store(&map[uint16]*ZoneConfig{})
	n.services.Store(&map[uint16]*service{})
	n.memory, n.mappings = m, m.bindings.made
	return n
}

// Mappings counts those by which something may come in. One load.
func (n *NAT) Mappings() uint64 { return n.mappings.Load() }

func or(x, otherwise int) int {
	if x == 0 {
		return otherwise
	}
	return x
}

// Attach gives the NAT the table whose connections it translates, and which was
// made with Confirmed and Removed. The mappings of connections that are there
// already are remembered again: SetZone comes first.
func (n *NAT) Attach(t *conntrack.Table, now uint32) {
	n.table = t
	n.mu.Lock()
	n.memory.now = now
	n.mu.Unlock()
	t.Entries(&conntrack.Filter{Aux: auxBound}, now, func(e *conntrack.Entry) bool {
		n.Confirmed(e)
		return true
	})
}

// SetZone says what is translated in a zone from now on. Connections that are
// there stay as they are, as Linux has it.
func (n *NAT) SetZone(zone uint16, c ZoneConfig) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := maps.Clone(*n.zones.Load())
	next[zone] = &c
	n.zones.Store(&next)
}

// RemoveZone ends translation in a zone.
func (n *NAT) RemoveZone(zone uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := maps.Clone(*n.zones.Load())
	delete(next, zone)
	n.zones.Store(&next)
}

// Flow is a new connection at a hook.
type Flow struct {
	Pending *conntrack.Pending
	In, Out uint16     // devices; Out is 0 before routing
	InAddr  netip.Addr // first address of In of the packet's family, for Redirect; may be zero
	OutAddr netip.Addr // source address that the route by Out has, for Masquerade; may be zero
	Own     bool       // the destination is an address of the namespace
	Devices Devices    // for NAT64 as a device's address; may be nil
	Now     uint32     // seconds, as for conntrack
}

// Devices knows the addresses of devices.
type Devices interface {
	// Address is the source that a packet to a next hop, or a destination, has which
	// leaves by a device; not valid if there is none.
	Address(device uint16, via, dst netip.Addr) netip.Addr
}

// Reject says what the sender of a packet that is dropped is told, if anything.
type Reject uint8

// The values. As ICMP: 3/13 and ICMPv6 1/1 (RFC 5508 REQ-8); 3/3 and 1/4, and a reset
// of TCP.
const (
	Silent Reject = iota
	Prohibited
	PortUnreachable
)

// Verdict is what becomes of a connection at a hook. Zero: it goes on, as
// Flow.Pending now says.
type Verdict struct {
	Reason  trace.Reason // not None: dropped for it
	Reject  Reject
	Lasting Lasting // of a destination; of a source nothing is said
}

// Lasting says for how long the answer is the same to connections of this tuple, while
// none of them is confirmed, and no rule and no service has changed.
type Lasting uint8

// The values.
const (
	Ever          Lasting = iota
	WhileFree             // as long as no connection has the inverse of the tuple
	WhileUnmapped         // as long as Mappings says the same
	Once
)

// auxBits are what is kept with a connection, in conntrack.Pending.Aux.
const (
	auxBound   = 1 << iota // it has a reference to a binding
	auxHairpin             // from an inside source to a mapping of another: RFC 4787 REQ-9
)

// Translate asks the rules of one hook about a connection that is not confirmed.
// A hook is asked once for each connection.
func (n *NAT) Translate(hook Hook, f *Flow) Verdict {
	z := (*n.zones.Load())[f.Pending.Zone]
	if z == nil || z.Rules == nil || !hook.claim(f.Pending) {
		return Verdict{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory.now = f.Now
	cur := f.Pending.Out()
	r, to := z.Rules.first(hook, f, &cur)
	v := n.translate(z, hook, f, r, to)
	n.stats.count(v)
	return v
}

// TranslateBy is Translate by a rule that somebody else has chosen: its Match isn't
// looked at. It counts as the hook's answer, so that Translate has none any more.
// Preconditions: Compile takes the rule, and it is of that hook.
func (n *NAT) TranslateBy(hook Hook, f *Flow, r *Rule) Verdict {
	z := (*n.zones.Load())[f.Pending.Zone]
	if z == nil {
		z = &ZoneConfig{}
	}
	if !hook.claim(f.Pending) {
		return Verdict{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory.now = f.Now
	cur := f.Pending.Out()
	to, ok := r.target(f, &cur)
	if !ok {
		r = nil
	}
	v := n.translate(z, hook, f, r, to)
	n.stats.count(v)
	return v
}

// claim notes that the hook has been asked about the connection; false if it was.
func (h Hook) claim(p *conntrack.Pending) bool {
	done := conntrack.DstNATDone
	if h.source() {
		done = conntrack.SrcNATDone
	}
	if p.Status&done != 0 {
		return false
	}
	p.Status |= done
	return true
}

// +checklocks:n.mu
func (n *NAT) translate(z *ZoneConfig, hook Hook, f *Flow, r *Rule, to Target) Verdict {
	c := choice{n: n, m: &n.memory, z: z, f: f, cur: f.Pending.Out(), to: to, source: hook.source()}
	switch {
	case r == nil || r.Kind == Accept:
		return c.none()
	case r.Kind == NAT64:
		v := c.nat64(r)
		v.Lasting = Once
		return v
	case to.Service != 0:
		return c.balance()
	case (r.Kind == Masquerade || r.Kind == Redirect) && !to.Addrs.given():
		return Verdict{Reason: trace.NATAddress}
	}
	c.random, c.persistent, c.pool = r.Random, r.Persistent, r.Kind == SNAT || r.Kind == Masquerade
	if r.Shift {
		c.shift, c.base = true, r.Match.DstPorts[0].Min
	}
	if r.Kind == Masquerade {
		f.Pending.OutDevice = f.Out
	}
	return c.set()
}

// none is the way of a connection that no rule is about. Its source's port may be
// in use already, behind the same address: Linux's null binding. The identifier of a
// query is one for both ends, and is chosen where the destination is.
func (c *choice) none() Verdict {
	if c.z.Profile == RFC {
		switch {
		case !c.source:
			return c.inbound()
		case c.f.Pending.Aux&auxHairpin != 0:
			return c.hairpin()
		}
	}
	switch {
	case c.source:
		c.to.Addrs = One(c.cur.Src)
	case isICMP(c.cur.Proto):
		c.to.Addrs = One(c.cur.Dst)
	default:
		return Verdict{}
	}
	return c.set()
}

// Confirm enters the connection into the table, when its first packet leaves. If
// another took its reply's tuple in the meantime, it gets another port. Without
// connection and reason, another packet of it was faster, and has its translation:
// conntrack.Table.Look finds it.
func (n *NAT) Confirm(f *Flow) (conntrack.Conn, Verdict) {
	const tries = 8
	for range tries {
		conn, outcome := n.table.Confirm(f.Pending, f.Now)
		switch outcome {
		case conntrack.Inserted, conntrack.Raced:
			return conn, Verdict{}
		case conntrack.Clash:
			if v := n.again(f); v.Reason != trace.None {
				return conntrack.Conn{}, v
			}
		default:
			return conntrack.Conn{}, Verdict{Reason: outcome.Reason()}
		}
	}
	n.stats.exhausted.Add(1)
	return conntrack.Conn{}, Verdict{Reason: trace.NATExhausted}
}

// again chooses another source port behind the address that was chosen.
func (n *NAT) again(f *Flow) Verdict {
	n.mu.Lock()
	defer n.mu.Unlock()
	z := (*n.zones.Load())[f.Pending.Zone]
	if z == nil {
		z = &ZoneConfig{}
	}
	c := choice{n: n, m: &n.memory, z: z, f: f, cur: f.Pending.Out(), source: true}
	family := f.Pending.Original.Src.Is4() != c.cur.Src.Is4()
	if f.Pending.Aux&auxBound != 0 && (z.Profile == RFC || family) {
		return Verdict{Reason: trace.CTClash} // the mapping is the source's, and with it the tuple
	}
	c.to.Addrs = One(c.cur.Src)
	v := c.set()
	n.stats.count(v)
	return v
}

// isICMP reports whether the ports of a tuple are an identifier and a type.
func isICMP(proto uint8) bool {
	return proto == packet.ProtoICMP || proto == packet.ProtoICMPv6
}

// stats counts what a NAT did.
type stats struct {
	exhausted, noAddress, noBackend atomic.Uint64
}

func (s *stats) count(v Verdict) {
	switch v.Reason {
	case trace.NATExhausted:
		s.exhausted.Add(1)
	case trace.NATAddress:
		s.noAddress.Add(1)
	case trace.NATBackend:
		s.noBackend.Add(1)
	default:
	}
}

// Stats is what a NAT did since it was made.
type Stats struct {
	Exhausted, NoAddress, NoBackend uint64 // connections refused
	Bindings, Clients               int    // remembered now
	Forgotten                       uint64 // mappings that weren't remembered for want of room
}

// Stats reads the counters.
func (n *NAT) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Stats{
		Exhausted: n.stats.exhausted.Load(), NoAddress: n.stats.noAddress.Load(), NoBackend: n.stats.noBackend.Load(),
		Bindings: n.memory.bindings.len(), Clients: n.memory.clients.len(), Forgotten: n.memory.bindings.refused,
	}
}

// Expire forgets mappings and clients whose time is over; once a second. It looks at
// few at a time while it holds the lock, so that no new connection waits for long.
func (n *NAT) Expire(now uint32) {
	for n.expireSome(now) {
		runtime.Gosched()
	}
}

// expireSome is a part of Expire; it reports whether there may be more.
func (n *NAT) expireSome(now uint32) bool {
	const batch = 64
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory.now = now
	mappings := n.memory.bindings.expire(now, batch)
	return n.memory.clients.expire(now, batch) || mappings
}
