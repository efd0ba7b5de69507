// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"golang.org/x/sys/unix"
)

// Theory of operation.
//
// To ask another process for each connection costs more than to connect. So a Polled asks
// for sockets before they are needed, many at once, and connects them itself. What they may
// be connected to is not its word: each of them has a fence around it, which the agent made, and
// which nobody can take down. Where there can be none, nobody gets such sockets.
//
// A stock is of one family, since sockets are. It is filled for the first time by the first
// connection of that family, which is asked for as all else is.
//
// A socket whose connection has ended on both sides can be connected again, which costs less
// than to close it and to make another one; its fence stays. The host may have to do with it
// yet: until the other side has acknowledged the end, that is sent again. So such sockets wait
// in the order in which they ended, and only the first is looked at. One whose end is never
// acknowledged is closed, and left to the host, when enough others have ended.

const (
	// stockLen is how many sockets come at once, and low how many are left when more are
	// asked for, so that they come before the last one is used.
	stockLen = 16
	low      = 8
	// endedLen is how many sockets wait to be connected again: what ends in a round trip.
	endedLen = 64
)

// stock are sockets for connections of one family that nobody asked for yet.
type stock struct {
	fds   []int
	asked bool // for more
	none  bool // there never are any
	ended ended
}

// ended is a queue of sockets whose connections have ended.
type ended struct {
	fds     [endedLen]int
	first   int
	waiting int
}

// put adds a socket, and closes the first if there is no room.
func (e *ended) put(fd int) {
	if e.waiting == endedLen {
		closeNow(e.next())
	}
	e.fds[(e.first+e.waiting)%endedLen] = fd
	e.waiting++
}

// next takes the first socket out. Preconditions: there is one.
func (e *ended) next() (fd int) {
	fd = e.fds[e.first]
	e.first = (e.first + 1) % endedLen
	e.waiting--
	return fd
}

// again takes a socket out that can be connected; -1: there is none.
func (e *ended) again() (fd int) {
	if e.waiting == 0 || !isOver(e.fds[e.first]) {
		return -1
	}
	if fd = e.next(); disconnect(fd) != nil {
		closeNow(fd)
		return -1
	}
	return fd
}

// Reuse takes over a socket of TCP whose connection has ended on both sides, on this one by
// shutdown(2), for another connection of its family. It is in no epoll set, and has the
// options with which it came. If Reuse reports false, it stays the caller's.
func (p *Polled) Reuse(fd int, ipv6 bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.Connects {
		return false
	}
	p.family(ipv6).ended.put(fd)
	return true
}

// of is the stock of a target's family.
//
// +checklocks:p.mu
func (p *Polled) of(t *Target) *stock { return p.family(t.family() == unix.AF_INET6) }

// family is the stock of a family.
//
// +checklocks:p.mu
func (p *Polled) family(ipv6 bool) *stock {
	if ipv6 {
		return &p.stocks[1]
	}
	return &p.stocks[0]
}

// take takes a socket out of the stock of a target's family, and has it filled up; -1: there
// is none.
//
// +checklocks:p.mu
func (p *Polled) take(t *Target) (fd int) {
	s := p.of(t)
	if fd = s.ended.again(); fd >= 0 {
		return fd
	}
	if n := len(s.fds); n > 0 {
		fd, s.fds = s.fds[n-1], s.fds[:n-1]
	}
	if len(s.fds) <= low && !s.asked && !s.none && p.open {
		w := wire{kind: kindMore, proto: TCP, device: t.Device, to: t.To}
		s.asked = p.letter.send(&w, p.fd, unix.MSG_DONTWAIT) == nil
	}
	return fd
}

// fill takes the sockets of a message over.
//
// +checklocks:p.mu
func (p *Polled) fill(w *wire, fds []int32) {
	s := p.of(&Target{To: w.to})
	s.asked, s.none = false, w.errno != 0
	for _, fd := range fds {
		s.fds = append(s.fds, int(fd))
	}
}

// discard closes the sockets of all stocks.
//
// +checklocks:p.mu
func (p *Polled) discard() {
	for i := range p.stocks {
		s := &p.stocks[i]
		for _, fd := range s.fds {
			closeNow(fd)
		}
		for s.ended.waiting > 0 {
			closeNow(s.ended.next())
		}
		p.stocks[i] = stock{}
	}
}

// supply makes sockets for a stock, if they may be had at all. The answer has as many as
// there could be made.
func (c *Counter) supply() error {
	t := Target{Device: c.w.device, Proto: TCP, To: c.w.to}
	if !c.policy.Stock {
		c.w = wire{kind: kindStock, errno: uint32(unix.EOPNOTSUPP), to: c.w.to}
		return c.send()
	}
	fds := c.fds[:0]
	for errno := c.policy.May(&t); errno == 0 && len(fds) < cap(fds); {
		fd, _, err := c.policy.open(&t)
		if err != nil {
			break
		}
		fds = append(fds, int32(fd))
	}
	c.w = wire{kind: kindStock, to: c.w.to}
	err := c.send(fds...)
	closeAll(fds)
	return err
}
