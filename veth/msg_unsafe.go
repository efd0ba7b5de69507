// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) on a 64-bit Linux.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// controlLen is the room for the one control message that a port can get:
// CMSG_SPACE(sizeof(struct tpacket_auxdata)).
const controlLen = (unix.SizeofCmsghdr + auxdataLen + 7) &^ 7

// rxRing is the memory of a Batch: the message headers with everything they
// point to. It is one anonymous mapping, which the garbage collector neither
// moves nor scans:
//
//	n mmsghdr | n iovec | n control buffers | (page) | n frame buffers
//
// Pointers in it go only into it.
type rxRing struct {
	mem  []byte
	msgs []mmsghdr
	ctl  []byte // n times controlLen
	bufs []byte // n times stride
}

// newRxRing maps a ring of n messages; message i receives into
// bufs[i*stride+start:(i+1)*stride].
func newRxRing(n, stride, start int) (*rxRing, error) {
	head := n * (int(unsafe.Sizeof(mmsghdr{})) + int(unsafe.Sizeof(unix.Iovec{})) + controlLen)
	page := unix.Getpagesize()
	head = (head + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, head+n*stride, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d frame buffers: %w", n, err)
	}
	// Advice only: without huge pages it works as well, with more TLB misses.
	_ = unix.Madvise(mem[head:], unix.MADV_HUGEPAGE)

	r := &rxRing{mem: mem, bufs: mem[head:]}
	r.msgs = unsafe.Slice((*mmsghdr)(unsafe.Pointer(&mem[0])), n)
	off := n * int(unsafe.Sizeof(mmsghdr{}))
	iovs := unsafe.Slice((*unix.Iovec)(unsafe.Pointer(&mem[off])), n)
	off += n * int(unsafe.Sizeof(unix.Iovec{}))
	r.ctl = mem[off : off+n*controlLen]
	for i := range r.msgs {
		iovs[i].Base = &r.bufs[i*stride+start]
		iovs[i].SetLen(stride - start)
		h := &r.msgs[i].hdr
		h.Iov = &iovs[i]
		h.SetIovlen(1)
		h.Control = &r.ctl[i*controlLen]
		h.SetControllen(controlLen)
	}
	return r, nil
}

// control is what the kernel wrote as control messages of message i.
func (r *rxRing) control(i int) []byte {
	n := min(int(r.msgs[i].hdr.Controllen), controlLen)
	return r.ctl[i*controlLen:][:n]
}

// recv is one recvmmsg of at most n messages, which never blocks. 1 <= n <= len(msgs).
func (r *rxRing) recv(fd, n int) (int, unix.Errno) {
	got, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&r.msgs[0])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}

func (r *rxRing) close() error {
	mem := r.mem
	*r = rxRing{}
	return unix.Munmap(mem)
}

// txRing is the memory of a Sender. It is on the Go heap, whose objects don't
// move: the iovecs may point to a frame on the heap, and the collector must see
// that they do. A message has two iovecs, of which most use one.
type txRing struct {
	msgs []mmsghdr
	iovs [][2]unix.Iovec
}

func newTxRing(n int) txRing {
	r := txRing{msgs: make([]mmsghdr, n), iovs: make([][2]unix.Iovec, n)}
	for i := range r.msgs {
		r.msgs[i].hdr.Iov = &r.iovs[i][0]
	}
	return r
}

// set lets message i be b, which must not be empty and must stay until send.
func (r *txRing) set(i int, b []byte) {
	r.iovs[i][0].Base = &b[0]
	r.iovs[i][0].SetLen(len(b))
	r.msgs[i].hdr.SetIovlen(1)
}

// set2 lets message i be head and rest, neither of which may be empty.
func (r *txRing) set2(i int, head, rest []byte) {
	r.set(i, head)
	r.iovs[i][1].Base = &rest[0]
	r.iovs[i][1].SetLen(len(rest))
	r.msgs[i].hdr.SetIovlen(2)
}

// size is the length of message i.
func (r *txRing) size(i int) int {
	n := int(r.iovs[i][0].Len)
	if r.msgs[i].hdr.Iovlen == 2 {
		n += int(r.iovs[i][1].Len)
	}
	return n
}

// send is one sendmmsg of messages [from, to), which never blocks. from < to.
func (r *txRing) send(fd, from, to int) (int, unix.Errno) {
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&r.msgs[from])), uintptr(to-from), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sent), 0
}
