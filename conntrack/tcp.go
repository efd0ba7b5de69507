// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"

	"sluice/packet"
)

// The states of a TCP connection, with the kernel's numbers. A state says what
// was seen in between, not what either end is in: FIN_WAIT is "a FIN was seen",
// CLOSE_WAIT "and acknowledged", LAST_ACK "a FIN of the other side too".
const (
	tcpNone = iota
	tcpSynSent
	tcpSynRecv
	tcpEstablished
	tcpFinWait
	tcpCloseWait
	tcpLastAck
	tcpTimeWait
	tcpClose
	tcpSynSent2 // SYN from both sides
	numTCPStates

	tcpInvalid // of a transition: the segment is of no connection
	tcpIgnore  // it may be one, so it passes, but nothing changes
)

func tcpStateName(state uint32) string {
	names := [...]string{
		"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
	}
	if int(state) < len(names) {
		return names[state]
	}
	return "NONE"
}

// class is the kind of a segment by its flags.
type class uint8

const (
	classSYN class = iota
	classSYNACK
	classFIN
	classACK
	classRST
	classNone
)

// Flags of the TCP header (RFC 9293 §3.1).
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
	flagECE
	flagCWR
)

// transitions is the state machine, a row of ten states for each class of each
// direction, original first: a digit is the next state, "x" is tcpInvalid and
// "i" is tcpIgnore. The states are, in this order,
//
//	NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2
const transitions = "" +
	"11iiiii119" + // SYN: a first one, again, or of a connection that is reopened
	"xx2xxxxxx2" + // SYN/ACK: only at a simultaneous open
	"xx4466678x" + // FIN
	"3x3355778x" + // ACK: of NONE it is one whose beginning was missed
	"x888888888" + // RST
	"xxxxxxxxxx" + // nothing of these
	"x9xxxxx1x9" + // SYN of the answering side
	"x2iiiiiii2" +
	"xx4466678x" +
	"xi2355778i" +
	"x888888888" +
	"xxxxxxxxxx"

// transition is the state that a segment leads to.
func transition(d Dir, c class, state uint32) uint32 {
	const numClasses = 6
	switch next := transitions[(int(d)*numClasses+int(c))*numTCPStates+int(state)]; next {
	case 'x':
		return tcpInvalid
	case 'i':
		return tcpIgnore
	default:
		return uint32(next - '0')
	}
}

func tcpClosing(state uint32) bool { return state >= tcpFinWait && state <= tcpClose }

// segment is what the tracking asks of a TCP segment.
type segment struct {
	seq, ack uint32
	end      uint32 // sequence number after it
	win      uint16
	flags    uint8
	class    class
	options  []byte
}

func (g *segment) has(flags uint8) bool { return g.flags&flags != 0 }

// read takes up a segment. False if its flags contradict each other. PSH, ECE
// and CWR say nothing.
func (g *segment) read(b []byte, v *packet.View) bool {
	h := b[v.L4:v.End]
	n := int(h[12]>>4) * 4
	g.seq, g.ack = binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	g.win, g.flags, g.options = binary.BigEndian.Uint16(h[14:]), h[13], h[packet.TCPMinLen:n]
	g.end = g.seq + uint32(len(h)-n)
	if g.has(flagSYN) {
		g.end++
	}
	if g.has(flagFIN) {
		g.end++
	}
	g.class = classOf(g.flags)
	return possible(g.flags &^ (flagPSH | flagECE | flagCWR))
}

func classOf(flags uint8) class {
	switch {
	case flags&flagRST != 0:
		return classRST
	case flags&(flagSYN|flagACK) == flagSYN|flagACK:
		return classSYNACK
	case flags&flagSYN != 0:
		return classSYN
	case flags&flagFIN != 0:
		return classFIN
	case flags&flagACK != 0:
		return classACK
	}
	return classNone
}

// possible are the combinations that a TCP sends.
func possible(flags uint8) bool {
	switch flags {
	case flagSYN, flagSYN | flagURG, flagSYN | flagACK, flagRST, flagRST | flagACK,
		flagFIN | flagACK, flagFIN | flagACK | flagURG, flagACK, flagACK | flagURG:
		return true
	}
	return false
}

// tcpMachine is one step of a TCP connection: the kernel's nf_conntrack_tcp_packet,
// in its order.
type tcpMachine struct {
	*subject
	segment
	from, to uint32 // states
}

