// SPDX-License-Identifier: Apache-2.0

package conntrack

import "encoding/binary"

// Flags of a peer, and of track.lastFlag.
const (
	windowScale     = 1 << iota // it offered window scaling
	sackPermitted               // it offered SACK
	closeInit                   // it sent the first FIN
	liberal                     // its windows are not known: all is in them
	dataUnacked                 // what it sent is not acknowledged
	maxAckSet                   // maxAck is one
	expectChallenge             // lastFlag: an ACK may be a challenge (RFC 5961)
	bothOpen                    // lastFlag: SYN was seen from both sides
)

// before and after compare sequence numbers (RFC 9293 §3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return before(b, a) }

// outcome of the window.
type fit uint8

const (
	outInvalid fit = iota
	outIgnored     // harmless: too late, or a little too much
	in
)

// windowSlack is how far an ACK may lag behind, if no larger window was seen.
const windowSlack = 66000

// window follows van Rooij's four conditions, with Linux's boundaries: a segment
// intersects what the receiver has room for, and acknowledges what was sent.
//
//	I.   seq  <= sender.maxEnd
//	II.  end  >= sender.end - receiver.maxWin
//	III. sack <= receiver.end
//	IV.  sack >= receiver.end - max(sender.maxWin, windowSlack)
//
// where sack is the highest edge that is acknowledged selectively, or else ack.
func (m *tcpMachine) window() fit {
	t := m.track
	snd, rcv := &t.peer[m.dir], &t.peer[m.dir.Other()]
	w := win{seq: m.seq, end: m.end, ack: m.ack, sack: m.ack, size: uint32(m.win)}
	if rcv.flags&sackPermitted != 0 {
		w.sack = highestSACK(m.options, w.sack)
	}
	if m.meet(snd, rcv, &w) {
		return in
	}
	m.excuse(snd, rcv, &w)
	if f := w.fits(snd, rcv); f != in {
		if snd.flags&liberal != 0 || m.cfg.Liberal {
			return in
		}
		return f
	}
	if !m.has(flagSYN) {
		w.size <<= snd.scale
	}
	w.update(snd, rcv, m.has(flagACK))
	if m.class == classACK {
		m.repeated(&w)
	}
	return in
}

// excuse fills in what segments of some kinds don't say: without ACK, and in the
// resets of some systems, an acknowledgement; in a reset that answers a SYN, a
// sequence number.
func (m *tcpMachine) excuse(snd, rcv *peer, w *win) {
	if !m.has(flagACK) || m.has(flagRST) && w.ack == 0 {
		w.ack, w.sack = rcv.end, rcv.end
	}
	if m.has(flagRST) && w.seq == 0 && m.state == tcpSynSent {
		w.seq, w.end = snd.end, snd.end
	}
}

// win is a segment as the window sees it.
type win struct{ seq, end, ack, sack, size uint32 }

// meet takes up the sender, if nothing was heard of it yet or it begins again.
// True if nothing is left to be compared.
func (m *tcpMachine) meet(snd, rcv *peer, w *win) bool {
	opening := m.state == tcpSynSent || m.state == tcpSynRecv
	switch {
	case snd.maxWin == 0 && m.has(flagSYN):
		m.introduce(snd, rcv, w)
		return !m.has(flagACK)
	case snd.maxWin == 0:
		snd.end = w.end
		snd.maxWin = max(w.size<<snd.scale, 1)
		snd.maxEnd = w.end + snd.maxWin
		if rcv.maxWin == 0 {
			rcv.end, rcv.maxEnd = w.sack, w.sack
		} else if w.sack == rcv.end+1 {
			rcv.end++ // likely the answer to a keep-alive
		}
	case m.has(flagSYN) && opening && after(w.end, snd.end):
		m.introduce(snd, rcv, w)
		return m.dir == Reply && !m.has(flagACK)
	}
	return false
}

// introduce takes up the sender of a SYN. Windows are scaled only if both sides
// offer it (RFC 7323 §2.2).
func (m *tcpMachine) introduce(snd, rcv *peer, w *win) {
	snd.end, snd.maxEnd, snd.maxWin = w.end, w.end, max(w.size, 1)
	snd.readOptions(m.options)
	if m.dir == Reply && snd.flags&rcv.flags&windowScale == 0 {
		snd.scale, rcv.scale = 0, 0
	}
}

