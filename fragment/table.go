// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"sync"

	"sluice/packet"
	"sluice/trace"
)

// Limits bounds a Table. Zero fields take the default.
type Limits struct {
	Datagrams        int // unfinished datagrams (4096)
	DatagramsPerPort int // of them from one port (512)
	Held             int // waiting fragments (1024)
	HeldPerPort      int // of them from one port (256)
	Bytes            int // of waiting fragments (4 MiB, as ipfrag_high_thresh), heldCost each included
	BytesPerPort     int // of them from one port (1 MiB)
	Fragments        int // of one datagram (256): 64 KB at an MTU of 276

	Timeout4 uint32 // seconds that a datagram of IPv4 may take (30, as ipfrag_time)
	Timeout6 uint32 // the same for IPv6 (60, RFC 8200 §4.5)
}

// heldCost is what a waiting fragment costs beside its bytes, so that tiny ones
// aren't free.
const heldCost = 128

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&l.Datagrams, 4096},
		{&l.DatagramsPerPort, 512},
		{&l.Held, 1024},
		{&l.HeldPerPort, 256},
		{&l.Bytes, 4 << 20},
		{&l.BytesPerPort, 1 << 20},
		{&l.Fragments, 256},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if l.Timeout4 == 0 {
		l.Timeout4 = 30
	}
	if l.Timeout6 == 0 {
		l.Timeout6 = 60
	}
	return l
}

// Ports are those of a flow, as the View of the first fragment has them: of ICMP
// type<<8|code and the identifier of an echo, 0 of what has none.
type Ports struct{ Src, Dst uint16 }

// Outcome is what becomes of a fragment. Zero is Refused.
type Outcome uint8

// The outcomes.
const (
	Refused Outcome = iota // to be dropped for the verdict's reason
	Known                  // the ports are those of its flow
	Hold                   // a copy waits for the first fragment; nothing is to be done
)

// Verdict is the answer about one fragment.
type Verdict struct {
	Outcome Outcome
	Reason  trace.Reason // if Refused

	// Held are the fragments that waited for this first one, in the order in
	// which they came, from the same port and device. They are the caller's, and
	// follow it.
	Held []Held

	// Lost is how many fragments that waited, of the same port, are given up with
	// this verdict, and LostFor is the reason that they are dropped for.
	Lost    int
	LostFor trace.Reason
}

// Held is a fragment that waited: a whole Ethernet frame, as it was received.
type Held struct {
	Frame []byte
	Vnet  packet.Vnet
	Label packet.Label
}

// Table tracks the fragments of one namespace. Its methods may be called from
// any goroutine. What isn't a fragment passes without the lock.
type Table struct {
	limits Limits

	mu sync.Mutex
	// +checklocks:mu
	datagrams map[key]*datagram // the map's own seed keeps anybody from aiming
	// +checklocks:mu
	ports map[uint16]*portUse
	// +checklocks:mu
	total use
	// +checklocks:mu
	evicted uint64
}

// use is what one port, or all, have in the table.
type use struct{ datagrams, held, bytes int }

func (u *use) addHeld(frames, bytes int) {
	u.held += frames
	u.bytes += bytes
}

// portUse is what a port has in the table: there is one for each port that has
// anything.
type portUse struct {
	use
	waiting list // datagrams that hold fragments: their first has not come
	passing list // the others
}

// New makes an empty table.
func New(l Limits) *Table {
	return &Table{
		limits:    l.withDefaults(),
		datagrams: map[key]*datagram{},
		ports:     map[uint16]*portUse{},
	}
}

