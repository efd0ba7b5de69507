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

// letter is a message with room for descriptors. It is one goroutine's, on the heap, and
// does not move.
type letter struct {
	body   [messageLen + 1]byte // one more shows what is too long
	rights struct {
		header unix.Cmsghdr
		fds    [stockLen]int32
	}
	iov unix.Iovec
	hdr unix.Msghdr
}

// rightsLen has room for n descriptors, and for no more: the kernel would say so, and pass
// on none of those that there is no room for.
func rightsLen(n int) int { return unix.SizeofCmsghdr + 4*n }

// fill makes the header for so many bytes.
func (l *letter) fill(n int) {
	l.iov.Base = &l.body[0]
	l.iov.SetLen(n)
	l.hdr = unix.Msghdr{Iov: &l.iov}
	l.hdr.SetIovlen(1)
}

// next receives a message and its descriptors, which are the caller's. They are overwritten
// by the next message.
func (l *letter) next(w *wire, from, flags int) (fds []int32, err error) {
	l.fill(len(l.body))
	l.hdr.Control = (*byte)(unsafe.Pointer(&l.rights))
	l.hdr.SetControllen(rightsLen(len(l.rights.fds)))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(from), uintptr(unsafe.Pointer(&l.hdr)), uintptr(flags|unix.MSG_CMSG_CLOEXEC))
	if errno != 0 {
		return nil, errno
	}
	fds = l.passed()
	switch {
	case l.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = fmt.Errorf("%w: truncated", ErrProtocol)
	case n == 0:
		err = io.EOF
	default:
		err = w.decode(l.body[:n])
	}
	if err == nil && len(fds) > 1 && w.kind != kindStock {
		err = fmt.Errorf("%w: %d descriptors in a message", ErrProtocol, len(fds))
	}
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	return fds, nil
}

// passed are the descriptors of the message that was received.
func (l *letter) passed() []int32 {
	r := &l.rights
	if l.hdr.Controllen < unix.SizeofCmsghdr || r.header.Level != unix.SOL_SOCKET || r.header.Type != unix.SCM_RIGHTS {
		return nil
	}
	return r.fds[:(int(r.header.Len)-unix.SizeofCmsghdr)/4]
}

// closeAll closes descriptors that nobody wants.
func closeAll(fds []int32) {
	for _, fd := range fds {
		closeNow(int(fd))
	}
}

// send sends a message with descriptors, which stay the caller's.
func (l *letter) send(w *wire, to, flags int, fds ...int32) error {
	w.encode((*[messageLen]byte)(l.body[:]))
	l.fill(messageLen)
	if len(fds) > 0 {
		n := rightsLen(copy(l.rights.fds[:], fds))
		l.rights.header = unix.Cmsghdr{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS}
		l.rights.header.SetLen(n)
		l.hdr.Control = (*byte)(unsafe.Pointer(&l.rights))
		l.hdr.SetControllen(n)
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

// isOver reports whether the host has finished with a socket's connection. The error that it
// may have ended with is taken off the socket, or the next one would have it.
func isOver(fd int) bool {
	var name unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(name))
	_, _, errno := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)))
	if errno != unix.ENOTCONN {
		return false
	}
	var was int32
	size = uint32(unsafe.Sizeof(was))
	_, _, errno = unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR, uintptr(unsafe.Pointer(&was)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0
}

// disconnect makes a socket whose connection is over one as stream makes them (connect(2),
// AF_UNSPEC).
func disconnect(fd int) error {
	none := unix.RawSockaddrInet4{Family: unix.AF_UNSPEC}
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none)); errno != 0 {
		return errno
	}
	var off int32
	if _, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, uintptr(unsafe.Pointer(&off)), unsafe.Sizeof(off), 0); errno != 0 {
		return errno
	}
	return nil
}

// closeNow closes a descriptor that was passed on.
func closeNow(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }
