// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/loopback"
)

// channel is a client whose server dials what the policy allows.
func channel(t *testing.T, p Policy) (*Client, *Server) {
	t.Helper()
	conn, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(conn, p)
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
	c := new(Client)
	c.Attach(mine)
	t.Cleanup(func() { c.Close(); <-done })
	return c, s
}

// patience bounds every wait for what must come.
const patience = 30 * time.Second

func anything(*Target) unix.Errno { return 0 }

func ask(t *testing.T, c *Client, proto uint8, to string) Socket {
	t.Helper()
	got := make(chan Socket, 1)
	c.Dial(Target{Device: 7, Proto: proto, To: netip.MustParseAddrPort(to)}, func(s Socket) { got <- s })
	select {
	case s := <-got:
		if s.FD >= 0 {
			t.Cleanup(func() { unix.Close(s.FD) })
		}
		return s
	case <-time.After(patience):
		t.Fatal("no answer")
		return Socket{}
	}
}

// file makes the socket one that waits.
func file(t *testing.T, s Socket) net.Conn {
	t.Helper()
	fd, err := unix.Dup(s.FD)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestDialTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, _ := channel(t, Policy{May: anything})
	s := ask(t, c, TCP, l.Addr().String())
	if s.FD < 0 {
		t.Fatal(s.Errno)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out := file(t, s)
	if _, err := out.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := in.Read(b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if v, err := unix.GetsockoptInt(s.FD, unix.IPPROTO_TCP, unix.TCP_NODELAY); v != 1 || err != nil {
		t.Errorf("nodelay %d, %v", v, err)
	}
}

func TestDialUDP(t *testing.T) {
	at, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		loopback.Missing(t, err)
	}
	defer at.Close()
	c, _ := channel(t, Policy{May: anything})
	s := ask(t, c, UDP, at.LocalAddr().String())
	if s.FD < 0 {
		t.Fatal(s.Errno)
	}
	if _, err := unix.Write(s.FD, []byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = at.SetReadDeadline(time.Now().Add(patience))
	if n, _, err := at.ReadFrom(make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestPolicy: who may not, gets no descriptor but the reason.
func TestPolicy(t *testing.T) {
	asked := make(chan Target, 1)
	c, _ := channel(t, Policy{May: func(t *Target) unix.Errno { asked <- *t; return unix.EACCES }})
	if s := ask(t, c, TCP, "192.0.2.1:80"); s.FD != -1 || s.Errno != unix.EACCES {
		t.Errorf("%+v", s)
	}
	if want := (Target{Device: 7, Proto: TCP, To: netip.MustParseAddrPort("192.0.2.1:80")}); <-asked != want {
		t.Errorf("it was not asked for %+v", want)
	}
	if s := ask(t, new(Client), TCP, "192.0.2.1:80"); s.Errno != NoAgent {
		t.Errorf("without a channel: %+v", s)
	}
	c, _ = channel(t, Policy{May: anything})
	if s := ask(t, c, 132, "127.0.0.1:80"); s.Errno != unix.EPROTONOSUPPORT {
		t.Errorf("SCTP: %+v", s)
	}
}

// TestChannelEnds: dials that nobody answers any more fail, and a new channel works.
func TestChannelEnds(t *testing.T) {
	c, _ := channel(t, Policy{May: func(*Target) unix.Errno { time.Sleep(time.Second); return unix.EACCES }})
	got := make(chan Socket, 1)
	c.Dial(Target{Proto: TCP, To: netip.MustParseAddrPort("127.0.0.1:1")}, func(s Socket) { got <- s })
	conn, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	c.Attach(conn)
	if s := <-got; s.Errno != NoAgent {
		t.Errorf("%+v", s)
	}
}

func FuzzMessage(f *testing.F) {
	var b [messageLen]byte
	w := wire{kind: kindSocket, proto: TCP, device: 9, errno: 5, raw: true, id: 1 << 40, to: netip.MustParseAddrPort("192.0.2.1:80")}
	f.Add(bytes.Clone(w.encode(&b)))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, in []byte) {
		var w, again wire
		if w.decode(in) != nil {
			return
		}
		var b [messageLen]byte
		if err := again.decode(w.encode(&b)); err != nil || again != w {
			t.Errorf("%+v, %+v, %v", w, again, err)
		}
	})
}
