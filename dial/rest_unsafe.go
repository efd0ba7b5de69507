// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// longestRest is how long a wait may be that the scheduler does not know of. It has to
// wait for it when it stops the world, as the garbage collector does.
const longestRest = 200 * time.Microsecond

// rest waits for a moment until a descriptor is readable, and reports whether it may be.
// The scheduler is told nothing: it would give this thread's processor to another one,
// which finds nothing to do, and takes that back when the wait is over, at more than the
// price of a dial.
func rest(fd int) bool {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	limit := unix.Timespec{Nsec: int64(longestRest)}
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return errno != 0 || n > 0
}
