// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/traffic/report"
)

const floodBatch = 64

// flood sends small datagrams as fast as the socket takes them. Its own count
// says little: the sink's counts.
func flood(ctx context.Context, args []string) (any, error) {
	f := flags("flood")
	to := f.String("to", "", "address:port of the sink")
	size := f.Int("size", 64, "bytes of a datagram")
	secs := f.Float64("seconds", 1, "how long")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	fd, err := dialSocket(unix.SOCK_DGRAM, *to)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := newBatch(floodBatch, *size, 0, 0)
	for i := range floodBatch {
		b.setLen(i, *size)
	}
	var r report.Rate
	start := time.Now()
	for end := start.Add(time.Duration(*secs * 1e9)); ctx.Err() == nil && time.Now().Before(end); {
		n, err := b.send(fd, 0, floodBatch)
		r.Count += uint64(n)
		if err != nil {
			r.Errors++
		}
	}
	return rate(r.Count, r.Errors, time.Since(start)), nil
}

// sink counts datagrams from the first one on, for a while.
func sink(ctx context.Context, args []string) (any, error) {
	f := flags("sink")
	port := f.Int("port", 7001, "UDP port")
	secs := f.Float64("seconds", 1, "how long to count from the first datagram on")
	patience := f.Duration("patience", 10*time.Second, "how long to wait for the first")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	fd, err := udpSocket(*port, false)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := setTimeout(fd, 50); err != nil {
		return nil, err
	}
	ready()
	return count(ctx, fd, time.Duration(*secs*1e9), *patience)
}

// count reads until the time is over; MSG_WAITFORONE takes what is there and
// does not wait for a full batch.
func count(ctx context.Context, fd int, long, patience time.Duration) (any, error) {
	b := newBatch(4*floodBatch, 2048, 0, 0)
	var first time.Time
	var n uint64
	begun := time.Now()
	for ctx.Err() == nil {
		got, err := b.recv(fd, unix.MSG_WAITFORONE)
		now := time.Now()
		if err == nil && first.IsZero() {
			first = now
		}
		n += uint64(got)
		if !first.IsZero() && now.Sub(first) >= long {
			return rate(n, 0, now.Sub(first)), nil
		}
		if first.IsZero() && now.Sub(begun) > patience {
			return nil, fmt.Errorf("no datagram in %v", patience)
		}
	}
	return rate(n, 0, time.Since(begun)), nil
}
