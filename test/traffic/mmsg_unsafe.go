// SPDX-License-Identifier: Apache-2.0

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// batch is a set of buffers for one recvmmsg or sendmmsg call. Buffers belong
// to the batch; they are overwritten by the next recv.
type batch struct {
	skip int
	bufs [][]byte
	oobs [][]byte // control messages, empty unless asked for
	msgs []mmsghdr
	iovs []unix.Iovec
}

// newBatch has n buffers of size bytes, of which the first skip are left alone,
// and oob bytes for control messages each.
func newBatch(n, size, skip, oob int) *batch {
	b := &batch{
		skip: skip,
		bufs: make([][]byte, n), oobs: make([][]byte, n),
		msgs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n),
	}
	for i := range n {
		b.bufs[i], b.oobs[i] = make([]byte, size), make([]byte, oob)
		b.iovs[i].Base = &b.bufs[i][skip]
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
		if oob > 0 {
			b.msgs[i].hdr.Control = &b.oobs[i][0]
		}
	}
	return b
}

// recv reads up to all buffers; message tells what buffer i then holds.
func (b *batch) recv(fd, flags int) (int, error) {
	for i := range b.msgs {
		b.iovs[i].SetLen(len(b.bufs[i]) - b.skip)
		b.msgs[i].hdr.SetControllen(len(b.oobs[i]))
	}
	return b.call(unix.SYS_RECVMMSG, fd, 0, len(b.msgs), flags)
}

// message is the length of what the last recv put into buffer i, and its control
// messages.
func (b *batch) message(i int) (n int, oob []byte) {
	return int(b.msgs[i].len), b.oobs[i][:b.msgs[i].hdr.Controllen]
}

// setLen says how much of buffer i the next send takes.
func (b *batch) setLen(i, n int) { b.iovs[i].SetLen(n) }

// send sends the buffers from first to before end; it returns how many went
// out before the first error, which is nil if any did.
func (b *batch) send(fd, first, end int) (int, error) {
	return b.call(unix.SYS_SENDMMSG, fd, first, end-first, 0)
}

func (b *batch) call(nr uintptr, fd, first, n, flags int) (int, error) {
	done, _, errno := unix.Syscall6(nr, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[first])), uintptr(n), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(done), nil
}
