// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows are calls of package unix that would allocate for each packet.

// segmentBy is the control message that has a train cut (UDP_SEGMENT of udp(7)), with the
// padding that CMSG_SPACE(3) wants.
type segmentBy struct {
	header unix.Cmsghdr
	length [8]byte
}

// sendTrain writes datagrams of that length, the last of which may be shorter, by one
// call. Preconditions: b is not empty.
func sendTrain(fd int, b []byte, length uint16) unix.Errno {
	control := segmentBy{header: unix.Cmsghdr{Level: unix.SOL_UDP, Type: unix.UDP_SEGMENT}}
	control.header.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control.length[:], length)
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	msg := unix.Msghdr{Iov: &iov, Control: (*byte)(unsafe.Pointer(&control))}
	msg.SetIovlen(1)
	msg.SetControllen(int(unsafe.Sizeof(control)))
	for {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 0)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// receive takes one message. Preconditions: b is not empty.
func receive(fd int, b []byte) (n int, errno unix.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return int(r), errno
}