// fits asks the four conditions.
func (w *win) fits(snd, rcv *peer) fit {
	lowest := rcv.end - max(snd.maxWin, windowSlack) - 1
	reaches := after(w.end, snd.end-rcv.maxWin-1)
	switch {
	case !before(w.seq, snd.maxEnd+1):
		over := w.end - snd.maxEnd + 1
		if rcv.maxWin != 0 && reaches && after(w.sack, lowest) && over <= rcv.maxWin && before(w.sack, rcv.end+1) {
			// Some send a little more than they may. If it passes and is acknowledged,
			// the ACK must not be out of the window.
			snd.end = w.end
			snd.flags |= dataUnacked
			return outIgnored
		}
		return outInvalid
	case !before(w.sack, rcv.end+1):
		return outInvalid
	case rcv.maxWin != 0 && !reaches, !after(w.sack, lowest):
		return outIgnored
	}
	return in
}

// update takes up what a segment in the window shows.
func (w *win) update(snd, rcv *peer, acks bool) {
	snd.maxWin = max(snd.maxWin, w.size+(w.sack-w.ack))
	if after(w.end, snd.end) {
		snd.end = w.end
		snd.flags |= dataUnacked
	}
	if acks && (snd.flags&maxAckSet == 0 || after(w.ack, snd.maxAck)) {
		snd.maxAck = w.ack
		snd.flags |= maxAckSet
	}
	if rcv.maxWin != 0 && after(w.end, snd.maxEnd) {
		rcv.maxWin += w.end - snd.maxEnd
	}
	if after(w.sack+w.size, rcv.maxEnd-1) {
		rcv.maxEnd = w.sack + max(w.size, 1)
	}
	if w.ack == rcv.end {
		rcv.flags &^= dataUnacked
	}
}

// repeated counts how often the same ACK comes: the other side is gone.
func (m *tcpMachine) repeated(w *win) {
	t := m.track
	if t.lastDir == m.dir && t.lastSeq == w.seq && t.lastAck == w.ack && t.lastEnd == w.end && t.lastWin == m.win {
		t.retrans++
		return
	}
	t.lastDir, t.lastSeq, t.lastAck, t.lastEnd, t.lastWin, t.retrans = m.dir, w.seq, w.ack, w.end, m.win, 0
}

// Options of TCP.
const (
	optEnd       = 0
	optNop       = 1
	optScale     = 3 // RFC 7323 §2.2
	optSACKPerm  = 4 // RFC 2018 §2
	optSACK      = 5 // RFC 2018 §3
	maxScale     = 14
	timestampLen = 12 // with the padding that everybody sends
)

// nextOption cuts the first option off opts: its kind and what is in it. False
// at the end, and at what is cut short.
func nextOption(opts []byte) (kind uint8, data, left []byte, ok bool) {
	for len(opts) > 0 && opts[0] == optNop {
		opts = opts[1:]
	}
	if len(opts) < 2 || opts[0] == optEnd || opts[1] < 2 || int(opts[1]) > len(opts) {
		return 0, nil, nil, false
	}
	return opts[0], opts[2:opts[1]], opts[opts[1]:], true
}

// readOptions takes up what a SYN offers. A SYN without any option changes
// nothing.
func (p *peer) readOptions(opts []byte) {
	if len(opts) == 0 {
		return
	}
	p.scale = 0
	p.flags &= liberal
	for {
		kind, data, left, ok := nextOption(opts)
		switch {
		case !ok:
			return
		case kind == optSACKPerm && len(data) == 0:
			p.flags |= sackPermitted
		case kind == optScale && len(data) == 1:
			p.scale = min(data[0], maxScale)
			p.flags |= windowScale
		}
		opts = left
	}
}

// highestSACK is the highest edge of the first SACK option, or ack.
func highestSACK(opts []byte, ack uint32) uint32 {
	const timestamp = 0x0101_080a // two NOPs, kind and length
	if len(opts) == timestampLen && binary.BigEndian.Uint32(opts) == timestamp {
		return ack
	}
	for {
		kind, data, left, ok := nextOption(opts)
		if !ok {
			return ack
		}
		if kind == optSACK && len(data) >= 8 && len(data)%8 == 0 {
			for ; len(data) > 0; data = data[8:] {
				if edge := binary.BigEndian.Uint32(data[4:]); after(edge, ack) {
					ack = edge
				}
			}
			return ack
		}
		opts = left
	}
}
