// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"net/netip"
)

// writer6 appends options to a frame.
type writer6 struct {
	b   []byte
	end int // of the frame, at most
}

// put appends an option; not one that doesn't fit.
func (w *writer6) put(code uint16, data []byte) {
	if len(w.b)+4+len(data) > w.end {
		return
	}
	w.head(code, len(data))
	w.b = append(w.b, data...)
}

func (w *writer6) head(code uint16, n int) {
	w.b = binary.BigEndian.AppendUint16(w.b, code)
	w.b = binary.BigEndian.AppendUint16(w.b, uint16(n))
}

func (w *writer6) byte(code uint16, v uint8) {
	w.head(code, 1)
	w.b = append(w.b, v)
}

func (w *writer6) status(code uint16) {
	w.head(opt6Status, 2)
	w.b = binary.BigEndian.AppendUint16(w.b, code)
}

// ia appends the head of an identity association. What follows until endIA is
// within it.
func (w *writer6) ia(a *ia, t1, t2 uint32) (begin int) {
	w.head(a.code, 0)
	begin = len(w.b)
	w.b = append(w.b, a.id[:]...)
	w.b = binary.BigEndian.AppendUint32(w.b, t1)
	w.b = binary.BigEndian.AppendUint32(w.b, t2)
	return begin
}

func (w *writer6) endIA(begin int) {
	binary.BigEndian.PutUint16(w.b[begin-2:], uint16(len(w.b)-begin))
}

func (w *writer6) addr(a netip.Addr, preferred, valid uint32) {
	b := a.As16()
	w.head(opt6Addr, addrFixed)
	w.b = append(w.b, b[:]...)
	w.b = binary.BigEndian.AppendUint32(w.b, preferred)
	w.b = binary.BigEndian.AppendUint32(w.b, valid)
}
