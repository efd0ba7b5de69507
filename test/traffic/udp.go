// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/traffic/report"
)

// serveDatagrams answers on one UDP socket for ever: echo for pings, counts for
// hashed datagrams. One read may hold several datagrams (UDP_GRO).
func serveDatagrams(fd int) {
	sessions := map[uint32]*session{}
	buf, oob := make([]byte, 128<<10), make([]byte, 64)
	for {
		n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, 0)
		if err != nil {
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNREFUSED) {
				continue
			}
			fmt.Fprintln(os.Stderr, "serve:", err)
			return
		}
		if n > 0 && buf[0] == opPing {
			_ = unix.Sendto(fd, buf[:n], 0, from)
			continue
		}
		if n < 8 {
			continue
		}
		id := binary.BigEndian.Uint32(buf[4:])
		s := sessions[id]
		if s == nil {
			s = &session{}
			sessions[id] = s
		}
		s.read(buf[:n], groSize(oob[:oobn]))
		_ = unix.Sendto(fd, s.ack(id), 0, from)
	}
}

// read takes what one recvmsg gave: datagrams of size bytes, the last of which
// may be shorter; size 0 is one datagram.
func (s *session) read(b []byte, size int) {
	if size > 0 && len(b) > size {
		s.Merged++
	}
	for len(b) >= datagramHead {
		n := len(b)
		if size > 0 {
			n = min(n, size)
		}
		if b[0] == opDatagram {
			s.take(b[:n])
		}
		b = b[n:]
	}
}

// groSize is the datagram size that UDP_GRO tells, or 0.
func groSize(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}

// datagramSender keeps a window of datagrams under way, so that no queue on
// the way has a reason to drop and every loss is somebody's fault.
type datagramSender struct {
	fd      int
	id      uint32
	size    int // bytes of a datagram
	burst   int // datagrams a send call: more than one with UDP GSO
	window  uint64
	payload payload
	buf     []byte
	sent    uint64
	acked   session
	lost    uint64 // given up waiting for
}

// sendDatagrams sends hashed datagrams to a server and reads its counts.
func sendDatagrams(_ context.Context, args []string) (any, error) {
	f := flags("udp")
	to := f.String("to", "", "address:port of the server")
	size := f.Int("size", 1472, "bytes of a datagram, at least 24")
	total := f.Uint64("bytes", 16<<20, "bytes in all")
	gso := f.Bool("gso", false, "UDP_SEGMENT: up to 64 KB a call")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if *size < datagramHead || *size > 65507 {
		return nil, fmt.Errorf("-size %d: not from %d to 65507", *size, datagramHead)
	}
	s, err := newDatagramSender(*to, *size, *gso)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	count := (*total + uint64(*size) - 1) / uint64(*size)
	if err := s.run(count); err != nil {
		return nil, err
	}
	return s.result(time.Since(start))
}

func newDatagramSender(to string, size int, gso bool) (*datagramSender, error) {
	fd, err := dialSocket(unix.SOCK_DGRAM, to)
	if err != nil {
		return nil, err
	}
	s := &datagramSender{fd: fd, id: rand.Uint32(), size: size, burst: 1, payload: newPayload()}
	if gso {
		s.burst = min(64, 65000/size)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size); err != nil {
			return nil, os.NewSyscallError("UDP_SEGMENT", err)
		}
	}
	s.window = uint64(max(2*s.burst, min(64, 256<<10/size)))
	s.buf = make([]byte, size*s.burst)
	return s, setTimeout(fd, 500)
}

func (s *datagramSender) run(count uint64) error {
	for s.sent < count {
		n := int(min(uint64(s.burst), count-s.sent))
		for i := range n {
			s.sent++
			s.payload.fill(s.buf[i*s.size:(i+1)*s.size], s.id, s.sent)
		}
		if _, err := unix.Write(s.fd, s.buf[:n*s.size]); err != nil {
			return fmt.Errorf("sending %d datagrams of %d bytes: %w", n, s.size, err)
		}
		for s.open() >= s.window {
			s.wait()
		}
	}
	for s.open() > 0 {
		s.wait()
	}
	return nil
}

// open is how many datagrams are under way.
func (s *datagramSender) open() uint64 {
	done := s.acked.Received + s.acked.Bad + s.lost
	return s.sent - min(done, s.sent)
}

// wait reads one acknowledgement; after half a second without one, what is
// under way counts as lost, and wait returns false.
func (s *datagramSender) wait() bool {
	var b [256]byte
	n, err := unix.Read(s.fd, b[:])
	for err == unix.EINTR { // a signal of the runtime; the time-out starts again
		n, err = unix.Read(s.fd, b[:])
	}
	if err != nil {
		s.lost += s.open()
		return false
	}
	s.acked.readAck(b[:n], s.id)
	return true
}

// result asks the server for its last counts: late arrivals are not lost.
func (s *datagramSender) result(took time.Duration) (any, error) {
	ask := make([]byte, 8)
	ask[0] = opFinish
	binary.BigEndian.PutUint32(ask[4:], s.id)
	if s.lost > 0 {
		_, _ = unix.Write(s.fd, ask)
		for s.wait() {
			continue
		}
	}
	a := s.acked
	r := report.Datagrams{
		Sent: s.sent, Received: a.Received, Lost: s.sent - min(a.Received, s.sent), Bad: a.Bad,
		Reordered: a.Reordered, Merged: a.Merged, Bytes: a.Bytes, Seconds: took.Seconds(),
	}
	if r.Lost > 0 || r.Bad > 0 {
		return r, errWrong
	}
	return r, nil
}
