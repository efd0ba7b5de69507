// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Client is the end that asks. It outlives its channel: agents come and go. Its zero
// value has none, and refuses to dial. It is safe for concurrent use.
type Client struct {
	// Accepted is given what was accepted outside, and must not wait; nil: nothing is
	// taken. It is set before the first Attach.
	Accepted func(*Accepted)

	mu sync.Mutex
	// +checklocks:mu
	conn *net.UnixConn
	// +checklocks:mu
	last uint64
	// +checklocks:mu
	pending map[uint64]func(Socket)
}

// NoAgent is the error of a dial while there is nobody to ask.
const NoAgent = unix.EHOSTDOWN

// Attach makes c the channel and takes it over. Dials that the one before has not
// answered fail.
func (c *Client) Attach(conn *net.UnixConn) {
	c.mu.Lock()
	old, lost := c.conn, c.pending
	c.conn, c.pending = conn, make(map[uint64]func(Socket))
	c.mu.Unlock()
	if old != nil {
		old.Close()
	}
	fail(lost)
	go c.read(conn)
}

func fail(lost map[uint64]func(Socket)) {
	for _, done := range lost {
		done(Socket{FD: -1, Errno: NoAgent})
	}
}

// Dial asks for a socket to t. done is called once, by whichever goroutine: with a
// socket that is connected or about to be, which it takes over, or with an error.
func (c *Client) Dial(t Target, done func(Socket)) {
	c.mu.Lock()
	if c.conn == nil {
		c.mu.Unlock()
		done(Socket{FD: -1, Errno: NoAgent})
		return
	}
	c.last++
	id := c.last
	c.pending[id] = done
	err := trySend(c.conn, &wire{kind: kindRequest, proto: t.Proto, device: t.Device, id: id, to: t.To})
	if err == nil {
		c.mu.Unlock()
		return
	}
	delete(c.pending, id)
	c.mu.Unlock()
	done(Socket{FD: -1, Errno: NoAgent})
}

// Close ends the channel.
func (c *Client) Close() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// read takes answers until the channel ends.
func (c *Client) read(conn *net.UnixConn) {
	r, back := &reader{from: conn}, newReturns(conn)
	defer back.close()
	for {
		var w wire
		fd, err := r.next(&w)
		if err != nil {
			break
		}
		if w.kind == kindAccepted {
			c.accepted(&w, fd, back)
			continue
		}
		c.take(&w, fd)
	}
	conn.Close()
	c.mu.Lock()
	var lost map[uint64]func(Socket)
	if c.conn == conn {
		c.conn, lost, c.pending = nil, c.pending, nil
	}
	c.mu.Unlock()
	fail(lost)
}

// take hands a message to who waits for it. It takes fd over.
func (c *Client) take(w *wire, fd int) {
	c.mu.Lock()
	done := c.pending[w.id]
	delete(c.pending, w.id)
	c.mu.Unlock()
	w.give(fd, done)
}

// only is the descriptor of a message that has one at most; -1: it has none.
func only(fds []int32) int {
	if len(fds) == 0 {
		return -1
	}
	return int(fds[0])
}

// give hands a message to who waits for it, if anybody does. It takes fd over.
func (w *wire) give(fd int, done func(Socket)) {
	if w.kind != kindSocket || done == nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return
	}
	s := Socket{FD: fd, Raw: w.raw, Errno: unix.Errno(w.errno)}
	if fd < 0 && s.Errno == 0 {
		s.Errno = unix.EIO
	}
	done(s)
}
