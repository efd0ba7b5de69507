// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"sluice/test/traffic/report"
)

// order follows opStream on a connection: what the server shall send.
type order struct {
	Back  uint64
	Until int64 // nanoseconds to send for; 0: by Back alone
	Seed  uint64
}

// send runs hashed TCP streams to a server and reads its verdicts.
func send(ctx context.Context, args []string) (any, error) {
	f := flags("send")
	to := f.String("to", "", "address:port of the server")
	size := f.Uint64("bytes", 0, "bytes a stream and direction")
	both := f.Bool("both", false, "the server sends as much at the same time")
	secs := f.Float64("seconds", 0, "send for this long instead of a number of bytes")
	streams := f.Int("streams", 1, "connections at the same time")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	o := transfer{to: *to, bytes: *size, both: *both, long: time.Duration(*secs * 1e9)}
	start := time.Now()
	ends := make(chan end, *streams)
	for i := range *streams {
		go func() { ends <- o.run(ctx, uint64(i)+1) }()
	}
	out := report.Stream{Streams: *streams, OK: true}
	var errs error
	for range *streams {
		e := <-ends
		out.Sent += e.sent
		out.Received += e.back.Bytes
		out.MaxGapMS = max(out.MaxGapMS, float64(e.back.MaxGap)/1e6, float64(e.there.MaxGap)/1e6)
		out.SHA256 = hex.EncodeToString(e.there.Sum[:])
		errs = errors.Join(errs, e.err)
	}
	out.Seconds = time.Since(start).Seconds()
	out.OK = errs == nil
	return out, errs
}

// transfer is what each stream of one send does.
type transfer struct {
	to    string
	bytes uint64
	both  bool
	long  time.Duration
}

// end is how one stream ended.
type end struct {
	sent        uint64
	there, back verdict // what the server read; what we read
	err         error
}

func (t transfer) run(ctx context.Context, seed uint64) end {
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", t.to)
	if err != nil {
		return end{err: err}
	}
	defer conn.Close()
	o := order{Seed: ^seed}
	if t.both {
		o.Back, o.Until = t.bytes, int64(t.long)
	}
	head, err := binary.Append([]byte{opStream}, binary.BigEndian, o)
	if err != nil {
		return end{err: err}
	}
	if _, err := conn.Write(head); err != nil {
		return end{err: err}
	}
	return t.exchange(conn, seed)
}

// exchange sends our stream while it reads the server's, then its verdict.
func (t transfer) exchange(conn net.Conn, seed uint64) end {
	var until time.Time
	if t.long > 0 {
		until = time.Now().Add(t.long)
	}
	s := newSource(seed)
	sent := make(chan error, 1)
	go func() { sent <- s.run(conn, t.bytes, until) }()
	var e end
	e.back, e.err = drain(conn)
	if err := <-sent; err != nil {
		e.err = errors.Join(e.err, fmt.Errorf("sending: %w", err))
	}
	e.sent = s.sent
	if e.err != nil {
		return e
	}
	e.err = binary.Read(conn, binary.BigEndian, &e.there)
	if e.err == nil && string(s.sum.Sum(nil)) != string(e.there.Sum[:]) {
		e.err = fmt.Errorf("server read %d of %d bytes, sum %x: %w", e.there.Bytes, s.sent, e.there.Sum, errWrong)
	}
	return e
}