// tcp lets the connection see a segment.
func (s *subject) tcp(b []byte, v *packet.View) action {
	m := tcpMachine{subject: s, from: s.state}
	if !m.read(b, v) || s.fresh && !m.begin() {
		return action{}
	}
	m.to = transition(s.dir, m.class, m.from)
	again := m.to == tcpSynSent && m.from >= tcpTimeWait // a SYN after the end
	switch {
	case m.to == tcpInvalid:
		return action{}
	case again && m.reopens():
		return action{verdict: reopen}
	case m.to == tcpIgnore && m.resyncs():
		m.from, m.to = tcpSynSent, tcpSynRecv
	case m.to == tcpIgnore || again:
		m.note()
		return m.pass()
	case m.isChallenge():
		m.track.lastFlag &^= expectChallenge
		return m.pass()
	}
	return m.step()
}

// step is for a segment that has a place in the state machine.
func (m *tcpMachine) step() action {
	if m.to == tcpClose && m.class == classRST {
		return m.reset()
	}
	m.openBoth()
	return m.windowed()
}

// pass accepts a segment that changes nothing.
func (m *tcpMachine) pass() action { return action{verdict: accept} }

// begin makes the state of a connection from its first segment. False if it can't
// be one.
func (m *tcpMachine) begin() bool {
	first := transition(Original, m.class, tcpNone)
	if first >= numTCPStates || first != tcpSynSent && m.cfg.NoLoose {
		return false
	}
	*m.track = track{last: classNone}
	p := &m.track.peer[Original]
	p.end, p.maxWin = m.end, max(uint32(m.win), 1)
	p.maxEnd = p.end
	if first == tcpSynSent {
		p.readOptions(m.options)
		return true
	}
	// Its beginning was missed, and with it whether and how windows are scaled.
	p.maxEnd += p.maxWin
	p.flags, m.track.peer[Reply].flags = sackPermitted|liberal, sackPermitted|liberal
	return true
}

// reopens reports whether a SYN begins the next connection between the same
// ports: this one was closed, or reset by the same side (RFC 1122 §4.2.2.13).
func (m *tcpMachine) reopens() bool {
	t := m.track
	return (t.peer[0].flags|t.peer[1].flags)&closeInit != 0 || t.lastDir == m.dir && t.last == classRST
}

// resyncs takes up a SYN/ACK that answers a SYN which was let through and
// ignored: both ends are in step, and the table was not.
func (m *tcpMachine) resyncs() bool {
	t := m.track
	if m.class != classSYNACK || t.last != classSYN || t.lastDir == m.dir || m.ack != t.lastEnd {
		return false
	}
	t.lastFlag &^= expectChallenge
	t.peer[t.lastDir] = peer{
		end: t.lastEnd, maxEnd: t.lastEnd, maxWin: max(uint32(t.lastWin), 1),
		scale: t.lastWS, flags: t.lastFlag, maxAck: t.peer[t.lastDir].maxAck,
	}
	t.peer[m.dir] = peer{flags: t.peer[m.dir].flags & liberal}
	return true
}

// note remembers a segment that is let through and changes nothing.
func (m *tcpMachine) note() {
	t := m.track
	t.last, t.lastDir = m.class, m.dir
	t.lastSeq, t.lastEnd, t.lastWin = m.seq, m.end, m.win
	if m.class == classSYN && m.dir == Original {
		var seen peer
		seen.readOptions(m.options)
		t.lastFlag, t.lastWS = seen.flags, seen.scale
		if m.from == tcpLastAck {
			// An ACK that answers it is a challenge, not the last one of the connection.
			t.lastFlag |= expectChallenge
		}
	}
	if m.from == tcpSynSent && m.class == classACK && m.dir == Reply {
		t.lastAck = m.ack // it may be a challenge, that a reset will answer
	}
}

// isChallenge reports whether an ACK answers a SYN in LAST_ACK (RFC 5961 §4).
func (m *tcpMachine) isChallenge() bool {
	t := m.track
	return m.to == tcpTimeWait && m.from == tcpLastAck && m.class == classACK &&
		t.lastDir != m.dir && t.last == classSYN && t.lastFlag&expectChallenge != 0
}

// openBoth is what the table can't say of a simultaneous open.
func (m *tcpMachine) openBoth() {
	switch {
	case m.to == tcpSynSent2:
		m.track.lastFlag |= bothOpen
	case m.to == tcpSynRecv && m.dir == Reply && m.class == classACK && m.track.lastFlag&bothOpen != 0:
		m.to = tcpEstablished
	}
}

