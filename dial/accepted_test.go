// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// passing is a channel whose client has a taker.
func passing(t *testing.T, take func(*Accepted)) (*Client, *Server, chan uint64) {
	t.Helper()
	conn, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	s, over := NewServer(conn, Policy{May: anything}), make(chan uint64, 8)
	s.Over = func(id uint64) { over <- id }
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve() }()
	fd, err := unix.Dup(int(theirs.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	mine, err := Conn(fd)
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{Accepted: take}
	c.Attach(mine)
	t.Cleanup(func() { c.Close(); <-done })
	return c, s, over
}

// accepted is a connection of this process's, and the descriptor of who accepted it.
func accepted(t *testing.T) (net.Conn, int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := in.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return c, fd
}

func TestPass(t *testing.T) {
	got := make(chan *Accepted, 1)
	_, s, over := passing(t, func(a *Accepted) { got <- a })
	c, fd := accepted(t)
	want := Accepted{
		Device: 7, Proto: TCP, Member: 9, FD: fd,
		To: netip.MustParseAddrPort("[fd44::2]:80"), From: netip.MustParseAddrPort("192.0.2.1:1234"),
	}
	if err := s.Pass(&want, 42); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	a := <-got
	if a.Device != 7 || a.Proto != TCP || a.Member != 9 || a.To != want.To || a.From != want.From {
		t.Errorf("got %+v, want %+v", a, want)
	}
	if _, err := unix.Write(a.FD, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	a.Refuse()
	if id := <-over; id != 42 {
		t.Errorf("over: %d", id)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refused: %v", err)
	}
}

// TestPassToNobody: without a taker what comes is refused, and told of.
func TestPassToNobody(t *testing.T) {
	_, s, over := passing(t, nil)
	c, fd := accepted(t)
	if err := s.Pass(&Accepted{Proto: TCP, FD: fd}, 5); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if id := <-over; id != 5 {
		t.Errorf("over: %d", id)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
}
