// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listening is who listens, and how to reach him.
func listening(t *testing.T, at string) (*net.TCPListener, *Target) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener), &Target{Proto: TCP, To: netip.MustParseAddrPort(l.Addr().String())}
}

// connects dials who listens, and returns both ends. A byte has gone each way.
func (p *Polled) connects(t *testing.T, l *net.TCPListener, to *Target) (fd int, peer *net.TCPConn) {
	t.Helper()
	got := make(chan Socket, 1)
	if !p.Dial(*to, func(s Socket) { got <- s }) {
		t.Fatal("not dialled")
	}
	s := outcome(t, p, got)
	if s.FD < 0 {
		t.Fatal(s.Errno)
	}
	awaits(t, s.FD, unix.POLLOUT)
	if _, err := unix.Write(s.FD, []byte("?")); err != nil {
		t.Fatal(err)
	}
	peer, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	_ = peer.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 8)
	if n, err := peer.Read(b); string(b[:n]) != "?" {
		t.Fatalf("the peer read %q, %v", b[:n], err)
	}
	if _, err := peer.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	awaits(t, s.FD, unix.POLLIN)
	if n, err := unix.Read(s.FD, b); string(b[:max(n, 0)]) != "!" {
		t.Fatalf("read %q, %v", b[:max(n, 0)], err)
	}
	return s.FD, peer
}

// peek takes a socket that can be connected again, and shows one that was never connected;
// -1: there is none.
func (p *Polled) peek(to *Target) (again, fresh int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.of(to)
	fresh = -1
	if n := len(s.fds); n > 0 {
		fresh = s.fds[n-1]
	}
	return s.ended.again(), fresh
}

func awaits(t *testing.T, fd int, events int16) {
	t.Helper()
	all := []unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(all, int(patience.Milliseconds()))
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll(all, int(patience.Milliseconds()))
	}
	if n != 1 || all[0].Revents&events == 0 || all[0].Revents&unix.POLLERR != 0 {
		t.Fatalf("events %#x of %#x, %v", all[0].Revents, events, err)
	}
}

// ends ends a connection on both sides, this one first or last.
func ends(t *testing.T, fd int, peer *net.TCPConn, first bool) {
	t.Helper()
	b := make([]byte, 8)
	if first {
		_ = unix.Shutdown(fd, unix.SHUT_WR)
		if n, err := peer.Read(b); n != 0 || err == nil {
			t.Fatalf("the peer read %q", b[:n])
		}
	}
	peer.Close()
	awaits(t, fd, unix.POLLIN)
	if n, err := unix.Read(fd, b); n != 0 || err != nil {
		t.Fatalf("read %q, %v", b[:max(n, 0)], err)
	}
	if !first {
		_ = unix.Shutdown(fd, unix.SHUT_WR)
	}
	for end := time.Now().Add(patience); !isOver(fd); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("the host does not finish")
		}
	}
}

// options are those that a socket for a connection has.
func options(t *testing.T, fd int) (all [3]int) {
	t.Helper()
	for i, o := range [][2]int{{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_QUICKACK}, {unix.SOL_SOCKET, unix.SO_ERROR}} {
		v, err := unix.GetsockoptInt(fd, o[0], o[1])
		if err != nil {
			t.Fatal(err)
		}
		all[i] = v
	}
	return all
}

// TestReuse: a socket whose connection has ended is connected to others, with the options
// that it came with, and nobody is asked for one.
func TestReuse(t *testing.T) {
	open := descriptors(t)
	p := Polled{Connects: true}
	var asked atomic.Int32
	ended := counter(t, &p, func(*Target) unix.Errno { asked.Add(1); return 0 })
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, to := listening(t, at)
		other, another := listening(t, at)
		fd, peer := p.connects(t, l, to)
		p.await(t, to, stockLen)
		asked.Store(0)
		for i := range 4 * stockLen {
			ends(t, fd, peer, i%2 == 0)
			if !p.Reuse(fd, to.To.Addr().Is6()) {
				t.Fatal("not taken")
			}
			was := fd
			if fd, peer = p.connects(t, other, another); fd != was {
				t.Fatalf("%s: socket %d, not %d", at, fd, was)
			}
		}
		ends(t, fd, peer, true)
		p.Reuse(fd, to.To.Addr().Is6())
		if got, fresh := p.peek(to); got != fd || options(t, fd) != options(t, fresh) {
			t.Errorf("%s: socket %d is %v, others are %v", at, got, options(t, fd), options(t, fresh))
		}
		p.Reuse(fd, to.To.Addr().Is6())
		if n := asked.Load(); n != 0 || p.left(to) != stockLen {
			t.Errorf("%s: the agent was asked %d times, %d sockets are left", at, n, p.left(to))
		}
		l.Close()
		other.Close()
	}
	p.Close()
	<-ended
	if n := descriptors(t); n > open {
		t.Errorf("%d descriptors were open, and %d are", open, n)
	}
}

// TestReuseAfterReset: the error of a connection is not that of the next one.
func TestReuseAfterReset(t *testing.T) {
	p := Polled{Connects: true}
	counter(t, &p, anything)
	defer p.Close()
	l, to := listening(t, "127.0.0.1:0")
	fd, peer := p.connects(t, l, to)
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	_ = peer.SetLinger(0)
	peer.Close()
	awaitsError(t, fd)
	p.Reuse(fd, false)
	again, peer := p.connects(t, l, to)
	if again != fd {
		t.Errorf("socket %d, not %d", again, fd)
	}
	ends(t, again, peer, true)
	unix.Close(again)
}

// awaitsError waits for an error of a socket, and leaves it there.
func awaitsError(t *testing.T, fd int) {
	t.Helper()
	all := []unix.PollFd{{Fd: int32(fd)}}
	for end := time.Now().Add(patience); all[0].Revents&unix.POLLERR == 0; {
		if _, err := unix.Poll(all, 10); time.Now().After(end) {
			t.Fatalf("no error: %v", err)
		}
	}
}

// TestReuseWaits: a socket with which the host has not finished is left alone, those
// behind it wait, and it is closed when there are too many.
func TestReuseWaits(t *testing.T) {
	p := Polled{Connects: true}
	counter(t, &p, anything)
	defer p.Close()
	l, to := listening(t, "127.0.0.1:0")
	late, latePeer := p.connects(t, l, to) // does not end
	if err := unix.Shutdown(late, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	p.Reuse(late, false)
	var fds []int
	for range endedLen - 1 {
		fd, peer := p.connects(t, l, to)
		if fd == late {
			t.Fatal("it was taken")
		}
		ends(t, fd, peer, false)
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		p.Reuse(fd, false)
	}
	if fd, _ := p.peek(to); fd != -1 {
		t.Errorf("socket %d overtook", fd)
	}
	fd, peer := p.connects(t, l, to)
	ends(t, fd, peer, false)
	p.Reuse(fd, false)
	if _, err := latePeer.Write([]byte("anybody?")); err != nil {
		t.Fatal(err)
	}
	if _, err := latePeer.Read(make([]byte, 8)); err == nil {
		t.Error("read what nobody wrote")
	}
	if _, err := latePeer.Read(make([]byte, 8)); err == nil { // a reset, since it is closed
		t.Error("it is still there")
	}
	if fd, _ := p.peek(to); fd != fds[0] {
		t.Errorf("socket %d, not %d", fd, fds[0])
	} else {
		unix.Close(fd)
	}
}

// TestNoReuse: who may not connect sockets takes none back.
func TestNoReuse(t *testing.T) {
	var p Polled
	if p.Reuse(0, false) {
		t.Error("taken")
	}
}
