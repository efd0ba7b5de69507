// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"fmt"
	"io"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Theory of operation.
//
// Package unix tells Go's scheduler of each system call, and makes new memory for each
// message with a descriptor. Where two threads have nothing to do but to exchange such
// messages, thousands in a second, both cost as much as the messages do. So those calls are
// made without a word here, by memory that is always the same. None of them waits, but a
// receive that is asked to, for which there is a bound: see Counter.

// letter is a message with room for a descriptor. It is one goroutine's, on the heap, and
// does not move.
type letter struct {
	body   [messageLen + 1]byte // one more shows what is too long
	rights struct {
		header unix.Cmsghdr
		fd     int32
		_      int32
	}
	iov unix.Iovec
	hdr unix.Msghdr
}

// rightsLen has no room for a second descriptor: the kernel would say so, and pass on
// none of those that there is no room for.
const rightsLen = unix.SizeofCmsghdr + 4

// fill makes the header for so many bytes.
func (l *letter) fill(n int) {
	l.iov.Base = &l.body[0]
	l.iov.SetLen(n)
	l.hdr = unix.Msghdr{Iov: &l.iov}
	l.hdr.SetIovlen(1)
}

// next receives a message and its descriptor, which is the caller's; -1: none.
func (l *letter) next(w *wire, from, flags int) (fd int, err error) {
	l.fill(len(l.body))
	l.hdr.Control = (*byte)(unsafe.Pointer(&l.rights))
	l.hdr.SetControllen(rightsLen)
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(from), uintptr(unsafe.Pointer(&l.hdr)), uintptr(flags|unix.MSG_CMSG_CLOEXEC))
	if errno != 0 {
		return -1, errno
	}
	fd = -1
	if r := &l.rights; l.hdr.Controllen >= rightsLen && r.header.Level == unix.SOL_SOCKET && r.header.Type == unix.SCM_RIGHTS {
		fd = int(r.fd)
	}
	switch {
	case l.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = fmt.Errorf("%w: truncated", ErrProtocol)
	case n == 0:
		err = io.EOF
	default:
		err = w.decode(l.body[:n])
	}
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// send sends a message, with a descriptor or without (-1), which stays the caller's.
func (l *letter) send(w *wire, to, fd, flags int) error {
	w.encode((*[messageLen]byte)(l.body[:]))
	l.fill(messageLen)
	if fd >= 0 {
		l.rights.header = unix.Cmsghdr{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS}
		l.rights.header.SetLen(rightsLen)
		l.rights.fd = int32(fd)
		l.hdr.Control = (*byte)(unsafe.Pointer(&l.rights))
		l.hdr.SetControllen(int(unsafe.Sizeof(l.rights)))
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(to), uintptr(unsafe.Pointer(&l.hdr)), uintptr(flags|unix.MSG_NOSIGNAL))
	if errno != 0 {
		return errno
	}
	return nil
}

// connect begins to connect a socket that doesn't wait.
func connect(fd int, to netip.AddrPort) error {
	var at unsafe.Pointer
	var size uintptr
	port := to.Port()<<8 | to.Port()>>8
	if a := to.Addr(); a.Is4() {
		at = unsafe.Pointer(&unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: a.As4()})
		size = unix.SizeofSockaddrInet4
	} else {
		at = unsafe.Pointer(&unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: a.As16()})
		size = unix.SizeofSockaddrInet6
	}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(at), size)
	if errno != 0 && errno != unix.EINPROGRESS {
		return errno
	}
	return nil
}

// closeNow closes a descriptor that was passed on.
func closeNow(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }
