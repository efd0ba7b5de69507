// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"

	"sluice/packet"
)

// Conn is a reference to a connection in a table, small enough to be kept by
// whatever remembers the decision about a flow. It keeps nothing alive: once the
// connection is gone it is not Valid any more, also if its record is used again.
// Zero is none.
type Conn struct {
	t    *Table
	i    uint32
	want uint32
}

func (c Conn) record() *record { return &c.t.recs[c.i] }

// Valid reports whether the connection is still in the table. One load. It may be
// over nevertheless, which Packet finds.
func (c Conn) Valid() bool { return c.t != nil && c.record().life.Load() == c.want }

// Packet lets the connection see a packet of direction d: state, window,
// counters, timeout. The answer is the packet's state, or Gone if the connection
// is not there any more, be it deleted, expired, bound to a generation that has
// passed, or ended by this very packet, a SYN that begins the next: then Look
// begins anew. The connection's own lock is held, nothing is allocated.
// Preconditions: f.View was parsed without fault, and is of this connection.
func (c Conn) Packet(d Dir, f *packet.Frame, now uint32) State {
	if c.t == nil {
		return Gone
	}
	state := c.see(d, f, now)
	if state == Invalid {
		c.t.stats.invalid.Add(1)
	}
	return state
}

// see is Packet, but for the count of what is invalid.
func (c Conn) see(d Dir, f *packet.Frame, now uint32) State {
	r := c.record()
	if !r.acquireIf(c.want) {
		return Gone
	}
	if r.over(now) || !c.t.bound(r) {
		r.release()
		c.kill(now)
		return Gone
	}
	proto, cfg := c.t.judged(r, d)
	if !cfg.NoChecksum && !checksumOK(f) {
		r.release()
		return Invalid
	}
	s := subject{
		cfg: cfg, track: &r.track, state: r.state.Load(), status: Status(r.status.Load()),
		dir: d, age: now - r.start, left: r.expiry.Load() - now,
	}
	before := s.status
	var a action
	if f.View.Is(packet.ViewFragLater) {
		a = s.renew(s.restTimeout(proto))
	} else {
		a = s.judge(f.Bytes(), &f.View, proto)
	}
	if a.verdict == reopen {
		r.release()
		c.kill(now)
		return Gone
	}
	told := c.apply(r, &s, &a, uint64(length(f)), now)
	state := stateOf(before, d, a.verdict)
	r.release()
	if told && c.t.watchers.Load() > 0 {
		c.t.tell(EventUpdate, c, now)
	}
	return state
}

// stateOf is what a packet is, by what its connection was before it.
func stateOf(before Status, d Dir, v verdict) State {
	switch {
	case v != accept:
		return Invalid
	case d == Reply || before&SeenReply != 0:
		return Established
	case before&Expected != 0:
		return Related
	}
	return New
}

// apply writes what a packet does to its connection, whose lock is held. It
// reports whether anything changed that listeners hear of.
func (c Conn) apply(r *record, s *subject, a *action, bytes uint64, now uint32) (told bool) {
	status := s.status
	if a.verdict == accept && s.dir == Reply {
		status |= SeenReply
	}
	if a.assured {
		status |= Assured
	}
	if status != s.status {
		r.status.Store(uint32(status))
		told = true
	}
	if s.state != r.state.Load() {
		r.state.Store(s.state)
		told = true
	}
	if a.refresh || a.kill {
		r.acct[s.dir].add(1, bytes)
	}
	switch {
	case a.kill: // it can still be asked how this packet is translated, until the next turn
		c.until(r, now, now)
	case (a.refresh || a.shorten) && status&FixedTimeout == 0:
		c.until(r, now+a.timeout, now)
	}
	return told
}

// until sets the second at which the connection is over.
func (c Conn) until(r *record, expiry, now uint32) {
	old := r.expiry.Load()
	if old == expiry {
		return
	}
	r.expiry.Store(expiry)
	if int32(expiry-old) < 0 && expiry-now < soon {
		c.t.lower(c.i)
	}
}

// judged are the protocol and the configuration by which packets of a direction
// are judged.
func (t *Table) judged(r *record, d Dir) (proto uint8, cfg *ZoneConfig) {
	rest := r.keys[d][4].Load()
	return uint8(rest >> 8), t.zone(uint16(rest >> 16))
}

// bound reports whether all that the record is bound to is still of its
// generation.
func (t *Table) bound(r *record) bool {
	for b, gen := range r.bindGen {
		if gen == 0 {
			continue
		}
		gens := t.endpoints
		if b == bindBackend {
			gens = t.backends
		}
		if is := gens[r.bindID[b]].Load(); is != 0 && is != gen {
			return false
		}
	}
	return true
}

// Touch is Packet for what of a packet can't be judged: it counts and keeps the
// connection for as long as its state does. False if the connection is gone.
func (c Conn) Touch(d Dir, packets, bytes int, now uint32) bool {
	if c.t == nil || !c.record().acquireIf(c.want) {
		return false
	}
	r := c.record()
	defer r.release()
	proto, cfg := c.t.judged(r, d)
	s := subject{cfg: cfg, state: r.state.Load(), status: Status(r.status.Load()), age: now - r.start}
	r.acct[d].add(uint64(packets), uint64(bytes))
	if s.status&FixedTimeout == 0 {
		c.until(r, now+s.restTimeout(proto), now)
	}
	return true
}

