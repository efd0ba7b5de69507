// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"slices"

	"sluice/packet"
	"sluice/trace"
)

// key is what the fragments of one datagram have in common.
type key struct {
	src, dst [16]byte
	id       uint32
	in, dev  uint16
	proto    uint8 // of IPv4; that of IPv6 may differ between fragments
	v6       bool
}

func keyOf(in, dev uint16, f *packet.Frame, id uint32) key {
	v, b := &f.View, f.Bytes()
	k := key{id: id, in: in, dev: dev, v6: v.Is(packet.ViewIPv6)}
	k.src, k.dst = v.SrcAddr(b).As16(), v.DstAddr(b).As16()
	if !k.v6 {
		k.proto = v.Proto
	}
	return k
}

// span is a run of bytes, from its first to before its end.
type span struct{ from, end int }

// datagram is one that isn't whole yet.
type datagram struct {
	key       key
	deadline  uint32
	ports     Ports
	known     bool         // the first fragment has come
	dead      trace.Reason // not None: kept so that what is still to come is refused for it
	fragments int          // taken
	total     int          // length, once the last fragment has come; else 0
	spans     []span
	held      []Held
	bytes     int // of held, with what each costs

	next, prev *datagram // in the list of its port
	in         *list
}

// expired reports whether the datagram's time is over; the clock may wrap.
func (d *datagram) expired(now uint32) bool { return int32(now-d.deadline) >= 0 }

// place is the number of the first run that doesn't end before the byte at from.
func (d *datagram) place(from int) int {
	for i, s := range slices.Backward(d.spans) { // in order: it is after the last one
		if s.end < from {
			return i + 1
		}
	}
	return 0
}

// covers reports whether all bytes of the fragment have come already.
func (d *datagram) covers(fr packet.Fragment) bool {
	for _, s := range d.spans {
		if s.from <= fr.Offset && fr.Offset+fr.Len <= s.end {
			return true
		}
	}
	return false
}

// overlaps reports whether some bytes of the fragment have come already.
func (d *datagram) overlaps(fr packet.Fragment) bool {
	for _, s := range d.spans {
		if fr.Offset < s.end && s.from < fr.Offset+fr.Len {
			return true
		}
	}
	return false
}

// otherLength reports whether the fragment says another length of the datagram
// than those before it.
func (d *datagram) otherLength(fr packet.Fragment) bool {
	end := fr.Offset + fr.Len
	if fr.More {
		return d.total != 0 && end > d.total
	}
	return end < d.highest() || d.total != 0 && end != d.total
}

// highest is the end of the data that has come.
func (d *datagram) highest() int {
	if len(d.spans) == 0 {
		return 0
	}
	return d.spans[len(d.spans)-1].end
}

// take notes the fragment's place; the runs that it touches become one.
// Preconditions: it doesn't overlap any.
func (d *datagram) take(fr packet.Fragment) {
	d.fragments++
	s := span{fr.Offset, fr.Offset + fr.Len}
	if !fr.More {
		d.total = s.end
	}
	i := d.place(s.from)
	j := i
	for j < len(d.spans) && d.spans[j].from <= s.end {
		s.from, s.end = min(s.from, d.spans[j].from), max(s.end, d.spans[j].end)
		j++
	}
	d.spans = slices.Replace(d.spans, i, j, s)
}

// complete reports whether all has come.
func (d *datagram) complete() bool {
	return d.total != 0 && len(d.spans) == 1 && d.spans[0] == span{0, d.total}
}

// list is a queue of datagrams, oldest first.
type list struct{ head, tail *datagram }

func (l *list) push(d *datagram) {
	d.in, d.prev, d.next = l, l.tail, nil
	if l.tail == nil {
		l.head = d
	} else {
		l.tail.next = d
	}
	l.tail = d
}

func (l *list) unlink(d *datagram) {
	if d.prev == nil {
		l.head = d.next
	} else {
		d.prev.next = d.next
	}
	if d.next == nil {
		l.tail = d.prev
	} else {
		d.next.prev = d.prev
	}
	d.in, d.next, d.prev = nil, nil, nil
}
