// SPDX-License-Identifier: Apache-2.0

package qdisc

import "math/bits"

const (
	wheelShift = 13 // a slot is 8192 ns
	wheelSlots = 4096
	wheelMask  = wheelSlots - 1
)

// Wheel says which of many trees may have a packet: a timing wheel (Varghese,
// Lauck 1987), one for each worker. Each tree has a number and stands in it once,
// or not at all; all is done in constant time. A tree comes up with the slot of its
// time, so at most 8 us late, or early never; a time beyond the wheel's 33 ms comes
// round, and is put in again. Not safe for concurrent use. Zero is empty, and
// begins at time 0.
type Wheel struct {
	slots [wheelSlots]uint32 // 1 + number of the first
	full  [wheelSlots / 64]uint64
	sum   uint64 // which words of full are not zero
	seats []seat
	hand  int64 // number of the slot that comes next
	count int
}

// seat is a tree's place.
type seat struct {
	at         int64
	next, prev uint32 // 1 + number
	slot       int32  // -1: none
}

// Set notes tree id for a time, instead of any other that it was noted for.
func (w *Wheel) Set(id uint32, at int64) {
	for int(id) >= len(w.seats) {
		w.seats = append(w.seats, seat{slot: -1})
	}
	w.Clear(id)
	w.seats[id].at = at
	w.put(id)
	w.count++
}

func (w *Wheel) put(id uint32) {
	s := &w.seats[id]
	tick := (s.at + 1<<wheelShift - 1) >> wheelShift
	tick = min(max(tick, w.hand), w.hand+wheelSlots-2) // not the hand's own slot once more
	k := tick & wheelMask
	s.slot, s.prev, s.next = int32(k), 0, w.slots[k]
	if s.next != 0 {
		w.seats[s.next-1].prev = id + 1
	}
	w.slots[k] = id + 1
	w.full[k>>6] |= 1 << (k & 63)
	w.sum |= 1 << (k >> 6)
}

// Clear forgets tree id.
func (w *Wheel) Clear(id uint32) {
	if int(id) < len(w.seats) && w.seats[id].slot >= 0 {
		w.unlink(id)
		w.count--
	}
}

func (w *Wheel) unlink(id uint32) {
	s := &w.seats[id]
	k := int64(s.slot)
	if s.prev != 0 {
		w.seats[s.prev-1].next = s.next
	} else {
		w.slots[k] = s.next
	}
	if s.next != 0 {
		w.seats[s.next-1].prev = s.prev
	}
	s.slot = -1
	if w.slots[k] == 0 {
		if w.full[k>>6] &^= 1 << (k & 63); w.full[k>>6] == 0 {
			w.sum &^= 1 << (k >> 6)
		}
	}
}

// Next takes out a tree whose time has come; false if there is none. All that is
// due comes up by calls with the same now.
func (w *Wheel) Next(now int64) (id uint32, ok bool) {
	last := now >> wheelShift
	for w.count > 0 {
		k := w.first()
		if k > last {
			break
		}
		w.hand = k
		id = w.slots[k&wheelMask] - 1
		w.unlink(id)
		if w.seats[id].at <= now {
			w.count--
			return id, true
		}
		w.put(id) // its time is in another turn of the wheel
	}
	w.hand = max(w.hand, last)
	return 0, false
}

// Time is when Next may have a tree; the greatest int64 if there is none.
func (w *Wheel) Time() int64 {
	if w.count == 0 {
		return never
	}
	return w.first() << wheelShift
}

// first is the first slot from the hand on that isn't empty. Preconditions: there
// is one.
func (w *Wheel) first() int64 {
	h := w.hand & wheelMask
	word := h >> 6
	if m := w.full[word] >> (h & 63); m != 0 {
		return w.hand + int64(bits.TrailingZeros64(m))
	}
	rest := bits.RotateLeft64(w.sum, -int(word+1)&63) // the word after this one is bit 0
	step := int64(bits.TrailingZeros64(rest)) + 1
	next := (word + step) & (wheelSlots/64 - 1)
	k := next<<6 + int64(bits.TrailingZeros64(w.full[next]))
	return w.hand + (k-h)&wheelMask
}