// Track judges the frame f that came from port in over device dev; now is in
// seconds and may wrap. What isn't a fragment, an atomic one of IPv6 (RFC 6946)
// included, is Known by its own ports. f is not changed, and copied if it waits.
// Preconditions: f.View was parsed without fault.
func (t *Table) Track(in, dev uint16, f *packet.Frame, now uint32) (Ports, Verdict) {
	fr, ok := f.View.Fragment(f.Bytes())
	if !ok {
		return portsOf(f), Verdict{Outcome: Known}
	}
	if fr.Len == 0 || fr.More && fr.Len%8 != 0 || fr.Offset+fr.Len > 0xffff {
		return Ports{}, refuse(trace.FragMalformed)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.total.held
	ports, v := t.judge(keyOf(in, dev, f, fr.ID), f, fr, now)
	v.account(before - t.total.held)
	return ports, v
}

func portsOf(f *packet.Frame) Ports { return Ports{f.View.SrcPort, f.View.DstPort} }

func refuse(why trace.Reason) Verdict { return Verdict{Reason: why} }

// account completes a verdict, with which so many fragments less wait than
// before. An overlap ends one datagram; all others end to make room.
func (v *Verdict) account(less int) {
	v.Lost = less - len(v.Held)
	if v.Outcome == Hold {
		v.Lost++
	}
	switch {
	case v.Lost == 0:
	case v.Reason == trace.None:
		v.LostFor = trace.FragLimit
	default:
		v.LostFor = v.Reason
	}
}

// judge finds the datagram of k and asks it.
//
// +checklocks:t.mu
func (t *Table) judge(k key, f *packet.Frame, fr packet.Fragment, now uint32) (Ports, Verdict) {
	d := t.datagrams[k]
	if d != nil && d.expired(now) {
		t.remove(d)
		d = nil
	}
	if d == nil {
		d = t.enter(k, now+t.timeout(k))
	}
	if d == nil {
		return Ports{}, refuse(trace.FragLimit)
	}
	if why := t.refusal(d, fr); why != trace.None {
		return Ports{}, refuse(why)
	}
	first := fr.Offset == 0
	if !first && !d.known {
		if !t.hold(d, f) {
			t.kill(d, trace.FragLimit)
			return Ports{}, refuse(trace.FragLimit)
		}
		d.take(fr)
		return Ports{}, Verdict{Outcome: Hold}
	}
	v := Verdict{Outcome: Known}
	if first {
		d.known, d.ports = true, portsOf(f)
		v.Held = t.release(d)
	}
	if d.take(fr); d.complete() {
		t.remove(d)
	}
	return d.ports, v
}

func (t *Table) timeout(k key) uint32 {
	if k.v6 {
		return t.limits.Timeout6
	}
	return t.limits.Timeout4
}

// refusal is why a fragment of d can't be taken. The order is that of the
// kernel's ip_frag_queue: a lie about the length weighs more than a repetition.
//
// +checklocks:t.mu
func (t *Table) refusal(d *datagram, fr packet.Fragment) trace.Reason {
	switch {
	case d.dead != trace.None:
		return d.dead
	case d.otherLength(fr):
		t.kill(d, trace.FragOverlap)
		return trace.FragOverlap
	case d.covers(fr):
		return trace.FragOverlap
	case d.overlaps(fr):
		t.kill(d, trace.FragOverlap)
		return trace.FragOverlap
	case d.fragments == t.limits.Fragments:
		t.kill(d, trace.FragLimit)
		return trace.FragLimit
	}
	return trace.None
}

// Expire forgets the datagrams whose time is over. To lost, which may be nil, it
// tells how many fragments of a port had waited in vain: they are dropped for
// trace.FragLimit. It is to be called about once a second.
func (t *Table) Expire(now uint32, lost func(in uint16, frames int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.datagrams {
		if !d.expired(now) {
			continue
		}
		if n := len(d.held); n > 0 && lost != nil {
			lost(d.key.in, n)
		}
		t.remove(d)
	}
}

// RemovePort forgets what came from a port that leaves, since its index may come
// back as another. lost is how many of its fragments waited; they are dropped for
// trace.PortRemoved.
func (t *Table) RemovePort(in uint16) (lost int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.total.held
	for t.ports[in] != nil {
		t.remove(t.ports[in].oldest())
	}
	return before - t.total.held
}

// Counts is what a table holds.
type Counts struct {
	Datagrams int // unfinished, dead ones included
	Held      int // waiting fragments
	Bytes     int // of them, heldCost each included

	Evicted uint64 // datagrams that were forgotten for another of their port
}

// Counts is how full the table is.
func (t *Table) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Counts{t.total.datagrams, t.total.held, t.total.bytes, t.evicted}
}
