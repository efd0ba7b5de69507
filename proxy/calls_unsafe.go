// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Theory of operation.
//
// The sockets of connections never let anybody wait, so Go's scheduler is not told of their
// system calls. It would take the processor of a thread away that is in one for longer than
// a few microseconds, as those are which send, and wake another thread for it, that finds
// nothing to do.

// readNow is read(2).
func readNow(fd int, b []byte) (n int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(r), errno
}

// writeNow is write(2).
func writeNow(fd int, b []byte) (n int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(r), errno
}

// closeNow is close(2).
func closeNow(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// shutdownNow is shutdown(2), of what is sent.
func shutdownNow(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return errno
}

// eventsNow is ppoll(2), for what conn.note wants to know, without waiting.
func eventsNow(fd int) uint32 {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI | unix.POLLOUT | unix.POLLRDHUP}
	var none unix.Timespec
	_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&none)), 0, 0, 0)
	return uint32(uint16(p.Revents)) // poll's bits are epoll's
}
