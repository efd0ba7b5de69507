// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
)

// ethAll is ETH_P_ALL in network byte order.
const ethAll = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8

// End is a device in the test's hands, by a packet socket that hears what arrives there
// and not what leaves. Not safe for concurrent use.
type End struct {
	FD    int // of the socket, which never blocks; it ends with the test
	Index int // of the device

	tb  testing.TB
	buf []byte
}

// Open opens a device.
func Open(tb testing.TB, device string) *End {
	tb.Helper()
	l, err := netlink.LinkByName(device)
	must(tb, device, err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(tb, "packet socket", err)
	tb.Cleanup(func() { _ = unix.Close(fd) })
	e := &End{FD: fd, Index: l.Attrs().Index, tb: tb, buf: make([]byte, packet.BufLen)}
	e.Set(unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	e.Set(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	e.Set(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20)
	must(tb, "bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ethAll, Ifindex: e.Index}))
	return e
}

// OpenIn moves a device into another namespace, where it is up and says nothing of
// itself, and opens it.
func OpenIn(tb testing.TB, ns netns.NsHandle, device string) (e *End) {
	tb.Helper()
	l, err := netlink.LinkByName(device)
	must(tb, device, err)
	must(tb, "move "+device, netlink.LinkSetNsFd(l, int(ns)))
	inside(tb, ns, func() {
		Sysctl(tb, "ipv6/conf/"+device+"/disable_ipv6=1")
		IP(tb, "link set "+device+" arp off up")
		e = Open(tb, device)
	})
	return e
}

// Set sets an option of the socket.
func (e *End) Set(level, option, value int) {
	e.tb.Helper()
	must(e.tb, "option of a packet socket", unix.SetsockoptInt(e.FD, level, option, value))
}

// Send sends a frame.
func (e *End) Send(frame []byte) {
	e.tb.Helper()
	_, err := unix.Write(e.FD, frame)
	must(e.tb, "send", err)
}

// Wait waits until something is there to receive; false if that takes too long.
func (e *End) Wait(long time.Duration) bool {
	for end := time.Now().Add(long); ; {
		fds := []unix.PollFd{{Fd: int32(e.FD), Events: unix.POLLIN}}
		left := max(time.Until(end), 0)
		if n, err := unix.Poll(fds, int((left+time.Millisecond-1)/time.Millisecond)); n > 0 && err == nil {
			return true
		}
		if left == 0 {
			return false
		}
	}
}

// Receive is the next frame, or nil if none comes in time.
func (e *End) Receive(long time.Duration) []byte {
	e.tb.Helper()
	for {
		n, err := unix.Read(e.FD, e.buf)
		switch {
		case err == nil:
			return bytes.Clone(e.buf[:n])
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			e.tb.Fatalf("receive: %v", err)
		case long == 0 || !e.Wait(long):
			return nil
		}
	}
}

// Heard are the frames that have arrived by now.
func (e *End) Heard() (frames [][]byte) {
	e.tb.Helper()
	for b := e.Receive(0); b != nil; b = e.Receive(0) {
		frames = append(frames, b)
	}
	return frames
}

// AwaitUp awaits that the kernel has seen the carrier of devices. Until then one has no
// queue, and loses what is sent.
func AwaitUp(tb testing.TB, devices ...string) {
	tb.Helper()
	for _, name := range devices {
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			l, err := netlink.LinkByName(name)
			must(tb, name, err)
			if l.Attrs().OperState == netlink.OperUp {
				break
			}
			if time.Now().After(end) {
				tb.Fatalf("%s doesn't come up", name)
			}
		}
	}
}
