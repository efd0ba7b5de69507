// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// unconnect dissolves a connection, see connect(2): package unix has no address without a
// family.
func unconnect(fd int) error {
	none := unix.RawSockaddrInet6{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unix.SizeofSockaddrInet4)
	if errno != 0 {
		return errno
	}
	return nil
}
