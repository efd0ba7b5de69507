// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Theory of operation.
//
// What is dialled for one worker of the dataplane is dialled by a thread of its own. Its
// end of the channel is not in the runtime's poller, which would wake another thread for
// each request. After a request the thread rests for a while where the next one wakes it
// soonest (rest), before it waits as any goroutine does.

// rests is how often the thread rests for the next request: ten milliseconds together.
const rests = 50

// Counter is a Server that only dials, for a Polled.
type Counter struct {
	fd    int
	may   Policy
	tries int // so many rests are left
}

// NewCounter makes the channel, and gives its other end as a file to be given away.
func NewCounter(may Policy) (*Counter, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return &Counter{fd: fds[0], may: may}, os.NewFile(uintptr(fds[1]), "dialler"), nil
}

// Serve is that of a Server.
func (c *Counter) Serve() error {
	defer unix.Close(c.fd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := &reader{from: c}
	for {
		var w wire
		fd, err := r.next(&w)
		if fd >= 0 {
			unix.Close(fd)
			err = fmt.Errorf("%w: a descriptor with a request", ErrProtocol)
		}
		if err == nil && w.kind != kindRequest {
			err = fmt.Errorf("%w: message %d from who asks", ErrProtocol, w.kind)
		}
		if err == nil {
			err = c.answer(&w)
		}
		if err != nil {
			return err
		}
	}
}

func (c *Counter) answer(w *wire) error {
	a, fd := c.may.dial(w)
	var oob []byte
	if fd >= 0 {
		defer unix.Close(fd)
		oob = unix.UnixRights(fd)
	}
	var b [messageLen]byte
	for {
		_, err := unix.SendmsgN(c.fd, a.encode(&b), oob, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// ReadMsgUnix implements source.
func (c *Counter) ReadMsgUnix(b, oob []byte) (n, oobn, flags int, from *net.UnixAddr, err error) {
	for c.tries > 0 && !rest(c.fd) {
		c.tries--
	}
	n, oobn, flags, err = receive(c.fd, b, oob, 0)
	c.tries = rests
	return n, oobn, flags, nil, err
}
