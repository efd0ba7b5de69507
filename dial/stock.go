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

const (
	// stockLen is how many sockets come at once, and low how many are left when more are
	// asked for, so that they come before the last one is used.
	stockLen = 16
	low      = 8
)

// stock are sockets for connections of one family that nobody asked for yet.
type stock struct {
	fds   []int
	asked bool // for more
	none  bool // there never are any
}

// of is the stock of a target's family.
//
// +checklocks:p.mu
func (p *Polled) of(t *Target) *stock {
	if t.family() == unix.AF_INET6 {
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
	fd = -1
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
		for _, fd := range p.stocks[i].fds {
			closeNow(fd)
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
