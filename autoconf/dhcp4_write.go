// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"net/netip"
)

const (
	minSize4   = 576  // of an IP datagram, that every client takes: RFC 2131 §2
	maxSize4   = 1500 // whatever a client says
	minMessage = 300  // of BOOTP, RFC 1542 §2.1; some clients insist
)

// areas are where options can be, RFC 2131 §4.1; a client concatenates them in
// this order (RFC 3396 §5).
const (
	areaOptions = iota
	areaFile
	areaSname
	numAreas
)

// writer4 puts options where they fit, so that the most important come first.
type writer4 struct {
	buf  [numAreas][maxSize4]byte
	used [numAreas]int
	room [numAreas]int
}

// init makes room for a datagram of at most size bytes. One byte of each area is
// kept for the end, and three of the first for saying that there are others.
func (w *writer4) init(size int) {
	const fixed = headers4 - 14 + optionsAt
	w.used = [numAreas]int{}
	w.room = [numAreas]int{size - fixed - 4, fileLen - 1, snameLen - 1}
}

// put adds an option. One that is longer than 255 bytes is split (RFC 3396), and
// all of it is in the first area. One that finds no room is left out.
func (w *writer4) put(code uint8, data []byte) {
	need := len(data) + 2*max(1, (len(data)+254)/255)
	for area := range numAreas {
		if w.used[area]+need > w.room[area] || len(data) > 255 && area != areaOptions {
			continue
		}
		b := w.buf[area][:w.used[area]]
		for first := true; first || len(data) > 0; first = false {
			n := min(len(data), 255)
			b = append(append(b, code, byte(n)), data[:n]...)
			data = data[n:]
		}
		w.used[area] = len(b)
		return
	}
}

func (w *writer4) byte(code, v uint8) { w.put(code, []byte{v}) }

func (w *writer4) addr(code uint8, a netip.Addr) {
	b := a.As4()
	w.put(code, b[:])
}

func (w *writer4) seconds(code uint8, v uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	w.put(code, b[:])
}

// finish writes the areas into the message at the end of dst, which ends after
// the magic cookie and begins at begin, and pads it.
func (w *writer4) finish(dst []byte, begin int) []byte {
	overload := uint8(0)
	for area, at := range [numAreas]int{areaFile: fileAt, areaSname: snameAt} {
		if area == areaOptions || w.used[area] == 0 {
			continue
		}
		overload |= uint8(area)
		n := copy(dst[begin+at:], w.buf[area][:w.used[area]])
		dst[begin+at+n] = optEnd
	}
	dst = append(dst, w.buf[areaOptions][:w.used[areaOptions]]...)
	if overload != 0 {
		dst = append(dst, optOverload, 1, overload)
	}
	dst = append(dst, optEnd)
	for len(dst)-begin < minMessage {
		dst = append(dst, optPad)
	}
	return dst
}
