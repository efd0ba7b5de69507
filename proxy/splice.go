// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Theory of operation.
//
// The stack's Read hands out each of its segments' buffers in turn, with the
// endpoint's lock held: the writer that it gets must not wait. It stops at what the
// socket does not take, which then stays in the stack.
//
// The other way the socket's bytes are read into the stack's buffers, see pull_unsafe.go,
// for which one has to know how many there are. Most messages are short, and to ask takes
// longer than to copy them: so a socket is first read into a buffer here, and asked only
// when there was more.
//
// A step carries what there is in both directions, until the source is empty or the
// sink is full; the next one comes when the socket or the stack has news. The socket's
// come as edges, so that a step must not leave anything there that it does not know of.

const (
	// maxRead is what is read from the socket at once: one frame of segmentation
	// offload with 45 segments for an MTU of 1500.
	maxRead = 65160
	// maxSlices bounds what one step may carry in one direction: others have their
	// turn then.
	maxSlices = 16
	// little is what is read from the socket without a look at how much there is.
	little = 4 << 10
)

// SendBuffer is the size that the send buffers of the stack's connections should have:
// whole frames, and what one step may carry.
const SendBuffer = maxSlices * maxRead

// errFull says that the socket takes no more, or that others have their turn.
var (
	errFull = errors.New("socket is full")
	errTurn = errors.New("turn is over")
)

// step carries bytes in both directions.
//
// +checklocks:c.mu
func (c *conn) step() {
	again := c.up()
	c.unanswering = c.unanswering && !c.out.wrote
	again = c.down() || again
	if c.downOver && c.failed {
		c.gone = true // reset after its end
	}
	if c.upOver && tcp.EndpointState(c.ep.State()) == tcp.StateError {
		c.gone = true
	}
	switch {
	case c.gone || c.upOver && c.downOver:
		c.finish()
	case again:
		c.proxy.enqueue(c)
	}
}

// writer puts the stack's buffers into the socket.
type writer struct {
	fd    int
	left  int // slices of this step
	err   error
	wrote bool
}

// Write implements io.Writer. It never waits.
func (w *writer) Write(b []byte) (done int, err error) {
	if w.left--; w.left < 0 {
		w.err = errTurn
		return 0, errTurn
	}
	for done < len(b) {
		switch n, errno := writeNow(w.fd, b[done:]); errno {
		case 0:
			done += n
			w.wrote = true
		case unix.EINTR:
		case unix.EAGAIN:
			w.err = errFull
			return done, errFull
		default:
			w.err = errno
			return done, errno
		}
	}
	return done, nil
}

// up carries what the container sends. It reports whether there may be more.
//
// +checklocks:c.mu
func (c *conn) up() (again bool) {
	c.out.left, c.out.err, c.out.wrote = maxSlices, nil, false
	for !c.upOver && !c.gone && c.writable {
		_, err := c.ep.Read(&c.out, tcpip.ReadOptions{})
		switch {
		case errors.Is(c.out.err, errTurn):
			return true
		case errors.Is(c.out.err, errFull):
			c.writable = false
		case c.out.err != nil:
			c.gone = true
		case err == nil:
		case isWouldBlock(err):
			return false
		case isEnd(err):
			if c.upOver = true; !c.downOver { // else shut sees to it
				c.endSocket() // what is wrong with the socket, down sees
			}
		default:
			c.gone = true
		}
	}
	return false
}

func isWouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

func isEnd(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrClosedForReceive)
	return ok
}

// down carries what comes from outside. It reports whether there may be more.
//
// +checklocks:c.mu
func (c *conn) down() (again bool) {
	for left := maxSlices * maxRead; left > 0; {
		if c.downOver || c.gone || !c.readable || !c.settle() {
			return false
		}
		if !c.much || c.urgent {
			left -= c.sip()
			continue
		}
		done, all := c.gulp(left)
		if !all {
			return false // the stack says when there is room
		}
		left -= done
	}
	return true
}

// gulp gives the stack up to so many bytes of what there is. It reports whether it had room
// for them.
//
// +checklocks:c.mu
func (c *conn) gulp(left int) (done int, all bool) {
	n := c.look()
	switch {
	case n == nothing:
		c.readable = false
		return 0, true
	case n < 0:
		c.gone = true
		return 0, true
	case n == 0:
		c.end()
		return 0, true
	}
	c.much = n >= little
	n = min(n, left)
	done, err := c.pull(n)
	c.gone = err != nil && !isWouldBlock(err)
	return done, c.gone || done == n
}

// end passes on the end of what comes from outside.
//
// +checklocks:c.mu
func (c *conn) end() {
	c.gone = c.ep.Shutdown(tcpip.ShutdownWrite) != nil
	c.downOver = true
}

// sip reads what may be little, and gives it to the stack. It returns how much that was.
// A read that gets less than it could has emptied the socket, epoll(7), unless it stopped
// at urgent data, where the socket even says that there is nothing to read.
//
// +checklocks:c.mu
func (c *conn) sip() int {
	b := c.proxy.buffers.Get().(*message) //nolint:forcetypeassert // it is our pool
	defer c.proxy.buffers.Put(b)
	n, errno := readNow(c.fd, b[:little])
	switch {
	case errno == unix.EINTR:
	case errno == unix.EAGAIN:
		c.readable = false
	case errno != 0:
		c.gone = true
	case n == 0:
		c.end()
	default:
		c.swallow(b[:n])
	}
	return max(n, 0)
}

// swallow gives the stack what a sip has read. When the other side's last word is known,
// and the read has emptied the socket, the end goes with it without another read.
//
// +checklocks:c.mu
func (c *conn) swallow(b []byte) {
	c.much = len(b) == little
	c.readable = c.much || c.hungUp || c.urgent
	c.rest = c.push(b)
	if c.hungUp && !c.much && !c.urgent && !c.failed && !c.gone && len(c.rest) == 0 {
		c.end()
	}
}

// push gives bytes to the stack, and returns a copy of those that it has no room for.
//
// +checklocks:c.mu
func (c *conn) push(b []byte) (rest []byte) {
	var from bytes.Reader
	from.Reset(b)
	n, err := c.ep.Write(&from, tcpip.WriteOptions{})
	c.owes.Store(false)
	c.gone = err != nil && !isWouldBlock(err)
	return bytes.Clone(b[n:])
}

// settle gives the stack what it had no room for. It reports whether that is done.
//
// +checklocks:c.mu
func (c *conn) settle() bool {
	if len(c.rest) > 0 {
		c.rest = c.push(c.rest)
	}
	return len(c.rest) == 0
}

// nothing is there to read, and no end.
const nothing = 1 << 40

// look says how much there is to read: 0 is the end, less than that an error.
//
// +checklocks:c.mu
func (c *conn) look() int {
	n, err := unix.IoctlGetInt(c.fd, unix.TIOCINQ)
	switch {
	case err != nil:
		return -1
	case n > 0:
		return n
	case !c.hungUp: // an edge is to come
		return nothing
	}
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(c.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
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
