// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/traffic/report"
)

// crr counts whole connections: connect, one byte there, one byte back, close.
// The server closes first, so that the time-wait state stays on its side and
// the client never runs out of ports.
func crr(ctx context.Context, args []string) (any, error) {
	f := flags("crr")
	to := f.String("to", "", "address:port of the server")
	secs := f.Float64("seconds", 1, "how long")
	conns := f.Int("conns", 2, "connections at the same time")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, time.Duration(*secs*1e9))
	defer stop()
	var done, failed atomic.Uint64
	var wg sync.WaitGroup
	start := time.Now()
	for range *conns {
		wg.Go(func() {
			for ctx.Err() == nil {
				if connectOnce(*to) {
					done.Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return rate(done.Load(), failed.Load(), time.Since(start)), nil
}

func connectOnce(to string) bool {
	fd, err := dialSocket(unix.SOCK_STREAM, to)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	b := [2]byte{opConnect}
	if _, err := unix.Write(fd, b[:1]); err != nil {
		return false
	}
	if n, err := unix.Read(fd, b[:]); n != 1 || err != nil {
		return false
	}
	n, err := unix.Read(fd, b[:])
	return n == 0 && err == nil
}

func rate(count, errors uint64, took time.Duration) report.Rate {
	r := report.Rate{Count: count, Errors: errors, Seconds: took.Seconds()}
	if took > 0 {
		r.PerSecond = float64(count) / took.Seconds()
	}
	return r
}
