// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"

	"sluice/packet"
	"sluice/trace"
)

// Pending is a connection that one packet wants to begin: nobody else has seen
// it. It belongs to the caller of Look, who may change the exported fields, lets
// the packet go through all that may stop it, and calls Confirm before it leaves.
// It may be used for packet after packet.
type Pending struct {
	// Original is what the packet looks like, and Reply what will be taken for its
	// answer: the inverse, unless address translation changes it. Of another
	// family they may be too.
	Original, Reply Tuple

	Zone, Port uint16
	Status     Status
	Mark       uint32
	Label      Label
	OutDevice  uint16 // by which it leaves, if the connection is to end with that
	Aux        uint64 // of whoever translates addresses

	Origin, Target, Backend Bind // with whose generations the connection ends

	active  bool
	state   uint32
	timeout uint32
	track   track
	bytes   uint64
	start   uint32
}

// Active reports whether n holds a connection to be confirmed.
func (n *Pending) Active() bool { return n.active }

// Out is what the packet looks like after translation.
func (n *Pending) Out() Tuple {
	out, _ := n.Reply.Inverse()
	return out
}

func (n *Pending) reset(p *Packet, k, answer *key) {
	*n = Pending{
		Original: k.tuple(), Reply: answer.tuple(), Zone: p.Zone, Port: p.Port,
		bytes: uint64(length(p.Frame)), start: p.Now,
	}
}

// length is what a packet counts for: its IP packet, as in the kernel.
func length(f *packet.Frame) int { return f.View.End - f.View.L3 }

// Outcome is what became of a connection that was to be confirmed. Zero is
// Inserted.
type Outcome uint8

// The outcomes.
const (
	Inserted  Outcome = iota
	Raced             // there is a connection with this Original now: Look at the packet again
	Clash             // the Reply belongs to another: choose another, or drop
	Full              // no room, and nothing that may give way: drop
	Quota             // its port has as many as it may, and none that may give way: drop
	ChainLong         // too many tuples with one hash: drop
)

// Reason is why the packet is dropped; None if it isn't.
func (o Outcome) Reason() trace.Reason {
	switch o {
	case Inserted, Raced:
	case Clash:
		return trace.CTClash
	case Full:
		return trace.CTFull
	case Quota:
		return trace.CTQuota
	case ChainLong:
		return trace.CTChain
	}
	return trace.None
}

// Confirm enters a connection into the table, so that its packets find it. It
// locks what orders changes, for moments. After Clash it may be called again with
// another Reply; after anything else n is not Active.
func (t *Table) Confirm(n *Pending, now uint32) (Conn, Outcome) {
	var keys [2]key
	var ok [2]bool
	keys[Original], ok[Original] = keyOf(n.Zone, &n.Original)
	keys[Reply], ok[Reply] = keyOf(n.Zone, &n.Reply)
	if !n.active || !ok[Original] || !ok[Reply] {
		t.stats.insertFailed.Add(1)
		return Conn{}, Clash
	}
	c, out := t.confirm(n, &keys, now)
	switch out {
	case Inserted:
		t.stats.insert.Add(1)
		t.welcome(c, n, now)
	case Raced:
		t.stats.clashResolve.Add(1)
	case Clash:
		t.stats.insertFailed.Add(1)
	case ChainLong:
		t.stats.chainTooLong.Add(1)
		t.stats.drop.Add(1)
	default:
		t.stats.drop.Add(1)
	}
	n.active = out == Clash
	return c, out
}

// confirm takes a record, fills it in and links it.
func (t *Table) confirm(n *Pending, keys *[2]key, now uint32) (Conn, Outcome) {
	i, out := t.admit(n.Port, now+n.timeout, now)
	if out != Inserted {
		return Conn{}, out
	}
	r := &t.recs[i]
	h := [2]uint32{t.secret.hash(&keys[0]), t.secret.hash(&keys[1])}
	t.fill(r, n, keys, h, now)
	for range 4 {
		var dead Conn
		if out, dead = t.link(i, keys, h, now); dead == (Conn{}) {
			break
		}
		dead.kill(now)
	}
	if out != Inserted {
		t.giveBack(i)
		return Conn{}, out
	}
	return Conn{t, i, r.life.Load()&^phaseMask | phaseLive}, Inserted
}

// fill writes a fresh record.
func (t *Table) fill(r *record, n *Pending, keys *[2]key, h [2]uint32, now uint32) {
	for d := range keys {
		r.keys[d].store(&keys[d])
		r.acct[d].packets.Store(0)
		r.acct[d].bytes.Store(0)
	}
	r.hash, r.start = h, n.start
	r.status.Store(uint32(n.Status | Confirmed))
	r.mark.Store(n.Mark)
	r.label[0].Store(binary.BigEndian.Uint64(n.Label[:]))
	r.label[1].Store(binary.BigEndian.Uint64(n.Label[8:]))
	r.acct[Original].add(1, n.bytes)
	r.aux.Store(n.Aux)
	for b, bind := range [numBinds]Bind{n.Origin, n.Target, n.Backend} {
		r.bindID[b], r.bindGen[b] = bind.ID, bind.Gen
	}
	r.outDevice = n.OutDevice
	r.state.Store(n.state)
	r.track = n.track
	r.expiry.Store(now + n.timeout)
}

// welcome tells of a connection that has come.
func (t *Table) welcome(c Conn, n *Pending, now uint32) {
	tells := t.confirmed != nil && t.heeds(n.Aux, n.Backend)
	if !tells && t.watchers.Load() == 0 {
		return
	}
	e := new(Entry)
	if !c.Entry(e, now) {
		return
	}
	if tells {
		t.confirmed(e)
	}
	t.publish(EventNew, e)
}
