// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/fence"
)

// counter is a Polled whose other end dials what the policy allows. It is looked after by
// a thread that polls.
func counter(t *testing.T, p *Polled, may func(*Target) unix.Errno) (ended chan error) {
	t.Helper()
	return serve(t, p, Policy{May: may, Stock: true})
}

func serve(t *testing.T, p *Polled, by Policy) (ended chan error) {
	t.Helper()
	c, theirs, err := NewCounter(by)
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
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
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

// TestStock: after the first connection of a family, its sockets are there before they are
// asked for. Each is used once, and none outlives its channel and the next one.
func TestStock(t *testing.T) {
	open := descriptors(t)
	p := Polled{Connects: true}
	var asked atomic.Int32
	ended := counter(t, &p, func(*Target) unix.Errno { asked.Add(1); return 0 })
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		to := Target{Proto: TCP, To: netip.MustParseAddrPort(l.Addr().String())}
		p.reaches(t, l, &to, true)
		p.await(t, &to, stockLen)
		asked.Store(0)
		for range 3 * stockLen {
			p.reaches(t, l, &to, false)
			if n := p.left(&to); n <= low {
				p.await(t, &to, n+stockLen)
			}
		}
		if n := asked.Load(); n != 3 { // for a stock each time
			t.Errorf("%s: the agent was asked %d times", at, n)
		}
		l.Close()
	}
	p.Close()
	<-ended
	if n := descriptors(t); n > open { // those of earlier tests may have been closed meanwhile
		t.Errorf("%d descriptors were open, and %d are", open, n)
	}
}

// left is how many sockets there are for a target.
func (p *Polled) left(t *Target) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.of(t).fds)
}

// await takes messages until there are n sockets for a target.
func (p *Polled) await(t *testing.T, to *Target, n int) {
	t.Helper()
	for end := time.Now().Add(patience); p.left(to) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d sockets, not %d", p.left(to), n)
		}
		p.Ready()
	}
}

// reaches dials who listens, at once unless it has to ask.
func (p *Polled) reaches(t *testing.T, l net.Listener, to *Target, asks bool) {
	t.Helper()
	got := make(chan Socket, 1)
	if !p.Dial(*to, func(s Socket) { got <- s }) {
		t.Fatal("not dialled")
	}
	if asks != (len(got) == 0) {
		t.Errorf("asked: %v", !asks)
	}
	s := outcome(t, p, got)
	if s.FD < 0 {
		t.Fatal(s.Errno)
	}
	unix.Close(s.FD) // with which its handshake ends
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
}

// TestStockWithoutAgent: what there is of it is used up, and then nobody dials. A new
// channel's sockets are the only ones.
func TestStockWithoutAgent(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := Target{Proto: TCP, To: netip.MustParseAddrPort(l.Addr().String())}
	p := Polled{Connects: true}
	ended := counter(t, &p, anything)
	p.reaches(t, l, &to, true)
	p.await(t, &to, stockLen)
	p.mu.Lock()
	p.drop()
	p.mu.Unlock()
	<-ended
	for range stockLen - 1 {
		p.reaches(t, l, &to, false)
	}
	counter(t, &p, anything)
	if n := p.left(&to); n != 0 {
		t.Errorf("%d sockets of the agent before", n)
	}
	p.Close()
	if p.Dial(to, func(Socket) {}) {
		t.Error("dialled by nobody")
	}
}

// TestStockIsRefused: who may not dial gets no sockets either, and who is behind the fence
// is not even asked for.
func TestStockIsRefused(t *testing.T) {
	p := Polled{Fence: fence.Local(), Connects: true}
	counter(t, &p, func(*Target) unix.Errno { return unix.EACCES })
	got := make(chan Socket, 1)
	to := Target{Proto: TCP, To: netip.MustParseAddrPort("192.0.2.1:80")}
	for range 2 {
		p.Dial(to, func(s Socket) { got <- s })
		if s := outcome(t, &p, got); s.FD >= 0 || s.Errno != unix.EACCES {
			t.Errorf("%+v", s)
		}
	}
	p.await(t, &to, 0)
	to.To = netip.MustParseAddrPort("127.0.0.1:80")
	if !p.Dial(to, func(s Socket) { got <- s }) || len(got) == 0 || (<-got).Errno != unix.EACCES {
		t.Error("the loopback was asked for")
	}
}

// TestNoStock: an agent that gives nobody such sockets is asked for some once, and dials.
func TestNoStock(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := Polled{Connects: true}
	ended := serve(t, &p, Policy{May: anything})
	to := Target{Proto: TCP, To: netip.MustParseAddrPort(l.Addr().String())}
	none := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.of(&to).none
	}
	p.reaches(t, l, &to, true)
	for end := time.Now().Add(patience); !none() && time.Now().Before(end); time.Sleep(time.Millisecond) {
		p.Ready()
	}
	if !none() || p.left(&to) != 0 {
		t.Fatal("it is not told that there are none")
	}
	p.reaches(t, l, &to, true)
	p.Close()
	<-ended
}
