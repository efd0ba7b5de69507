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
	policy Policy
	letter letter
	w      wire
	fds    [stockLen]int32
}

// NewCounter makes the channel, and gives its other end as a file to be given away.
func NewCounter(p Policy) (*Counter, *os.File, error) {
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
	return &Counter{fd: fds[0], policy: p}, os.NewFile(uintptr(fds[1]), "dialler"), nil
}

// Serve is that of a Server.
func (c *Counter) Serve() error {
	defer unix.Close(c.fd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		fds, err := c.next()
		if len(fds) > 0 {
			closeAll(fds)
			err = fmt.Errorf("%w: a descriptor with a request", ErrProtocol)
		}
		if err == nil {
			err = c.serve()
		}
		if err != nil {
			return err
		}
	}
}

// serve does what a message asks for.
func (c *Counter) serve() error {
	switch c.w.kind {
	case kindRequest:
		return c.answer()
	case kindMore:
		return c.supply()
	}
	return fmt.Errorf("%w: message %d from who asks", ErrProtocol, c.w.kind)
}

// next waits for a request.
func (c *Counter) next() (fds []int32, err error) {
	for range rests {
		if fds, err = c.letter.next(&c.w, c.fd, 0); !isMoment(err) {
			return fds, err
		}
	}
	for {
		if err := wait(c.fd, unix.POLLIN); err != nil {
			return nil, err
		}
		if fds, err = c.letter.next(&c.w, c.fd, unix.MSG_DONTWAIT); !isMoment(err) {
			return fds, err
		}
	}
}

// answer dials, and passes on what comes of it.
func (c *Counter) answer() error {
	fd := c.policy.dial(&c.w)
	if fd < 0 {
		return c.send()
	}
	err := c.send(int32(fd))
	closeNow(fd)
	return err
}

// send waits while the other side does not read.
func (c *Counter) send(fds ...int32) error {
	err := c.letter.send(&c.w, c.fd, unix.MSG_DONTWAIT, fds...)
	for isMoment(err) {
		if err = wait(c.fd, unix.POLLOUT); err == nil {
			err = c.letter.send(&c.w, c.fd, unix.MSG_DONTWAIT, fds...)
		}
	}
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
