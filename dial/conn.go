// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Pair makes a channel: the server's end, and the other as a file to be given away.
func Pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	c, err := Conn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "dialler"), nil
}

// Conn makes an end of a channel of its descriptor, which it takes over.
func Conn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "dialler")
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	c, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, fmt.Errorf("%w: no unix socket", ErrProtocol)
	}
	return c, nil
}

// send sends one message with at most one descriptor (-1: none), which stays the
// caller's. It waits while the other side does not read.
func send(c *net.UnixConn, w *wire, fd int) error {
	var b [messageLen]byte
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	_, _, err := c.WriteMsgUnix(w.encode(&b), oob, nil)
	return err
}

// trySend is send without a descriptor, which fails with EAGAIN rather than wait.
func trySend(c *net.UnixConn, w *wire) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var b [messageLen]byte
	var errno error
	if err := raw.Control(func(fd uintptr) {
		errno = unix.Send(int(fd), w.encode(&b), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}); err != nil {
		return err
	}
	return errno
}

// source is what a reader receives from, as net.UnixConn.
type source interface {
	ReadMsgUnix(b, oob []byte) (n, oobn, flags int, from *net.UnixAddr, err error)
}

// waiting is a descriptor that is read by system calls which wait.
type waiting int

// ReadMsgUnix implements source.
func (w waiting) ReadMsgUnix(b, oob []byte) (n, oobn, flags int, from *net.UnixAddr, err error) {
	n, oobn, flags, err = receive(int(w), b, oob, 0)
	return n, oobn, flags, nil, err
}

func receive(fd int, b, oob []byte, how int) (n, oobn, flags int, err error) {
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC|how)
		switch {
		case err == nil && n == 0:
			return 0, oobn, flags, io.EOF
		case !errors.Is(err, unix.EINTR):
			return n, oobn, flags, err
		}
	}
}

// reader receives messages. It is one goroutine's.
type reader struct {
	from source
	in   [messageLen + 1]byte // one more shows what is too long
	oob  [64]byte
}

// next waits for a message and its descriptor, which is the caller's; -1: none.
func (r *reader) next(w *wire) (fd int, err error) {
	n, oobn, flags, _, err := r.from.ReadMsgUnix(r.in[:], r.oob[:])
	fd, rights := takeFD(r.oob[:max(oobn, 0)])
	if err == nil {
		err = rights
	}
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("%w: truncated", ErrProtocol)
	}
	if err == nil {
		err = w.decode(r.in[:n])
	}
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// takeFD returns the descriptor of a control message; more than one is an error, and
// leaves none open.
func takeFD(oob []byte) (int, error) {
	if len(oob) == 0 {
		return -1, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	var all []int
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			all = append(all, fds...)
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	for _, fd := range all {
		unix.Close(fd)
	}
	return -1, fmt.Errorf("%w: %d descriptors in a message", ErrProtocol, len(all))
}
