// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"golang.org/x/sys/unix"

	"sluice/packet"
)

// MaxBatch is the largest number of messages of a Batch or a Sender (UIO_MAXIOV,
// which the kernel applies to recvmmsg(2) and sendmmsg(2)).
const MaxBatch = 1024

// Batch is a worker's receive arena: buffers for n frames and what recvmmsg
// needs to fill them. It serves any number of ports, one after the other, and is
// not safe for concurrent use.
//
// The frames of one Recv are owned by the Batch; they may be modified in place,
// and are valid until the next Recv or Close.
type Batch struct {
	// Frames are the n frames; after Recv returned k, the first k are valid.
	// A frame with Len 0 was larger than a buffer: drop it as trace.Truncated.
	Frames []packet.Frame
	// Truncated is the number of frames with Len 0 in the last Recv.
	Truncated int
	// Refused is the number of frames that the kernel dropped during the last
	// Recv since it can't describe them by a virtio-net header: drop reason
	// trace.BadOffload.
	Refused int

	ring *rxRing
	used int // messages whose control length the last Recv changed
}

// frameStart is where a message begins in its buffer, so that the Ethernet
// header falls on packet.Headroom.
const frameStart = packet.Headroom - packet.VnetLen

// NewBatch maps memory for n frames, 1 <= n <= MaxBatch (others are brought into
// that range). Pages are touched, and so cost memory, only when a frame first
// fills them.
func NewBatch(n int) (*Batch, error) {
	n = min(max(n, 1), MaxBatch)
	ring, err := newRxRing(n, packet.BufLen, frameStart)
	if err != nil {
		return nil, err
	}
	b := &Batch{ring: ring, Frames: make([]packet.Frame, n)}
	for i := range b.Frames {
		lo := i * packet.BufLen
		b.Frames[i].SetBuf(ring.bufs[lo : lo+packet.BufLen : lo+packet.BufLen])
	}
	return b, nil
}

// Close unmaps the memory. No frame of the batch may be used afterwards.
func (b *Batch) Close() error {
	b.Frames = nil
	return b.ring.close()
}

// Recv takes up to limit frames from a port without waiting, with one system
// call in the usual case. A small limit keeps large frames in the cache.
//
// It returns the number of frames, or zero and an errno. (0, 0) means that there
// is nothing now. ENETDOWN comes once when the interface was set down or
// deleted. EPIPE means that the other side of a socket pair was closed.
//
// Preconditions: fd is a port of OpenSocket or a socket pair that carries the
// same messages.
func (b *Batch) Recv(fd, limit int) (int, unix.Errno) {
	b.Truncated, b.Refused = 0, 0
	limit = min(max(limit, 1), len(b.Frames))
	// Bounded: each EINVAL stands for one frame that has left the queue.
	for range limit {
		b.restore()
		n, errno := b.ring.recv(fd, limit)
		switch errno {
		case 0:
			b.used = n
			return b.accept(n)
		case unix.EAGAIN, unix.EINTR:
			return 0, 0
		case unix.EINVAL:
			b.Refused++
		default:
			return 0, errno
		}
	}
	return 0, 0
}

// restore undoes what the last call changed in the message headers. The kernel
// writes the control length of each message that it filled, and nothing else that
// it reads again.
func (b *Batch) restore() {
	for i := range b.used {
		b.ring.msgs[i].hdr.SetControllen(controlLen)
	}
	b.used = 0
}

// accept turns n filled messages into frames.
func (b *Batch) accept(n int) (int, unix.Errno) {
	for i := range n {
		m := &b.ring.msgs[i]
		if m.len == 0 { // end of file: a port's message has at least its vnet header
			if i == 0 {
				return 0, unix.EPIPE
			}
			return i, 0
		}
		if !b.fill(i, m) {
			b.Frames[i].Reset(packet.Headroom, 0)
			b.Truncated++
		}
	}
	return n, 0
}

// fill sets frame i from its message; false if part of the frame or its tag is
// missing.
func (b *Batch) fill(i int, m *mmsghdr) bool {
	if m.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || m.len <= packet.VnetLen {
		return false
	}
	f := &b.Frames[i]
	f.Received(int(m.len))
	if m.hdr.Controllen == 0 {
		return true
	}
	if tpid, tci, ok := vlanTag(b.ring.control(i)); ok {
		return f.PushVLAN(tpid, tci)
	}
	return true
}