// reset judges a segment with RST. In a connection that is closing its ports may
// be those of another already, whose numbers nobody knows.
func (m *tcpMachine) reset() action {
	if tcpClosing(m.from) {
		return m.advance()
	}
	other := &m.track.peer[m.dir.Other()]
	if other.flags&maxAckSet != 0 && m.track.last != classSYN {
		if a, done := m.doubt(other.maxAck); done {
			return a
		}
	}
	if m.answersIgnored() || m.answersChallenge() {
		return m.advance()
	}
	return m.windowed()
}

// doubt compares a reset with what the other side has acknowledged. done: that
// settled it.
func (m *tcpMachine) doubt(acked uint32) (a action, done bool) {
	established := m.from == tcpEstablished && m.status&Assured != 0
	switch {
	case m.seq == 0 && !established:
		return m.windowed(), true
	case before(m.seq, acked) && !m.cfg.IgnoreInvalidRST:
		return action{}, true
	case !established || m.seq == acked || m.endsTrain():
		return m.windowed(), true
	}
	m.to = m.from // it does not fit exactly: leave room for a challenge (RFC 5961 §3)
	return action{}, false
}

// endsTrain reports whether a segment follows right after the last one of its
// side.
func (m *tcpMachine) endsTrain() bool {
	t := m.track
	return t.last == classACK && t.lastDir == m.dir && m.seq == t.lastEnd
}

// answersIgnored reports whether a reset answers a SYN, or an ACK of a half-open
// connection, which was let through and ignored.
func (m *tcpMachine) answersIgnored() bool {
	t := m.track
	replied := m.status&SeenReply != 0 && t.last == classSYN && t.lastDir != m.dir
	half := m.status&Assured == 0 && t.last == classACK
	return (replied || half) && m.ack == t.lastEnd
}

func (m *tcpMachine) answersChallenge() bool {
	t := m.track
	return m.from == tcpSynSent && t.last == classACK && t.lastDir == Reply && m.seq == t.lastAck
}

// windowed goes on if the segment is in the window.
func (m *tcpMachine) windowed() action {
	switch m.window() {
	case outIgnored:
		return m.pass()
	case outInvalid:
		return m.mistrust()
	default:
		return m.advance()
	}
}

// mistrust is for a segment that is out of the window. A reset or FIN of either
// side, both of which were not believed, mean that the table is wrong: it does
// not keep the connection for days.
func (m *tcpMachine) mistrust() action {
	t := m.track
	if m.status&Assured == 0 || m.status&FixedTimeout != 0 || m.class != classRST && m.class != classFIN {
		return action{}
	}
	if t.lastDir == m.dir || t.last != classRST && t.last != classFIN {
		t.last, t.lastDir = m.class, m.dir
		return action{}
	}
	unack := m.cfg.Timeouts.TCPUnack
	return action{shorten: m.left >= 2*minute && m.left > unack, timeout: unack}
}

// advance takes the step.
func (m *tcpMachine) advance() action {
	t := m.track
	t.last, t.lastDir = m.class, m.dir
	if m.from != m.to && m.to == tcpFinWait {
		t.peer[m.dir].flags |= closeInit
	}
	m.state = m.to
	a := action{verdict: accept, refresh: true, timeout: m.timeout()}
	switch {
	case m.status&SeenReply == 0:
		m.unanswered(&a)
	case m.status&Assured == 0 && m.to == tcpEstablished:
		a.assured = m.from == tcpSynRecv || m.from == tcpEstablished
	}
	return a
}

// unanswered is for a connection whose other side was not heard, but for what is
// just coming.
func (m *tcpMachine) unanswered(a *action) {
	switch {
	case m.has(flagRST):
		a.kill = !m.cfg.KeepReset
	case m.class == classSYN && m.from == tcpSynSent:
		a.refresh = false // who repeats it for ever does not keep the entry for ever
	case m.to == tcpEstablished: // picked up in its middle
		a.timeout = min(a.timeout, m.cfg.Timeouts.TCPUnack)
	}
}

// timeout is how long the connection lives from now on.
func (m *tcpMachine) timeout() uint32 {
	t, to := m.track, &m.cfg.Timeouts
	full := to.TCP[m.to]
	unacked := (t.peer[0].flags|t.peer[1].flags)&dataUnacked != 0
	switch {
	case t.retrans >= m.cfg.MaxRetrans && full > to.TCPRetrans:
		return to.TCPRetrans
	case m.class == classRST:
		return to.TCP[tcpClose]
	case unacked && full > to.TCPUnack:
		return to.TCPUnack
	case t.lastWin == 0 && full > to.TCPRetrans:
		return to.TCPRetrans
	}
	return full
}
