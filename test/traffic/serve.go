// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The first byte of a connection or of a datagram says what its sender wants.
const (
	opStream   = 'S' // an order, then hashed streams both ways
	opPing     = 'P' // what follows comes back as it is
	opConnect  = 'C' // one byte comes back and the server closes
	opDatagram = 'D' // a hashed datagram
	opFinish   = 'F' // the counts of a session, please
	opAck      = 'A' // the counts of a session
)

// serve answers on one TCP and one UDP port until it is interrupted.
func serve(ctx context.Context, args []string) (any, error) {
	f := flags("serve")
	port := f.Int("port", 7000, "TCP and UDP port, all addresses")
	gro := f.Bool("gro", false, "let UDP_GRO merge datagrams")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", *port))
	if err != nil {
		return nil, err
	}
	fd, err := udpSocket(*port, *gro)
	if err != nil {
		return nil, err
	}
	go serveDatagrams(fd)
	go func() { <-ctx.Done(); ln.Close() }()
	ready()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return nil, nil //nolint:nilerr // the listener closes when we are told to end
		}
		go serveConn(conn.(*net.TCPConn))
	}
}

func serveConn(conn *net.TCPConn) {
	defer conn.Close()
	var op [1]byte
	if _, err := conn.Read(op[:]); err != nil {
		return
	}
	switch op[0] {
	case opConnect:
		_, _ = conn.Write(op[:])
	case opPing:
		pong(conn)
	case opStream:
		if err := serveStream(conn); err != nil {
			fmt.Fprintln(os.Stderr, "serve:", err)
		}
	}
}

// pong sends back what comes. It uses the bare file descriptor, because the
// runtime's poller would be a good part of the time that is measured.
func pong(conn *net.TCPConn) {
	file, err := conn.File()
	if err != nil {
		return
	}
	defer file.Close()
	fd := int(file.Fd())
	if unix.SetNonblock(fd, false) != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if n <= 0 || err != nil {
			return
		}
		if _, err := unix.Write(fd, buf[:n]); err != nil {
			return
		}
	}
}

// serveStream obeys an order: it sends while it reads, then tells what it read.
func serveStream(conn net.Conn) error {
	var o order
	if err := binary.Read(conn, binary.BigEndian, &o); err != nil {
		return err
	}
	var until time.Time
	if o.Until > 0 {
		until = time.Now().Add(time.Duration(o.Until))
	}
	sent := make(chan error, 1)
	go func() { sent <- newSource(o.Seed).run(conn, o.Back, until) }()
	v, err := drain(conn)
	if werr := <-sent; werr != nil {
		return werr
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
	}
	// The verdict goes out also when the sums differ: the client compares.
	return binary.Write(conn, binary.BigEndian, v)
}
