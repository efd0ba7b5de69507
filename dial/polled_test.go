// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counter is a Polled whose other end dials what the policy allows. It is looked after by
// a thread that polls.
func counter(t *testing.T, p *Polled, may Policy) (ended chan error) {
	t.Helper()
	c, theirs, err := NewCounter(may)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	fd, err := unix.Dup(int(theirs.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- c.Serve() }()
	p.Attach(fd)
	return ended
}

// outcome looks for the answer to a dial.
func outcome(t *testing.T, p *Polled, got chan Socket) Socket {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		p.Ready()
		select {
		case s := <-got:
			return s
		default:
		}
	}
	t.Fatal("no answer")
	return Socket{}
}

func TestPolled(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var p Polled
	got := make(chan Socket, 1)
	to := Target{Device: 7, Proto: TCP, To: netip.MustParseAddrPort(l.Addr().String()), Port: 3}
	if p.Dial(to, func(s Socket) { got <- s }) {
		t.Error("dialled without a channel")
	}
	ended := counter(t, &p, func(t *Target) unix.Errno {
		if t.Port != 0 || t.Device != 7 {
			return unix.EINVAL
		}
		return 0
	})
	for range 2 {
		if !p.Dial(to, func(s Socket) { got <- s }) {
			t.Fatal("not asked")
		}
		s := outcome(t, &p, got)
		if s.FD < 0 {
			t.Fatal(s.Errno)
		}
		unix.Close(s.FD)
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
	}
	p.Close()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestPolledLosesChannel: dials that nobody answers any more fail, by the end of the
// channel or another one, and the new one works.
func TestPolledLosesChannel(t *testing.T) {
	var p Polled
	slow := func(*Target) unix.Errno { time.Sleep(200 * time.Millisecond); return unix.EACCES }
	counter(t, &p, slow)
	got := make(chan Socket, 1)
	to := Target{Proto: TCP, To: netip.MustParseAddrPort("127.0.0.1:1")}
	p.Dial(to, func(s Socket) { got <- s })
	counter(t, &p, func(*Target) unix.Errno { return unix.EACCES })
	if s := <-got; s.Errno != NoAgent {
		t.Errorf("%+v", s)
	}
	p.Dial(to, func(s Socket) { got <- s })
	if s := outcome(t, &p, got); s.Errno != unix.EACCES {
		t.Errorf("%+v", s)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.Attach(fds[0])
	p.Dial(to, func(s Socket) { got <- s })
	unix.Close(fds[1]) // the agent was killed
	if s := outcome(t, &p, got); s.Errno != NoAgent {
		t.Errorf("%+v", s)
	}
	if p.Dial(to, func(s Socket) { got <- s }) {
		t.Error("dialled by a channel that has ended")
	}
}

// TestSpare: a socket that was made before it was asked for is of the right family, is used
// once, and does not outlive its Counter.
func TestSpare(t *testing.T) {
	open := descriptors(t)
	s := spare{fd: -1}
	if s.fill(); s.fd >= 0 {
		t.Error("made for nobody")
	}
	for _, at := range []string{"127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "127.0.0.1:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		to := Target{Proto: TCP, To: netip.MustParseAddrPort(l.Addr().String())}
		was := s.fd
		k := s.open(&to)
		if k.FD < 0 || s.fd >= 0 {
			t.Fatalf("%s: %+v, spare %d", at, k, s.fd)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s by %d, the spare one was %d", at, k.FD, was)
		in.Close()
		l.Close()
		unix.Close(k.FD)
		if s.fill(); s.fd < 0 {
			t.Errorf("%s: no spare one", at)
		}
	}
	was := s.fd
	if k := s.open(&Target{Proto: UDP, To: netip.MustParseAddrPort("127.0.0.1:9")}); k.FD < 0 || s.fd != was {
		t.Errorf("a datagram's: %+v, spare %d, was %d", k, s.fd, was)
	} else {
		unix.Close(k.FD)
	}
	s.drop()
	if n := descriptors(t); n > open { // those of earlier tests may have been closed meanwhile
		t.Errorf("%d descriptors were open, and %d are", open, n)
	}
}
