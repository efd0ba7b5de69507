// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"time"
)

// A hashed stream is a sequence of records: four bytes of length (big endian),
// then as many bytes. A record of length zero ends it and is followed by the
// SHA-256 of all the data, so that the length need not be known beforehand and
// a transfer can be bounded by time.
const recordLen = 256 << 10

// verdict is what a receiver tells the sender at the end: what it read.
type verdict struct {
	Sum    [sha256.Size]byte
	Bytes  uint64
	MaxGap int64 // nanoseconds without a byte
}

// source writes a hashed stream.
type source struct {
	sum   hash.Hash
	buf   []byte // four bytes of length and a record
	count uint64 // records so far
	sent  uint64 // bytes of data so far
}

func newSource(seed uint64) *source {
	s := &source{sum: sha256.New(), buf: make([]byte, 4+recordLen)}
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	rnd := rand.NewChaCha8(key)
	_, _ = rnd.Read(s.buf[4:])
	return s
}

// run sends until bytes are out or the time is over, whichever is set, then
// the end mark with the sum.
func (s *source) run(w io.Writer, bytes uint64, until time.Time) error {
	for bytes > s.sent || !until.IsZero() && time.Now().Before(until) {
		n := uint64(recordLen)
		if bytes > 0 {
			n = min(n, bytes-s.sent)
		}
		if err := s.record(w, int(n)); err != nil {
			return err
		}
	}
	end := append(make([]byte, 4), s.sum.Sum(nil)...)
	_, err := w.Write(end)
	return err
}

// record sends n bytes. The first sixteen carry the record's number, so that
// a record that is lost, doubled or swapped changes the hash.
func (s *source) record(w io.Writer, n int) error {
	var mark [16]byte
	binary.BigEndian.PutUint64(mark[:], s.count)
	binary.BigEndian.PutUint64(mark[8:], ^s.count)
	copy(s.buf[4:4+n], mark[:])
	binary.BigEndian.PutUint32(s.buf, uint32(n))
	s.count++
	s.sent += uint64(n)
	s.sum.Write(s.buf[4 : 4+n])
	_, err := w.Write(s.buf[:4+n])
	return err
}

// gapReader notes the longest time between two successful reads.
type gapReader struct {
	r    io.Reader
	last time.Time
	max  time.Duration
}

func (g *gapReader) Read(b []byte) (int, error) {
	n, err := g.r.Read(b)
	now := time.Now()
	if !g.last.IsZero() {
		g.max = max(g.max, now.Sub(g.last))
	}
	g.last = now
	return n, err
}

// drain reads one hashed stream to its end and compares its sum.
func drain(r io.Reader) (verdict, error) {
	g := &gapReader{r: r}
	sum, buf := sha256.New(), make([]byte, recordLen)
	var v verdict
	for {
		var head [4]byte
		if _, err := io.ReadFull(g, head[:]); err != nil {
			return v, fmt.Errorf("stream ends early after %d bytes: %w", v.Bytes, err)
		}
		n := binary.BigEndian.Uint32(head[:])
		if n == 0 {
			break
		}
		if n > recordLen {
			return v, fmt.Errorf("record of %d bytes after %d bytes: %w", n, v.Bytes, errWrong)
		}
		if _, err := io.ReadFull(g, buf[:n]); err != nil {
			return v, fmt.Errorf("stream ends early after %d bytes: %w", v.Bytes, err)
		}
		sum.Write(buf[:n])
		v.Bytes += uint64(n)
	}
	sum.Sum(v.Sum[:0])
	v.MaxGap = int64(g.max)
	return v, compareSum(r, v)
}

func compareSum(r io.Reader, v verdict) error {
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r, want); err != nil {
		return fmt.Errorf("no sum after %d bytes: %w", v.Bytes, err)
	}
	if !bytes.Equal(want, v.Sum[:]) {
		return fmt.Errorf("sum %x, sender says %x: %w", v.Sum, want, errWrong)
	}
	return nil
}
