// SPDX-License-Identifier: Apache-2.0

// Package vethtest is a port in memory: a socket pair whose one end carries the
// same messages as a veth.OpenSocket, for tests that want a port without a
// namespace and without root. Only tests import it.
package vethtest

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
)

// bufferSize is what each end may have under way, in bytes.
const bufferSize = 8 << 20

// Wire is a socket pair (SOCK_SEQPACKET: message boundaries, order, no loss). The
// code under test has one end, the test plays the container at the other. It has
// no control messages: VLAN tags are in the frame. Not safe for concurrent use,
// except that one goroutine may Inject while another Receives.
type Wire struct {
	t         testing.TB
	near, far int // -1 when closed or given away
	buf       []byte
}

// New makes a wire that ends with the test.
func New(tb testing.TB) *Wire {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		tb.Fatalf("socketpair: %v", err)
	}
	w := &Wire{t: tb, near: fds[0], far: fds[1], buf: make([]byte, packet.BufLen)}
	for _, fd := range fds {
		// Without the privilege the kernel's own limit serves smaller tests.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bufferSize) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bufferSize)
		}
	}
	tb.Cleanup(func() {
		w.Close()
		closeFD(&w.near)
	})
	return w
}

// FD is the port: what the code under test reads and writes. It stays the wire's.
func (w *Wire) FD() int { return w.near }

// TakeFD gives the port away: the caller closes it.
func (w *Wire) TakeFD() int {
	fd := w.near
	w.near = -1
	return fd
}

// Close closes the container's end; the port then reads EPIPE.
func (w *Wire) Close() { closeFD(&w.far) }

func closeFD(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}

// Inject lets the container send a frame.
func (w *Wire) Inject(vnet packet.Vnet, frame []byte) {
	w.t.Helper()
	msg := make([]byte, packet.VnetLen+len(frame))
	vnet.Encode(msg)
	copy(msg[packet.VnetLen:], frame)
	w.InjectRaw(msg)
}

// InjectRaw sends any message, also one that no kernel would.
func (w *Wire) InjectRaw(msg []byte) {
	w.t.Helper()
	if err := unix.Sendto(w.far, msg, unix.MSG_NOSIGNAL, nil); err != nil {
		w.t.Fatalf("inject %d bytes: %v", len(msg), err)
	}
}

// Receive waits for the next frame that the code under test sends. ok is false
// after the timeout. The frame is valid until the next Receive.
func (w *Wire) Receive(timeout time.Duration) (vnet packet.Vnet, frame []byte, ok bool) {
	w.t.Helper()
	if !w.readable(time.Now().Add(timeout)) {
		return vnet, nil, false
	}
	n, err := unix.Read(w.far, w.buf)
	if err != nil || n < packet.VnetLen {
		w.t.Fatalf("receive: %d bytes, %v", n, err)
	}
	vnet.Decode(w.buf)
	return vnet, w.buf[packet.VnetLen:n], true
}

// readable waits until the container's end can be read.
func (w *Wire) readable(deadline time.Time) bool {
	for {
		left := max(time.Until(deadline), 0)
		poll := []unix.PollFd{{Fd: int32(w.far), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(left.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 1
		}
	}
}
