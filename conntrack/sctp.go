// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"

	"sluice/packet"
)

// The states of an SCTP association, with the kernel's numbers.
const (
	sctpNone = iota
	sctpClosed
	sctpCookieWait
	sctpCookieEchoed
	sctpEstablished
	sctpShutdownSent
	sctpShutdownRecd
	sctpShutdownAckSent
	sctpHeartbeatSent
	numSCTPStates

	sctpInvalid
)

func sctpStateName(state uint32) string {
	names := [...]string{
		"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED",
		"SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT",
	}
	if int(state) < len(names) {
		return names[state]
	}
	return "NONE"
}

// Types of chunks (RFC 9260 §3.2).
const (
	chunkData             = 0
	chunkInit             = 1
	chunkInitAck          = 2
	chunkHeartbeat        = 4
	chunkHeartbeatAck     = 5
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkError            = 9
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14

	chunkHeaderLen = 4
	initTagEnd     = chunkHeaderLen + 16 // an INIT's fixed part
)

// associations is the state machine, a row of nine states for each of eleven
// types of chunks, original first, as in transitions.
const associations = "" +
	"112341172" + // INIT
	"112345671" + // INIT ACK
	"111111111" + // ABORT
	"112355671" + // SHUTDOWN
	"712347777" + // SHUTDOWN ACK
	"112345671" + // ERROR
	"113345671" + // COOKIE ECHO
	"112445671" + // COOKIE ACK
	"112345611" + // SHUTDOWN COMPLETE
	"812345678" + // HEARTBEAT
	"112345678" + // HEARTBEAT ACK
	"x1234567x" +
	"x2234567x" +
	"x1111111x" +
	"x1236567x" +
	"x1234777x" +
	"x1214567x" +
	"x1334567x" +
	"x1244567x" +
	"x1234561x" +
	"x12345678" +
	"x12345674"

// association is the state that a chunk leads to. Chunks that are not in the
// table, as DATA, change nothing.
func association(d Dir, chunk uint8, state uint32) uint32 {
	const numRows = 11
	row := rowOf(chunk)
	if row < 0 {
		return state
	}
	next := associations[(int(d)*numRows+row)*numSCTPStates+int(state)]
	if next == 'x' {
		return sctpInvalid
	}
	return uint32(next - '0')
}

func rowOf(chunk uint8) int {
	switch chunk {
	case chunkInit, chunkInitAck:
		return int(chunk - chunkInit)
	case chunkAbort, chunkShutdown, chunkShutdownAck, chunkError, chunkCookieEcho, chunkCookieAck:
		return int(chunk-chunkAbort) + 2
	case chunkShutdownComplete:
		return 8
	case chunkHeartbeat, chunkHeartbeatAck:
		return int(chunk-chunkHeartbeat) + 9
	}
	return -1
}

// What SCTP keeps in a track: peer.end is the verification tag that packets of
// that direction carry, and peer.flags says whether an INIT of it was seen.
const (
	initSeen        = 1
	heartbeatFailed = 1 // lastFlag: a HEARTBEAT had another tag, by lastDir
)

// chunks is a packet of SCTP, chunk after chunk.
type chunks struct {
	left  []byte
	typ   uint8
	flags uint8
	body  []byte // the chunk and all that follows
}

// next takes up the next chunk, if its header is there. A length of less than a
// header can't lead to an endless loop: zero is refused by plausible, and what is
// larger moves on.
func (c *chunks) next() bool {
	if len(c.left) < chunkHeaderLen {
		return false
	}
	c.body, c.typ, c.flags = c.left, c.left[0], c.left[1]
	n := (int(binary.BigEndian.Uint16(c.left[2:])) + 3) &^ 3
	c.left = c.left[min(n, len(c.left)):]
	return true
}

func (c *chunks) length() uint16 { return binary.BigEndian.Uint16(c.body[2:]) }

// chunkSet is the set of the types of a packet's chunks.
type chunkSet [4]uint64

func (s *chunkSet) has(types ...uint8) bool {
	for _, t := range types {
		if s[t>>6]>>(t&63)&1 != 0 {
			return true
		}
	}
	return false
}

// plausible collects the types of all chunks. False if there is none, one has no
// length, or one stands where it may not (RFC 9260 §6.10).
func plausible(p []byte) (set chunkSet, ok bool) {
	alone := false
	n := 0
	for c := (chunks{left: p}); c.next(); n++ {
		switch c.typ {
		case chunkInit, chunkInitAck, chunkShutdownComplete:
			alone = true
		}
		first := alone || c.typ == chunkCookieAck || c.typ == chunkCookieEcho
		if first && n > 0 || c.length() == 0 {
			return set, false
		}
		set[c.typ>>6] |= 1 << (c.typ & 63)
	}
	return set, n > 0
}

// sctpMachine is one step of an association: the kernel's
// nf_conntrack_sctp_packet, in its order.
type sctpMachine struct {
	*subject
	tag    uint32 // of the packet
	set    chunkSet
	ignore bool // accepted, but the timeout stays
	from   uint32
	to     uint32
}

// sctp lets the association see a packet.
func (s *subject) sctp(b []byte, v *packet.View) action {
	h := b[v.L4:v.End]
	m := sctpMachine{subject: s, tag: binary.BigEndian.Uint32(h[4:])}
	body := h[packet.SCTPLen:]
	var ok bool
	if m.set, ok = plausible(body); !ok {
		return action{}
	}
	if s.fresh && !m.begin(body) {
		return action{}
	}
	if !m.set.has(chunkInit, chunkShutdownComplete, chunkCookieEcho, chunkAbort, chunkShutdownAck, chunkHeartbeat, chunkHeartbeatAck) &&
		m.tag != *m.vtag(s.dir) {
		return action{}
	}
	return m.walk(body)
}

