// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"sluice/test/traffic/report"
)

// echo sends bytes to an RFC 862 echo service and compares what comes back.
func echo(ctx context.Context, args []string) (any, error) {
	f := flags("echo")
	to := f.String("to", "", "address:port of the service")
	udp := f.Bool("udp", false, "UDP instead of TCP")
	size := f.Int("bytes", 1<<20, "bytes over TCP, or of each datagram")
	times := f.Int("times", 10, "datagrams (UDP)")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	network := map[bool]string{false: "tcp", true: "udp"}[*udp]
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, network, *to)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	start := time.Now()
	if *udp {
		err = echoDatagrams(conn, *size, *times)
	} else {
		err = echoStream(conn, *size)
	}
	return report.Stream{Streams: 1, Sent: uint64(*size), OK: err == nil, Seconds: time.Since(start).Seconds()}, err
}

func echoStream(conn net.Conn, size int) error {
	out := []byte(newPayload())
	for len(out) < size {
		out = append(out, out...)
	}
	out = out[:size]
	sent := make(chan error, 1)
	go func() { _, err := conn.Write(out); sent <- err }()
	in := make([]byte, size)
	n, err := io.ReadFull(conn, in)
	if err != nil {
		return fmt.Errorf("echo after %d of %d bytes: %w", n, size, err)
	}
	if !bytes.Equal(in, out) {
		return errWrong
	}
	return <-sent
}

func echoDatagrams(conn net.Conn, size, times int) error {
	p, out, in := newPayload(), make([]byte, max(size, datagramHead)), make([]byte, 64<<10)
	for i := range times {
		p.fill(out, 1, uint64(i)+1)
		if _, err := conn.Write(out); err != nil {
			return err
		}
		n, err := conn.Read(in)
		if err != nil {
			return fmt.Errorf("echo of datagram %d: %w", i, err)
		}
		if !bytes.Equal(in[:n], out) {
			return errWrong
		}
	}
	return nil
}
