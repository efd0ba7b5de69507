// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Theory of operation.
//
// The stack's Read hands out each of its segments' buffers in turn, with the
// endpoint's lock held: the writer that it gets must not wait. It stops at what the
// socket does not take, which then stays in the stack.
//
// The stack's Write reads from what it is given into buffers of its own, without the
// lock, but asks before how much there is, and an error on the way would lose what it
// has read. So it is told what FIONREAD (TIOCINQ) says, which only grows meanwhile.
//
// Each goroutine waits for its own source when that is empty and for its sink when
// that is full. A direction that is over stays where it can hear of a reset, until the
// other one is over, too.

// maxRead is what is read from the socket at once: one frame of segmentation
// offload with 45 segments for an MTU of 1500.
const maxRead = 65160

// errFull says that the socket takes no more.
var errFull = errors.New("socket is full")

// writer puts the stack's buffers into the socket. It is the up goroutine's.
type writer struct {
	fd   int
	full bool
	err  error
}

// Write implements io.Writer. It never waits.
func (w *writer) Write(b []byte) (done int, err error) {
	for done < len(b) {
		n, err := unix.Write(w.fd, b[done:])
		switch {
		case err == nil:
			done += n
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			w.full = true
			return done, errFull
		default:
			w.err = err
			return done, err
		}
	}
	return done, nil
}

// up carries what the container sends.
func (c *conn) up() {
	entry := waiter.NewFunctionEntry(waiter.ReadableEvents|waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) { poke(c.upWake) })
	c.wq.EventRegister(&entry)
	defer c.leave()
	defer c.wq.EventUnregister(&entry)
	for !c.failed.Load() {
		_, err := c.ep.Read(&c.out, tcpip.ReadOptions{})
		switch {
		case c.out.err != nil:
			c.abort()
		case c.out.full:
			c.out.full = false
			c.awaitRoom()
		case err == nil:
		case isWouldBlock(err):
			<-c.upWake
		case isEnd(err):
			c.endUp()
			return
		default:
			c.abort()
		}
	}
}

func isWouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

func isEnd(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrClosedForReceive)
	return ok
}

// endUp passes the end of the container's data on, and waits for that of the
// outside's, or for a reset.
func (c *conn) endUp() {
	_ = unix.Shutdown(c.fd, unix.SHUT_WR) // what is wrong with the socket, down sees
	c.upOver.Store(true)
	c.kick()
	for !c.downOver.Load() && !c.failed.Load() {
		<-c.upWake
		if tcp.EndpointState(c.ep.State()) == tcp.StateError {
			c.abort()
		}
	}
}

// awaitRoom waits until the socket takes more. It is looked at after the poller began
// to watch it: no edge is missed.
func (c *conn) awaitRoom() {
	err := c.raw.Write(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	if err != nil { // abort's deadline
		c.failed.Store(true)
	}
}

// payload is what the stack reads from the socket.
type payload struct {
	fd  int
	n   int
	err error
}

var _ tcpip.Payloader = (*payload)(nil)

// Len implements tcpip.Payloader.
func (p *payload) Len() int { return p.n }

// Read implements io.Reader. The stack asks with an empty slice whether there is an
// end.
func (p *payload) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, err := unix.Read(p.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n == 0:
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			p.err = err
			return 0, err
		}
		p.n -= n
		return n, nil
	}
}

// down carries what comes from outside.
func (c *conn) down() {
	entry := waiter.NewFunctionEntry(waiter.WritableEvents|waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) { poke(c.dnWake) })
	c.wq.EventRegister(&entry)
	defer c.leave()
	defer c.wq.EventUnregister(&entry)
	p := &payload{fd: c.fd}
	for !c.failed.Load() {
		n := c.awaitBytes()
		switch {
		case n < 0:
			c.abort()
		case n == 0:
			c.endDown()
			return
		default:
			c.pump(p, n)
		}
	}
}

// pump gives the stack n bytes that the socket has.
func (c *conn) pump(p *payload, n int) {
	for n > 0 && !c.failed.Load() {
		p.n = min(n, maxRead)
		done, err := c.ep.Write(p, tcpip.WriteOptions{})
		n -= int(done)
		switch {
		case p.err != nil:
			c.abort()
		case err == nil:
		case isWouldBlock(err):
			<-c.dnWake
		default:
			c.abort()
		}
	}
}

// endDown passes the end of the outside's data on, and waits for that of the
// container's, or for a reset.
func (c *conn) endDown() {
	if err := c.ep.Shutdown(tcpip.ShutdownWrite); err != nil {
		c.abort()
		return
	}
	c.downOver.Store(true)
	c.kick()
	for !c.upOver.Load() && !c.failed.Load() {
		err := c.raw.Read(func(fd uintptr) bool { return look(int(fd)) < 0 || c.upOver.Load() })
		switch {
		case err != nil: // kicked
			c.rewindReads()
		case !c.upOver.Load():
			c.abort()
		}
	}
}

// awaitBytes waits until there is something to read, and says how much: 0 is the end,
// less an error.
func (c *conn) awaitBytes() (n int) {
	for !c.failed.Load() {
		err := c.raw.Read(func(fd uintptr) bool {
			n = look(int(fd))
			return n != nothing
		})
		if err == nil {
			return n
		}
		c.rewindReads() // kicked, perhaps because the container has ended
	}
	return -1
}

// nothing is there to read, and no end.
const nothing = 1 << 40

// look says how much there is to read: 0 is the end, less than that an error.
func look(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return -1
	}
	if n > 0 {
		return n
	}
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nothing
		case err != nil:
			return -1
		default:
			return n
		}
	}
}