// kill ends the connection, if nobody else did.
func (c Conn) kill(now uint32) bool {
	t := c.t
	if !c.record().die(c.want) {
		return false
	}
	l := t.lastWords(c.i, now, nil)
	t.unlink(c.i)
	t.giveBack(c.i)
	t.mourn(l)
	return true
}

// Delete ends the connection now. False if it was gone already.
func (c Conn) Delete(now uint32) bool { return c.t != nil && c.kill(now) }

// Tuple is what packets of direction d look like when they come. The zero Tuple
// if the connection is gone.
func (c Conn) Tuple(d Dir) Tuple {
	if c.t == nil {
		return Tuple{}
	}
	k := c.record().keys[d].load()
	if !c.Valid() {
		return Tuple{}
	}
	return k.tuple()
}

// Out is what a packet of direction d looks like after translation: what the
// other direction's answers.
func (c Conn) Out(d Dir) Tuple {
	out, _ := c.Tuple(d.Other()).Inverse()
	return out
}

// Zone is the zone of the original direction.
func (c Conn) Zone() uint16 {
	return uint16(c.word(func(r *record) uint64 { return r.keys[0][4].Load() >> 16 }))
}

// word reads one word of the record; 0 if the connection is gone.
func (c Conn) word(of func(*record) uint64) uint64 {
	if c.t == nil {
		return 0
	}
	w := of(c.record())
	if !c.Valid() {
		return 0
	}
	return w
}

// change changes the record under its lock. False if the connection is gone.
func (c Conn) change(how func(*record)) bool {
	if c.t == nil || !c.record().acquireIf(c.want) {
		return false
	}
	how(c.record())
	c.record().release()
	return true
}

// Port is the port whose quota the connection uses.
func (c Conn) Port() uint16 { return uint16(c.word(func(r *record) uint64 { return uint64(r.port) })) }

// Status is the connection's bits.
func (c Conn) Status() Status {
	return Status(c.word(func(r *record) uint64 { return uint64(r.status.Load()) }))
}

// AddStatus sets bits.
func (c Conn) AddStatus(s Status) bool {
	return c.change(func(r *record) { r.status.Store(r.status.Load() | uint32(s)) })
}

// Mark is the connection's mark, nft's "ct mark".
func (c Conn) Mark() uint32 {
	return uint32(c.word(func(r *record) uint64 { return uint64(r.mark.Load()) }))
}

// SetMark sets it.
func (c Conn) SetMark(m uint32) bool { return c.change(func(r *record) { r.mark.Store(m) }) }

// Label is the connection's label.
func (c Conn) Label() (l Label) {
	hi := c.word(func(r *record) uint64 { return r.label[0].Load() })
	lo := c.word(func(r *record) uint64 { return r.label[1].Load() })
	binary.BigEndian.PutUint64(l[:], hi)
	binary.BigEndian.PutUint64(l[8:], lo)
	return l
}

// SetLabel sets it.
func (c Conn) SetLabel(l Label) bool {
	return c.change(func(r *record) {
		r.label[0].Store(binary.BigEndian.Uint64(l[:]))
		r.label[1].Store(binary.BigEndian.Uint64(l[8:]))
	})
}

// Aux is what was in the Pending, or SetAux.
func (c Conn) Aux() uint64 { return c.word(func(r *record) uint64 { return r.aux.Load() }) }

// SetAux changes it.
func (c Conn) SetAux(x uint64) bool { return c.change(func(r *record) { r.aux.Store(x) }) }

// OutDevice is what was in the Pending.
func (c Conn) OutDevice() uint16 {
	return uint16(c.word(func(r *record) uint64 { return uint64(r.outDevice) }))
}

// Backend is what was in the Pending.
func (c Conn) Backend() Bind {
	id := c.word(func(r *record) uint64 { return uint64(r.bindID[bindBackend]) })
	gen := c.word(func(r *record) uint64 { return uint64(r.bindGen[bindBackend]) })
	return Bind{uint16(id), uint32(gen)}
}

// SetTimeout lets the connection live for that many seconds from now; fixed:
// packets don't change that any more.
func (c Conn) SetTimeout(seconds, now uint32, fixed bool) bool {
	return c.change(func(r *record) {
		if fixed {
			r.status.Store(r.status.Load() | uint32(FixedTimeout))
		}
		c.until(r, now+seconds, now)
	})
}

// CloseTCP is for a TCP connection of which a segment was answered by a reset: it is
// closed, and remembered as long as such ones are (the kernel's nf_ct_set_closing).
func (c Conn) CloseTCP(now uint32) bool {
	return c.change(func(r *record) {
		proto, cfg := c.t.judged(r, Original)
		if proto != packet.ProtoTCP || r.state.Swap(tcpClose) == tcpClose || Status(r.status.Load())&FixedTimeout != 0 {
			return
		}
		c.until(r, now+cfg.Timeouts.TCP[tcpClose], now)
	})
}

// ID tells this connection from every other that the table has now, and from
// recent ones.
func (c Conn) ID() uint32 {
	if c.t == nil {
		return 0
	}
	return idOf(c.i, c.want, uint32(len(c.t.recs)))
}

func idOf(i, life, n uint32) uint32 { return (life/lifeStep)*n + i + 1 }
