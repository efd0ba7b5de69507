// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"

	"sluice/packet"
)

// EventSize is the size of an event that travels.
const EventSize = 2*5*8 + 2*2*8 + 16 + 5*4 + 2*2 + 2 + 2

// eventBytes is an event as it travels, in network byte order:
//
//	  0 keys     2 of 40 bytes, see key
//	 80 counters packets and bytes of both directions
//	112 label
//	128 id, status, timeout, age, mark
//	148 port, out device
//	152 kind, number of the state
//	154 nothing
//
// What only who made the connection knows of it, its binds and Aux, stays there.
type eventBytes [EventSize]byte

func (b *eventBytes) encode(kind EventKind, e *Entry) {
	o := binary.BigEndian
	w := b[:0]
	for _, t := range [2]*Tuple{&e.Original, &e.Reply} {
		k, _ := keyOf(e.Zone, t)
		for _, word := range k {
			w = o.AppendUint64(w, word)
		}
	}
	for d := range e.Packets {
		w = o.AppendUint64(o.AppendUint64(w, e.Packets[d]), e.Bytes[d])
	}
	w = append(w, e.Label[:]...)
	for _, word := range [5]uint32{e.ID, uint32(e.Status), e.Timeout, e.Age, e.Mark} {
		w = o.AppendUint32(w, word)
	}
	w = o.AppendUint16(o.AppendUint16(w, e.Port), e.OutDevice)
	_ = append(w, uint8(kind), stateNumber(e), 0, 0)
}

// decode accepts any bytes, and reports whether they are an event of a connection.
func (b *eventBytes) decode(ev *Event) bool {
	o := binary.BigEndian
	var keys [2]key
	for d := range keys {
		for word := range keys[d] {
			keys[d][word] = o.Uint64(b[d*40+word*8:])
		}
	}
	*ev = Event{Kind: EventKind(b[152]), Entry: Entry{
		Zone: keys[0].zone(), Original: keys[0].tuple(), Reply: keys[1].tuple(),
		Packets: [2]uint64{o.Uint64(b[80:]), o.Uint64(b[96:])}, Bytes: [2]uint64{o.Uint64(b[88:]), o.Uint64(b[104:])},
		Label: Label(b[112:128]), ID: o.Uint32(b[128:]), Status: Status(o.Uint32(b[132:])), Timeout: o.Uint32(b[136:]),
		Age: o.Uint32(b[140:]), Mark: o.Uint32(b[144:]), Port: o.Uint16(b[148:]), OutDevice: o.Uint16(b[150:]),
	}}
	ev.Entry.State = stateName(ev.Entry.Original.Proto, uint32(b[153]))
	return ev.Kind <= EventDestroy && keys[0].ofIP() && keys[1].ofIP()
}

// DecodeEvents calls yield for each event of what Watch.Read returned. It accepts any
// bytes: what is no event is left out. The Event is good during the call.
func DecodeEvents(b []byte, yield func(*Event)) {
	var ev Event
	for ; len(b) >= EventSize; b = b[EventSize:] {
		if (*eventBytes)(b).decode(&ev) {
			yield(&ev)
		}
	}
}

// stateName is the kernel's word for a number of a state of a protocol.
func stateName(proto uint8, state uint32) string {
	switch proto {
	case packet.ProtoTCP:
		return tcpStateName(state)
	case packet.ProtoSCTP:
		return sctpStateName(state)
	}
	return ""
}

// stateNumber is the number of an entry's state; 0 if it has none.
func stateNumber(e *Entry) uint8 {
	for n := uint8(numSCTPStates + numTCPStates); e.State != "" && n > 0; n-- {
		if stateName(e.Original.Proto, uint32(n)) == e.State {
			return n
		}
	}
	return 0
}
