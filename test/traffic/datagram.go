// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
)

// A hashed datagram, all numbers big endian:
//
//	0     opDatagram
//	4:8   session, so that a server tells its clients' runs apart
//	8:16  number, counting from 1
//	16:24 first bytes of the SHA-256 of session, number and payload
//	24:   payload
//
// opAck has the same head, its number is the datagrams received, and it is
// followed by the other counts of the session.
const datagramHead = 24

// payload is where datagrams take their bytes from; each number begins at
// another offset, so that two datagrams never look the same.
type payload []byte

func newPayload() payload {
	p := make(payload, 128<<10)
	_, _ = rand.NewChaCha8([32]byte{'u', 'd', 'p'}).Read(p)
	return p
}

// fill makes b the datagram with the given number.
func (p payload) fill(b []byte, session uint32, number uint64) {
	clear(b[:datagramHead])
	b[0] = opDatagram
	binary.BigEndian.PutUint32(b[4:], session)
	binary.BigEndian.PutUint64(b[8:], number)
	offset := int(number*7919) % (len(p) / 2)
	copy(b[datagramHead:], p[offset:])
	sum := datagramSum(b)
	copy(b[16:24], sum[:8])
}

func datagramSum(b []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(b[4:16])
	h.Write(b[datagramHead:])
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum
}

// session is what a server counts of one client's run.
type session struct {
	Received, Bad, Reordered, Merged, Bytes uint64

	highest uint64
}

// take counts one datagram, which may be anything.
func (s *session) take(b []byte) {
	sum := datagramSum(b)
	if string(sum[:8]) != string(b[16:24]) {
		s.Bad++
		return
	}
	s.Received++
	s.Bytes += uint64(len(b))
	if n := binary.BigEndian.Uint64(b[8:]); n > s.highest {
		s.highest = n
	} else {
		s.Reordered++
	}
}

// ack is the message that tells a client where the server is.
func (s *session) ack(id uint32) []byte {
	b := make([]byte, 4, 64)
	b[0] = opAck
	b = binary.BigEndian.AppendUint32(b, id)
	for _, n := range []uint64{s.Received, s.Bad, s.Reordered, s.Merged, s.Bytes} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

// readAck is the inverse of ack; ok is false for anything else.
func (s *session) readAck(b []byte, id uint32) (ok bool) {
	if len(b) < 48 || b[0] != opAck || binary.BigEndian.Uint32(b[4:]) != id {
		return false
	}
	for i, p := range []*uint64{&s.Received, &s.Bad, &s.Reordered, &s.Merged, &s.Bytes} {
		*p = binary.BigEndian.Uint64(b[8+8*i:])
	}
	return true
}
