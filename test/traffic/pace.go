// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/traffic/report"
)

// pace sends numbered datagrams at a steady rate, whatever becomes of them.
func pace(ctx context.Context, args []string) (any, error) {
	f := flags("pace")
	to := f.String("to", "", "address:port of the meter")
	persecond := f.Int("rate", 10000, "datagrams a second")
	secs := f.Float64("seconds", 0, "how long; 0: until it is interrupted")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	fd, err := dialSocket(unix.SOCK_DGRAM, *to)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var r report.Rate
	b := make([]byte, 64)
	start := time.Now()
	ready()
	for ctx.Err() == nil && (*secs == 0 || time.Since(start).Seconds() < *secs) {
		time.Sleep(time.Millisecond)
		for due := uint64(time.Since(start).Seconds() * float64(*persecond)); r.Count < due; r.Count++ {
			binary.BigEndian.PutUint64(b, r.Count)
			if _, err := unix.Write(fd, b); err != nil {
				r.Errors++
			}
		}
	}
	return rate(r.Count, r.Errors, time.Since(start)), nil
}

// meter receives what pace sends, until it is interrupted, and notes when it heard
// nothing.
func meter(ctx context.Context, args []string) (any, error) {
	f := flags("meter")
	port := f.Int("port", 7003, "UDP port")
	above := f.Duration("above", 10*time.Millisecond, "which silences are noted")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	fd, err := udpSocket(*port, false)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := setTimeout(fd, 20); err != nil {
		return nil, err
	}
	ready()
	m := metering{above: *above, sources: map[netip.AddrPort]bool{}}
	b := make([]byte, 128)
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(fd, b, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("meter: %w", err)
		case n >= 8:
			m.hear(time.Now(), binary.BigEndian.Uint64(b), addrPort(from))
		}
	}
	return m.report(), nil
}

// metering is what a meter has heard.
type metering struct {
	above   time.Duration
	last    time.Time
	first   uint64
	highest uint64
	out     report.Meter
	sources map[netip.AddrPort]bool
}

func (m *metering) hear(now time.Time, number uint64, from netip.AddrPort) {
	if m.out.Count == 0 {
		m.first = number
	} else if gap := now.Sub(m.last); gap > m.above {
		m.out.Silences = append(m.out.Silences, report.Silence{From: m.last.UnixNano(), MS: float64(gap) / 1e6})
	}
	m.last, m.highest = now, max(m.highest, number)
	m.out.Count++
	m.sources[from] = true
}

func (m *metering) report() report.Meter {
	for s := range m.sources {
		m.out.Sources = append(m.out.Sources, s.String())
	}
	if m.out.Count > 0 {
		m.out.Lost = m.highest - m.first + 1 - min(m.out.Count, m.highest-m.first+1)
	}
	return m.out
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
