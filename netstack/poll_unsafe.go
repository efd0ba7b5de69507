// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// now returns the events that there are, without waiting. It does not tell the
// scheduler about the call, which costs more than the call: it returns at once.
// p lies on the heap, which does not move.
func (p *poller) now() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events[0])), maxEvents, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// rest is block for a moment, without a word to the scheduler: it would give this thread's processor
// to another thread, which finds nothing to do, and takes that back when the wait is over,
// at more than the price of a packet. A signal ends it.
func (p *poller) rest() int {
	limit := unix.Timespec{Nsec: int64(longestRest)}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events[0])), maxEvents, uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// blockFor is block for no longer than d, to the nanosecond: epoll_pwait2(2).
func (p *poller) blockFor(d time.Duration) int {
	limit := unix.NsecToTimespec(int64(d))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events[0])), maxEvents, uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// setTimer has a timer of timerfd_create(2) expire once, after d.
func setTimer(fd int, d time.Duration) bool {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	_, _, errno := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(fd), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	return errno == 0
}

// yield gives the CPU to whoever else can run on it, and returns at once if
// nobody can: sched_yield(2).
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
