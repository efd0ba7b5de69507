// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/traffic/report"
)

// pingpong measures round trips on blocking sockets, from a thread of its own.
// With -interval it is a prober: it goes on when answers stay out, and the
// longest gap between two answers is what it is asked for.
func pingpong(ctx context.Context, args []string) (any, error) {
	f := flags("pingpong")
	to := f.String("to", "", "address:port of the server")
	udp := f.Bool("udp", false, "UDP instead of TCP")
	size := f.Int("size", 32, "bytes each way, at least 9")
	secs := f.Float64("seconds", 1, "how long; 0: until interrupted")
	interval := f.Duration("interval", 0, "wait between two round trips")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	kind := unix.SOCK_STREAM
	if *udp {
		kind = unix.SOCK_DGRAM
	}
	fd, err := dialSocket(kind, *to)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	p := prober{fd: fd, udp: *udp, out: make([]byte, max(*size, 9)), in: make([]byte, 64<<10), interval: *interval}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	if *secs > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(*secs*1e9))
		defer stop()
	}
	runtime.LockOSThread()
	ready()
	p.run(ctx)
	return p.result(), p.err
}

type prober struct {
	fd       int
	udp      bool
	out, in  []byte
	interval time.Duration
	number   uint64
	halves   []time.Duration
	lost     int
	last     time.Time
	gap      time.Duration
	err      error
}

// prepare bounds each wait and says to a TCP server what is to come. A UDP
// prober waits 20 ms for its answer: the gap must not be rounded up much.
func (p *prober) prepare() error {
	p.out[0] = opPing
	p.halves = make([]time.Duration, 0, 1<<20)
	if p.udp {
		return setTimeout(p.fd, 20)
	}
	if err := unix.SetsockoptInt(p.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("TCP_NODELAY", err)
	}
	if _, err := unix.Write(p.fd, p.out[:1]); err != nil {
		return err
	}
	return setTimeout(p.fd, 30_000)
}

func (p *prober) run(ctx context.Context) {
	p.last = time.Now()
	for ctx.Err() == nil && p.err == nil {
		p.round()
		if p.interval > 0 {
			time.Sleep(p.interval)
		}
	}
	p.gap = max(p.gap, time.Since(p.last)-p.interval)
}

// round is one round trip. The first, which resolves addresses, counts for the
// gap and not for the percentiles.
func (p *prober) round() {
	p.number++
	binary.BigEndian.PutUint64(p.out[1:], p.number)
	start := time.Now()
	if _, err := unix.Write(p.fd, p.out); err != nil {
		p.fail(err)
		return
	}
	if !p.answer() {
		return
	}
	now := time.Now()
	p.gap = max(p.gap, now.Sub(p.last)-p.interval)
	p.last = now
	if p.number > 1 && len(p.halves) < cap(p.halves) {
		p.halves = append(p.halves, now.Sub(start)/2)
	}
}

// answer reads what belongs to this round; a late UDP answer was not lost.
func (p *prober) answer() bool {
	for got := 0; got < len(p.out); {
		n, err := unix.Read(p.fd, p.in[got:])
		if err == unix.EINTR { // a signal of the runtime; the time-out starts again
			continue
		}
		if err != nil || n == 0 {
			p.fail(err)
			return false
		}
		got += n
		if p.udp && (n != len(p.out) || binary.BigEndian.Uint64(p.in[1:]) != p.number) {
			p.lost--
			got = 0
		}
	}
	return true
}

// fail counts a loss for UDP and ends a TCP run.
func (p *prober) fail(err error) {
	if p.udp {
		p.lost++
		if err != nil && !errors.Is(err, unix.EAGAIN) { // unreachable: do not spin on it
			time.Sleep(10 * time.Millisecond)
		}
		return
	}
	p.err = fmt.Errorf("round %d: %w", p.number, err)
}

func (p *prober) result() report.RoundTrips {
	r := report.RoundTrips{Count: len(p.halves), Lost: p.lost, MaxGapMS: float64(p.gap) / 1e6}
	if len(p.halves) == 0 {
		return r
	}
	slices.Sort(p.halves)
	us := func(q float64) float64 { return float64(p.halves[int(q*float64(len(p.halves)-1))]) / 1e3 }
	r.P50US, r.P99US, r.MaxUS = us(0.50), us(0.99), us(1)
	return r
}
