// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Theory of operation.
//
// What is dialled for one worker of the dataplane is dialled by a thread of its own. Its
// end of the channel is not in the runtime's poller, which would wake another thread for
// each request. After a request the thread rests in recvmsg(2) for a while, where the next
// one wakes it soonest, and the scheduler is told nothing: it would give this thread's
// processor to another one, which finds nothing to do, and takes that back when the wait
// is over, at more than the price of a dial. Who is to stop the world sends a signal, which
// ends such a wait. Then it waits as any goroutine does.

const (
	// longestRest is how long the thread rests at once; the kernel counts in ticks, of
	// four milliseconds perhaps.
	longestRest = 2 * time.Millisecond
	// rests is how often the thread rests for the next request.
	rests = 3
)

// Counter is a Server that only dials, for a Polled.
type Counter struct {
	fd     int
	may    Policy
	letter letter
	w      wire
	spare  spare
}

// NewCounter makes the channel, and gives its other end as a file to be given away.
func NewCounter(may Policy) (*Counter, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	limit := unix.NsecToTimeval(int64(longestRest))
	if err := unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("setsockopt", err)
	}
	return &Counter{fd: fds[0], may: may, spare: spare{fd: -1}}, os.NewFile(uintptr(fds[1]), "dialler"), nil
}

// Serve is that of a Server.
func (c *Counter) Serve() error {
	defer unix.Close(c.fd)
	defer c.spare.drop()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		fd, err := c.next()
		if fd >= 0 {
			unix.Close(fd)
			err = fmt.Errorf("%w: a descriptor with a request", ErrProtocol)
		}
		if err == nil && c.w.kind != kindRequest {
			err = fmt.Errorf("%w: message %d from who asks", ErrProtocol, c.w.kind)
		}
		if err == nil {
			err = c.answer()
		}
		if err != nil {
			return err
		}
	}
}

// next waits for a request.
func (c *Counter) next() (fd int, err error) {
	for range rests {
		if fd, err = c.letter.next(&c.w, c.fd, 0); !isMoment(err) {
			return fd, err
		}
	}
	for {
		if err := wait(c.fd, unix.POLLIN); err != nil {
			return -1, err
		}
		if fd, err = c.letter.next(&c.w, c.fd, unix.MSG_DONTWAIT); !isMoment(err) {
			return fd, err
		}
	}
}

// answer dials, and passes on what comes of it.
func (c *Counter) answer() error {
	fd := c.may.dial(&c.w, c.spare.open)
	err := c.letter.send(&c.w, c.fd, fd, unix.MSG_DONTWAIT)
	for isMoment(err) {
		if err = wait(c.fd, unix.POLLOUT); err == nil {
			err = c.letter.send(&c.w, c.fd, fd, unix.MSG_DONTWAIT)
		}
	}
	if fd >= 0 {
		closeNow(fd)
	}
	c.spare.fill()
	return err
}

// isMoment reports whether a call is to be made again.
func isMoment(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }

// wait waits as any goroutine does.
func wait(fd int, events int16) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		if _, err := unix.Poll(p, -1); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
	}
}

// spare is a socket for the next connection, which is made while nobody waits for it: of the
// family of the last one.
type spare struct {
	fd   int    // -1: none
	last Target // that was a connection's
}

// open is Open, by the spare socket if it fits.
func (s *spare) open(t *Target) Socket {
	if t.Proto != TCP {
		return Open(t)
	}
	if s.last.family() != t.family() {
		s.drop()
	}
	fd := s.fd
	s.fd, s.last = -1, *t
	if fd < 0 {
		return Open(t)
	}
	return begin(fd, false, nil, t.To)
}

// fill makes it. If that fails the next dial will say so.
func (s *spare) fill() {
	if s.fd >= 0 || s.last.Proto != TCP {
		return
	}
	fd, _, err := open(&s.last)
	switch {
	case err == nil:
		s.fd = fd
	case fd >= 0:
		unix.Close(fd)
	}
}

func (s *spare) drop() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}