// vtag is the tag that packets of a direction carry (RFC 9260 §8.5).
func (m *sctpMachine) vtag(d Dir) *uint32 { return &m.track.peer[d].end }

// begin makes the state of an association from its first packet. False if that
// can't be one (RFC 9260 §8.4).
func (m *sctpMachine) begin(body []byte) bool {
	if m.set.has(chunkAbort, chunkShutdownComplete, chunkCookieAck) {
		return false
	}
	*m.track = track{}
	for c := (chunks{left: body}); c.next(); {
		next := association(Original, c.typ, sctpNone)
		if next == sctpNone || next == sctpInvalid {
			return false
		}
		switch c.typ {
		case chunkInit:
			if m.tag != 0 || len(c.body) < initTagEnd {
				return false
			}
			*m.vtag(Reply) = initTag(c.body)
		case chunkHeartbeat:
			*m.vtag(Original) = m.tag // a path of an association that is known elsewhere
		case chunkShutdownAck:
			*m.vtag(Reply) = m.tag // its answer carries the same (RFC 9260 §8.4)
		}
	}
	return true
}

func initTag(chunk []byte) uint32 { return binary.BigEndian.Uint32(chunk[chunkHeaderLen:]) }

// walk takes a step for each chunk. What the chunks before a bad one did stays
// done, as in the kernel.
func (m *sctpMachine) walk(body []byte) action {
	assured := false
	for c := (chunks{left: body}); c.next(); {
		skip, ok := m.admits(&c)
		if !ok {
			return action{assured: assured}
		}
		if skip {
			continue
		}
		m.from = m.state
		m.to = association(m.dir, c.typ, m.from)
		if m.to == sctpInvalid || !m.initiate(&c) {
			return action{assured: assured}
		}
		m.state = m.to
		assured = assured || m.from != m.to && m.to == sctpEstablished
	}
	return action{verdict: accept, assured: assured, refresh: !m.ignore, timeout: m.cfg.Timeouts.SCTP[m.to]}
}

// admits is the check of the verification tag that depends on the chunk (RFC
// 9260 §8.5.1). skip: the chunk is passed over.
func (m *sctpMachine) admits(c *chunks) (skip, ok bool) {
	own, other := *m.vtag(m.dir), *m.vtag(m.dir.Other())
	switch c.typ {
	case chunkInit:
		return false, m.tag == 0
	case chunkAbort, chunkShutdownComplete:
		if reflected := c.flags&1 != 0; reflected {
			return false, m.tag == other
		}
		return false, m.tag == own
	case chunkCookieEcho:
		return false, m.tag == own
	case chunkCookieAck:
		m.track.peer[0].flags, m.track.peer[1].flags = 0, 0
	case chunkHeartbeat, chunkHeartbeatAck:
		return m.heartbeat(c.typ == chunkHeartbeatAck)
	}
	return false, true
}

// heartbeat learns the tag of a path that was opened by a HEARTBEAT, and follows
// an association that was restarted with other tags: a HEARTBEAT and its answer.
func (m *sctpMachine) heartbeat(answer bool) (skip, ok bool) {
	t, own := m.track, m.vtag(m.dir)
	switch {
	case *own == 0:
		*own = m.tag
		return false, true
	case m.tag == *own:
		t.lastFlag &^= heartbeatFailed
		return false, true
	case m.set.has(chunkData) || m.ignore:
		return false, false
	case !answer:
		t.lastFlag |= heartbeatFailed
		t.lastDir = m.dir
		m.ignore = true
		return true, true
	case t.lastFlag&heartbeatFailed == 0 || t.lastDir == m.dir:
		return false, false
	}
	t.lastFlag &^= heartbeatFailed
	*own, *m.vtag(m.dir.Other()) = m.tag, 0
	return false, true
}

// initiate takes up the tag that an INIT or INIT ACK announces for the other
// direction. False if it is cut short or contradicts what was announced.
func (m *sctpMachine) initiate(c *chunks) bool {
	if c.typ != chunkInit && c.typ != chunkInitAck {
		return true
	}
	if len(c.body) < initTagEnd {
		return false
	}
	own, other := &m.track.peer[m.dir], &m.track.peer[m.dir.Other()]
	tag := initTag(c.body)
	if c.typ == chunkInitAck {
		if tag != other.end && collides(own, other) {
			return false
		}
		other.end = tag
		return true
	}
	if m.from == sctpNone || other.end != tag { // else it is repeated, or stale
		noteInit(own, other)
	}
	other.end = tag
	if m.from == sctpClosed && m.to == sctpClosed && !m.fresh {
		m.ignore = true // as of a SYN that is repeated
	}
	return true
}

// collides reports whether another tag than the known one is none: the other side
// sent no INIT that this answers, or both sides did and this answers the loser's.
func collides(own, other *peer) bool {
	both := own.flags&other.flags&initSeen != 0
	return both || other.flags&initSeen == 0 && other.end != 0
}

// noteInit remembers which side sent an INIT; a third one begins anew.
func noteInit(own, other *peer) {
	if own.flags&other.flags&initSeen != 0 {
		other.flags &^= initSeen
	}
	own.flags |= initSeen
}
