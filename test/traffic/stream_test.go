// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"time"
)

// stream is the bytes of a whole hashed stream.
func stream(t *testing.T, size uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := newSource(1).run(&b, size, time.Time{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestStreamArrives(t *testing.T) {
	for _, size := range []uint64{0, 1, recordLen - 1, recordLen, recordLen + 1, 3*recordLen + 7} {
		v, err := drain(bytes.NewReader(stream(t, size)))
		if err != nil || v.Bytes != size {
			t.Errorf("%d bytes: %+v, %v", size, v, err)
		}
	}
}

func TestStreamIsBoundedByTime(t *testing.T) {
	s := newSource(1)
	if err := s.run(io.Discard, 0, time.Now().Add(20*time.Millisecond)); err != nil || s.sent == 0 {
		t.Errorf("%d bytes, %v", s.sent, err)
	}
}

// TestStreamNotices does to a stream what a network could do to it.
func TestStreamNotices(t *testing.T) {
	const n = 4 + recordLen
	tests := map[string]func(b []byte) []byte{
		"one bit":          func(b []byte) []byte { b[n+100] ^= 1; return b },
		"cut off":          func(b []byte) []byte { return b[:len(b)-40] },
		"no sum":           func(b []byte) []byte { return b[:len(b)-1] },
		"a record missing": func(b []byte) []byte { return append(b[:n:n], b[2*n:]...) },
		"a record twice":   func(b []byte) []byte { return append(b[:n:n], b...) },
		"two swapped": func(b []byte) []byte {
			return append(append(append([]byte(nil), b[n:2*n]...), b[:n]...), b[2*n:]...)
		},
		"a length that lies": func(b []byte) []byte { binary.BigEndian.PutUint32(b, recordLen+1); return b },
	}
	for name, harm := range tests {
		t.Run(name, func(t *testing.T) {
			if v, err := drain(bytes.NewReader(harm(stream(t, 3*recordLen)))); err == nil {
				t.Errorf("not noticed: %+v", v)
			}
		})
	}
}
